"""The same last bits on CPUs of different vector widths, and the width as a setting."""

import os
import re
import subprocess
import sys

import pytest
import torch

from odm.card import card, jobs
from odm.errors import OdmError
from odm.networks.device import device_of, has_bfloat16, set_vectors
from odm.settings.reading import load
from odm.steps import check

STEP = """
import hashlib, torch
from odm.networks.device import device_of
from odm.settings.reading import load
device_of(load().model_copy(update={"vectors": "WIDTH"}))
torch.manual_seed(0)
layer = torch.nn.Conv2d(24, 24, 3, padding=1).to(memory_format=torch.channels_last)
images = torch.randn(4, 24, 32, 32).contiguous(memory_format=torch.channels_last)
layer(images).square().mean().backward()
print(hashlib.sha256(layer.weight.grad.numpy().tobytes()).hexdigest(), torch.backends.cpu.get_cpu_capability())
"""
WIDTHS = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
NARROW = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
WIDE = {"ONEDNN_MAX_CPU_ISA": "ALL", "ATEN_CPU_CAPABILITY": "avx512"}

needs_wide = pytest.mark.skipif(
    not torch.cpu._is_avx512_supported(), reason="a CPU without AVX-512 has nothing to narrow"
)


def step(width: str = "avx2", said: dict[str, str] | None = None) -> tuple[str, str]:
    """The digest of a gradient, and what torch computed it with, in a process of its own."""
    environment = {key: value for key, value in os.environ.items() if key not in WIDTHS} | (said or {})
    code = STEP.replace("WIDTH", width)
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    gradient, capability = found.stdout.split()
    return gradient, capability


@needs_wide
def test_the_settings_say_how_wide_vectors_are() -> None:
    """Whatever the environment says: the card of a job names the settings' width."""
    narrow, wide = step(), step("native")
    assert (narrow[1], wide[1]) == ("AVX2", "AVX512")
    assert step("avx2", WIDE) == narrow == step("avx2", NARROW)
    assert step("native", NARROW) == wide
    assert narrow[0] != wide[0]


@needs_wide
def test_a_process_keeps_its_width() -> None:
    """That of the tests is AVX2's."""
    torch.ones(2).add(1)
    try:
        with pytest.raises(OdmError) as refused:
            set_vectors("native")
    finally:
        set_vectors("avx2")
    assert str(refused.value) == "vectors: native is asked for in a process that has computed with avx2 already"


def test_the_width_is_on_the_card_of_all_that_computes() -> None:
    settings = load()
    wide = settings.model_copy(update={"vectors": "native"})
    for step, name in jobs(settings):
        changed, files = card(wide, step, name).changes(card(settings, step, name))
        assert changed == ([] if step in ("data", "tables") else ['vectors "avx2" -> "native"']), step
        assert not files


@needs_wide
def test_check_says_what_wide_vectors_and_bfloat16_save() -> None:
    """Timed in a process of their own: this one computes with narrow ones."""
    settings, cpu = load(), torch.device("cpu")
    (said,) = check._savings(settings, "edsr_tiny", (2, 16, "float32"), 100.0, cpu)
    bfloat16 = r", 0\.0\d of it with `precision: bfloat16` too" if has_bfloat16(cpu) else ""
    wanted = rf"a float step of edsr_tiny, 100000 ms here, would take 0\.0\d of it with `vectors: native`{bfloat16}"
    assert re.fullmatch(wanted, said)
    wide = settings.model_copy(update={"vectors": "native"})
    assert not list(check._savings(wide, "edsr_tiny", (2, 16, "bfloat16"), 100.0, cpu))


def test_check_says_that_a_cpu_is_slower_compiled() -> None:
    settings = load().model_copy(update={"vectors": "native"})
    compiled = settings.model_copy(update={"qat": settings.qat.model_copy(update={"compile": True})})
    timed = ("edsr_tiny", (2, 16, "bfloat16"), 0.1)
    (said,) = check._savings(compiled, *timed, torch.device("cpu"))
    assert said.startswith("compile: on a CPU a compiled step takes about 1.")
    assert said.endswith(" of an eager one; say `compile: false`")


def test_compiled_steps_are_refused_with_wide_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """They ended in `malloc(): unaligned tcache chunk detected` (torch 2.13)."""
    monkeypatch.setattr("odm.networks.device.set_vectors", lambda width: None)
    monkeypatch.setattr("odm.networks.device.vectors", lambda: "avx512")
    settings = load()
    device_of(settings)
    with pytest.raises(OdmError, match=r"^compile: with vectors of AVX-512 .*; say `compile: false`$"):
        device_of(settings.model_copy(update={"qat": settings.qat.model_copy(update={"compile": True})}))

"""The first steps of every method on every backbone against recorded digests: no change of numbers is silent.

`python tests/test_golden.py` records all anew; `git diff tests/golden.json` then shows whose numbers have changed.
"""

import contextlib
import hashlib
import io
import json
import os
import platform
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_networks import SMALL
from torch import Tensor

from odm import kinds, seeds
from odm.images.prepare import write
from odm.images.prepared import Pixels, Prepared
from odm.methods.build import method_class
from odm.methods.settings import MethodSettings
from odm.networks.build import build
from odm.networks.device import placed, set_vectors
from odm.quantization.layer import FLOAT_BITS
from odm.quantization.statistics import measured
from odm.settings.training import Qat, Run
from odm.training.loop import fit
from odm.training.objective import Objective
from odm.training.patches import CPU, Patches

FILE = Path(__file__).with_name("golden.json")
LOCK = Path(__file__).parents[1] / "requirements.lock"
COMMAND = "python tests/test_golden.py"
FLOAT = "float"
KINDS = [FLOAT, *kinds.names("methods")]
# No cosine: the rates are powers of two, whatever mathematical library there is.
QAT = Qat(steps=3, batch=2, patch=12, rate=0.001, schedule="step", halve_every=2, log_every=3, calibration_batches=2)
# What is not the default: phases that end, and strengths and shares that count, within so few steps.
CHANGES: dict[str, dict[str, Any]] = {
    "odm": {"strength": 0.01, "offsets": {"share": 0.5}},
    "odm_eccv": {"strength": 0.01},
    "pams": {"calibration_steps": 1},
    "ddtb": {"gate_steps": 1, "dynamic_share": 0.5},
}

Digests = dict[str, dict[str, str]]


def image() -> Pixels:
    """Coarse squares under noise: no decoder's version has a part in it."""
    generator = np.random.default_rng(7)
    squares = generator.integers(200, size=(8, 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
    return (squares + generator.integers(56, size=squares.shape)).astype(np.uint8)


@cache
def batches() -> Patches:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.safetensors"
        write(path, {"squares": [("squares", image())]}, [2])
        return Patches(Prepared(path), 2, QAT.batch, QAT.patch, seeds.named(1, "patches"))


def settings_of(name: str, kind: str) -> MethodSettings:
    """Its defaults beside `CHANGES`, so that a new kind needs nothing here; a coverage that the network has."""
    settings = kinds.implementation(f"odm.methods.{kind}.settings", MethodSettings)(kind=kind, **CHANGES.get(kind, {}))
    fits = settings.coverage in SMALL[name].coverages
    return settings if fits else settings.model_copy(update={"coverage": "blocks"})


def trained(name: str, kind: str, nudge: float = 0.0) -> dict[str, Tensor]:
    """The weights after a few steps from freshly built ones, as `odm pretrain` or `odm train` takes them.

    `nudge` is added to the first weights.
    """
    torch.set_num_threads(1)
    network = placed(build(SMALL[name]), CPU)
    with torch.no_grad():
        next(network.parameters()).add_(nudge)
    with (
        torch.random.fork_rng(devices=[]),
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        torch.manual_seed(0)  # for what draws without a seed of its own
        if kind == FLOAT:
            objective, groups = Objective(), [{"params": list(network.parameters()), "lr": QAT.rate}]
        else:
            network.eval()
            settings = settings_of(name, kind)
            bits = 2 if settings.quantizes else FLOAT_BITS
            run = Run(network="n", method="m", weight_bits=bits, activation_bits=bits)
            lows = (batches()(1000 + step)[0] for step in range(2))
            layers = measured(network, network.placement("body").layers, lows, percentile=99)
            objective = method_class(kind)(network, settings, run)
            later = range(QAT.steps, QAT.steps + QAT.calibration_batches)
            objective.prepare(layers, (batches()(step)[0] for step in later))
            objective.watch()
            groups = objective.parameter_groups(QAT)
        fit(network, batches(), groups, QAT, objective, Path(folder) / "last.safetensors", "identity")
    return network.state_dict()


def digest(state: dict[str, Tensor]) -> str:
    """Of every bit of it."""
    found = hashlib.sha256()
    for key, value in sorted(state.items()):
        found.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def machine() -> dict[str, str]:
    """What last bits depend on beside the code.

    Every training passes through MKL, whose square root Adam takes. MKL chooses its code by the CPU's vendor and, on
    Intel's alone, by AVX-512; all else computes with vectors of one width (`set_vectors`).
    """
    cpu = platform.processor()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("vendor_id"))
    if cpu == "GenuineIntel" and torch.cpu._is_avx512_supported():
        cpu += " with AVX-512"
    capability = torch.backends.cpu.get_cpu_capability()
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "cpu": cpu,
        "vectors of torch": capability,
        "vectors of oneDNN": os.environ.get("ONEDNN_MAX_CPU_ISA", capability),
        "MKL is told": " ".join(
            f"{key}={os.environ[key]}" for key in ("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS") if key in os.environ
        ),
    }


def differences(recorded: dict[str, str], here: dict[str, str]) -> str:
    """In words; empty where there are none."""
    return ", ".join(
        f"{key}: {recorded.get(key) or 'nothing'} there, {value or 'nothing'} here"
        for key, value in here.items()
        if recorded.get(key) != value
    )


def hold(name: str, kind: str, found: str, recorded: Digests) -> None:
    expected = recorded.get(name, {}).get(kind)
    assert expected, f"{kind} on {name} is not recorded: `{COMMAND}` records all anew"
    assert found == expected, (
        f"{kind} on {name}: its numbers have changed ({expected} recorded, {found} now). "
        f"If that is meant, `{COMMAND}` records all anew; then look at `git diff tests/golden.json`."
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SMALL)
def test_numbers_are_the_recorded_ones(name: str, kind: str) -> None:
    golden = json.loads(FILE.read_text())
    if others := differences(golden["recorded on"], machine()):
        pytest.skip(f"golden.json was recorded elsewhere: {others}")
    hold(name, kind, digest(trained(name, kind)), golden["digests"])


def test_every_kind_is_recorded() -> None:
    """A custom network is the user's own, with numbers of its own."""
    assert {each.backbone for each in SMALL.values()} == set(kinds.names("networks")) - {"custom"}, (
        "SMALL of tests/test_networks.py lacks a backbone"
    )
    recorded = json.loads(FILE.read_text())["digests"]
    here = {f"{kind} on {name}" for name in SMALL for kind in KINDS}
    there = {f"{kind} on {name}" for name, each in recorded.items() for kind in each}
    assert here == there, f"golden.json has not {sorted(here - there)}, or too many: `{COMMAND}` records all anew"


def test_recorded_on_the_locked_versions() -> None:
    """Or else the digests would be skipped wherever the lock is heeded, and no longer hold anything."""
    recorded = json.loads(FILE.read_text())["recorded on"]
    locked = dict(line.split("==") for line in LOCK.read_text().splitlines() if "==" in line)
    for package in ("torch", "numpy"):
        assert recorded[package].split("+")[0] == locked[package].split("+")[0], (
            f"golden.json was recorded with {package} {recorded[package]} and {locked[package]} is locked: "
            f"`{COMMAND}` records all anew"
        )


@pytest.mark.parametrize("kind", [FLOAT, "plain"])
def test_a_change_is_noticed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A millionth more of a weight, or of the rate; whatever is drawn or computed before changes nothing."""
    recorded = {"edsr": {kind: digest(trained("edsr", kind))}}
    torch.manual_seed(5)
    hold("edsr", kind, digest(trained("edsr", kind)), recorded)
    with pytest.raises(AssertionError, match=f"{kind} on edsr: its numbers have changed.*{COMMAND}"):
        hold("edsr", kind, digest(trained("edsr", kind, nudge=1e-6)), recorded)
    monkeypatch.setitem(globals(), "QAT", QAT.model_copy(update={"rate": QAT.rate * (1 + 1e-6)}))
    with pytest.raises(AssertionError, match="have changed"):
        hold("edsr", kind, digest(trained("edsr", kind)), recorded)


def test_differences_are_said() -> None:
    here = machine()
    assert not differences(here, here)
    assert differences(here | {"cpu": "another"}, here) == f"cpu: another there, {here['cpu']} here"


def record() -> None:
    """Write all digests of this machine."""
    set_vectors("avx2")  # before anything is computed
    here = machine()
    digests = {name: {kind: digest(trained(name, kind)) for kind in KINDS} for name in SMALL}
    FILE.write_text(json.dumps({"recorded on": here, "digests": digests}, indent=2) + "\n")
    print(f"{FILE}: {sum(map(len, digests.values()))} digests; now look at `git diff {FILE}`")


if __name__ == "__main__":
    record()

"""The same last bits on CPUs of different vector widths."""

import os
import subprocess
import sys

import pytest
import torch

STEP = """
import hashlib, torch
from odm.networks.device import device_of
from odm.settings.reading import load
device_of(load())
torch.manual_seed(0)
layer = torch.nn.Conv2d(24, 24, 3, padding=1).to(memory_format=torch.channels_last)
images = torch.randn(4, 24, 32, 32).contiguous(memory_format=torch.channels_last)
layer(images).square().mean().backward()
print(hashlib.sha256(layer.weight.grad.numpy().tobytes()).hexdigest(), torch.backends.cpu.get_cpu_capability())
"""
WIDTHS = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")


def step(**widths: str) -> tuple[str, str]:
    """The digest of a gradient, and what torch computed it with, in a process of its own."""
    environment = {key: value for key, value in os.environ.items() if key not in WIDTHS} | widths
    found = subprocess.run([sys.executable, "-c", STEP], env=environment, capture_output=True, text=True, check=True)
    gradient, capability = found.stdout.split()
    return gradient, capability


@pytest.mark.skipif(not torch.cpu._is_avx512_supported(), reason="a CPU without AVX-512 has nothing to narrow")
def test_wide_vectors_add_up_as_narrow_ones() -> None:
    assert step() == step(ONEDNN_MAX_CPU_ISA="AVX2", ATEN_CPU_CAPABILITY="avx2")
    assert step(ATEN_CPU_CAPABILITY="avx512")[1] == "AVX512", "the environment goes first"

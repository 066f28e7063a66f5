"""Large images go through a network in parts, to the same bytes, wherever all that counts for a pixel is near it."""

import os
import platform
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from test_networks import SMALL
from torch import Tensor, nn

from odm import kinds
from odm.inference import WINDOW, _parts, upscale
from odm.methods.build import method_class
from odm.methods.settings import MethodSettings
from odm.networks.backbone import Backbone
from odm.networks.build import build
from odm.networks.device import placed
from odm.networks.reach import reach
from odm.quantization.statistics import measured
from odm.settings.training import Run

CPU = torch.device("cpu")
# Torch takes other kernels for inputs of very few numbers, which add up in another order.
SIDE = 96
CONVOLUTIONAL = sorted(set(SMALL) - {"swinir"})
STATIC = ["no_body", "odm", "odm_eccv", "pams", "per_channel", "plain"]


def image(height: int = 190, width: int = 280) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)


def learned(name: str) -> Backbone:
    """With statistics of normalization that are not those it begins with."""
    network = placed(build(SMALL[name]), CPU).train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.tensor(image(24, 24), dtype=torch.float32).permute(2, 0, 1)[None])
    return network.eval()


def quantized(name: str, kind: str, **changes: Any) -> Backbone:
    network = learned(name)
    settings = kinds.implementation(f"odm.methods.{kind}.settings", MethodSettings)(kind=kind, **changes)
    lows = [torch.rand(2, 3, 16, 16) * 255 for _ in range(2)]
    layers = measured(network, network.placement("body").layers, lows, percentile=99)
    bits = 3 if settings.quantizes else 32
    run = Run(network="n", method="m", weight_bits=bits, activation_bits=bits)
    method_class(kind)(network, settings, run).prepare(layers, lows)
    return network.eval()


def sizes(network: nn.Module) -> list[tuple[int, ...]]:
    """Of the images that go in, from now on."""
    seen: list[tuple[int, ...]] = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
    return seen


def held(network: Backbone) -> None:
    whole = upscale(network, image())
    seen = sizes(network)
    assert np.array_equal(upscale(network, image(), window=SIDE), whole)
    assert len(seen) == 2 * 3
    assert max(seen) < image().shape[:2]


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_float_networks_in_parts(name: str) -> None:
    held(learned(name))


@pytest.mark.parametrize(("name", "kind"), [*(("edsr", kind) for kind in STATIC), ("rdn", "odm")])
def test_quantized_networks_in_parts(name: str, kind: str) -> None:
    held(quantized(name, kind))


def test_grey_images_in_parts() -> None:
    network, grey = learned("edsr"), image()[:, :, 0]
    assert np.array_equal(upscale(network, grey, window=SIDE), upscale(network, grey))


def test_gates_that_none_of_the_layers_has() -> None:
    held(quantized("edsr", "ddtb", dynamic_share=0))


@pytest.mark.parametrize("kind", ["daq", "ddtb"])
def test_levels_found_for_each_image_keep_it_whole(kind: str) -> None:
    changes = {"dynamic_share": 0.5} if kind == "ddtb" else {}
    network = quantized("edsr", kind, **changes)
    seen = sizes(network)
    upscale(network, image(), window=SIDE)
    assert seen == [image().shape[:2]]


def test_attention_keeps_an_image_whole() -> None:
    network = learned("swinir")
    seen = sizes(network)
    upscale(network, image(40, 50), window=16)
    assert seen == [(40, 50)]


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_reach_is_where_nothing_counts_any_more(name: str) -> None:
    network = learned(name)
    found = reach(network)
    assert found is not None
    low = torch.tensor(image(8, 4 * found), dtype=torch.float32).permute(2, 0, 1)[None].requires_grad_()
    column = 2 * found
    network(low)[..., 2 * column : 2 * column + 2].sum().backward()
    assert isinstance(low.grad, Tensor)
    counts = low.grad.abs().sum((0, 1, 2)).nonzero().flatten() - column
    assert -found <= counts.min()
    assert counts.max() <= found
    assert counts.max() > found / 2, "not much too much either"


def test_every_kind_is_in_one_of_these_lists() -> None:
    assert sorted([*STATIC, "daq", "ddtb"]) == sorted(kinds.names("methods")), "does a new kind look at the image?"


def test_narrow_images_are_cut_by_their_area() -> None:
    network = learned("edsr")
    seen = sizes(network)
    upscale(network, image(700, 10), window=SIDE)
    upscale(network, image(1000, 10), window=SIDE)
    assert seen == [(700, 10), (508, 10), (508, 10)]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another one")
def test_memory_is_used_again() -> None:
    """In a process of its own: the second image of a size asks the system for next to no page."""
    code = """
import resource, numpy, torch
from odm.inference import upscale
from odm.networks.build import build
from odm.networks.edsr.settings import Edsr
torch.set_num_threads(1)
network = build(Edsr(backbone="edsr", channels=8, blocks=1, scale=2)).eval()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    upscale(network, numpy.zeros((500, 500, 3), numpy.uint8))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults(), faults(), faults())
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    said = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment | more
        ).stdout
        for more in ({}, {"MALLOC_TRIM_THRESHOLD_": "131072"})
    ]
    kept, given_back = ([int(each) for each in line.split()] for line in said)
    assert 10 * kept[2] < given_back[2], said


def test_parts_are_few_and_about_equal() -> None:
    assert _parts(WINDOW, WINDOW) == [(0, WINDOW)]
    assert _parts(1020, 512) == [(0, 510), (510, 1020)]
    assert _parts(7, 3) == [(0, 2), (2, 4), (4, 7)]

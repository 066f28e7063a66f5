"""Networks and their costs against the published figures (1280x720 output, a float operation as 32 x 32 bits)."""

import pytest
import torch

from odm.methods.build import build as build_method
from odm.networks.build import build
from odm.networks.cost import cost
from odm.settings import Network, Plain, Run


def edsr(**changes):
    return build(Network(**{"backbone": "edsr", "channels": 64, "blocks": 16, "scale": 4} | changes))


class Suite:
    methods = {"plain": Plain(kind="plain")}  # noqa: RUF012


@pytest.mark.parametrize(
    ("scale", "bits", "storage_k", "gmac", "bitops_t"),
    [
        (4, 32, 1517.57, 114.23, 116.97),
        (4, 8, 632.84, 114.23, 51.74),
        (4, 4, 485.38, 114.23, 48.48),
        (4, 3, 448.51, 114.23, 48.01),
        (4, 2, 411.65, 114.23, 47.67),
        (2, 32, 1369.86, 316.25, 323.84),
        (2, 4, 337.67, 316.25, 49.87),
        (2, 2, 263.94, 316.25, 46.61),
    ],
)
def test_edsr_baseline_costs_what_is_published(scale, bits, storage_k, gmac, bitops_t):
    network = edsr(scale=scale)
    if bits < 32:
        run = Run(network="n", method="plain", weight_bits=bits, activation_bits=bits)
        method = build_method(Suite, run, network)
        method._convert(method._activations(), {})
        assert len(method.layers) == 32
    found = cost(network)
    assert found.storage_k == pytest.approx(storage_k, abs=0.005)
    assert found.gmac == pytest.approx(gmac, abs=0.005)
    assert found.bitops_t == pytest.approx(bitops_t, abs=0.005)
    assert found.extra_storage_k == (0 if bits == 32 else 0.064)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_edsr_enlarges_by_its_scale(scale):
    network = edsr(channels=8, blocks=1, scale=scale)
    assert network(torch.rand(2, 3, 9, 12) * 255).shape == (2, 3, 9 * scale, 12 * scale)


def test_the_seed_alone_decides_the_first_weights():
    def head(seed):
        torch.rand(3)  # draws elsewhere must not matter
        return edsr(channels=8, blocks=1, seed=seed).head.weight

    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))


def test_body_coverage_adds_the_last_convolution():
    network = edsr()
    assert len(network.placement("blocks").layers) == 32
    assert network.placement("body").layers[32:] == ["last"]

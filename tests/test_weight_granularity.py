"""A range of the weights for each output channel: against loops over channels, and what it takes to keep."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import trial
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from trial import PLAIN

from odm.methods.odm_eccv.quantizer import CorrectedWeightQuantizer
from odm.methods.odm_eccv.settings import OdmEccv
from odm.methods.settings import MethodSettings
from odm.networks.cost import cost
from odm.quantization.layer import QuantizedLayer
from odm.quantization.quantizer import WeightQuantizer
from odm.training.patches import Patches

RULES = ["max", "percentile", "signed_percentile", "mse"]
Array = NDArray[np.float64]


def weights(*shape: int) -> Array:
    """Channels whose sizes lie far apart, the first of them all negative."""
    random = np.random.default_rng(5)
    made = random.normal(0.1, 1.0, shape) * np.geomspace(0.01, 3.0, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    made[0] = -np.abs(made[0])
    return made


SHAPES = {"convolution": weights(6, 5, 3, 3), "grouped": weights(8, 2, 3, 3), "linear": weights(7, 40)}
every_rule = pytest.mark.parametrize("rule", RULES)
every_width = pytest.mark.parametrize("bits", [2, 4])
every_shape = pytest.mark.parametrize("name", SHAPES)


def levels(channel: Array, bound: float, bits: int) -> tuple[Array, Array]:
    """Eq. 1 over [-bound, bound], and its derivative to the bound."""
    count = 2**bits - 1
    v = (np.clip(channel, -bound, bound) + bound) / (2 * bound) * count
    inside = np.abs(channel) <= bound
    return np.round(v) / count * 2 * bound - bound, np.where(inside, 2 * (np.round(v) - v) / count, np.sign(channel))


def bound_of(channel: Array, rule: str, bits: int) -> float:
    if rule == "mse":
        tried = np.abs(channel).max() * np.geomspace(0.02, 1, 2000)
        return tried[np.argmin([np.square(levels(channel, each, bits)[0] - channel).sum() for each in tried])]
    values = channel if rule == "signed_percentile" else np.abs(channel)
    return abs(np.percentile(values, 100.0 if rule == "max" else 99.0))


@every_shape
@every_width
@every_rule
def test_each_channel_has_the_range_that_it_has_alone(name: str, bits: int, rule: str) -> None:
    weight = SHAPES[name]
    quantizer = WeightQuantizer(bits, rule, granularity="channel")
    bounds = quantizer.bound(torch.tensor(weight))
    assert bounds.shape == (len(weight), *[1] * (weight.ndim - 1))
    found = quantizer(torch.tensor(weight)).numpy()
    for channel, bound, values in zip(weight, bounds.flatten().tolist(), found, strict=True):
        expected = bound_of(channel, rule, bits)
        if rule == "mse":  # searched to 1%, and flat there
            errors = [np.square(levels(channel, each, bits)[0] - channel).sum() for each in (bound, expected)]
            assert errors[0] <= 1.03 * errors[1]
        else:
            assert bound == pytest.approx(expected, rel=1e-12)
        np.testing.assert_allclose(values, levels(channel, bound, bits)[0], rtol=1e-9, atol=1e-12)


@every_shape
@every_width
@every_rule
@pytest.mark.parametrize("through", [False, True])
def test_gradients_are_those_of_a_loop_over_channels(name: str, bits: int, rule: str, through: bool) -> None:
    """Of a clipped weight none, of one within the range 1; and dL/du df/dW, where W learns through f(W)."""
    if rule == "mse" and through:
        pytest.skip("it has no such gradient")
    weight = torch.tensor(SHAPES[name], requires_grad=True)
    incoming = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    quantizer = WeightQuantizer(bits, rule, range_gradient=through, granularity="channel")
    (found,) = torch.autograd.grad((quantizer(weight) * incoming).sum(), weight)
    bounds = quantizer.bound(weight.detach()).flatten().tolist()
    for channel, bound, given, ours in zip(SHAPES[name], bounds, incoming.numpy(), found.numpy(), strict=True):
        expected = np.where(np.abs(channel) <= bound * (1 + 1e-12), given, 0.0)
        if through:
            to_bound = (given * levels(channel, bound, bits)[1]).sum()
            flat = channel.ravel() if rule == "signed_percentile" else np.abs(channel).ravel()
            order = np.argsort(flat)
            place = (1.0 if rule == "max" else 0.99) * (flat.size - 1)
            shares = {int(place): 1 - place % 1, min(int(place) + 1, flat.size - 1): place % 1}
            for rank, share in shares.items() if place % 1 else [(int(place), 1.0)]:
                at = np.unravel_index(order[rank], channel.shape)
                expected[at] += to_bound * share * np.sign(channel[at])
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)


@every_width
@pytest.mark.parametrize(("rule", "channels"), [("max", 5), ("mse", 5), *((rule, 1) for rule in RULES)])
def test_channels_that_are_equal_have_the_layers_range(rule: str, channels: int, bits: int) -> None:
    """Bit for bit. A percentile of many equal channels lies between other ranks than that of one."""
    one = torch.randn(1, 8, 3, 3, generator=torch.Generator().manual_seed(3))
    found = []
    for granularity in ("layer", "channel"):
        weight = one.repeat(channels, 1, 1, 1).requires_grad_()
        value = WeightQuantizer(bits, rule, granularity=granularity)(weight)
        found.append((value, *torch.autograd.grad(value.square().sum(), weight)))
    for by_layer, by_channel in zip(*found, strict=True):
        assert torch.equal(by_layer, by_channel)


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_a_grouped_convolution_takes_them_by_output_channel(groups: int) -> None:
    inner = nn.Conv2d(8, 16, 3, padding=1, groups=groups)
    layer = QuantizedLayer(inner, None, WeightQuantizer(2, granularity="channel"))
    x = torch.randn(2, 8, 6, 6)
    weight = inner.weight.detach().numpy().astype(float)
    expected = np.stack([levels(each, bound_of(each, "max", 2), 2)[0] for each in weight])
    computed = functional.conv2d(x, torch.tensor(expected).float(), inner.bias, padding=1, groups=groups)
    torch.testing.assert_close(layer(x), computed, rtol=1e-4, atol=1e-5)


def test_gamma_multiplies_the_range_of_each_channel() -> None:
    weight = torch.tensor(SHAPES["convolution"])
    quantizer = CorrectedWeightQuantizer(2, "percentile", granularity="channel").double()
    with torch.no_grad():
        quantizer.gamma.fill_(0.7)
    (to_gamma,) = torch.autograd.grad(quantizer(weight).sum(), quantizer.gamma)
    bounds = [bound_of(each, "percentile", 2) for each in SHAPES["convolution"]]
    expected = [levels(each, 0.7 * f, 2) for each, f in zip(SHAPES["convolution"], bounds, strict=True)]
    np.testing.assert_allclose(quantizer(weight).detach().numpy(), [value for value, _ in expected], rtol=1e-6)
    by_channel = sum(f * to_bound.sum() for f, (_, to_bound) in zip(bounds, expected, strict=True))
    assert to_gamma.item() == pytest.approx(by_channel, rel=1e-5)


def test_a_channel_of_zeros_stays_finite() -> None:
    weight = torch.randn(4, 3, 3, 3)
    weight[1] = 0
    for rule in RULES:
        found = WeightQuantizer(2, rule, granularity="channel")(weight)
        assert found.isfinite().all() and found[1].abs().max() < 1e-30 and found[0].abs().max() > 0.1


@pytest.mark.parametrize(
    ("settings", "by_layer"), [(PLAIN, 0), (OdmEccv(kind="odm_eccv", strength=0.001), 1)], ids=["plain", "odm_eccv"]
)
def test_each_range_is_stored(
    settings: MethodSettings,
    by_layer: int,
    float_state: dict[str, Tensor],
    layers: Mapping[str, Mapping[str, Any]],
    batches: Patches,
) -> None:
    """32 bits for each of 8 channels of 4 layers, in place of what a layer takes; all else costs what it did."""
    counted = [
        cost(trial.quantized(each, float_state, layers, batches).network)
        for each in (settings, settings.model_copy(update={"weight_granularity": "channel"}))
    ]
    added = counted[1].extra_storage_k - counted[0].extra_storage_k
    assert added == pytest.approx(4 * (8 - by_layer) / 1e3)
    assert counted[1].storage_k == counted[0].storage_k and counted[1].bitops_t == counted[0].bitops_t

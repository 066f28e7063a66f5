"""What a small experiment is believed by: ranges by channel, the network without its body, weights or activations in
float; and the suite of ablations, which has them all."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from test_networks import SMALL, at
from test_odm_eccv import written
from trial import NETWORK, ODM, PLAIN, killed_and_resumed, quantized, state, trained

from odm.methods.build import method_class
from odm.methods.no_body.settings import NoBody
from odm.methods.odm.settings import Odm
from odm.methods.odm_eccv.settings import OdmEccv
from odm.methods.per_channel.quantizer import ChannelRange
from odm.methods.per_channel.settings import PerChannel
from odm.methods.plain.settings import Plain
from odm.networks.build import build
from odm.networks.cost import cost
from odm.quantization.layer import quantized_layers
from odm.quantization.quantizer import LearnedRange
from odm.settings.reading import load
from odm.settings.suite import Settings
from odm.settings.training import Run

PER_CHANNEL = PerChannel(kind="per_channel")
NO_BODY = NoBody(kind="no_body")
ABLATIONS = load(Path(__file__).parents[1] / "suites" / "ablations.yaml")


def again(method, settings):
    restored = method_class(settings.kind)(build(NETWORK), settings, method.run)
    restored.restore(state(method))
    return restored


def adversarial():
    """By channel: random, constant, all negative, one outlier, empty, never negative."""
    x = np.random.default_rng(3).normal(0.3, 2, (4, 6, 7, 5))
    x[:, 1] = 0.7
    x[:, 2] = -np.abs(x[:, 2]) - 0.1
    x[1, 3, 2, 2] = 500.0
    x[:, 4] = 0.0
    x[:, 5] = np.maximum(x[:, 5], 0)
    return x


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_ranges_by_channel_equal_the_reference(bits):
    x = adversarial()
    quantizer = ChannelRange(bits, percentile=95.0).double()
    seen = [torch.tensor(each) for each in (x, x + 0.25)]
    quantizer.start(torch.stack([quantizer.observe(each) for each in seen]))
    found = quantizer(torch.tensor(x))
    for channel in range(6):
        lower, upper = np.percentile(x[:, channel], [5, 95]) + 0.125
        upper = upper if upper > lower else lower + 1
        assert (quantizer.lower[channel].item(), quantizer.upper[channel].item()) == pytest.approx((lower, upper))
        bounds = quantizer.lower[channel].item(), quantizer.upper[channel].item()
        expected, _ = written(x[:, channel], *bounds, bits)
        np.testing.assert_allclose(found[:, channel].detach().numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gradients_by_channel_are_those_of_a_range_each(bits, residual):
    x = torch.tensor(adversarial())
    incoming = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    together = ChannelRange(bits, residual, 95.0).double()
    together.start(together.observe(x)[None])
    leaf = x.clone().requires_grad_()
    (together(leaf) * incoming).sum().backward()
    for channel in range(6):
        alone = LearnedRange(bits, residual).double()
        with torch.no_grad():
            alone.lower.copy_(together.lower[channel])
            alone.upper.copy_(together.upper[channel])
        part = x[:, channel].clone().requires_grad_()
        (alone(part) * incoming[:, channel]).sum().backward()
        torch.testing.assert_close(leaf.grad[:, channel], part.grad)
        torch.testing.assert_close(together.lower.grad[channel], alone.lower.grad)
        torch.testing.assert_close(together.upper.grad[channel], alone.upper.grad)


def test_ranges_by_channel_stay_open():
    quantizer = ChannelRange(3)
    quantizer.start(torch.tensor([[[0.0, -1.0], [10.0, 1.0]]]))
    with torch.no_grad():
        quantizer.upper[0] = -5.0
    quantizer.settle()
    assert quantizer.at_floor()
    assert (quantizer.upper - quantizer.lower).tolist() == pytest.approx([0.01, 2.0])


@pytest.mark.parametrize("coverage", ["blocks", "shortcuts"])
def test_per_channel_has_a_range_for_each_channel(coverage, float_state, layers, batches):
    settings = PerChannel(kind="per_channel", coverage=coverage)
    method = quantized(settings, float_state, layers, batches, weight_bits=4, activation_bits=3)
    assert len(method.quantizers) == (4 if coverage == "blocks" else 6)
    assert all(each.lower.shape == (8,) for each in method.quantizers)
    extra = 2 * 8 * len(method.quantizers)
    assert cost(method.network).extra_storage_k == pytest.approx(extra / 1e3)
    low = batches(0)[0]
    assert torch.equal(again(method, settings).network(low), method.network(low))


@pytest.mark.parametrize("name", SMALL)
def test_per_channel_on_each_backbone(name):
    lows = [torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(each)) * 255 for each in range(2)]
    run = Run(network="n", method="m", weight_bits=4, activation_bits=4)
    method = method_class("per_channel")(at(SMALL[name]), PER_CHANNEL, run)
    method.prepare({layer: {} for layer in method.names}, lows)
    method.network.eval()
    for layer in method.layers.values():
        inputs = getattr(layer.layer, "in_features", None) or layer.layer.in_channels
        assert layer.activation.lower.numel() == inputs
    restored = method_class("per_channel")(at(SMALL[name]), PER_CHANNEL, run)
    restored.restore(state(method))
    assert torch.equal(restored.network.eval()(lows[0]), method.network(lows[0]))


def test_per_channel_leaves_less_error_than_a_range_for_all(float_state, layers, batches):
    """Of rounding; at other percentiles each channel is clipped as much as all were."""
    mismatch = {}
    for settings in (each.model_copy(update={"percentile": 100.0}) for each in (PLAIN, PER_CHANNEL)):
        method = quantized(settings, float_state, layers, batches, weight_bits=32, activation_bits=3)
        method.network(batches(3000)[0])
        mismatch[settings.kind] = method.measure()["mismatch"]
    assert mismatch["per_channel"] < 0.9 * mismatch["plain"]


CASES = [(PLAIN, 32, 3), (PLAIN, 3, 32), (PER_CHANNEL, 32, 2), (ODM, 2, 32), (ODM, 32, 2), (NO_BODY, 32, 32)]


@pytest.mark.parametrize(("settings", "weight_bits", "activation_bits"), CASES)
def test_controls_train_and_go_on(settings, weight_bits, activation_bits, float_state, layers, batches, tmp_path):
    def method():
        widths = {"weight_bits": weight_bits, "activation_bits": activation_bits}
        return quantized(settings, float_state, layers, batches, **widths)

    whole, history = killed_and_resumed(method, batches, tmp_path)
    assert all(np.isfinite(row["loss"]) for row in history)
    low = batches(0)[0]
    torch.testing.assert_close(again(whole, settings).network(low), whole.network(low))


def test_float_bits_quantize_nothing(float_state, layers, batches):
    low = batches(0)[0]
    network = build(NETWORK).to(memory_format=torch.channels_last)
    network.load_state_dict(float_state)
    for settings in (PLAIN, PER_CHANNEL, Plain(kind="plain", coverage="shortcuts")):
        method = quantized(settings, float_state, layers, batches, weight_bits=32, activation_bits=32)
        assert torch.equal(method.network(low), network(low))
        assert not method.quantizers
        found, of_float = cost(method.network), cost(network)
        assert found == of_float
    weights = quantized(PLAIN, float_state, layers, batches, weight_bits=2, activation_bits=32)
    activations = quantized(PLAIN, float_state, layers, batches, weight_bits=32, activation_bits=2)
    assert [layer.bits for layer in weights.layers.values()] == 4 * [(2, 32)]
    assert [layer.bits for layer in activations.layers.values()] == 4 * [(32, 2)]
    assert "W32A2" in repr(activations.network)
    assert cost(weights.network).extra_storage_k == 0
    assert cost(activations.network).storage_k == cost(network).storage_k
    assert cost(weights.network).bitops_t == pytest.approx(cost(activations.network).bitops_t)
    one = activations.layers["blocks.0.conv1"]
    x = one.activation(torch.randn(1, 8, 5, 5))
    torch.testing.assert_close(one(x), one.layer(one.activation(x)))


def test_offsets_need_a_quantized_activation(float_state, layers, batches):
    method = quantized(ODM, float_state, layers, batches, weight_bits=2, activation_bits=32)
    assert all(layer.offset is None for layer in method.layers.values())


@pytest.mark.parametrize("name", SMALL)
def test_no_body_is_what_no_coverage_of_blocks_quantizes(name):
    settings = SMALL[name]
    network = at(settings)
    quantized = network.placement("blocks").layers
    run = Run(network="n", method="m", weight_bits=32, activation_bits=32)
    method = method_class("no_body")(network, NO_BODY, run)
    method.prepare({}, ())
    left = set(dict(network.named_modules()))
    assert not left & set(quantized)
    assert {"head", "tail"} <= left
    assert not quantized_layers(network)
    low = torch.rand(1, 3, 9, 8) * 255
    network.eval()
    assert network(low).shape == (1, 3, 18, 16)
    assert cost(network).parameters < cost(at(settings)).parameters
    restored = method_class("no_body")(at(settings), NO_BODY, run)
    restored.restore(state(method))
    assert torch.equal(restored.network.eval()(low), network(low))


def test_no_body_of_edsr_is_head_last_and_upsampler(float_state, layers, batches, tmp_path):
    method = quantized(NO_BODY, float_state, layers, batches, weight_bits=32, activation_bits=32)
    network, low = method.network, batches(0)[0]
    shallow = network.head(low - network.mean)
    expected = network.tail(network.upsampler(shallow + network.last(shallow))) + network.mean
    torch.testing.assert_close(network(low), expected)
    history = trained(method, batches, tmp_path / "last", steps=60, rate=0.003)
    assert history[-1]["loss"] < history[0]["loss"]


def test_settings_of_controls():
    content = ABLATIONS.model_dump()
    run = {"network": next(iter(ABLATIONS.networks)), "method": "no_body", "weight_bits": 2, "activation_bits": 2}
    with pytest.raises(ValidationError, match="both bits should be 32"):
        Settings.model_validate(content | {"runs": {"w2a2_no_body": run}})
    for bits in (0, 9, 31, 33):
        with pytest.raises(ValidationError, match="weight_bits"):
            Run(network="n", method="m", weight_bits=bits, activation_bits=2)


def test_the_suite_of_ablations_holds_both_versions_and_the_grid_of_readings():
    methods = ABLATIONS.methods
    v1 = {
        (each.regularizer != "none" and (each.cooperation.rule, each.cooperation.scope), each.offsets.kind)
        for each in methods.values()
        if isinstance(each, Odm)
    }
    rules = [("always", "element"), ("sign", "element"), ("sign", "layer"), ("sign", "network")]
    rules += [("cosine", "layer"), ("cosine", "network")]
    assert v1 >= {(False, "both")} | {(rule, kind) for rule in rules for kind in ("none", "both")}
    v2 = [each for each in methods.values() if isinstance(each, OdmEccv)]
    assert {(each.correction, each.regularizer != "none" and each.cooperation.rule) for each in v2} >= {
        (False, False),
        (False, "cosine"),
        (True, False),
        (True, "always"),
        (True, "cosine"),
    }
    grid = {
        (each.mismatch_gradient, each.cooperation.scope, each.regularized_ranges)
        for each in v2
        if each.correction and each.regularizer != "none" and each.cooperation.rule == "cosine"
    }
    assert grid >= {
        (gradient, scope, ranges)
        for gradient in ("detached", "straight_through")
        for scope in ("network", "layer")
        for ranges in ("no", "direct")
    }
    assert {each.kind for each in methods.values()} >= {"plain", "per_channel", "no_body"}
    seen = [each.model_dump_json() for each in methods.values()]
    assert len(set(seen)) == len(seen)
    used = {run.method for run in ABLATIONS.runs.values()}
    assert used == set(methods)


def test_the_suite_of_ablations_measures_what_settings_are_said_to_do():
    """Each beside the same without it, over three seeds: the rounding residual, another cosine, a kept gradient."""
    methods = ABLATIONS.methods
    for name, of, changes in (
        ("plain_clipped", "plain", {"residual_gradient": False}),
        ("plain_percentile_clipped", "plain_percentile", {"residual_gradient": False}),
        ("v2_theta", "v2_e", {"cooperation": {"cosine_over": "theta"}}),
        ("v2_every_4", "v2_e", {"cooperation": {"every": 4}}),
        ("v1_every_4", "v1_both_sign_element", {"cooperation": {"every": 4}}),
    ):
        other = methods[of].model_dump()
        for key, value in changes.items():
            other[key] = other[key] | value if isinstance(value, dict) else value
        assert methods[name].model_dump() == other, name
        seeds = [{run.seed for run in ABLATIONS.runs.values() if run.method == each} for each in (name, of)]
        assert seeds == [{1, 2, 3}, {1, 2, 3}], name

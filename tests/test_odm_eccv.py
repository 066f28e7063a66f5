"""`odm_eccv`: weight clipping correction and mismatch regularization against their formulas, and trained a little."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from trial import NETWORK, QAT, killed_and_resumed, quantized, state, trained

from odm.methods.build import method_class
from odm.methods.odm_eccv.quantizer import CorrectedWeightQuantizer
from odm.methods.odm_eccv.settings import CosineCooperation, OdmEccv
from odm.networks.build import build
from odm.networks.cost import cost
from odm.quantization.quantizer import WeightQuantizer
from odm.settings.training import Run

BITS = [2, 3, 4, 8]
RULES = ["max", "percentile", "signed_percentile", "mse"]
ECCV = OdmEccv(kind="odm_eccv", strength=0.001)


def adversarial():
    generator = np.random.default_rng(7)
    random = generator.normal(0.02, 0.1, (6, 5, 3, 3))
    outlier = random.copy()
    outlier[1, 2, 0, 1] = 40.0
    empty = random.copy()
    empty[3] = 0.0
    return {
        "random": random,
        "constant": np.full((6, 5, 3, 3), 0.3),
        "negative": -np.abs(random) - 0.01,
        "outlier": outlier,
        "empty": empty,
    }


TENSORS = adversarial()


def bound_of(weight, rule, percentile=99.0):
    """f(W) from its definition; for `mse` see the test of it."""
    values = weight if rule == "signed_percentile" else np.abs(weight)
    return abs(np.percentile(values, 100.0 if rule == "max" else percentile))


def written(x, lower, upper, bits):
    """Eq. 1 in float64: the value, and dq/du where dq/dl = [clipped] - dq/du."""
    step = (upper - lower) / (2**bits - 1)
    v = (np.clip(x, lower, upper) - lower) / step
    rounded = np.round(v)
    to_upper = np.where(x > upper, 1.0, np.where(x < lower, 0.0, (rounded - v) / (2**bits - 1)))
    return rounded * step + lower, to_upper


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", TENSORS)
def test_weights_equal_the_reference(name, rule, bits):
    weight = TENSORS[name]
    quantizer = CorrectedWeightQuantizer(bits, rule).double()
    with torch.no_grad():
        quantizer.gamma.fill_(0.83)
    found = quantizer(torch.tensor(weight))
    bound = quantizer.bound(torch.tensor(weight)).item() if rule == "mse" else bound_of(weight, rule)
    if rule != "mse":
        assert quantizer.bound(torch.tensor(weight)).item() == pytest.approx(bound, rel=1e-12)
    expected, _ = written(weight, -0.83 * bound, 0.83 * bound, bits)
    gamma = quantizer.gamma.item()  # of single precision until it was made double
    assert gamma == pytest.approx(0.83)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-9, atol=1e-12)
    assert len(found.unique()) <= 2**bits


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", TENSORS)
def test_no_range_makes_less_error_than_mse(name, bits):
    weight = TENSORS[name]
    bound = WeightQuantizer(bits, "mse").bound(torch.tensor(weight)).item()

    def error(u):
        return np.square(written(weight, -u, u, bits)[0] - weight).sum()

    least = min(error(u) for u in np.abs(weight).max() * np.geomspace(0.02, 1, 1500))
    # Each level may be a knife's edge in a tensor of few values: a rest of the whole is let pass.
    assert error(bound) <= 1.03 * least + 1e-4 * np.square(weight).sum()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", TENSORS)
def test_gradient_of_gamma_is_the_stated_one(name, rule, bits):
    """dL/dgamma = f(W) sum of dL/dq dq/du, dq/du = sign outside and 2 (round(v) - v) / (2^b - 1) inside."""
    weight = torch.tensor(TENSORS[name], requires_grad=True)
    incoming = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    quantizer = CorrectedWeightQuantizer(bits, rule).double()
    with torch.no_grad():
        quantizer.gamma.fill_(0.7)
    found, to_weight = torch.autograd.grad((quantizer(weight) * incoming).sum(), [quantizer.gamma, weight])
    f, u = quantizer.bound(weight).item(), 0.7 * quantizer.bound(weight).item()
    _, above = written(TENSORS[name], -u, u, bits)
    to_u = np.where(TENSORS[name] > u, 1, np.where(TENSORS[name] < -u, -1, 2 * above))
    assert found.item() == pytest.approx(f * (incoming.numpy() * to_u).sum(), rel=1e-9, abs=1e-12)
    inside = np.abs(TENSORS[name]) <= u
    np.testing.assert_allclose(to_weight.numpy(), incoming.numpy() * inside)


@pytest.mark.parametrize("rule", ["max", "percentile", "signed_percentile"])
def test_gradient_through_f_reaches_the_weight_that_sets_it(rule):
    weight = torch.tensor(TENSORS["negative" if rule == "signed_percentile" else "random"], requires_grad=True)
    incoming = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    found = []
    for range_gradient in (False, True):
        quantizer = CorrectedWeightQuantizer(2, rule, range_gradient=range_gradient).double()
        loss = (quantizer(weight) * incoming).sum()
        to_gamma, to_weight = torch.autograd.grad(loss, [quantizer.gamma, weight])
        found.append(to_weight)
    difference = found[1] - found[0]
    bound = quantizer.bound(weight)
    size = weight.detach() if rule == "signed_percentile" else weight.detach().abs()
    share = {"max": 100.0}.get(rule, 99.0) / 100 * (size.numel() - 1)
    ranks = size.flatten().argsort()[int(share) : int(share) + 2]  # one, if it is the last
    at = sorted(ranks.tolist())
    assert sorted(difference.flatten().nonzero().flatten().tolist()) == at
    # Shared by how near the percentile is to either rank; dL/du = dL/dgamma / f at gamma 1.
    assert (difference.flatten()[at] * weight.detach().flatten()[at].sign()).sum() == pytest.approx(
        (to_gamma / bound).item()
    )


def test_weights_of_zero_stay_finite():
    for rule in RULES:
        quantizer = CorrectedWeightQuantizer(2, rule)
        weight = torch.zeros(4, 3, 3, 3, requires_grad=True)
        quantizer(weight).sum().backward()
        assert quantizer.gamma.grad.isfinite() and weight.grad.isfinite().all()


def changed(**changes):
    return OdmEccv.model_validate({"kind": "odm_eccv", "strength": 0.001} | changes)


def after_forward(settings, float_state, layers, batches, bits=2):
    method = quantized(settings, float_state, layers, batches, bits)
    # Off the calibrated point and off gamma 1, where every term has a part.
    with torch.no_grad():
        for quantizer in method.quantizers:
            quantizer.upper.mul_(0.8)
        for gamma in method.gammas().values():
            gamma.mul_(0.9)
    low, high = batches(0)
    return method, (method.network(low) - high).abs().mean()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("norm", ["l2", "rms", "squared", "mean_square"])
def test_mismatch_equals_the_reference(norm, bits, float_state, layers, batches):
    method, _ = after_forward(changed(norm=norm), float_state, layers, batches, bits)
    total = 0.0
    for layer in method.layers.values():
        x, activation = layer.input.detach().double().numpy(), layer.activation
        error = x - written(x, activation.lower.item(), activation.upper.item(), bits)[0]
        squared = np.square(error).sum()
        total += {"l2": squared**0.5, "squared": squared}.get(norm, squared / error.size)
        total += (squared / error.size) ** 0.5 - squared / error.size if norm == "rms" else 0
    assert method.regularizer().item() == pytest.approx(0.001 * total, rel=1e-4)


@pytest.mark.parametrize("way", ["detached", "straight_through"])
def test_what_inputs_learn_from_their_mismatch(way, float_state, layers, batches):
    method, _ = after_forward(changed(mismatch_gradient=way), float_state, layers, batches)
    for layer in method.layers.values():
        layer.input = layer.input.detach().requires_grad_()
        x, activation = layer.input, layer.activation
        (found,) = torch.autograd.grad(method.mismatch(layer), x)
        error = (x - activation(x)).detach()
        stated = error / error.norm()
        inside = (x >= activation.lower) & (x <= activation.upper)
        assert inside.any() and not inside.all()
        if way == "straight_through":
            assert not found[inside].any()  # exactly 0
            stated = stated * ~inside
        torch.testing.assert_close(found, stated)


@pytest.mark.parametrize("way", ["detached", "straight_through"])
def test_what_ranges_learn_from_their_own_mismatch(way, float_state, layers, batches):
    for reach in ("no", "indirect", "direct"):
        settings = changed(mismatch_gradient=way, regularized_ranges=reach)
        method, _ = after_forward(settings, float_state, layers, batches)
        layer = method.layers["blocks.0.conv2"]
        bounds = [layer.activation.lower, layer.activation.upper]
        layer.input = layer.input.detach().requires_grad_()
        found = torch.autograd.grad(method.mismatch(layer), bounds, allow_unused=True)
        if reach != "direct":
            assert found == (None, None)
            continue
        x = layer.input.detach().double().numpy()
        lower, upper = (each.item() for each in bounds)
        q, to_upper = written(x, lower, upper, 2)
        to_lower = ((x > upper) | (x < lower)) - to_upper
        to_lower = np.where(x < lower, 1, np.where(x > upper, 0, to_lower))
        stated = [-((x - q) * each).sum() / np.linalg.norm(x - q) for each in (to_lower, to_upper)]
        assert [each.item() for each in found] == pytest.approx(stated, rel=1e-3)


def test_no_mismatch_has_no_gradient(float_state, layers, batches):
    method, _ = after_forward(ECCV, float_state, layers, batches)
    layer = method.layers["blocks.0.conv1"]
    layer.input = layer.activation(layer.input).detach().requires_grad_()
    layer.input = layer.activation(layer.input).detach().requires_grad_()
    mismatch = method.mismatch(layer)
    mismatch.backward()
    assert mismatch < 1e-3 and layer.input.grad.isfinite().all()


READINGS = {
    "D1 E1": {},
    "D1 E2 indirect": {"regularized_ranges": "indirect"},
    "D1 E2 direct": {"regularized_ranges": "direct"},
    "D2": {"theta": "ranges", "regularized_ranges": "direct"},
    "D3": {"theta": "gammas", "regularized_ranges": "direct"},
    "B2": {"mismatch_gradient": "straight_through"},
    "B3": {"mismatch_gradient": "straight_through", "regularized_ranges": "direct"},
    "K": {"weight_range_gradient": True},
}


@pytest.mark.parametrize("scope", ["network", "layer"])
@pytest.mark.parametrize("reading", READINGS)
def test_a_step_goes_along_the_stated_gradient(reading, scope, float_state, layers, batches):
    """gR + (cos + 1) / 2 gM over theta and what follows it, gR elsewhere; from two gradients taken apart."""
    settings = changed(cooperation={"scope": scope}, **READINGS[reading])
    method, loss = after_forward(settings, float_state, layers, batches)
    named = dict(method.network.named_parameters())
    losses = (loss, method.regularizer())
    of_r, of_m = (
        dict(zip(named, torch.autograd.grad(each, named.values(), retain_graph=True, allow_unused=True), strict=True))
        for each in losses
    )

    def part(name):
        return "range" if ".activation." in name else "gamma" if name.endswith("gamma") else "weight"

    theta = {"weights": ["weight"], "ranges": ["weight", "range"], "gammas": ["weight", "range", "gamma"]}
    compared = theta[settings.theta]
    moved = [*compared, "range"] if settings.regularized_ranges != "no" else compared

    def layer(name):
        return next((each for each in method.layers if name.startswith(f"{each}.")), name.rsplit(".", 1)[0])

    def cosine(names):
        a, b = (torch.cat([of[name].flatten() for name in names]) for of in (of_r, of_m))
        return torch.dot(a, b) / (a.norm() * b.norm())

    reached = [name for name in named if of_m[name] is not None]
    together = [name for name in reached if part(name) in compared]
    expected = {}
    for name, gradient in of_r.items():
        expected[name] = gradient
        if name in reached and part(name) in moved:
            group = together
            if scope == "layer":
                own = [each for each in reached if layer(each) == layer(name)]
                group = [each for each in own if part(each) in compared] or [e for e in own if part(e) in moved]
            expected[name] = gradient + (cosine(group) + 1) / 2 * of_m[name]
    method.network.zero_grad()
    method.backward(loss)
    for name, parameter in named.items():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-5, msg=name)
    assert any(not torch.equal(expected[name], of_r[name]) for name in named if part(name) == "weight")
    moves = {part(name) for name in named if not torch.allclose(named[name].grad, of_r[name], rtol=1e-6, atol=1e-9)}
    assert moves == set(moved)


def test_ranges_follow_by_element_where_elements_are_compared(float_state, layers, batches):
    settings = changed(cooperation={"rule": "sign", "scope": "element"}, regularized_ranges="direct")
    method, loss = after_forward(settings, float_state, layers, batches)
    bounds = [bound for pair in method.ranges().values() for bound in pair]
    of_r, of_m = (
        torch.stack(torch.autograd.grad(each, bounds, retain_graph=True)) for each in (loss, method.regularizer())
    )
    method.network.zero_grad()
    method.backward(loss)
    agreed = of_r * of_m > 0
    assert agreed.any() and not agreed.all()
    torch.testing.assert_close(torch.stack([bound.grad for bound in bounds]), of_r + agreed * of_m)


ABLATIONS = {
    "a": ({"correction": False, "regularizer": "none"}, None),
    "b": ({"correction": False}, "cosine"),
    "c": ({"regularizer": "none"}, None),
    "d": ({"cooperation": {"rule": "always"}}, "always"),
    "e": ({}, "cosine"),
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations_are_reached_by_settings(name, float_state, layers, batches, tmp_path):
    changes, rule = ABLATIONS[name]
    settings = changed(**changes)
    assert settings.cooperation.rule == rule or rule is None
    method = quantized(settings, float_state, layers, batches)
    before = state(method)
    history = trained(method, batches, tmp_path / "last")
    assert len(method.gammas()) == (0 if name in "ab" else 4)
    assert ("gamma" in history[-1]) == (name in "cde")
    assert ("cosine" in history[-1]) == (rule is not None)
    assert history[-1]["loss"] < 1.5 * history[0]["loss"]
    still = {key for key, value in state(method).items() if torch.equal(value, before[key])}
    assert still == {f"{each}.activation.least" for each in method.layers}


def test_gamma_counts_as_extra_storage(float_state, layers, batches):
    counts = {}
    for correction in (False, True):
        method = quantized(changed(correction=correction), float_state, layers, batches)
        counts[correction] = cost(method.network)
    assert counts[True].parameters == counts[False].parameters
    assert counts[True].storage_k == counts[False].storage_k
    assert counts[True].extra_storage_k - counts[False].extra_storage_k == pytest.approx(0.004)  # one a layer
    assert counts[True].bitops_t == counts[False].bitops_t


def test_killed_and_resumed_equals_undisturbed(float_state, layers, batches, tmp_path):
    settings = changed(range_schedule="constant", regularized_ranges="direct", gamma_rate="weights")
    killed_and_resumed(lambda: quantized(settings, float_state, layers, batches), batches, tmp_path)


def test_a_stored_state_gives_the_same_pixels(float_state, layers, batches, tmp_path):
    method = quantized(ECCV, float_state, layers, batches)
    trained(method, batches, tmp_path / "last")
    again = method_class("odm_eccv")(build(NETWORK), ECCV, method.run)
    again.restore(state(method))
    low = batches(0)[0]
    assert torch.equal(again.network(low), method.network(low))
    # Nothing is taken from the images: one alone comes out as in a batch, but for sums in another order.
    apart = (method.network(low)[:1] - method.network(low[:1])).abs()
    assert apart.median() < 1e-4 and apart.mean() < 0.05


def test_mechanism_of_mismatch_regularization(float_state, layers, batches, tmp_path):
    """Regularized, inputs lie closer to their levels than without; a cosine below 1 lets less of it through."""
    mismatch = {}
    for name, changes in {
        "none": {"regularizer": "none"},
        "cosine": {"strength": 0.02},
        "always": {"strength": 0.02, "cooperation": {"rule": "always"}},
    }.items():
        method = quantized(changed(**changes), float_state, layers, batches)
        history = trained(method, batches, tmp_path / name, steps=60)
        method.network(batches(3000)[0])
        mismatch[name] = sum(method.mismatch(layer).item() for layer in method.layers.values())
        if name != "none":
            assert all(-1 < row["cosine"] < 1 for row in history)
    assert mismatch["always"] < mismatch["cosine"] < mismatch["none"]


def test_rates_of_ranges_and_gammas(float_state, layers, batches, tmp_path, monkeypatch):
    rates = []
    step = torch.optim.Adam.step

    def recorded(optimizer, *arguments):
        rates.append([group["lr"] for group in optimizer.param_groups])
        return step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", recorded)
    for schedule in ("decayed", "constant"):
        for group in ("ranges", "weights"):
            rates.clear()
            method = quantized(changed(range_schedule=schedule, gamma_rate=group), float_state, layers, batches)
            groups = method.parameter_groups(QAT)
            gammas = {id(each) for each in method.gammas().values()}
            assert [gammas <= {id(each) for each in one["params"]} for one in groups] == [
                group == "weights",
                group == "ranges",
            ]
            assert sum(len(one["params"]) for one in groups) == len(list(method.network.parameters()))
            trained(method, batches, tmp_path / f"{schedule}{group}")
            weights, ranges = zip(*rates, strict=True)
            assert ranges[0] == pytest.approx(10 * weights[0]) and weights[-1] < 0.1 * weights[0]
            assert ranges[-1] == (ranges[0] if schedule == "constant" else pytest.approx(10 * weights[-1]))


def test_a_gamma_never_closes_its_range(float_state, layers, batches):
    method = quantized(ECCV, float_state, layers, batches)
    (first, *_) = method.gammas().values()
    with torch.no_grad():
        first.fill_(-2.0)
    method.settle()
    assert first.item() == pytest.approx(0.01)
    method.network(batches(0)[0])
    assert method.measure()["narrow"] == 1


def test_a_float_activation_has_no_mismatch(float_state, layers, batches):
    network = build(NETWORK)
    run = Run(network="n", method="m", weight_bits=2, activation_bits=32)
    method = method_class("odm_eccv")(network, ECCV, run)
    method.prepare(layers, [batches(0)[0]])
    method.watch()
    low, high = batches(0)
    loss = (method.network(low) - high).abs().mean()
    assert method.regularizer() is None
    method.backward(loss)
    assert all(gamma.grad.item() != 0 for gamma in method.gammas().values())


def test_settings():
    assert changed(cooperation={"scope": "layer"}).cooperation == CosineCooperation(rule="cosine", scope="layer")
    assert changed().weight_range == "percentile"
    with pytest.raises(ValidationError, match="contradicts"):
        changed(theta="ranges")
    with pytest.raises(ValidationError, match="'mse' has none"):
        changed(weight_range="mse", weight_range_gradient=True)

"""Each quantizer against its formula in float64 NumPy, and its gradients against those stated and those of autograd."""

import numpy as np
import pytest
import reference
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import norm
from torch import Tensor

from odm.methods.daq.quantizer import OPTIMAL_STEPS, DistributionRange, DistributionWeights, gaussian_step
from odm.methods.ddtb.aligned import AlignedWeights, aligned
from odm.methods.ddtb.bounds import DualBounds, Gate
from odm.methods.pams.quantizer import SymmetricRange, SymmetricWeights, peak, symmetric
from odm.quantization.quantizer import WeightQuantizer, quantize
from odm.training.distillation import attention

TENSORS = reference.tensors()
RANGES = [(-1.5, 2.5), (0.0, 4.0), (0.3, 1.1), (-10.0, 10.0)]

every_tensor = pytest.mark.parametrize("name", TENSORS)
every_width = pytest.mark.parametrize("bits", [2, 3, 4, 8])
every_range = pytest.mark.parametrize(("lower", "upper"), RANGES)


def close(ours: Tensor, theirs: np.ndarray) -> None:
    torch.testing.assert_close(ours.detach(), torch.from_numpy(np.asarray(theirs)), rtol=1e-9, atol=1e-9)


def gradients(function, x: Tensor, *bounds: float) -> tuple[Tensor, ...]:
    """Of a weighted sum, to x and to the bounds."""
    leaves = [x.clone().requires_grad_(), *(torch.tensor(b, dtype=torch.double).requires_grad_() for b in bounds)]
    return torch.autograd.grad((function(*leaves) * incoming(x)).sum(), leaves)


def incoming(x: Tensor) -> Tensor:
    return torch.linspace(-1, 2, x.numel(), dtype=torch.double).view(x.shape)


def straight(v: Tensor, rounded: Tensor) -> Tensor:
    return v + (rounded - v).detach()


def levels_of(x: Tensor) -> int:
    return x.detach().div(1e-9).round().unique().numel()


@every_width
@every_tensor
@every_range
def test_eq_1(name, bits, lower, upper):
    x = torch.from_numpy(TENSORS[name])
    bounds = (torch.tensor(each, dtype=torch.double) for each in (lower, upper))
    close(quantize(x, *bounds, bits), reference.uniform(TENSORS[name], lower, upper, bits))


@every_width
@every_tensor
def test_eq_1_weights(name, bits):
    if name != "zero":
        bound = np.abs(TENSORS[name]).max()
        found = WeightQuantizer(bits)(torch.from_numpy(TENSORS[name]))
        close(found, reference.uniform(TENSORS[name], -bound, bound, bits))


@every_width
@every_tensor
@pytest.mark.parametrize("alpha", [0.4, 2.0, 30.0])
def test_pams(name, bits, alpha):
    x = torch.from_numpy(TENSORS[name])
    quantizer = SymmetricRange(bits).double()
    quantizer.start(torch.tensor([alpha, alpha]))
    alpha = quantizer.alpha.item()
    found = quantizer(x)
    close(found, reference.pams(TENSORS[name], alpha, bits))
    assert levels_of(found) <= 2**bits - 1

    def written(x: Tensor, alpha: Tensor) -> Tensor:
        n = 2 ** (bits - 1) - 1
        v = torch.maximum(torch.minimum(x, alpha), -alpha) * n / alpha
        return straight(v, v.round()) * alpha / n

    ours = gradients(lambda x, alpha: symmetric(x, alpha, bits), x, alpha)
    for a, b in zip(ours, gradients(written, x, alpha), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    to_x, to_alpha = reference.pams_gradients(TENSORS[name], alpha, bits)
    close(ours[0], incoming(x).numpy() * to_x)
    close(ours[1], (incoming(x).numpy() * to_alpha).sum())


@every_width
@every_tensor
def test_pams_while_it_calibrates(name, bits):
    """Rounded on the batch's own grid, not clipped; alpha learns nothing."""
    x = torch.from_numpy(TENSORS[name]).requires_grad_()
    quantizer = SymmetricRange(bits).double()
    quantizer.calibrating = True
    found = quantizer(x)
    mean_peak = np.mean([np.abs(image).max() for image in TENSORS[name]])
    assert quantizer.alpha.item() == pytest.approx(max(mean_peak, 1e-8)) == max(peak(x).item(), 1e-8)
    n = 2 ** (bits - 1) - 1
    alpha = quantizer.alpha.item()
    close(found, np.round(TENSORS[name] * n / alpha) * alpha / n)
    found.backward(incoming(x))
    close(x.grad, incoming(x))
    assert quantizer.alpha.grad is None
    quantizer.eval()(x * 7)
    assert quantizer.alpha.item() == alpha


@every_width
@every_tensor
def test_pams_weights(name, bits):
    weight = torch.from_numpy(TENSORS[name]).requires_grad_()
    found = SymmetricWeights(bits)(weight)
    close(found, reference.pams_weights(TENSORS[name], bits))
    assert levels_of(found) <= 2**bits - 1
    found.backward(incoming(weight))
    close(weight.grad, incoming(weight))


def test_daqs_steps_are_those_of_a_gaussian():
    """The best uniform step for 2^m levels; DAQ's table has at b bits the one for m = b - 1."""

    def error(step: float, count: int) -> float:
        index = np.arange(-count // 2, count // 2)
        level, edge = (index + 0.5) * step, np.concatenate([[-30], index[1:] * step, [30]])
        a, b = edge[:-1], edge[1:]
        mass, first = norm.cdf(b) - norm.cdf(a), norm.pdf(a) - norm.pdf(b)
        second = mass + a * norm.pdf(a) - b * norm.pdf(b)
        return float((second - 2 * level * first + level**2 * mass).sum())

    for m, step in OPTIMAL_STEPS.items():
        best = minimize_scalar(error, args=(2**m,), bounds=(0.005, 3), method="bounded", options={"xatol": 1e-9}).x
        assert step == round(best, 3)
    assert [gaussian_step(bits, "published") for bits in (2, 3, 4, 8)] == [1.596, 0.996, 0.586, 0.057]
    assert [gaussian_step(bits, "optimal") for bits in (1, 2, 8)] == [1.596, 0.996, 0.031]


@every_width
@every_tensor
@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("rule", ["published", "optimal"])
def test_daq(name, bits, bounded, rule):
    x = torch.from_numpy(TENSORS[name]).requires_grad_()
    found = DistributionRange(bits, 4, rule, bounded)(x)
    steps = gaussian_step(bits, rule), gaussian_step(4, rule)
    close(found, reference.daq(TENSORS[name], bits, 4, *steps, bounded))
    if bounded or TENSORS[name].min() != 0:
        assert max(levels_of(channel) for image in found for channel in image) <= 2**bits
    found.backward(incoming(x))
    close(x.grad, incoming(x))


def test_daq_unbounded_exceeds_its_bits():
    x = torch.from_numpy(np.abs(TENSORS["one outlier"]))
    x[0, 0, 0, 0] = 0
    assert levels_of(DistributionRange(2, 8, "published", False)(x)[1, 2]) <= 4  # the outlier widens its own step
    ramp = torch.cat([torch.zeros(8), torch.full((1000,), 1.0), torch.arange(1.0, 9)]).double().view(1, 1, 8, -1)
    assert levels_of(DistributionRange(2, 8, "published", False)(ramp)) > 4
    assert levels_of(DistributionRange(2, 8, "published", True)(ramp)) <= 4


@every_width
@every_tensor
@pytest.mark.parametrize("rule", ["published", "optimal"])
def test_daq_weights(name, bits, rule):
    weight = torch.from_numpy(TENSORS[name]).requires_grad_()
    found = DistributionWeights(bits, rule)(weight)
    close(found, reference.daq_weights(TENSORS[name], bits, gaussian_step(bits, rule)))
    assert levels_of(found.div(found.detach().abs().max())) <= 2**bits
    found.backward(incoming(weight))
    close(weight.grad, incoming(weight))


@every_width
@every_tensor
@every_range
def test_ddtb(name, bits, lower, upper):
    x = torch.from_numpy(TENSORS[name])
    quantizer = DualBounds(bits, 99, None).double()
    quantizer.set_range(lower, upper)
    found = quantizer(x)
    close(found, reference.ddtb(TENSORS[name], lower, upper, bits))
    assert levels_of(found) <= 2**bits
    close(found / quantizer.scale, (found / quantizer.scale).detach().round())

    def written(x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        levels, width = 2**bits - 1, upper - lower
        zero_point = lower * levels / width
        zero_point = straight(zero_point, (zero_point + 0.5).floor())
        v = torch.maximum(torch.minimum(x, upper), lower) * levels / width - zero_point
        level = (v + 0.5).floor().clamp(0, levels)
        return (straight(v, level) + zero_point) / levels * width

    ours = gradients(lambda x, lower, upper: aligned(x, lower, upper, bits), x, lower, upper)
    stated = reference.ddtb_gradients(TENSORS[name], lower, upper, bits)
    close(ours[0], incoming(x).numpy() * stated[0])
    for a, b in zip(ours[1:], stated[1:], strict=True):
        close(a, (incoming(x).numpy() * b).sum())
    if name != "zero" and not (np.isin(TENSORS[name], [lower, upper])).any():  # at a bound autograd halves
        for a, b in zip(ours, gradients(written, x, lower, upper), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_the_worked_examples_of_the_docstrings():
    def values(*each):
        return [torch.tensor(one, requires_grad=True) for one in each]

    leaves = values(2.0, 3.0)
    q = symmetric(*leaves, 2)
    found = torch.stack([q, *torch.autograd.grad(q, leaves)])
    torch.testing.assert_close(found, torch.tensor([3, 1, 1 / 3]))
    leaves = values(2.6, -1.0, 5.0)
    q = aligned(*leaves, 2)
    found = torch.stack([q, *torch.autograd.grad(q, leaves)])
    torch.testing.assert_close(found, torch.tensor([2, 1, 0.1, -0.1]))
    levels = aligned(torch.linspace(-2, 6, 99), *leaves[1:], 2).unique()
    torch.testing.assert_close(levels, torch.tensor([0.0, 2, 4, 6]))


@every_width
@every_tensor
@pytest.mark.parametrize("share", [99, 100])
def test_ddtb_weights(name, bits, share):
    weight = torch.from_numpy(TENSORS[name]).requires_grad_()
    found = AlignedWeights(bits, share)(weight)
    close(found, reference.ddtb_weights(TENSORS[name], bits, share))
    assert torch.isfinite(found).all()
    lower, upper = reference.percentile(TENSORS[name], share)
    found.backward(incoming(weight))
    inside = (TENSORS[name] >= lower) & (TENSORS[name] <= upper)
    close(weight.grad, incoming(weight).numpy() * inside)


@every_width
@every_tensor
def test_ddtb_with_a_gate(name, bits):
    """Bounds are 2 sigmoid(g) times the learned ones, image by image, and learn through it."""
    x = torch.from_numpy(TENSORS[name])
    torch.manual_seed(3)
    quantizer = DualBounds(bits, 99, 2.0)
    quantizer.gate = Gate(4, 99.0)
    quantizer.start(torch.zeros(1, 4))
    quantizer.double().eval()
    close(quantizer(x), reference.ddtb(TENSORS[name], -2.0, 2.0, bits))  # not used yet
    quantizer.gate.used.fill_(1)
    found = quantizer(x)
    for image, (g_upper, g_lower) in enumerate(quantizer.answer.tolist()):
        lower, upper = -2 * 2 * reference.sigmoid(g_lower), 2 * 2 * reference.sigmoid(g_upper)
        close(found[image], reference.ddtb(TENSORS[name][image], lower, upper, bits))
    found.backward(incoming(x))
    parameters = [quantizer.lower, quantizer.upper, quantizer.gate.expand]
    assert all(torch.isfinite(each.grad).all() for each in parameters)


def test_a_gates_weights_and_inputs_have_two_bits():
    torch.manual_seed(1)
    gate = Gate(64, 99.0).double().eval()
    assert levels_of(gate.weight(gate.reduce)) <= 4
    inputs = gate._inputs(torch.rand(3, 64, dtype=torch.double))
    assert max(levels_of(image) for image in inputs) <= 4
    assert gate.storage() == (64 * 32 + 32 * 2) / 16


def test_dual_bounds_never_cross():
    quantizer = DualBounds(2, 99, 1.0)
    quantizer.start(torch.zeros(1, 4))
    quantizer.gate = Gate(4, 99.0).eval()
    with torch.no_grad():
        quantizer.lower.fill_(0.9)
        quantizer.gate.norm.bias.fill_(1)
        quantizer.gate.expand[0].fill_(-3)  # the upper bound shrinks
        quantizer.gate.expand[1].fill_(3)
        quantizer.gate.used.fill_(1)
    x = torch.rand(2, 4, 5, 5)
    lower, upper = quantizer.bounds(x)
    assert (upper > lower).all() and torch.isfinite(quantizer(x)).all()


def test_attention_is_a_map_of_length_1():
    close(attention(torch.from_numpy(TENSORS["random"])), reference.attention(TENSORS["random"]))

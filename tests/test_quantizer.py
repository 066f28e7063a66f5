"""Eq. 1: values at every level, gradients against autograd of the written formula, bounds that learn."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from odm.quantization.quantizer import LearnedRange, WeightQuantizer, quantize, ranges_fixed

RANGES = [(-1.0, 1.0), (0.0, 3.0), (-0.37, 2.9), (5.0, 5.5), (-200.0, 90.0)]


def written(x: Tensor, lower: Tensor, upper: Tensor, bits: int, residual: bool = True) -> Tensor:
    """Eq. 1 as printed, round straight through, composed of autograd's own operations."""
    step = (upper - lower) / (2**bits - 1)
    clipped = torch.minimum(torch.maximum(x, lower), upper)
    if not residual:  # straight through the whole of quantization: only clipping has a gradient
        return clipped + (torch.round((clipped - lower) / step) * step + lower - clipped).detach()
    v = (clipped - lower) / step
    return (v + (torch.round(v) - v).detach()) * step + lower


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize(("lower", "upper"), RANGES)
def test_every_level_maps_to_itself(bits, lower, upper):
    low, high = torch.tensor(lower), torch.tensor(upper)
    levels = quantize(torch.linspace(lower, upper, 2**bits), low, high, bits)
    assert torch.equal(quantize(levels, low, high, bits), levels)
    assert levels.unique().numel() == 2**bits
    torch.testing.assert_close(levels, torch.linspace(lower, upper, 2**bits), rtol=1e-6, atol=1e-4)


@given(
    bits=st.integers(1, 8),
    lower=st.floats(-300, 300, width=32),
    width=st.floats(0.015625, 600, width=32),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=200, deadline=None)
def test_few_values_near_and_within_the_range(bits, lower, width, seed):
    low = torch.tensor(lower)
    high = low + width
    x = torch.randn(500, generator=torch.Generator().manual_seed(seed)) * width + lower
    q = quantize(x, low, high, bits)
    step = (high - low) / (2**bits - 1)
    ulp = 4 * torch.finfo(torch.float32).eps * max(low.abs().item(), high.abs().item())
    assert q.unique().numel() <= 2**bits
    assert q.min() >= low - ulp and q.max() <= high + ulp
    assert ((q - x.clamp(low, high)).abs() <= step / 2 + ulp).all()


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(("lower", "upper"), RANGES)
def test_gradients_are_those_of_the_written_formula(bits, lower, upper, residual):
    generator = torch.Generator().manual_seed(bits)
    x = torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.double) * (upper - lower) + (upper + lower) / 2
    incoming = torch.randn(x.shape, generator=generator, dtype=torch.double)
    grads = []
    for function in (quantize, written):
        leaves = [
            x.clone().requires_grad_(),
            *(torch.tensor(b, dtype=torch.double).requires_grad_() for b in (lower, upper)),
        ]
        value = function(*leaves, bits, residual)
        grads.append((value, *torch.autograd.grad((value * incoming).sum(), leaves)))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_gradients_at_and_beyond_the_bounds():
    """paper.md 1.1: 1 inside and at the ends; beyond, the bound on that side takes all of it."""
    for value, to_x, to_lower, to_upper in [(-2.0, 0, 1, 0), (0.0, 1, 0, 0), (3.0, 1, 0, 0), (4.0, 0, 0, 1)]:
        leaves = [torch.tensor(each, requires_grad=True) for each in (value, 0.0, 3.0)]
        found = torch.autograd.grad(quantize(*leaves, 2), leaves)
        assert [each.item() for each in found] == [to_x, to_lower, to_upper]


def test_the_worked_example_of_the_docstring():
    leaves = [torch.tensor(each, requires_grad=True) for each in (1.4, 0.0, 3.0)]
    q = quantize(*leaves, 2)
    assert q.item() == 1
    torch.testing.assert_close(
        torch.stack(torch.autograd.grad(q, leaves)), torch.tensor([1, 0.4 / 3, -0.4 / 3]), rtol=1e-5, atol=1e-6
    )


def test_layouts_agree():
    x = torch.randn(2, 4, 5, 6)
    low, high = torch.tensor(-0.7, requires_grad=True), torch.tensor(0.9, requires_grad=True)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        q = quantize(x.contiguous(memory_format=layout), low, high, 3)
        found.append([q, *torch.autograd.grad((q * x).sum(), [low, high])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_both_bounds_move_in_a_step():
    quantizer = LearnedRange(2)
    quantizer.set_range(-1.0, 2.0)
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.01)
    x = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    (quantizer(x) - x).square().mean().backward()
    assert quantizer.lower.grad.item() != 0 and quantizer.upper.grad.item() != 0
    optimizer.step()
    assert quantizer.lower.item() != -1 and quantizer.upper.item() != 2


def test_ranges_fixed_leaves_bounds_without_gradient():
    leaves = [
        torch.randn(50, requires_grad=True),
        torch.tensor(-0.5, requires_grad=True),
        torch.tensor(0.5, requires_grad=True),
    ]
    value = quantize(*leaves, 2).sum()
    with ranges_fixed():
        x, lower, upper = torch.autograd.grad(value, leaves, allow_unused=True, retain_graph=True)
    assert lower is None and upper is None
    assert torch.equal(x, torch.autograd.grad(value, leaves)[0])


def test_a_range_never_closes():
    quantizer = LearnedRange(4)
    quantizer.set_range(0.0, 10.0)
    with torch.no_grad():
        quantizer.upper.fill_(-3.0)
    quantizer.settle()
    assert (quantizer.upper - quantizer.lower).item() == pytest.approx(0.01)
    quantizer.set_range(2.0, 2.0)  # a dead layer's calibration
    assert torch.isfinite(quantizer(torch.randn(9))).all()


def test_a_lower_bound_behind_a_relu_stays_zero_where_asked():
    for lower, held in ((0.0, True), (-0.5, False)):
        quantizer = LearnedRange(4, holds_zero=True)
        quantizer.set_range(lower, 2.0)
        same = LearnedRange(4, holds_zero=True)
        same.load_state_dict(quantizer.state_dict())
        for each in (quantizer, same):
            with torch.no_grad():
                each.lower.fill_(0.3)
            each.settle()
            assert each.lower.item() == (0 if held else pytest.approx(0.3))
    assert "starts_at_zero" not in LearnedRange(4).state_dict()


def test_scale_and_zero_point_say_where_levels_lie():
    quantizer = LearnedRange(3)
    quantizer.set_range(-2.0, 5.0)
    assert quantizer.scale.item() == 1 and quantizer.zero_point.item() == 2
    assert quantizer(torch.tensor([0.2])).item() == 0


def test_two_bit_weights_are_odd_multiples_of_half_a_step():
    weight = torch.randn(2000, generator=torch.Generator().manual_seed(2))
    bound = weight.abs().max()
    levels = WeightQuantizer(2, "max")(weight).unique()
    torch.testing.assert_close(levels, bound * torch.tensor([-1, -1 / 3, 1 / 3, 1]))


def test_percentile_range_is_the_percentile_of_magnitudes():
    weight = torch.arange(-100.0, 0.0)  # all negative: magnitudes 1 to 100
    # Between the two nearest, as NumPy's: 1 + 0.99 * 99.
    assert WeightQuantizer(4, "percentile", 99.0).bound(weight).item() == pytest.approx(99.01)
    assert WeightQuantizer(4, "max").bound(weight) == 100


@pytest.mark.parametrize("rule", ["max", "percentile"])
def test_weights_of_zero_stay_finite(rule):
    assert torch.isfinite(WeightQuantizer(2, rule)(torch.zeros(10))).all()

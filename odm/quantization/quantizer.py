"""The one quantizer: weights and activations, training and deployment go through `quantize`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from odm.quantization.part import ActivationQuantizer, Part
from odm.quantization.statistics import percentile_of, range_of


class _Quantize(torch.autograd.Function):
    """Value and gradients of Eq. 1 in one pass.

    Composed of elementwise autograd operations the same costs half a float training step more. On a CPU the bounds
    enter as Python numbers and no mask is formed: operations on booleans and on broadcast scalars cost several times
    an in-place one.
    """

    range_gradients = True

    @staticmethod
    def forward(ctx: Any, x: Tensor, lower: Tensor, upper: Tensor, bits: int, residual: bool) -> Tensor:
        low, high = _number(lower), _number(upper)
        step = _number((upper - lower) / (2**bits - 1))
        quantized = x.clamp(low, high).sub_(low).div_(step).round_().mul_(step).add_(low)
        ctx.save_for_backward(x, lower, upper, quantized)
        ctx.residual = residual
        return quantized

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, lower, upper, quantized = ctx.saved_tensors
        # hardtanh's own gradient is 0 at the ends of its range, where Eq. 1 has 1: hence the next number outwards.
        if not _is_number(lower):
            inside = gradient.masked_fill((x < lower) | (x > upper), 0)
        else:
            below_lower = torch.nextafter(lower, lower.new_tensor(-torch.inf)).item()
            above_upper = torch.nextafter(upper, upper.new_tensor(torch.inf)).item()
            inside = torch.ops.aten.hardtanh_backward(gradient, x, below_lower, above_upper)
        if not (_Quantize.range_gradients and (ctx.needs_input_grad[1] or ctx.needs_input_grad[2])):
            return inside, None, None, None, None
        # Beyond the bounds q is one of them: (q - l) / (u - l) is 1 above and 0 below.
        outside = gradient - inside
        total = _reduced(outside, lower)
        above = (_reduced(outside.mul_(quantized), lower) - lower * total) / (upper - lower)
        below = total - above
        if ctx.residual:
            # Inside, dq/du = (round(v) - v) / (2^b - 1) = (q - x) / (u - l) = -dq/dl.
            rounding = _reduced((quantized - x).mul_(inside), lower) / (upper - lower)
            above, below = above + rounding, below - rounding
        return inside, below, above, None, None


def _is_number(bound: Tensor) -> bool:
    """Whether a bound is better read as a Python number: on a GPU the host would wait for it."""
    return bound.device.type == "cpu" and not bound.ndim and not torch.compiler.is_compiling()


def _number(bound: Tensor) -> Any:
    return bound.item() if _is_number(bound) else bound


def _reduced(x: Tensor, bound: Tensor) -> Tensor:
    """The sum of x over all that a bound holds for."""
    return x.sum_to_size(bound.shape) if bound.ndim else x.sum()


def quantize(x: Tensor, lower: Tensor, upper: Tensor, bits: int, residual: bool = True) -> Tensor:
    """Eq. 1: q(x; l, u) = round((clip(x, l, u) - l) / s) s + l with s = (u - l) / (2^b - 1).

    Rounding passes gradients straight through. For x the gradient is 1 inside the range and at its ends, else 0; for
    u it is 1 above the range, for l 1 below it, and inside, where `residual`, (round(v) - v) / (2^b - 1) for u and its
    negative for l, with v = (x - l) / s.

    Example: at 2 bits over [0, 3] the levels are 0, 1, 2, 3; x = 1.4 gives 1, dq/dx = 1, dq/du = -0.4 / 3.

    Args:
        x: any shape.
        lower, upper: lower < upper, in the units of x; scalars (shape ()), or a pair for each part of x in a shape
            that broadcasts to that of x.
        bits: 1 to 8; the result takes at most 2^bits values.
    """
    return _Quantize.apply(x, lower, upper, bits, residual)


@contextmanager
def ranges_fixed() -> Iterator[None]:
    """Skip the gradients of bounds in a backward pass that has no use for them (the regularizer's)."""
    _Quantize.range_gradients = False
    try:
        yield
    finally:
        _Quantize.range_gradients = True


class LearnedRange(ActivationQuantizer):
    """Eq. 1 with a learned range [lower, upper], one a layer and the same for every image."""

    # Least width of a range, relative to the first one; a narrower one would divide by nothing.
    FLOOR = 0.001

    def __init__(self, bits: int, residual: bool = True, percentile: float = 99.0, holds_zero: bool = False) -> None:
        """`holds_zero`: whether a lower bound that starts at 0, as behind a ReLU, stays there."""
        super().__init__(bits)
        self.residual = residual
        self.percentile = percentile
        self.lower = nn.Parameter(torch.tensor(0.0))
        self.upper = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("least", torch.tensor(self.FLOOR))
        self.least: Tensor
        self.starts_at_zero: Tensor | None
        self.register_buffer("starts_at_zero", torch.tensor(False) if holds_zero else None)

    def observe(self, x: Tensor) -> Tensor:
        """The percentile's mirror and the percentile."""
        return torch.tensor(range_of(x, self.percentile))

    def start(self, seen: Tensor) -> None:
        """The mean over batches of each bound."""
        self.set_range(*seen.mean(0).tolist())

    @torch.no_grad()
    def set_range(self, lower: float, upper: float) -> None:
        """Start from a calibrated range; one without width is widened to 1 so that training can move it."""
        width = upper - lower if upper > lower else 1.0
        self.lower.fill_(lower)
        self.upper.fill_(lower + width)
        self.least.fill_(self.FLOOR * width)
        if self.starts_at_zero is not None:
            self.starts_at_zero.fill_(lower == 0)

    @torch.no_grad()
    def settle(self) -> None:
        """Hold upper - lower at or above its floor, and a lower bound at 0 that is to stay there."""
        if self.starts_at_zero is not None:
            self.lower.masked_fill_(self.starts_at_zero, 0)
        self.upper.clamp_(min=self.lower + self.least)

    def at_floor(self) -> bool:
        return bool(self.upper - self.lower <= self.least * 1.001)

    @property
    def scale(self) -> Tensor:
        """Distance of two levels."""
        return (self.upper - self.lower) / (2**self.bits - 1)

    @property
    def zero_point(self) -> Tensor:
        """-l / s: the (not always whole) level index at which zero lies; an integer export needs it."""
        return -self.lower / self.scale

    def forward(self, x: Tensor) -> Tensor:
        return quantize(x, self.lower, self.upper, self.bits, self.residual)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, range=[{self.lower.item():.4g}, {self.upper.item():.4g}]"


class WeightQuantizer(Part):
    """Eq. 1 with a symmetric range [-f(W), f(W)] taken from the weights at each step, one a layer or output channel.

    The levels are odd multiples of s / 2: none of them is zero. At 2 bits they are -u, -u/3, u/3 and u.
    """

    def __init__(
        self,
        bits: int,
        rule: str = "max",
        percentile: float = 99.0,
        range_gradient: bool = False,
        granularity: str = "layer",
    ) -> None:
        super().__init__()
        self.bits = bits
        self.rule = rule
        self.percentile = percentile
        self.range_gradient = range_gradient
        self.granularity = granularity
        # Channels of the last weights, where each has a range to be stored.
        self.channels = 0

    def bound(self, weight: Tensor) -> Tensor:
        """f(W), in the units of the weights, shape (), or (O, 1, ...) by output channel; without gradient unless it
        was asked for."""
        if not self.range_gradient:
            weight = weight.detach()
        by_channel = self.granularity == "channel"
        flat = weight.flatten(1 if by_channel else 0)
        if self.rule == "mse":
            bound = _least_error_bound(flat, self.bits)
        elif self.rule == "max":
            bound = flat.abs().amax(-1)
        else:
            seen = flat if self.rule == "signed_percentile" else flat.abs()
            bound = percentile_of(seen, self.percentile).abs()  # where all weights are negative its size counts
        bound = bound.clamp(min=torch.finfo(weight.dtype).tiny)
        if not by_channel:
            return bound
        self.channels = len(bound)
        return bound.view(-1, *[1] * (weight.ndim - 1))

    def forward(self, weight: Tensor) -> Tensor:
        bound = self.bound(weight)
        return quantize(weight, -bound, bound, self.bits)

    def storage(self) -> float:
        """Numbers of 32 bits that inference must keep beside the weights: that of a layer is one of them already; by
        channel one each, known once weights were quantized."""
        return float(self.channels)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, rule={self.rule}" + (", by channel" if self.granularity == "channel" else "")


@torch.no_grad()
def _least_error_bound(weight: Tensor, bits: int) -> Tensor:
    """The u for which quantizing weights to [-u, u] makes the least squared error, to 1%; along the last axis.

    Searched over multiples of the largest |W|, down to 1/45, in three grids, each finer around the last one's best.
    """
    size = weight.abs()
    most = 2 ** (bits - 1) - 1  # levels are +-(k + 1/2) steps with k up to this
    bound = size.amax(-1).clamp(min=1e-30)
    whole = torch.arange(-3, 4, dtype=size.dtype, device=size.device)
    for octaves in (torch.arange(0, -6, -0.5, dtype=size.dtype, device=size.device), whole / 8, whole / 32):
        bounds = bound[..., None] * 2**octaves
        steps, each = bounds[..., None] / (most + 0.5), size[..., None, :]
        errors = (each / steps).floor_().clamp_(max=most).add_(0.5).mul_(steps).sub_(each).square_().sum(-1)
        bound = bounds.gather(-1, errors.argmin(-1, keepdim=True))[..., 0]
    return bound

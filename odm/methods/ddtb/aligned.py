"""DDTB's grid between two bounds, which has zero among its levels; its weights are quantized on it."""

from typing import Any

import torch
from torch import Tensor, nn

from odm.quantization.statistics import ranges_of

# Least width of a range: constant weights have none.
TINY = 1e-8


class _Aligned(torch.autograd.Function):
    """Value and gradients in one pass, as of the formula with a straight-through round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, lower: Tensor, upper: Tensor, bits: int) -> Tensor:
        width = (upper - lower).clamp(min=TINY)
        levels = 2**bits - 1
        zero_point = (lower * levels / width + 0.5).floor()
        quantized = (torch.clamp(x, lower, upper) * (levels / width)).add_(0.5).floor_()
        # A half at both bounds must not make one level more.
        quantized = quantized.clamp_(zero_point, zero_point + levels).mul_(width / levels)
        ctx.save_for_backward(x, lower, upper, quantized)
        return quantized

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, lower, upper, quantized = ctx.saved_tensors
        below, above = x < lower, x > upper
        to_x = gradient.masked_fill(below | above, 0)
        if not (ctx.needs_input_grad[1] or ctx.needs_input_grad[2]):
            return to_x, None, None, None
        # A bound is what the clipped value is beyond it, and everywhere sets the distance of levels.
        width = (upper - lower).clamp(min=TINY)
        stretched = (quantized - torch.clamp(x, lower, upper)).div_(width).mul_(gradient)
        to_upper = (gradient * above + stretched).sum_to_size(upper.shape)
        to_lower = (gradient * below - stretched).sum_to_size(lower.shape)
        return to_x, to_lower, to_upper, None


def aligned(x: Tensor, lower: Tensor, upper: Tensor, bits: int) -> Tensor:
    """DDTB: round(f c) / f with c = clip(x, l, u), f = n / (u - l), n = 2^b - 1: whole multiples of 1 / f.

    Halves are rounded up, and levels counted from the one that l is rounded to, so that there are 2^b of them.
    Gradients, with r = (q - c) / (u - l): for x 1 within the range and at its ends, else 0; for u r, and 1 more above
    the range; for l -r, and 1 more below it.

    Example: at 2 bits over [-1, 5] the levels are 0, 2, 4, 6 (l is rounded to 0); x = 2.6 gives 2, dq/du = -0.1.

    Args:
        x: any shape.
        lower, upper: of a shape that extends to that of x, lower < upper, in the units of x.
        bits: 1 to 8.
    """
    return _Aligned.apply(x, lower, upper, bits)


class AlignedWeights(nn.Module):
    """Weights clipped to a percentile and its mirror, taken anew at each step without gradient.

    The 100th percentile makes that the smallest and the largest weight.
    """

    def __init__(self, bits: int, percentile: float) -> None:
        super().__init__()
        self.bits = bits
        self.percentile = percentile

    def forward(self, weight: Tensor) -> Tensor:
        lower, upper = ranges_of(weight.detach().flatten()[None, None], self.percentile)[:, 0]
        return aligned(weight, lower, upper, self.bits)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, percentile={self.percentile:g}"

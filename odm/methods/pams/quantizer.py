"""PAMS: a grid symmetric about a zero level, clipped at a learned alpha."""

from typing import Any

import torch
from torch import Tensor, nn

from odm.quantization.part import ActivationQuantizer
from odm.quantization.straight import straight_through

# Least alpha, and what is added to the largest weight: neither may be a divisor of zero.
TINY = 1e-8


class _Symmetric(torch.autograd.Function):
    """Value and gradients of the clipped grid in one pass, as of the formula with a straight-through round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, bits: int) -> Tensor:
        quantized = rounded(x.clamp(-alpha, alpha), alpha, bits)
        ctx.save_for_backward(x, alpha, quantized)
        return quantized

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, alpha, quantized = ctx.saved_tensors
        inside = gradient * (x.abs() <= alpha)
        # dq/dalpha is q / alpha beyond the clip, which is a sign, and (q - x) / alpha within.
        return inside, ((gradient * quantized).sum() - (inside * x).sum()) / alpha, None


def rounded(x: Tensor, bound: Tensor, bits: int) -> Tensor:
    """round(x n / bound) bound / n with n = 2^(b-1) - 1: no clipping, no gradient of its own. Bits from 2 on."""
    n = 2 ** (bits - 1) - 1
    return (x * (n / bound)).round_().mul_(bound / n)


def symmetric(x: Tensor, alpha: Tensor, bits: int) -> Tensor:
    """PAMS: round(c n / alpha) alpha / n, c = max(min(x, alpha), -alpha), n = 2^(b-1) - 1: 2^b - 1 levels.

    Gradients: for x 1 for |x| <= alpha, else 0; for alpha sign(x) for |x| > alpha, else (round(v) - v) / n with
    v = x n / alpha.

    Example: at 2 bits with alpha 3 the levels are -3, 0 and 3; x = 2 gives 3, dq/dx = 1, dq/dalpha = 1 / 3.

    Args:
        x: any shape.
        alpha: above 0, shape (), in the units of x.
        bits: from 2 on; at 1 there is no level beside zero.
    """
    return _Symmetric.apply(x, alpha, bits)


def peak(x: Tensor) -> Tensor:
    """Mean over images of the largest |x|, of shape (N, C, H, W)."""
    return x.abs().amax(dim=(1, 2, 3)).mean()


class SymmetricRange(ActivationQuantizer):
    """One learned alpha a layer, the same for every image.

    While `calibrating` in training, alpha is the peak of the batch, and values are rounded but not clipped.
    """

    # Least alpha, relative to the calibrated one.
    FLOOR = 0.001

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.calibrating = False
        self.alpha = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("least", torch.tensor(self.FLOOR))
        self.least: Tensor

    def observe(self, x: Tensor) -> Tensor:
        return peak(x)

    def start(self, seen: Tensor) -> None:
        """The mean peak over batches."""
        self.set_alpha(seen.mean())

    @torch.no_grad()
    def set_alpha(self, alpha: Tensor) -> None:
        self.alpha.copy_(alpha.clamp(min=TINY))
        self.least.copy_(self.FLOOR * self.alpha)

    @torch.no_grad()
    def settle(self) -> None:
        """Hold alpha at or above its floor."""
        self.alpha.clamp_(min=self.least)

    def at_floor(self) -> bool:
        return bool(self.alpha <= self.least * 1.001)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.calibrating:
            self.set_alpha(peak(x.detach()))
            return straight_through(x, rounded(x.detach(), self.alpha.detach(), self.bits))
        return symmetric(x, self.alpha, self.bits)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, alpha={self.alpha.item():.4g}"


class SymmetricWeights(nn.Module):
    """PAMS: round(W n / m) m / n with m = max|W| + 1e-8, taken anew at each step: 2^b - 1 levels, identity gradient."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, weight: Tensor) -> Tensor:
        fixed = weight.detach()
        return straight_through(weight, rounded(fixed, fixed.abs().amax() + TINY, self.bits))

    def extra_repr(self) -> str:
        return f"bits={self.bits}"

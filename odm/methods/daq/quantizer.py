"""DAQ: steps taken from the standard deviation, of weights by layer, of activations by image and channel at test time.

Deviations are those of a whole population (no correction by one).
"""

import torch
from torch import Tensor, nn

from odm.quantization.part import ActivationQuantizer
from odm.quantization.straight import straight_through

# Step that quantizes a unit Gaussian with the least squared error, by the binary logarithm of the number of levels of
# a mid-rise grid (Max 1960); a test derives them.
OPTIMAL_STEPS = {1: 1.596, 2: 0.996, 3: 0.586, 4: 0.335, 5: 0.188, 6: 0.104, 7: 0.057, 8: 0.031}
# Least step: what does not vary needs no grid, but no division by zero either.
TINY = 1e-8


def gaussian_step(bits: int, rule: str) -> float:
    """k(b), the step over the deviation.

    `published`: DAQ's table, which has the optimum of half as many levels as the grid has: 1.596 at 2 bits, whose
    four levels would want 0.996. `optimal`: the optimum of 2^b levels.
    """
    return OPTIMAL_STEPS[bits - 1 if rule == "published" else bits]


def mid_rise(x: Tensor, step: Tensor, bits: int) -> Tensor:
    """clip((round(x / s + 1/2) - 1/2) s, +-(2^(b-1) - 1/2) s): 2^b levels, none of them zero."""
    most = 2 ** (bits - 1) - 0.5
    return (x / step).add_(0.5).round_().sub_(0.5).clamp_(-most, most).mul_(step)


class DistributionRange(ActivationQuantizer):
    """Nothing is learned: mean and deviation of each channel of each image set its grid.

    A tensor whose least value is exactly 0 is taken as the output of a ReLU: its deviations are those of positive
    values, and its levels are whole multiples of the step, the 2^b lowest from zero on or, if not `bounded`, all.
    The deviations of an image's channels are themselves quantized, to `deviation_bits`. Gradients are the identity.
    """

    def __init__(self, bits: int, deviation_bits: int, rule: str, bounded: bool) -> None:
        super().__init__(bits)
        self.bounded = bounded
        self.deviation_bits = deviation_bits
        self.k = gaussian_step(bits, rule)
        self.deviation_k = gaussian_step(deviation_bits, rule)

    def operations(self) -> int:
        """Beside what any quantizer does: the mean, the squared distance from it, its mean, the scaling."""
        return 4

    def forward(self, x: Tensor) -> Tensor:
        return straight_through(x, self.quantized(x.detach()))

    @torch.no_grad()
    def quantized(self, x: Tensor) -> Tensor:
        """Of x, shape (N, C, H, W)."""
        if x.amin() == 0:
            step = self.step(_positive_deviation(x))
            levels = (x / step).round_()
            return (levels.clamp_(0, 2**self.bits - 1) if self.bounded else levels).mul_(step)
        deviation, mean = torch.std_mean(x, dim=(2, 3), correction=0, keepdim=True)
        return mid_rise(x - mean, self.step(deviation), self.bits).add_(mean)

    def step(self, deviation: Tensor) -> Tensor:
        """k times the deviations, shape (N, C, 1, 1), after their own quantization across channels.

        The grid about their mean may reach below zero, where only the size of a step counts.
        """
        spread, centre = torch.std_mean(deviation, dim=1, correction=0, keepdim=True)
        coarse = mid_rise(deviation - centre, (self.deviation_k * spread).clamp(min=TINY), self.deviation_bits)
        return (self.k * (centre + coarse).abs()).clamp(min=TINY)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, deviation_bits={self.deviation_bits}{'' if self.bounded else ', unbounded'}"


def _positive_deviation(x: Tensor) -> Tensor:
    """Of each channel's positive values, shape (N, C, 1, 1); 0 where there is none. No value of x is negative."""
    positive = x > 0
    count = positive.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    mean = x.sum(dim=(2, 3), keepdim=True) / count
    return ((x - mean).square().mul_(positive).sum(dim=(2, 3), keepdim=True) / count).sqrt()


class DistributionWeights(nn.Module):
    """A mid-rise grid about zero with step k(b) times the deviation of a layer's weights; identity gradient."""

    def __init__(self, bits: int, rule: str) -> None:
        super().__init__()
        self.bits = bits
        self.k = gaussian_step(bits, rule)

    def forward(self, weight: Tensor) -> Tensor:
        fixed = weight.detach()
        return straight_through(weight, mid_rise(fixed, (self.k * fixed.std(correction=0)).clamp(min=TINY), self.bits))

    def extra_repr(self) -> str:
        return f"bits={self.bits}"

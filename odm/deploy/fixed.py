"""Float layers in fixed point: every sum is exact in float32, in whatever order a runtime adds.

Products of values with a few bits by weights with a few bits are multiples of one power of two, and as long as a sum
stays below 2^24 of it no addition rounds. Values have too many bits for that, so that they come in two digits, a
convolution each.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

SUM_BITS = 24
"""Whole numbers up to 2^24 are exact in float32, in any order of adding them up."""
HEADROOM = 1
"""Bits by which an image may pass what was measured."""
INPUT_BITS = 13
"""Of what a float layer reads, without its sign."""
WEIGHT_BITS = 15
FINEST = -24
"""The least exponent of a grid."""
DIGIT = 128.0
"""What the higher digit counts; both lie within half of it in size."""


def exponent_above(value: float) -> int:
    """Least n with value < 2^n."""
    return math.frexp(value)[1] if value else 0


def snapped(x: Tensor, grid: float) -> Tensor:
    """x rounded to multiples of a power of two, halves to even ones: the same in every runtime for the same x."""
    return torch.round(x * (1 / grid)) * grid


class FixedLayer(nn.Module):
    """A float convolution or linear layer in fixed point.

    Inputs are rounded to multiples of `input_grid`, weights are multiples of `weight_grid` and outputs of `grid`; all
    three are powers of two. `weight` is for inputs in units of their grid.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        """Shapes and geometry of a float layer, without its values."""
        super().__init__()
        self.is_linear = isinstance(layer, nn.Linear)
        self.stride, self.padding, self.dilation, self.groups = [1, 1], [0, 0], [1, 1], 1
        if isinstance(layer, nn.Conv2d):
            assert not isinstance(layer.padding, str)
            self.stride, self.padding, self.dilation = list(layer.stride), list(layer.padding), list(layer.dilation)
            self.groups = layer.groups
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", torch.zeros(layer.weight.shape))
        self.register_buffer("bias", torch.zeros(len(layer.weight)))
        self.input_grid = self.weight_grid = self.grid = 1.0

    @property
    def low_grid(self) -> float:
        """What sums of the lower digit are multiples of."""
        return self.input_grid * self.weight_grid

    @property
    def high_grid(self) -> float:
        """What sums of the higher digit are multiples of."""
        return self.low_grid * DIGIT

    def forward(self, x: Tensor) -> Tensor:
        whole = torch.round(x * (1 / self.input_grid))
        high = torch.round(whole * (1 / DIGIT)) * DIGIT
        low = whole - high
        high_grid = self.high_grid
        y = self._weighted(high, self.bias) + snapped(self._weighted(low, None), high_grid)
        return y if self.grid <= high_grid else snapped(y, self.grid)

    def _weighted(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if self.is_linear:
            return functional.linear(x, self.weight, bias)
        return functional.conv2d(x, self.weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        return f"input {self.input_grid}, weights {self.weight_grid}, output {self.grid}"


class Snapped(nn.Module):
    """An elementwise module whose values are rounded to a grid."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.grid = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return snapped(self.module(x), self.grid)


def fixed(layer: nn.Conv2d | nn.Linear, largest: float, total: float) -> FixedLayer:
    """A float layer on grids as fine as exact sums allow.

    Args:
        largest, total: as they were measured, its largest |input| and sum of |input| |weight| and |bias|.
    """
    made = FixedLayer(layer)
    made.input_grid = 2.0 ** (exponent_above(largest) + HEADROOM - INPUT_BITS)
    weight = layer.weight.double()
    needs = (
        # Sums of the higher digit, of the lower one, and the size of a weight.
        exponent_above(total) + HEADROOM + 1 - SUM_BITS - exponent_above(made.input_grid * DIGIT / 2) + 1,
        exponent_above(weight.abs().flatten(1).sum(1).amax().item() * DIGIT / 2) - SUM_BITS,
        exponent_above(weight.abs().amax().item()) - WEIGHT_BITS,
    )
    made.weight_grid = 2.0 ** max(*needs, FINEST)
    made.weight.copy_((weight / made.weight_grid).round() * made.low_grid)
    if layer.bias is not None:
        made.bias.copy_((layer.bias.double() / made.high_grid).round() * made.high_grid)
    made.grid = made.high_grid
    return made

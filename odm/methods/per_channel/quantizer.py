"""Eq. 1 with a range for each channel."""

import torch
from torch import Tensor, nn

from odm.quantization.quantizer import LearnedRange, quantize
from odm.quantization.statistics import ranges_of


class ChannelRange(LearnedRange):
    """Eq. 1 with a learned range for each channel of (N, C, H, W); the same for every image.

    The number of channels is that of what calibration saw, or of the state that is loaded.
    """

    def __init__(self, bits: int, residual: bool = True, percentile: float = 99.0) -> None:
        super().__init__(bits, residual, percentile)
        self.resize(1)

    def resize(self, channels: int) -> None:
        """Ranges [0, 1] for a number of channels."""
        self.lower = nn.Parameter(self.lower.new_zeros(channels))
        self.upper = nn.Parameter(self.upper.new_ones(channels))
        self.least = self.least.new_full((channels,), self.FLOOR)

    def observe(self, x: Tensor) -> Tensor:
        """The percentile's mirror and the percentile of each channel, shape (2, C)."""
        return ranges_of(x, self.percentile)

    @torch.no_grad()
    def start(self, seen: Tensor) -> None:
        lower, upper = seen.mean(0)
        width = torch.where(upper > lower, upper - lower, 1.0)
        self.resize(len(lower))
        self.lower.copy_(lower)
        self.upper.copy_(lower + width)
        self.least.copy_(self.FLOOR * width)

    def at_floor(self) -> bool:
        return bool((self.upper - self.lower <= self.least * 1.001).any())

    def forward(self, x: Tensor) -> Tensor:
        lower, upper = self.lower.view(-1, 1, 1), self.upper.view(-1, 1, 1)
        return quantize(x, lower, upper, self.bits, self.residual)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, {self.lower.numel()} ranges"

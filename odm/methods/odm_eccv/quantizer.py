"""Weight clipping correction: the range of the weights has a factor that is learned."""

from typing import Any

import torch
from torch import Tensor, nn

from odm.quantization.quantizer import WeightQuantizer, quantize


class CorrectedWeightQuantizer(WeightQuantizer):
    """Weight clipping correction: the range is [-f(W) gamma, f(W) gamma], gamma learned, one a layer, also where f
    has a value for each channel."""

    # A gamma at or below 0 would leave no range.
    FLOOR = 0.01

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gamma = nn.Parameter(torch.tensor(1.0))

    def forward(self, weight: Tensor) -> Tensor:
        bound = self.bound(weight) * self.gamma
        return quantize(weight, -bound, bound, self.bits)

    @torch.no_grad()
    def settle(self) -> None:
        """Hold gamma at or above its floor after an optimizer step."""
        self.gamma.clamp_(min=self.FLOOR)

    def at_floor(self) -> bool:
        return bool(self.gamma <= self.FLOOR * 1.001)

    def storage(self) -> float:
        """gamma f(W), in place of a range that the weights would give; gamma is no number of its own."""
        return max(1.0, super().storage())

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, gamma={self.gamma.item():.4g}"

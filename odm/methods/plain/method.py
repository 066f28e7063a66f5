"""`plain`: learned ranges and the reconstruction loss alone, the baseline; the two versions of ODM extend it."""

from __future__ import annotations  # what is imported for types alone is no part of a job's code

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import nn

from odm.methods.method import Method
from odm.methods.settings import Quantization
from odm.networks.backbone import Backbone
from odm.quantization.part import ActivationQuantizer
from odm.quantization.quantizer import LearnedRange, WeightQuantizer
from odm.settings.training import Run

if TYPE_CHECKING:
    from odm.quantization.offsets import Offset


class Plain(Method):
    """Eq. 1 with a learned range for each activation and a range taken from the weights for each weight."""

    def __init__(self, network: Backbone, settings: Quantization, run: Run) -> None:
        super().__init__(network, settings, run)
        self.plain = settings

    def activation(self, name: str) -> ActivationQuantizer:
        settings = self.plain
        holds = settings.rectified_lower == "zero"
        return LearnedRange(self.run.activation_bits, settings.residual_gradient, settings.percentile, holds)

    def _convert(self, activations: Mapping[str, ActivationQuantizer | None], offsets: Mapping[str, Offset]) -> None:
        super()._convert(activations, offsets)
        for layer in self.layers.values():
            layer.pads_quantized = self.plain.pads == "quantized_zero"

    def weight(self) -> nn.Module:
        return self.weight_quantizer(WeightQuantizer)

    def weight_quantizer(self, kind: type[WeightQuantizer]) -> WeightQuantizer:
        settings = self.plain
        return kind(
            self.run.weight_bits,
            settings.weight_range,
            settings.weight_percentile,
            settings.weight_range_gradient,
            settings.weight_granularity,
        )

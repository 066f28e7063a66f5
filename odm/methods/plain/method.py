"""`plain`: learned ranges and the reconstruction loss alone, the baseline; the two versions of ODM extend it."""

from torch import nn

from odm.methods.method import Method
from odm.methods.settings import Quantization
from odm.networks.backbone import Backbone
from odm.quantization.part import ActivationQuantizer
from odm.quantization.quantizer import LearnedRange, WeightQuantizer
from odm.settings.training import Run


class Plain(Method):
    """Eq. 1 with a learned range for each activation and a range taken from the weights for each weight."""

    def __init__(self, network: Backbone, settings: Quantization, run: Run) -> None:
        super().__init__(network, settings, run)
        self.plain = settings

    def activation(self, name: str) -> ActivationQuantizer:
        return LearnedRange(self.run.activation_bits, self.plain.residual_gradient, self.plain.percentile)

    def weight(self) -> nn.Module:
        settings = self.plain
        return WeightQuantizer(
            self.run.weight_bits, settings.weight_range, settings.weight_percentile, settings.weight_range_gradient
        )

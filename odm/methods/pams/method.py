"""`pams`: a symmetric learned clip and structured knowledge transfer (Li et al. 2020)."""

from torch import nn

from odm.methods.distilled import Distilled
from odm.methods.pams.quantizer import SymmetricRange, SymmetricWeights
from odm.methods.pams.settings import Pams as Settings
from odm.networks.backbone import Backbone
from odm.quantization.part import ActivationQuantizer
from odm.settings.training import Run


class Pams(Distilled):
    """Alpha follows the batches for the first steps and then learns."""

    def __init__(self, network: Backbone, settings: Settings, run: Run) -> None:
        super().__init__(network, settings, run)
        self.pams = settings

    def activation(self, name: str) -> ActivationQuantizer:
        return SymmetricRange(self.run.activation_bits)

    def weight(self) -> nn.Module:
        return SymmetricWeights(self.run.weight_bits)

    def begin(self, step: int, fresh: bool = False) -> None:
        super().begin(step, fresh)
        for quantizer in self.quantizers:
            assert isinstance(quantizer, SymmetricRange)
            quantizer.calibrating = step < self.pams.calibration_steps

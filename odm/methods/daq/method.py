"""`daq`: grids from each image's and channel's distribution at test time (Hong et al. 2022)."""

from torch import nn

from odm.methods.daq.quantizer import DistributionRange, DistributionWeights
from odm.methods.daq.settings import Daq as Settings
from odm.methods.method import Method
from odm.networks.backbone import Backbone
from odm.quantization.part import ActivationQuantizer
from odm.settings.training import Run


class Daq(Method):
    """Nothing but the network's own weights is learned, from the reconstruction loss alone."""

    def __init__(self, network: Backbone, settings: Settings, run: Run) -> None:
        super().__init__(network, settings, run)
        self.daq = settings

    def activation(self, name: str) -> ActivationQuantizer:
        settings = self.daq
        bounded = settings.positive_levels == "bounded"
        return DistributionRange(self.run.activation_bits, settings.deviation_bits, settings.steps, bounded)

    def weight(self) -> nn.Module:
        return DistributionWeights(self.run.weight_bits, self.daq.steps)

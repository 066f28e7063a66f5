"""`per_channel`, a control: a learned range for each channel, beside which all that removes channel mismatch stands."""

from collections.abc import Mapping

from torch import Tensor

from odm.methods.per_channel.quantizer import ChannelRange
from odm.methods.per_channel.settings import PerChannel as Settings
from odm.methods.plain.method import Plain
from odm.networks.backbone import Backbone
from odm.quantization.part import ActivationQuantizer
from odm.settings.training import Run


class PerChannel(Plain):
    """`plain` with a range for each channel of each activation."""

    def __init__(self, network: Backbone, settings: Settings, run: Run) -> None:
        super().__init__(network, settings, run)
        # By layer or site, where a stored state says how many there are; else calibration will.
        self.channels: dict[str, int] = {}

    def activation(self, name: str) -> ActivationQuantizer:
        made = ChannelRange(self.run.activation_bits, self.plain.residual_gradient, self.plain.percentile)
        made.resize(self.channels.get(name, 1))
        return made

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.channels = {
            key.removesuffix(".lower").removesuffix(".activation"): len(bounds)
            for key, bounds in state.items()
            if key.endswith(".lower")
        }
        super().restore(state)

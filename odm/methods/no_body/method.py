"""`no_body`, a control: the network without its quantized body, which a quantized body has to beat."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from odm.methods.method import Method
from odm.methods.no_body.settings import NoBody as Settings
from odm.networks.backbone import Backbone, Placement
from odm.settings.training import Run


class NoBody(Method):
    """Blocks left out, all else in float and trained on as it is."""

    def __init__(self, network: Backbone, settings: Settings, run: Run) -> None:
        super().__init__(network, settings, run)
        self.placement = Placement([])
        self.names = self.placement.layers

    def prepare(self, layers: Mapping[str, Mapping[str, Any]], batches: Iterable[Tensor]) -> None:
        self.network.without_body()
        super().prepare(layers, ())

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.network.without_body()
        super().restore(state)

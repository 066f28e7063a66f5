"""What PAMS and DDTB share: a float teacher beside the student."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from odm import seeds
from odm.methods.method import Method
from odm.methods.settings import Distilled as Settings
from odm.networks.backbone import Backbone
from odm.settings.training import Run
from odm.training.distillation import Distillation


class Distilled(Method):
    """L1 and a weighted distance of attention maps."""

    def __init__(self, network: Backbone, settings: Settings, run: Run) -> None:
        super().__init__(network, settings, run)
        self.distilled = settings
        self.distillation: Distillation | None = None

    def prepare(self, layers: Mapping[str, Mapping[str, Any]], batches: Iterable[Tensor]) -> None:
        teacher = copy.deepcopy(self.network)
        if self.distilled.student == "random":
            _forget(self.network, seeds.named(self.run.seed, "student"))
        super().prepare(layers, batches)
        if self.distilled.distillation:
            self.distillation = Distillation(self.network, teacher)

    def penalty(self) -> Tensor | float:
        """What joins the reconstruction loss."""
        return 0.0 if self.distillation is None else self.distilled.distillation * self.distillation.loss()

    def backward(self, loss: Tensor) -> None:
        (loss + self.penalty()).backward()

    def strengths(self) -> dict[str, float]:
        return {"distillation": self.distilled.distillation}

    def measure(self) -> dict[str, float]:
        """Looks at the quantizers as evaluation has them: in training they would learn from being looked at."""
        for quantizer in self.quantizers:
            quantizer.eval()
        row = super().measure()
        for quantizer in self.quantizers:
            quantizer.train(self.network.training)
        return row


def _forget(network: nn.Module, seed: int) -> None:
    """Draw the weights anew, but for layers that are frozen: what those hold is no guess to start from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.modules():
            learns = all(each.requires_grad for each in module.parameters(recurse=False))
            if learns and callable(reset := getattr(module, "reset_parameters", None)):
                reset()

"""`odm_eccv`: ODM, v2 (ECCV 2024)."""

from typing import Any

import torch
from torch import Tensor, nn

from odm.methods.cooperative import Cooperative
from odm.methods.odm_eccv.quantizer import CorrectedWeightQuantizer
from odm.methods.odm_eccv.settings import OdmEccv as Settings
from odm.networks.backbone import Backbone
from odm.quantization.layer import QuantizedLayer
from odm.quantization.quantizer import LearnedRange, WeightQuantizer, quantize
from odm.settings.training import Qat, Run


class OdmEccv(Cooperative):
    """Cooperative mismatch regularization and weight clipping correction."""

    def __init__(self, network: Backbone, settings: Settings, run: Run) -> None:
        super().__init__(network, settings, run)
        self.eccv = settings

    def weight(self) -> nn.Module:
        return self.weight_quantizer(CorrectedWeightQuantizer if self.eccv.correction else WeightQuantizer)

    def gammas(self) -> dict[str, nn.Parameter]:
        """The corrections of the weight ranges, by layer."""
        weights = {name: layer.weight for name, layer in self.layers.items()}
        return {name: each.gamma for name, each in weights.items() if isinstance(each, CorrectedWeightQuantizer)}

    def ranges(self) -> dict[str, list[nn.Parameter]]:
        """The bounds of the activations, by layer or site."""
        named = self.network.named_modules()
        return {
            name.removesuffix(".activation"): [module.lower, module.upper]
            for name, module in named
            if isinstance(module, LearnedRange)
        }

    def parameter_groups(self, qat: Qat) -> list[dict[str, Any]]:
        weights, corrections = super().parameter_groups(qat)
        if self.eccv.gamma_rate == "weights":
            gammas = set(self.gammas().values())
            weights["params"] += [each for each in corrections["params"] if each in gammas]
            corrections["params"] = [each for each in corrections["params"] if each not in gammas]
        return [weights, corrections]

    def regularizer(self) -> Tensor | None:
        settings = self.eccv
        seen = [layer for layer in self.layers.values() if layer.activation is not None and layer.input is not None]
        if settings.regularizer == "none" or not seen:
            return None
        return settings.strength * torch.stack([self.mismatch(layer) for layer in seen]).sum()

    def mismatch(self, layer: QuantizedLayer) -> Tensor:
        """M(x) = || x - q(x) || of a layer's input x (paper, section 3)."""
        settings, activation = self.eccv, layer.activation
        assert isinstance(activation, LearnedRange) and layer.input is not None
        x = layer.input
        source = x.detach() if settings.mismatch_gradient == "detached" else x
        lower: Tensor = activation.lower
        upper: Tensor = activation.upper
        if settings.regularized_ranges != "direct":
            lower, upper = lower.detach(), upper.detach()
        error = x - quantize(source, lower, upper, activation.bits, activation.residual)
        if settings.norm == "l2":
            return torch.linalg.vector_norm(error)
        if settings.norm == "rms":
            return torch.linalg.vector_norm(error) / error.numel() ** 0.5
        return error.square().mean() if settings.norm == "mean_square" else error.square().sum()

    def theta(self) -> dict[str, list[nn.Parameter]]:
        """The network's own parameters; as asked for the ranges too, and the gammas."""
        theta = super().theta()
        if self.eccv.theta != "weights":
            for name, bounds in self.ranges().items():
                theta[name] = [*theta.get(name, []), *bounds]
        if self.eccv.theta == "gammas":
            for name, gamma in self.gammas().items():
                theta[name] = [*theta.get(name, []), gamma]
        return theta

    def followers(self) -> dict[str, list[nn.Parameter]]:
        follow = self.eccv.theta == "weights" and self.eccv.regularized_ranges != "no"
        return self.ranges() if follow else {}

    def through_ranges(self) -> bool:
        return super().through_ranges() or self.eccv.regularized_ranges != "no"

    def settle(self) -> None:
        super().settle()
        for layer in self.layers.values():
            if isinstance(layer.weight, CorrectedWeightQuantizer):
                layer.weight.settle()

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Also `gamma`, the mean over layers; one at its floor counts among the `narrow`."""
        row = super().measure()
        corrected = [
            layer.weight for layer in self.layers.values() if isinstance(layer.weight, CorrectedWeightQuantizer)
        ]
        if corrected:
            row["narrow"] += sum(each.at_floor() for each in corrected)
            row["gamma"] = torch.stack([each.gamma for each in corrected]).mean().item()
        return row

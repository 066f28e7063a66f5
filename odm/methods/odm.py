"""`odm`: the paper's method, v1 (arXiv 2307.13337, July 2023)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from odm.methods.plain import Plain
from odm.networks.backbone import Backbone
from odm.quantization.offsets import Offset, choose, measured_scale, measured_shift
from odm.settings import Odm as Settings
from odm.settings import Run
from odm.training import cooperation


class Odm(Plain):
    """Cooperative variance regularization and selective distribution offsets."""

    STEP_COST = 1.75

    def __init__(self, network: Backbone, settings: Settings, run: Run) -> None:
        super().__init__(network, settings, run)
        self.odm = settings
        self.gradients: dict[str, tuple[Tensor, Tensor]] = {}

    def offsets(self, layers: Mapping[str, Mapping[str, Any]]) -> dict[str, Offset]:
        """Offsets for the layers whose measured mismatch is largest."""
        settings = self.odm.offsets
        if settings.kind == "none":
            return {}
        chosen = choose(layers, settings.share)
        made = {}
        for name, layer in layers.items():
            means = torch.tensor(layer["channel_means"])
            deviations = torch.tensor(layer["channel_deviations"])
            shift = scale = None
            if settings.kind != "shift" and name in chosen["scale"]:
                scale = measured_scale(deviations, layer["deviation"])
            if settings.kind != "scale" and name in chosen["shift"]:
                shift = measured_shift(means, layer["mean"], scale)
            if settings.initial == "neutral":
                shift = None if shift is None else torch.zeros_like(shift)
                scale = None if scale is None else torch.ones_like(scale)
            made[name] = Offset(shift, scale, settings.bits, settings.undone)
        return {name: offset for name, offset in made.items() if offset.parts()}

    def stored_offsets(self, state: Mapping[str, Tensor]) -> dict[str, Offset]:
        made = {}
        for name in self.names:
            shift, scale = (state.get(f"{name}.offset.{part}") for part in ("shift", "scale"))
            made[name] = Offset(shift, scale, self.odm.offsets.bits, self.odm.offsets.undone)
        return {name: offset for name, offset in made.items() if offset.parts()}

    def variance(self) -> Tensor:
        """L_V = lambda sum_i sigma(x_i), sigma over all of a layer's input before its offset and quantizer (Eq. 2)."""
        inputs = [layer.input for layer in self.layers.values() if layer.input is not None]
        return self.odm.strength * torch.stack([x.std() for x in inputs]).sum()

    def backward(self, loss: Tensor) -> None:
        """Reconstruction, joined by the variance's gradient where the two cooperate (Eq. 4)."""
        if self.odm.regularizer == "none":
            super().backward(loss)
            return
        self.gradients = cooperation.backward(loss, self.variance(), self.theta(), self.odm.cooperation)

    def theta(self) -> dict[str, list[nn.Parameter]]:
        """By layer, what the regularizer may move: weights and biases of convolutions, never ranges or offsets."""
        return {
            name.removesuffix(".layer"): list(module.parameters(recurse=False))
            for name, module in self.network.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear)
        }

    def measure(self) -> dict[str, float]:
        row = super().measure()
        if self.gradients:
            agreement = cooperation.agreement(self.gradients)
            row |= {"cosine": agreement.cosine, "agreement": agreement.share}
            row |= {f"agreement.{name}": share for name, share in agreement.by_layer.items()}
        return row

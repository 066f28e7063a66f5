"""`odm`: ODM, v1 (arXiv 2307.13337, July 2023)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from odm.methods.cooperative import Cooperative
from odm.methods.odm.settings import Odm as Settings
from odm.networks.backbone import Backbone
from odm.quantization.layer import FLOAT_BITS
from odm.quantization.offsets import OCTAVES, Offset, choose, measured_scale, measured_shift, octaves_in
from odm.settings.training import Run


class Odm(Cooperative):
    """Cooperative variance regularization and selective distribution offsets."""

    def __init__(self, network: Backbone, settings: Settings, run: Run) -> None:
        super().__init__(network, settings, run)
        self.odm = settings

    @property
    def needs_mismatch(self) -> bool:
        return self.odm.offsets.kind != "none" and self.run.activation_bits != FLOAT_BITS

    @property
    def _octaves(self) -> int | None:
        """Of an offset's scales, where they are to be powers of two."""
        settings = self.odm.offsets
        if not settings.powers_of_two:
            return None
        return octaves_in(self.run.weight_bits) if settings.undone else OCTAVES

    def offsets(self, layers: Mapping[str, Mapping[str, Any]]) -> dict[str, Offset]:
        """Offsets for the layers whose measured mismatch is largest."""
        settings = self.odm.offsets
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
            made[name] = Offset(shift, scale, settings.bits, settings.undone, self._octaves)
        return {name: offset for name, offset in made.items() if offset.parts()}

    def stored_offsets(self, state: Mapping[str, Tensor]) -> dict[str, Offset]:
        settings = self.odm.offsets
        made = {}
        for name in self.names:
            shift, scale = (state.get(f"{name}.offset.{part}") for part in ("shift", "scale"))
            made[name] = Offset(shift, scale, settings.bits, settings.undone, self._octaves)
        return {name: offset for name, offset in made.items() if offset.parts()}

    def regularizer(self) -> Tensor | None:
        return None if self.odm.regularizer == "none" else self.variance()

    def variance(self) -> Tensor:
        """L_V = lambda sum_i sigma(x_i), sigma over all of a layer's input before its offset and quantizer (Eq. 2)."""
        inputs = [layer.input for layer in self.layers.values() if layer.input is not None]
        return self.odm.strength * torch.stack([x.std(correction=0) for x in inputs]).sum()

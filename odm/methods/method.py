"""What every method does: quantize a float network, calibrate it, say what learns how fast, and measure."""

from __future__ import annotations  # what is imported for types alone is no part of a job's code

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from odm.methods.settings import MethodSettings
from odm.networks.backbone import Backbone
from odm.quantization.convert import calibrate, convert
from odm.quantization.layer import FLOAT_BITS, quantized_layers
from odm.quantization.part import ActivationQuantizer
from odm.settings.training import Qat, Run
from odm.training.objective import Objective

if TYPE_CHECKING:
    from odm.quantization.offsets import Offset


class Method(Objective):
    """How a network is quantized and which gradients it then learns from."""

    def __init__(self, network: Backbone, settings: MethodSettings, run: Run) -> None:
        self.network = network
        self.settings = settings
        self.run = run
        self.placement = network.placement(settings.coverage)
        self.names = self.placement.layers

    @property
    def needs_mismatch(self) -> bool:
        """Whether `prepare` goes by what the mismatch step measured."""
        return type(self).offsets is not Method.offsets

    def prepare(self, layers: Mapping[str, Mapping[str, Any]], batches: Iterable[Tensor]) -> None:
        """Quantize the float network and calibrate its ranges.

        Args:
            layers: what the mismatch step measured, by layer; not looked at unless `needs_mismatch`.
            batches: low-resolution batches, (N, 3, H, W) in 0-255.
        """
        activations = self._activations()
        # An offset corrects what is quantized: where nothing is there is none.
        corrected = [name for name in self.names if activations[name] is not None]
        offsets = self.offsets({name: layers[name] for name in corrected}) if self.needs_mismatch else {}
        calibrate(self.network, activations, offsets, batches)
        self._convert(activations, offsets)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Quantize the network as the one that `state` was taken from, and load it."""
        self._convert(self._activations(), self.stored_offsets(state))
        self.network.load_state_dict(state)

    def offsets(self, layers: Mapping[str, Mapping[str, Any]]) -> dict[str, Offset]:
        """Offsets by layer; none here."""
        return {}

    def stored_offsets(self, state: Mapping[str, Tensor]) -> dict[str, Offset]:
        """Offsets as a stored state has them, values aside; none here."""
        return {}

    def activation(self, name: str) -> ActivationQuantizer:
        """A new quantizer for the input of a layer, or for a site."""
        raise NotImplementedError

    def weight(self) -> nn.Module:
        """A new quantizer for the weights of a layer; it has `bits`."""
        raise NotImplementedError

    def _activations(self) -> dict[str, ActivationQuantizer | None]:
        placement = self.placement
        if self.run.activation_bits == FLOAT_BITS:
            return dict.fromkeys((*placement.layers, *placement.weights_only))
        return {name: self.activation(name) for name in (*placement.layers, *placement.sites)} | dict.fromkeys(
            placement.weights_only
        )

    def _weight(self) -> nn.Module | None:
        return None if self.run.weight_bits == FLOAT_BITS else self.weight()

    def _convert(self, activations: Mapping[str, ActivationQuantizer | None], offsets: Mapping[str, Offset]) -> None:
        convert(self.network, activations, self._weight, offsets, self.placement.carried)
        self.layers = quantized_layers(self.network)
        self.quantizers = [each for each in self.network.modules() if isinstance(each, ActivationQuantizer)]

    def parameter_groups(self, qat: Qat) -> list[dict[str, Any]]:
        """Adam's groups: the network's own parameters, less those that are frozen, and the corrections, which learn
        `range_rate` times as fast."""
        corrections = self.corrections()
        learned = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        weights = [parameter for parameter in learned if parameter not in corrections]
        ordered = [parameter for parameter in learned if parameter in corrections]
        rate = qat.rate * (self.settings.range_rate or qat.range_rate)
        return [
            {"params": weights, "lr": qat.rate},
            {"params": ordered, "lr": rate, "constant": self.settings.range_schedule == "constant"},
        ]

    def corrections(self) -> set[nn.Parameter]:
        """What quantization adds and learns: ranges and offsets, and what a weight's quantizer learns."""
        parts = [part for layer in self.layers.values() for part in (layer.weight, layer.offset) if part is not None]
        return {parameter for part in (*self.quantizers, *parts) for parameter in part.parameters()}

    def settle(self) -> None:
        for quantizer in self.quantizers:
            quantizer.settle()
        for layer in self.layers.values():
            if layer.offset is not None:
                layer.offset.settle()

    def watch(self) -> None:
        """Have the layers keep their inputs, which `measure` and regularizers look at."""
        for layer in self.layers.values():
            layer.keeps_input = True

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Means over the layers whose input is quantized, of the last batch.

        `deviation`: standard deviation of the input, in its units. `mismatch`: rms of x* - q(x*) over the deviation of
        x*. `mean_spread`, `deviation_spread`: standard deviation over channels of the channels' means (deviations) of
        x*, over its deviation. x* is what the quantizer sees: the input after its offset. `narrow` counts the layers
        whose range is held up by its floor.
        """
        rows = []
        for layer in self.layers.values():
            if layer.activation is None or layer.input is None:
                continue
            seen = layer.corrected(layer.input)
            whole = seen.std(correction=0).clamp(min=1e-12)
            deviations, means = torch.std_mean(seen, dim=(0, 2, 3), correction=0)
            error = (seen - layer.activation(seen)).square().mean().sqrt()
            rows.append(
                torch.stack(
                    [
                        layer.input.std(correction=0),
                        error / whole,
                        means.std(correction=0) / whole,
                        deviations.std(correction=0) / whole,
                    ]
                )
            )
        narrow = sum(quantizer.at_floor() for quantizer in self.quantizers)
        if not rows:
            return {"narrow": narrow}
        names = ("deviation", "mismatch", "mean_spread", "deviation_spread")
        return {"narrow": narrow} | dict(zip(names, torch.stack(rows).mean(0).tolist(), strict=True))

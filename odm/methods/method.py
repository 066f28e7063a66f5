"""What every method does: quantize a float network, calibrate it, say what learns how fast, and measure."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from odm.networks.backbone import Backbone
from odm.quantization.convert import calibrate, convert
from odm.quantization.layer import quantized_layers
from odm.quantization.offsets import Offset
from odm.quantization.quantizer import ActivationQuantizer
from odm.settings import MethodSettings, Qat, Run
from odm.training.objective import Objective


class Method(Objective):
    """How a network is quantized and which gradients it then learns from."""

    # Time of a training step over that of the float network's, for `odm check`; `benchmarks/steps.py` measures it.
    STEP_COST = 1.2

    def __init__(self, network: Backbone, settings: MethodSettings, run: Run) -> None:
        self.network = network
        self.settings = settings
        self.run = run
        self.placement = network.placement(settings.coverage)
        self.names = self.placement.layers

    def prepare(self, layers: Mapping[str, Mapping[str, Any]], batches: Iterable[Tensor]) -> None:
        """Quantize the float network and calibrate its ranges.

        Args:
            layers: what the mismatch step measured, by layer.
            batches: low-resolution batches, (N, 3, H, W) in 0-255.
        """
        offsets = self.offsets({name: layers[name] for name in self.names})
        activations = self._activations()
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
        return {name: self.activation(name) for name in (*placement.layers, *placement.sites)} | dict.fromkeys(
            placement.weights_only
        )

    def _convert(self, activations: Mapping[str, ActivationQuantizer | None], offsets: Mapping[str, Offset]) -> None:
        convert(self.network, activations, self.weight, offsets)
        self.layers = quantized_layers(self.network)
        self.quantizers = [each for each in self.network.modules() if isinstance(each, ActivationQuantizer)]

    def parameter_groups(self, qat: Qat) -> list[dict[str, Any]]:
        """Adam's groups: weights and biases, and the ranges and offsets, which learn `range_rate` times as fast."""
        offsets = [layer.offset for layer in self.layers.values() if layer.offset is not None]
        corrections = {parameter for each in (*self.quantizers, *offsets) for parameter in each.parameters()}
        weights = [parameter for parameter in self.network.parameters() if parameter not in corrections]
        ordered = [parameter for parameter in self.network.parameters() if parameter in corrections]
        return [
            {"params": weights, "lr": qat.rate},
            {"params": ordered, "lr": qat.rate * (self.settings.range_rate or qat.range_rate)},
        ]

    def settle(self) -> None:
        for quantizer in self.quantizers:
            quantizer.settle()
        for layer in self.layers.values():
            if layer.offset is not None:
                layer.offset.keep_positive()

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
        names = ("deviation", "mismatch", "mean_spread", "deviation_spread")
        narrow = sum(quantizer.at_floor() for quantizer in self.quantizers)
        return {"narrow": narrow} | dict(zip(names, torch.stack(rows).mean(0).tolist(), strict=True))

"""`plain`: learned ranges and the reconstruction loss alone. Other methods extend it."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from odm.networks.backbone import Backbone
from odm.quantization.convert import calibrate, convert
from odm.quantization.layer import QuantizedConv2d, quantized_layers
from odm.quantization.offsets import Offset
from odm.quantization.quantizer import ActivationQuantizer, WeightQuantizer
from odm.settings import Qat, Quantization, Run
from odm.training.objective import Objective


class Plain(Objective):
    """How a network is quantized and which gradients it then learns from."""

    # Time of a training step over that of the float network's, for `odm check`; `benchmarks/steps.py` measures it.
    STEP_COST = 1.2

    def __init__(self, network: Backbone, settings: Quantization, run: Run) -> None:
        self.network = network
        self.settings = settings
        self.run = run
        self.names = network.quantizable(settings.coverage)

    def prepare(self, layers: Mapping[str, Mapping[str, Any]], batches: Iterable[Tensor]) -> None:
        """Quantize the float network and calibrate its ranges.

        Args:
            layers: what the mismatch step measured, by layer.
            batches: low-resolution batches, (N, 3, H, W) in 0-255.
        """
        offsets = self.offsets({name: layers[name] for name in self.names})
        ranges = calibrate(self.network, self.names, offsets, batches, self.settings.percentile)
        self._convert(offsets)
        for name, layer in quantized_layers(self.network).items():
            layer.activation.set_range(*ranges[name])

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Quantize the network as the one that `state` was taken from, and load it."""
        self._convert(self.stored_offsets(state))
        self.network.load_state_dict(state)

    def offsets(self, layers: Mapping[str, Mapping[str, Any]]) -> dict[str, Offset]:
        """Offsets by layer; none here."""
        return {}

    def stored_offsets(self, state: Mapping[str, Tensor]) -> dict[str, Offset]:
        """Offsets as a stored state has them, values aside; none here."""
        return {}

    def _convert(self, offsets: Mapping[str, Offset]) -> None:
        settings, run = self.settings, self.run
        convert(
            self.network,
            self.names,
            lambda: ActivationQuantizer(run.activation_bits, settings.residual_gradient),
            lambda: WeightQuantizer(run.weight_bits, settings.weight_range, settings.weight_percentile),
            offsets,
        )
        self.layers: dict[str, QuantizedConv2d] = quantized_layers(self.network)

    def parameter_groups(self, qat: Qat) -> list[dict[str, Any]]:
        """Adam's groups: weights and biases, and the ranges and offsets, which learn `range_rate` times as fast."""
        corrections = {
            parameter
            for layer in self.layers.values()
            for module in (layer.activation, layer.offset)
            if module is not None
            for parameter in module.parameters()
        }
        weights = [parameter for parameter in self.network.parameters() if parameter not in corrections]
        ordered = [parameter for parameter in self.network.parameters() if parameter in corrections]
        return [{"params": weights, "lr": qat.rate}, {"params": ordered, "lr": qat.rate * qat.range_rate}]

    def settle(self) -> None:
        for layer in self.layers.values():
            layer.activation.keep_apart()
            if layer.offset is not None:
                layer.offset.keep_positive()

    def watch(self) -> None:
        """Have the layers keep their inputs, which `measure` and regularizers look at."""
        for layer in self.layers.values():
            layer.keeps_input = True

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Means over the quantized layers, of the last batch.

        `deviation`: standard deviation of the input, in its units. `mismatch`: rms of x* - q(x*) over the deviation of
        x*. `mean_spread`, `deviation_spread`: standard deviation over channels of the channels' means (deviations) of
        x*, over its deviation. x* is what the quantizer sees: the input after its offset. `narrow` counts the layers
        whose range is held up by its floor.
        """
        rows = []
        for layer in self.layers.values():
            assert layer.input is not None
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
        narrow = sum(layer.activation.at_floor() for layer in self.layers.values())
        return {"narrow": narrow} | dict(zip(names, torch.stack(rows).mean(0).tolist(), strict=True))

"""A float network becomes a quantized one: named convolutions are put behind quantizers and calibrated."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from odm.quantization.layer import QuantizedConv2d
from odm.quantization.offsets import Offset
from odm.quantization.quantizer import ActivationQuantizer, WeightQuantizer
from odm.quantization.statistics import observe, range_of


def convert(
    network: nn.Module,
    names: Iterable[str],
    activation: Callable[[], ActivationQuantizer],
    weight: Callable[[], WeightQuantizer],
    offsets: Mapping[str, Offset],
) -> None:
    """Replace the named convolutions in place; ranges are those of a new quantizer until set."""
    for name in names:
        conv = network.get_submodule(name)
        assert isinstance(conv, nn.Conv2d), f"{name} is no convolution"
        network.set_submodule(name, QuantizedConv2d(conv, activation(), weight(), offsets.get(name)))


def calibrate(
    network: nn.Module,
    names: Iterable[str],
    offsets: Mapping[str, Offset],
    batches: Iterable[Tensor],
    percentile: float,
) -> dict[str, tuple[float, float]]:
    """First activation ranges, by layer: percentiles of what each quantizer will see, averaged over batches.

    The network is still the float one; offsets are those that `convert` will put in front of the quantizers.
    """

    def seen(name: str, x: Tensor) -> tuple[float, float]:
        return range_of(offsets[name](x) if name in offsets else x, percentile)

    found = observe(network, names, batches, seen)
    return {name: tuple(torch.tensor(ranges).mean(0).tolist()) for name, ranges in found.items()}

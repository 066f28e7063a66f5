"""A float network becomes a quantized one: named layers are put behind quantizers and calibrated."""

from __future__ import annotations  # what is imported for types alone is no part of a job's code

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from odm.quantization.layer import QuantizedLayer
from odm.quantization.part import ActivationQuantizer
from odm.quantization.statistics import observe

if TYPE_CHECKING:
    from odm.quantization.offsets import Offset


def convert(
    network: nn.Module,
    activations: Mapping[str, ActivationQuantizer | None],
    weight: Callable[[], nn.Module | None],
    offsets: Mapping[str, Offset],
    carried: Collection[str] = (),
) -> None:
    """Put quantizers into the network, in place.

    Args:
        activations: by the name of a module: that of a layer gets the quantizer for its input (none: the weights
            alone are quantized), an `nn.Identity` is replaced by it.
        weight: makes a weight quantizer, one a layer; none leaves the weights in float.
        offsets: by the name of a layer.
        carried: layers whose quantized input the network takes on in place of the input.
    """
    for name, activation in activations.items():
        module = network.get_submodule(name)
        if isinstance(module, nn.Identity):
            assert activation is not None, f"{name} has nothing else to quantize"
            network.set_submodule(name, activation)
        else:
            assert isinstance(module, nn.Conv2d | nn.Linear), f"{name} is neither a convolution nor linear"
            layer = QuantizedLayer(module, activation, weight(), offsets.get(name))
            layer.carries = name in carried
            network.set_submodule(name, layer)


def calibrate(
    network: nn.Module,
    activations: Mapping[str, ActivationQuantizer | None],
    offsets: Mapping[str, Offset],
    batches: Iterable[Tensor],
) -> None:
    """Start the quantizers from what they will see, the network being still the float one without them."""
    made = {name: activation for name, activation in activations.items() if activation is not None}

    def seen(name: str, x: Tensor) -> Tensor:
        return made[name].observe(offsets[name](x) if name in offsets else x)

    for name, rows in observe(network, made, batches, seen).items():
        made[name].start(torch.stack(rows))

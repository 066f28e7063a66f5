"""The quantized layer: a convolution or linear layer, its two quantizers and, where chosen, an offset."""

from __future__ import annotations  # what is imported for types alone is no part of a job's code

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from odm.quantization.part import ActivationQuantizer, single
from odm.quantization.statistics import channels_first

if TYPE_CHECKING:
    from odm.quantization.offsets import Offset

FLOAT_BITS = 32


class QuantizedLayer(nn.Module):
    """q(W) * q(x): a float layer put behind its quantizers; its weights keep learning.

    `activation` is None where the weights alone are quantized, `weight` where the activations alone are.
    """

    def __init__(
        self,
        layer: nn.Conv2d | nn.Linear,
        activation: ActivationQuantizer | None,
        weight: nn.Module | None,
        offset: Offset | None = None,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.activation = activation
        self.weight = weight
        self.offset = offset
        # The layer's last input before offset and quantizer, channels on axis 1 in a linear layer too
        # (`channels_first`), kept for regularizers and for the history when asked.
        self.keeps_input = False
        self.input: Tensor | None = None
        # Where asked, what the activation quantizer made of that input, for all that takes it beside the layer.
        self.carries = False
        self.carried: Tensor | None = None
        # Whether a convolution's surroundings are quantized with its input instead of being zeros behind the quantizer.
        self.pads_quantized = False

    @property
    def bits(self) -> tuple[int, int]:
        """Of weights and of activations."""
        return tuple(FLOAT_BITS if each is None else each.bits for each in (self.weight, self.activation))  # type: ignore[return-value]

    def corrected(self, x: Tensor) -> Tensor:
        """What the quantizer sees of an input, channels on axis 1."""
        return x if self.offset is None else self.offset(x)

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        shape = x.shape
        x = single(channels_first(layer, x))
        if self.keeps_input:
            self.input = x
        with torch.autocast(x.device.type, enabled=False):
            if self.activation is not None:
                x = self._quantized(x)
            weight = layer.weight if self.weight is None else self.weight(layer.weight)
        if isinstance(layer, nn.Linear):
            return functional.linear(x[..., 0].transpose(1, 2).reshape(shape), weight, layer.bias)
        padding = 0 if self._around() else layer.padding
        return functional.conv2d(x, weight, layer.bias, layer.stride, padding, layer.dilation, layer.groups)

    def _quantized(self, x: Tensor) -> Tensor:
        """q of an input, with its surroundings where they are quantized too."""
        assert self.activation is not None
        is_undone = self.offset is not None and self.offset.undone
        around = self._around()
        # An offset that is undone holds for what surrounds the input too, one that stays does not.
        seen = self.corrected(_padded(x, around)) if is_undone else _padded(self.corrected(x), around)
        seen = self.activation(seen)
        if self.offset is not None and is_undone:
            seen = self.offset.undo(seen)
        if self.carries:
            self.carried = _padded(seen, [-side for side in around])
        return seen

    def _around(self) -> list[int]:
        """What is padded before the quantizer, as `functional.pad` takes it; nothing is where it comes behind."""
        layer = self.layer
        if not self.pads_quantized or self.activation is None or isinstance(layer, nn.Linear):
            return []
        return layer._reversed_padding_repeated_twice

    def extra_repr(self) -> str:
        weight_bits, activation_bits = self.bits
        return f"W{weight_bits}A{activation_bits}"


def _padded(x: Tensor, around: list[int]) -> Tensor:
    """With zeros around it, or less of it where a side is negative."""
    return functional.pad(x, around) if around else x


def quantized_layers(network: nn.Module) -> dict[str, QuantizedLayer]:
    """The quantized layers of a network by name, in the order of the network."""
    return {name: module for name, module in network.named_modules() if isinstance(module, QuantizedLayer)}

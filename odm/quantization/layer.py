"""The quantized layer: a convolution, its two quantizers and, where chosen, an offset."""

from torch import Tensor, nn
from torch.nn import functional

from odm.quantization.offsets import Offset
from odm.quantization.quantizer import ActivationQuantizer, WeightQuantizer


class QuantizedConv2d(nn.Module):
    """q(W) * q(x): a float convolution put behind its quantizers; its weights keep learning."""

    def __init__(
        self, conv: nn.Conv2d, activation: ActivationQuantizer, weight: WeightQuantizer, offset: Offset | None = None
    ) -> None:
        super().__init__()
        self.conv = conv
        self.activation = activation
        self.weight = weight
        self.offset = offset
        # The layer's last input before offset and quantizer, kept for regularizers and for the history when asked.
        self.keeps_input = False
        self.input: Tensor | None = None

    def corrected(self, x: Tensor) -> Tensor:
        """What the quantizer sees."""
        return x if self.offset is None else self.offset(x)

    def forward(self, x: Tensor) -> Tensor:
        if self.keeps_input:
            self.input = x
        quantized = self.activation(self.corrected(x))
        if self.offset is not None and self.offset.undone:
            quantized = self.offset.undo(quantized)
        conv = self.conv
        return functional.conv2d(
            quantized, self.weight(conv.weight), conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups
        )

    def extra_repr(self) -> str:
        return f"W{self.weight.bits}A{self.activation.bits}"


def quantized_layers(network: nn.Module) -> dict[str, QuantizedConv2d]:
    """The quantized layers of a network by name, in the order of the network."""
    return {name: module for name, module in network.named_modules() if isinstance(module, QuantizedConv2d)}

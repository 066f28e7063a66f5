"""The integer form of a quantized layer: whole numbers in, weights that are whole numbers, one scale out.

What stock runtimes execute is held to this, code by code. Both halves are operators of their own, so that the exporter
finds them in a graph and writes what they stand for in ONNX.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, library, nn
from torch.nn import functional

from odm.errors import OdmError


@library.custom_op("odm::codes", mutates_args=())
def codes(x: Tensor, origin: Tensor, step: Tensor, least: int, most: int, axis: int) -> Tensor:
    """clip(round((x - origin) / step), least, most), whole numbers in float32; halves go to the even one.

    Args:
        origin, step: of shape (), or (C,) along an axis of x.
    """
    if step.ndim:
        shape = [-1 if each == axis % x.ndim else 1 for each in range(x.ndim)]
        origin, step = origin.view(shape), step.view(shape)
    return x.sub(origin).div_(step).round_().clamp_(least, most)


@codes.register_fake
def _(x: Tensor, origin: Tensor, step: Tensor, least: int, most: int, axis: int) -> Tensor:
    return torch.empty_like(x)


@library.custom_op("odm::weighted", mutates_args=())
def weighted(
    codes: Tensor,
    weight: Tensor,
    unit: Tensor,
    bias: Tensor,
    grid: float,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """A convolution, or for weights of two axes a linear layer, of codes by weight codes; sums are whole numbers.

    (sum + bias) unit where `grid` is 0, else sum * unit + bias * grid, which is a multiple of `grid` if `unit` is.

    Args:
        codes: whole numbers, (N, C, H, W), or (..., C).
        weight: int8.
        unit: float32, (O,), of the sum by output channel.
        bias: int32, (O,), in units of the sum, or of the grid.
    """
    if weight.ndim == 2:
        total = functional.linear(codes, weight.float())
    else:
        total = functional.conv2d(codes, weight.float(), None, stride, padding, dilation, groups)
        unit, bias = unit.view(-1, 1, 1), bias.view(-1, 1, 1)
    return total.mul_(unit).add_(bias * grid) if grid else total.add_(bias).mul_(unit)


@weighted.register_fake
def _(
    codes: Tensor,
    weight: Tensor,
    unit: Tensor,
    bias: Tensor,
    grid: float,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    if weight.ndim == 2:
        return functional.linear(codes, weight.float())
    return functional.conv2d(codes, weight.float(), None, stride, padding, dilation, groups)


class IntegerLayer(nn.Module):
    """A quantized convolution or linear layer in whole numbers.

    Codes k = clip(round((x - origin) / step), least, most), zero being that of the level nearest to zero; zeros are
    padded as that code. See `weighted` for what becomes of them.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, per_channel: bool = False) -> None:
        """Shapes and geometry of a float layer, without its values; `per_channel`: of origin and step."""
        super().__init__()
        weight = layer.weight
        self.is_linear = isinstance(layer, nn.Linear)
        self.stride, self.padding, self.dilation, self.groups = [1, 1], [0, 0], [1, 1], 1
        if isinstance(layer, nn.Conv2d):
            assert not isinstance(layer.padding, str)
            self.stride, self.padding, self.dilation = list(layer.stride), list(layer.padding), list(layer.dilation)
            self.groups = layer.groups
        inputs = (weight.shape[1] * self.groups,) if per_channel else ()
        self.origin: Tensor
        self.step: Tensor
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("origin", torch.zeros(inputs))
        self.register_buffer("step", torch.ones(inputs))
        self.register_buffer("weight", torch.zeros(weight.shape, dtype=torch.int8))
        # A parameter, so that it can be asked of the network where it computes.
        self.unit = nn.Parameter(torch.ones(len(weight)), requires_grad=False)
        self.register_buffer("bias", torch.zeros(len(weight), dtype=torch.int32))
        self.least, self.most = 0, 255
        # What the output is a multiple of; 0 where nothing but one quantizer, behind a ReLU at most, takes it.
        self.grid = 0.0
        # Whether the image's surroundings are zeros before the quantizer instead of code 0 behind it.
        self.pads_input = False
        self.bits = (8, 8)
        self.keeps_codes = False
        self.codes: Tensor | None = None

    @property
    def zero_point(self) -> int:
        """What is added to codes so that they are stored without a sign."""
        return max(0, -self.least)

    def forward(self, x: Tensor) -> Tensor:
        padding = self.padding
        if self.pads_input:
            above, before = padding
            x, padding = functional.pad(x, (before, before, above, above)), [0, 0]
        axis = -1 if self.is_linear else 1
        found = codes(x, self.origin, self.step, self.least, self.most, axis)
        if self.keeps_codes:
            self.codes = found
        return weighted(
            found, self.weight, self.unit, self.bias, self.grid, self.stride, padding, self.dilation, self.groups
        )

    def extra_repr(self) -> str:
        return f"W{self.bits[0]}A{self.bits[1]}, codes {self.least} to {self.most}, grid={self.grid}"


MOST_PAIR = 2**15 - 1
"""Of the sum of two products: processors of x86 without VNNI add them in 16 bits, and clip what does not fit."""


def saturating(network: nn.Module) -> list[str]:
    """Names of layers in which two products may pass MOST_PAIR."""
    return [
        name
        for name, layer in integer_layers(network).items()
        if 2 * layer.weight.abs().amax().item() * (layer.most + layer.zero_point) > MOST_PAIR
    ]


def integer_layers(network: nn.Module) -> dict[str, IntegerLayer]:
    """Those of a network by name, in its order."""
    return {name: module for name, module in network.named_modules() if isinstance(module, IntegerLayer)}


def check_codes(layer: IntegerLayer, name: str) -> None:
    """OdmError where codes of its input do not fit 8 bits."""
    if layer.most + layer.zero_point > 255 or layer.least < -255:
        raise OdmError(
            f"{name}: its range lies so far from zero that codes reach {layer.least} to {layer.most}, and 8 bits "
            "end at 255; train it further, or with fewer bits"
        )

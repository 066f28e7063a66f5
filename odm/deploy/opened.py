"""A trained network as forms are made of it: batch normalization folded, and what each quantized layer multiplies."""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from odm.deploy.flow import Flow
from odm.deploy.integer import MOST_PAIR
from odm.deploy.levels import MOST_CODE, Levels, codes_of, levels_of
from odm.deploy.plan import Plan, plan, probe
from odm.errors import OdmError
from odm.networks.backbone import Backbone
from odm.quantization.layer import QuantizedLayer, quantized_layers

MEAN_GRID = 1 / 64
"""Of the mean colour that networks take off and add again."""
DIVIDED_MEAN_GRID = 2.0**-12
"""The same of the colour over what a network divides by: no finer than INPUT_BITS make of values below 1, so that no
pixel less the colour is half way between two of them."""


@dataclass
class Facts:
    """Of one quantized layer, before anything is rounded."""

    levels: Levels
    codes: Tensor
    """Of the weights, int8, a gain's sign and undone scales among them."""
    unit: Tensor
    """Of the sum of codes, float64 of shape (O,)."""
    bias: Tensor
    """float64 of shape (O,)."""
    origin: Tensor
    """float64 of shape () or (C,)."""
    step: Tensor
    pads_input: bool = False


@dataclass
class Opened:
    """A trained network that is looked at."""

    trained: Backbone
    """A copy."""
    folded: Backbone
    """Without batch normalization."""
    flow: Flow
    """Of the latter."""
    plan: Plan
    facts: dict[str, Facts]
    gains: dict[str, tuple[Tensor, Tensor]]
    """As `fold` gives them."""


@torch.no_grad()
def opened(network: Backbone) -> Opened:
    """What a form is made of. OdmError in one line where there is none."""
    kept = [each for layer in quantized_layers(network).values() for each in (layer.input, layer.carried)]
    trained = copy.deepcopy(network, {id(each): None for each in kept}).cpu().eval()
    _check_bits(trained)
    settle_mean(trained)
    folded, gains = fold(trained)
    flow = Flow(folded, probe(folded))
    found = plan(folded, flow)
    facts = {name: _facts(folded, name, gains) for name in found.quantized}
    return Opened(trained, folded, flow, found, facts, gains)


def settle_mean(network: Backbone) -> None:
    """Round the mean colour that a network takes off and adds again, so that both are exact.

    Where it multiplies before it adds, OpenVINO adds the colour over the factor before it multiplies: exact as well.
    """
    mean = getattr(network, "mean", None)
    if isinstance(mean, Tensor):
        divisor = divisor_of(network)
        grid = MEAN_GRID if divisor == 1 else divisor * DIVIDED_MEAN_GRID
        mean.copy_((mean / grid).round() * grid)


def divisor_of(network: Backbone) -> float:
    """Of what it takes, less the mean colour; what it gives is multiplied by it before the colour is added."""
    return getattr(network, "divisor", 1.0)


def _check_bits(network: Backbone) -> None:
    for name, layer in quantized_layers(network).items():
        for what, part in (("weights", layer.weight), ("activations", layer.activation)):
            if part is None:
                raise OdmError(f"{name}: its {what} are float, which no integer convolution multiplies; quantize both")


def fold(network: Backbone) -> tuple[Backbone, dict[str, tuple[Tensor, Tensor]]]:
    """A copy without batch normalization where that follows one layer alone.

    Returns:
        With it, by the name of a quantized layer, gain and shift of its output, float64 of shape (O,); into float
        layers they are folded.
    """
    flow = Flow(network, probe(network))
    folded = copy.deepcopy(network)
    gains: dict[str, tuple[Tensor, Tensor]] = {}
    for name, value in flow.inputs.items():
        norm = network.get_submodule(name)
        before = value.inputs and value.is_module and value.uses == 1
        if not isinstance(norm, nn.BatchNorm2d) or not before:
            continue
        assert norm.running_mean is not None and norm.running_var is not None, "in evaluation mode"
        scale: Tensor = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight
        shift: Tensor = torch.zeros_like(norm.running_mean) if norm.bias is None else norm.bias
        gain = scale.double() / (norm.running_var.double() + norm.eps).sqrt()
        shift = shift.double() - norm.running_mean.double() * gain
        layer = folded.get_submodule(value.made_by)
        if isinstance(layer, QuantizedLayer):
            gains[value.made_by] = gain, shift
        elif isinstance(layer, nn.Conv2d):
            bias = torch.zeros_like(shift) if layer.bias is None else layer.bias.double()
            layer.weight.copy_(layer.weight.double() * gain.view(-1, 1, 1, 1))
            layer.bias = nn.Parameter((bias * gain + shift).float())
        else:
            continue
        folded.set_submodule(name, nn.Identity())
    return folded, gains


def _facts(network: Backbone, name: str, gains: dict[str, tuple[Tensor, Tensor]]) -> Facts:
    layer = network.get_submodule(name)
    assert isinstance(layer, QuantizedLayer)
    inner = layer.layer
    assert layer.activation is not None and layer.weight is not None
    if isinstance(inner, nn.Conv2d) and (isinstance(inner.padding, str)):
        raise OdmError(f"{name}: says its padding as '{inner.padding}'; write it as a number of pixels")
    groups = inner.groups if isinstance(inner, nn.Conv2d) else 1
    channels = inner.weight.shape[1] * groups
    levels = levels_of(layer.activation, channels, name)
    codes, unit = codes_of(layer.weight(inner.weight), name)
    outputs = len(codes)
    one = torch.ones(channels, dtype=torch.float64)
    scale = shift = None
    if (offset := layer.offset) is not None:
        scale, shift = offset.stored_parts()
    scale, shift = one if scale is None else scale.double(), one * 0 if shift is None else shift.double()
    step, origin = levels.step / scale, (levels.rest - shift) / scale
    # What code 0 is worth to the weights, by input channel; without an offset one number serves.
    worth, units = one * levels.rest, levels.step * unit
    pads_input = False
    if offset is not None and offset.undone:
        worth = origin
        ratios = scale.amax() / scale
        _check_ratios(ratios, codes, groups, name)
        codes = (codes * by_weight(ratios.round(), outputs, groups, codes.ndim)).to(torch.int8)
        units = units / scale.amax()
        pads_input = bool((-origin / step).round().any()) and isinstance(inner, nn.Conv2d)
    if offset is None:
        step, origin = torch.tensor(levels.step).double(), torch.tensor(levels.rest).double()
    by_channel = layer.weight(inner.weight).double()
    by_channel = by_channel.flatten(2).sum(2) if by_channel.ndim > 2 else by_channel
    bias = (by_channel * by_weight(worth, outputs, groups, 2)).sum(1)
    if inner.bias is not None:
        bias += inner.bias.double()
    if name in gains:
        gain, moved = gains[name]
        codes = (codes * gain.sign().view(-1, *[1] * (codes.ndim - 1))).to(torch.int8)
        units, bias = units * gain.abs().clamp(min=1e-30), bias * gain + moved
    return Facts(levels, codes, units, bias, origin, step, pads_input)


def by_weight(values: Tensor, outputs: int, groups: int, ndim: int) -> Tensor:
    """Values by input channel, (C,), as they stand to weights of shape (O, C / groups, ...)."""
    by_group = values.view(groups, -1).repeat_interleave(outputs // groups, 0)
    return by_group.view(*by_group.shape, *[1] * (ndim - 2))


def _check_ratios(ratios: Tensor, codes: Tensor, groups: int, name: str) -> None:
    if (ratios / ratios.round() - 1).abs().amax() > 1e-5:
        raise OdmError(
            f"{name}: its offset's scales are undone and are no powers of two, so they cannot go into whole weights; "
            "train with `offsets.undone: false`, or with shifts alone"
        )
    largest = (codes.abs() * by_weight(ratios, len(codes), groups, codes.ndim)).amax().round().int().item()
    if largest > MOST_CODE:
        raise OdmError(
            f"{name}: its weights need codes up to {largest} once the scales of its offset are undone in them, and 8 "
            f"bits with a sign end at {MOST_CODE}; train with fewer bits or without `offsets.undone`"
        )


def float_layer(network: Backbone, name: str) -> nn.Conv2d | nn.Linear:
    layer = network.get_submodule(name)
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    if isinstance(layer, nn.Conv2d) and (isinstance(layer.padding, str) or layer.padding_mode != "zeros"):
        raise OdmError(f"{name}: pads by '{layer.padding_mode}' ({layer.padding}); write zeros, as a number of pixels")
    return layer


def measured(it: Opened, images: Iterable[Tensor]) -> dict[str, tuple[float, float]]:
    """By module the largest |input|; of a float layer also the largest sum of |input| |weight| and |bias|, of a
    product the largest of the second factor."""
    found = it.plan
    seen = dict.fromkeys((*found.quantized, *found.floats, *found.functions), (0.0, 0.0))

    def note(name: str, x: Tensor, *others: Tensor) -> None:
        largest, second = x.masked_fill(x == -torch.inf, 0).abs().amax().item(), 0.0  # in scores: none of them
        if name in found.floats:
            second = _sums(float_layer(it.folded, name), x).amax().item()
        elif others:
            second = others[0].abs().amax().item()
        seen[name] = max(seen[name][0], largest), max(seen[name][1], second)

    handles = [
        it.trained.get_submodule(name).register_forward_pre_hook(lambda _, inputs, name=name: note(name, *inputs))
        for name in seen
    ]
    try:
        for image in images:
            it.trained(image)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _sums(layer: nn.Conv2d | nn.Linear, x: Tensor) -> Tensor:
    bias = None if layer.bias is None else layer.bias.abs()
    if isinstance(layer, nn.Linear):
        return functional.linear(x.abs(), layer.weight.abs(), bias)
    return functional.conv2d(
        x.abs(), layer.weight.abs(), bias, layer.stride, layer.padding, layer.dilation, layer.groups
    )


def finer_by(fact: Facts) -> int:
    """By what codes can be multiplied, and the unit divided, so that the bias comes in finer units: a power of two.

    Two products still fit 16 bits with a sign, in which some processors add them.
    """
    largest = max(1, fact.codes.abs().amax().item())
    widest = fact.levels.most + max(0, -fact.levels.least)  # as it is stored, without a sign
    room = min(MOST_CODE / largest, MOST_PAIR / (2 * largest * max(1, widest)))
    return 2 ** max(0, math.floor(math.log2(room))) if room >= 1 else 1

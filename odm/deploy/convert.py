"""From a trained network to its integer form: whole numbers in every quantized layer, fixed point in all others.

Exact in any float32 runtime, because no value of the residual stream is near a threshold of the quantizers that read
it, and no sum rounds:

- what layers write to the stream is a multiple of one power of two, the grid, and sums of it stay below 2^24 of it;
- thresholds of a quantizer that reads the stream lie half way between two values of the grid, whichever way a runtime
  divides (`thresholds.py`);
- where a quantizer sees a single layer through a ReLU the distances of all values it can see from all thresholds are
  known beforehand, and the layer's unit is moved by millionths until none is within a runtime's rounding.
"""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from odm.deploy.fixed import DIGIT, HEADROOM, SUM_BITS, FixedLayer, Snapped, exponent_above, snapped
from odm.deploy.flow import Flow
from odm.deploy.integer import MOST_PAIR, IntegerLayer, integer_layers, weighted
from odm.deploy.levels import MOST_CODE, Levels, codes_of, levels_of
from odm.deploy.margins import apart
from odm.deploy.nonlinear import SCORE_GRID, counterpart
from odm.deploy.plan import Plan, plan, probe
from odm.deploy.thresholds import half_way
from odm.errors import OdmError
from odm.networks.backbone import Backbone
from odm.quantization.layer import QuantizedLayer, quantized_layers

THRESHOLD_BITS = 21
"""Of thresholds over the grid: three bits, eight roundings, between a threshold and the next value."""
INPUT_BITS = 13
"""Of what a float layer reads, without its sign."""
WEIGHT_BITS = 15
LAST_BITS = 16
"""Of an output that is yet multiplied by a number of up to 8 bits: with the mean colour it still fits float32."""
FINEST = -24
MEAN_GRID = 1 / 64
"""Of the mean colour that networks take off and add again."""
DIVIDED_MEAN_GRID = 2.0**-12
"""The same of the colour over what a network divides by: no finer than INPUT_BITS make of values below 1, so that no
pixel less the colour is half way between two of them."""
LEAST_STEPS = 16.0
"""A quantizer's step over the grid; less would move its levels by more than a thirtieth of a step."""


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
def integer_form(network: Backbone, images: Iterable[Tensor]) -> Backbone:
    """The integer form of a trained network, which stays as it is.

    OdmError in one line where it has none.

    Args:
        images: low-resolution ones, (1, 3, H, W) in 0-255, by which ranges are measured.
    """
    images, it = list(images), opened(network)
    found, facts = it.plan, it.facts
    seen = measured(it, images)
    floats = {name: fixed(float_layer(it.folded, name), *seen[name]) for name in found.floats}
    if _divisor(it.folded) != 1:
        for name in found.last:
            coarse = 2.0 ** (exponent_above(seen[name][1]) + HEADROOM - LAST_BITS)
            floats[name].grid = max(floats[name].grid, coarse)
    exponent = _exponent(found, facts, seen)
    while True:
        made = _assembled(it.folded, found, facts, floats, 2.0**exponent)
        _put_functions(made, found, seen, 2.0**exponent)
        excess = _excess(made, images)
        if excess <= 0:
            return made
        exponent += excess


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
        divisor = _divisor(network)
        grid = MEAN_GRID if divisor == 1 else divisor * DIVIDED_MEAN_GRID
        mean.copy_((mean / grid).round() * grid)


def _divisor(network: Backbone) -> float:
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


def fixed(layer: nn.Conv2d | nn.Linear, largest: float, total: float) -> FixedLayer:
    made = FixedLayer(layer)
    made.input_grid = 2.0 ** (exponent_above(largest) + HEADROOM - INPUT_BITS)
    weight = layer.weight.double()
    needs = (
        # Sums of the higher digit, of the lower one, and the size of a weight.
        exponent_above(total) + HEADROOM + 1 - SUM_BITS - exponent_above(made.input_grid * DIGIT / 2) + 1,
        exponent_above(weight.abs().flatten(1).sum(1).amax().item() * DIGIT / 2) - SUM_BITS,
        exponent_above(weight.abs().amax().item()) - WEIGHT_BITS,
    )
    made.weight_grid = 2.0 ** max(*needs, FINEST)
    made.weight.copy_((weight / made.weight_grid).round() * made.low_grid)
    if layer.bias is not None:
        made.bias.copy_((layer.bias.double() / made.high_grid).round() * made.high_grid)
    made.grid = made.high_grid
    return made


def _exponent(found: Plan, facts: dict[str, Facts], seen: dict[str, tuple[float, float]]) -> int:
    """Of the finest grid that the stream and its thresholds bear. OdmError where that is too coarse."""
    readers = [name for name in found.quantized if name not in found.direct]
    needs = [FINEST]
    for name in readers:
        fact = facts[name]
        reach = max(-fact.levels.least, fact.levels.most) + 0.5
        thresholds = (fact.step * reach + fact.origin.abs()).amax().item()
        needs.append(exponent_above(thresholds) + 1 - THRESHOLD_BITS)
    for name in (*readers, *found.functions):
        needs.append(exponent_above(seen[name][0]) + HEADROOM + 1 - SUM_BITS)
    return max(needs)


def _assembled(
    folded: Backbone, found: Plan, facts: dict[str, Facts], floats: dict[str, FixedLayer], grid: float
) -> Backbone:
    """The network with all layers replaced."""
    made = copy.deepcopy(folded)
    direct = dict(found.direct)
    writers = {writer: reader for reader, (writer, _) in direct.items()}
    facts = {name: fact if name in writers else _on_grid(fact, grid) for name, fact in facts.items()}
    for name in found.quantized:
        quantized = folded.get_submodule(name)
        assert isinstance(quantized, QuantizedLayer)
        fact = facts[name]
        layer = IntegerLayer(quantized.layer, per_channel=fact.step.ndim > 0)
        layer.bits, layer.pads_input = quantized.bits, fact.pads_input
        layer.least, layer.most = fact.levels.least, fact.levels.most
        layer.weight.copy_(fact.codes)
        unit, bias = fact.unit, fact.bias
        if (reader := writers.get(name)) is not None:
            # The reader's origin goes into the bias: behind a ReLU both are 0 where the code is.
            sees = facts[reader]
            finer = finer_by(fact)
            moved = apart(unit / finer, sees.step.item(), sees.levels, rectified=direct[reader][1])
            if moved is None:
                del direct[reader], writers[name]
            else:
                layer.unit.copy_(moved)
                layer.weight.mul_(finer)
                layer.bias.copy_(((bias - sees.origin) / moved.double()).round())
        if name not in writers:
            layer.grid = grid
            layer.unit.copy_((unit / grid).round() * grid)
            layer.bias.copy_((bias / grid).round())
        if name in direct:
            layer.step.copy_(fact.step)
            layer.least = max(0, layer.least) if direct[name][1] else layer.least
        else:
            if fact.step.amin() < LEAST_STEPS * grid:
                raise OdmError(
                    f"{name}: the residual stream passes 24 bits: its values reach so far that a step of "
                    f"{fact.step.amin().item():.3g} is less than {LEAST_STEPS:.0f} of what float32 still tells apart"
                )
            step, origin = half_way(fact.step, fact.origin, grid, layer.zero_point)
            layer.step.copy_(step)
            layer.origin.copy_(origin)
        check_codes(layer, name)
        made.set_submodule(name, layer)
    for name, fixed in floats.items():
        layer_made = copy.deepcopy(fixed)
        if name in found.in_stream:
            layer_made.grid = max(grid, fixed.grid)
        made.set_submodule(name, layer_made)
    for name in found.activations:
        rounded = Snapped(made.get_submodule(name))
        rounded.grid = grid
        made.set_submodule(name, rounded)
    made.convolutional = False  # its layers are none that `reach` knows: images go through it whole
    return made.eval()


def _put_functions(made: Backbone, found: Plan, seen: dict[str, tuple[float, float]], grid: float) -> None:
    """Functions in fixed point in the place of all that are none."""
    for name, inner in found.functions.items():
        function = counterpart(made.get_submodule(name), name)
        numbers = function.chosen(*seen[name], inner, name in found.shares)
        function.settle(numbers | {"grid": SCORE_GRID if name in found.scores else grid})
        made.set_submodule(name, function)
    for name in found.constants:
        constant = made.get_parameter(name)
        constant.copy_(snapped(constant, SCORE_GRID))


def _on_grid(fact: Facts, grid: float) -> Facts:
    """With a step that brings the unit onto the grid: levels and thresholds move together, by less than rounding the
    unit alone would move levels. Where units differ by channel there is no such step."""
    unit = fact.unit[0]
    if fact.step.ndim or (fact.unit != unit).any() or unit < grid:
        return fact
    ratio = (unit / grid).round() * grid / unit
    return replace(fact, step=fact.step * ratio, unit=fact.unit * ratio)


def check_codes(layer: IntegerLayer, name: str) -> None:
    """OdmError where codes of its input do not fit 8 bits."""
    if layer.most + layer.zero_point > 255 or layer.least < -255:
        raise OdmError(
            f"{name}: its range lies so far from zero that codes reach {layer.least} to {layer.most}, and 8 bits "
            "end at 255; train it further, or with fewer bits"
        )


def finer_by(fact: Facts) -> int:
    """By what codes can be multiplied, and the unit divided, so that the bias comes in finer units: a power of two.

    Two products still fit 16 bits with a sign, in which some processors add them.
    """
    largest = max(1, fact.codes.abs().amax().item())
    widest = fact.levels.most + max(0, -fact.levels.least)  # as it is stored, without a sign
    room = min(MOST_CODE / largest, MOST_PAIR / (2 * largest * max(1, widest)))
    return 2 ** max(0, math.floor(math.log2(room))) if room >= 1 else 1


def _excess(made: Backbone, images: Iterable[Tensor]) -> int:
    """By how many bits sums of integer layers, in units of the grid, pass what float32 adds up exactly.

    OdmError where whole numbers themselves do.
    """
    layers = integer_layers(made)
    largest = dict.fromkeys(layers, 0.0)

    def note(name: str, layer: IntegerLayer) -> None:
        assert layer.codes is not None
        one = torch.ones_like(layer.unit)
        bare = torch.zeros_like(layer.bias)
        padding = [0, 0] if layer.pads_input else layer.padding
        geometry = (layer.stride, padding, layer.dilation, layer.groups)
        totals = weighted(layer.codes.abs(), layer.weight.abs(), one, bare, 0.0, *geometry)
        largest[name] = max(largest[name], totals.amax().item())

    handles = []
    for name, layer in layers.items():
        layer.keeps_codes = True
        handles.append(layer.register_forward_hook(lambda layer, _inputs, _, name=name: note(name, layer)))
    try:
        for image in images:
            made(image)
    finally:
        for handle in handles:
            handle.remove()
        for layer in layers.values():
            layer.keeps_codes, layer.codes = False, None
    excess = FINEST
    for name, layer in layers.items():
        bits = exponent_above(largest[name]) + HEADROOM - SUM_BITS
        if bits > 0:
            raise OdmError(f"{name}: its sums pass {SUM_BITS} bits; train with fewer bits or channels")
        if layer.grid:
            bits = exponent_above(largest[name] * (layer.unit / layer.grid).amax().item()) + HEADROOM - SUM_BITS
        excess = max(excess, bits)
    return excess

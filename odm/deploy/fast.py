"""From a trained network to its fast form: integers in every layer but those that read the image.

Quantized layers keep their codes. All else is at 8 bits: values that are added or joined share one scale, the residual
stream's among them, and are whole numbers in units of it; the last layer's unit is the pixel. The network was not
trained for that, so that it loses some of its score; less, because channels of the stream are brought to one range, by
factors that go into the weights on both sides.

Where it can be, no value lies near a threshold: units are fractions of an odd denominator, of which no multiple ends in
a half, and thresholds of quantizers that read the stream are odd multiples of a 64th.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from odm.deploy.fixed import FixedLayer, fixed
from odm.deploy.flow import CONSTANT, IMAGE, Calls, Flow, Value, leaves
from odm.deploy.integer import IntegerLayer, check_codes
from odm.deploy.opened import Opened, by_weight, finer_by, float_layer, measured, opened
from odm.deploy.plan import ACTIVATIONS, ON_GRID
from odm.deploy.stored import storing
from odm.deploy.thresholds import half_way
from odm.errors import OdmError
from odm.networks.backbone import Backbone
from odm.quantization.layer import QuantizedLayer

PIXEL = (0, 255)
MOST_WEIGHT = 64
"""Of the codes of layers that were float: two products with codes up to 255 fit 16 bits, in which processors without
VNNI add them, so that nothing saturates there. The eighth bit is what that costs."""
MOST_BIAS = 2**26
"""In units of sums; such a whole number is still far from the end of 32 bits."""
COMPUTING = frozenset({"add", "sub", "neg", "relu", "maximum", "minimum"})
"""Functions that make other values than there were."""
SHAPING = frozenset({"relu", "pixel_shuffle"})
"""Between one layer and another that alone reads it, what the second's quantizer may lie behind."""
LEAST_RANGE = 2.0**-6
"""Of a channel, as a share of the widest: one that hardly moves needs no finer codes."""
FINE = 2000
"""A unit's nearest fraction is off by less than one part of this."""
GRID = 2.0**-5
"""Of quantizers' steps over the stream's whole numbers; thresholds are odd multiples of half of it."""
EXPORT_EXACT = "export the exact form"


@dataclass
class _Route:
    """Which values are stored where."""

    group: dict[Value, Value]
    """Of each value the one that stands for all that share its scale."""
    heads: list[str]
    """Layers that read the image, in fixed point."""
    sites: list[Value] = field(default_factory=list)
    ranged: list[Value] = field(default_factory=list)
    """By which the scale of a group is measured."""
    passed: dict[int, int] = field(default_factory=dict)
    """Calls that are left out, and which of their inputs they give."""
    last: str = ""
    """The layer that makes pixels."""
    colour: Tensor | None = None
    """What is added to them."""


@dataclass(frozen=True)
class _Scale:
    unit: Tensor
    """What one code is worth, float64 of shape (), or (C,) where the weights on both sides bear it by channel."""
    least: int
    most: int


@torch.no_grad()
def fast_form(network: Backbone, images: Iterable[Tensor], patches: Iterable[Tensor]) -> Backbone:
    """The fast form of a trained network, which stays as it is. OdmError in one line where it has none.

    Args:
        images: low-resolution ones, (1, 3, H, W) in 0-255, by which sums of fixed point are bounded.
        patches: the same, (N, 3, H, W), by which scales are measured: of what it was trained on.
    """
    it = opened(network)
    if it.plan.functions:
        first = next(iter(it.plan.functions))
        raise OdmError(
            f"{first}: {type(it.folded.get_submodule(first)).__name__} takes more than the 8 bits of this form; "
            + EXPORT_EXACT
        )
    route = _route(it)
    scales = _scales(it, route, patches)
    made = copy.deepcopy(it.folded)
    seen = measured(it, images)
    for name in it.flow.inputs:
        if name in route.heads:
            made.set_submodule(name, _head(it, scales, name, seen[name]))
        elif name in it.facts:
            made.set_submodule(name, _quantized(it, route, scales, name))
        elif name in it.plan.floats:
            made.set_submodule(name, _eight_bits(it, route, scales, name))
    made.convolutional = False  # its layers are none that `reach` knows: images go through it whole
    sites = {str(value.place): (scales[value].least, scales[value].most) for value in route.sites}
    return storing(made, sites, {str(place): which for place, which in route.passed.items()}).eval()


# Which values are stored


def _route(it: Opened) -> _Route:
    flow, kinds = it.flow, {name: it.folded.get_submodule(name) for name in it.flow.inputs}
    group = _grouped(flow, kinds)
    image = next(group[value] for value in group if value.made_by == IMAGE)
    route = _Route(group, [name for name in it.plan.floats if group[flow.inputs[name]] is image])
    users: dict[Value, list[Value]] = {}
    for value in flow.values:
        for each in value.inputs:
            users.setdefault(each, []).append(value)
        if value.is_module and group[value] is image:
            raise OdmError(
                f"{value.made_by}: its output is joined with the image itself, which has no scale of the stream's; "
                + EXPORT_EXACT
            )
    # Values that the quantizer of the one layer that reads them stores, or that end in a pixel.
    elsewhere = _to_pixels(it, route, kinds)
    for name, value in flow.inputs.items():
        if name in route.heads or isinstance(kinds[name], ACTIVATIONS):
            continue
        if name not in it.facts:
            route.ranged.append(value)
            elsewhere += _alone(value, SHAPING)
        elif name in it.plan.direct:
            elsewhere += _alone(value, {"relu"})
        elif value.uses == 1 and not value.is_module and value.made_by != "relu":
            elsewhere.append(value)
    rectified: list[Value] = []
    for value in flow.values:
        if group[value] is image or value in elsewhere or value.place in route.passed:
            continue
        _check(value)
        if value in rectified:  # stored before its ReLU, which leaves codes codes
            route.ranged.append(value)
        elif value.is_module or value.made_by in COMPUTING:
            route.sites.append(value)
            taken = users.get(value, [])
            if value.is_module and [each.made_by for each in taken] == ["relu"]:
                rectified += taken
            else:
                route.ranged.append(value)
    route.sites.append(flow.output)
    return route


def _grouped(flow: Flow, kinds: dict[str, nn.Module]) -> dict[Value, Value]:
    """Values that functions make of one another share a scale, and so do both sides of an activation."""
    parent: dict[Value, Value] = {}

    def root(value: Value) -> Value:
        while parent.setdefault(value, value) is not value:
            value = parent[value]
        return value

    for value in flow.values:
        root(value)
        for each in value.inputs:
            root(each)
            if each.made_by != CONSTANT and (not value.is_module or isinstance(kinds[value.made_by], ACTIVATIONS)):
                parent[root(each)] = root(value)
    return {value: root(value) for value in parent}


def _alone(value: Value, through: Iterable[str]) -> list[Value]:
    """A value and those that it was made of by such functions, as long as nothing else takes them."""
    found: list[Value] = []
    while value.uses == 1:
        found.append(value)
        if value.is_module or value.made_by not in through:
            break
        value = value.inputs[0]
    return found


def _to_pixels(it: Opened, route: _Route, kinds: dict[str, nn.Module]) -> list[Value]:
    """What lies between the last layer and the output. OdmError where more does than a colour and changes of shape."""
    value, found = it.flow.output, []
    while not value.is_module:
        found.append(value)
        constants = [each.made_by == CONSTANT for each in value.inputs]
        if value.made_by == "add" and sum(constants) == 1 and len(constants) == 2 and route.colour is None:
            route.colour = value.inputs[constants.index(True)].constant
            which = route.passed[value.place] = constants.index(False)
            value = value.inputs[which]
        elif value.inputs and value.made_by in ON_GRID - COMPUTING and not any(constants):
            value = value.inputs[0]
        else:
            raise OdmError(
                f"the output passes `{value.made_by}` behind the last layer, so that no quantizer there gives pixels; "
                + EXPORT_EXACT
            )
    found.append(value)
    if value.made_by in route.heads or isinstance(kinds[value.made_by], ACTIVATIONS) or value.uses > 1:
        raise OdmError(f"{value.made_by}: makes the output, and is no layer that could give pixels; {EXPORT_EXACT}")
    route.last = value.made_by
    if route.colour is not None and route.colour.numel() not in (1, 3):
        raise OdmError(f"{value.made_by}: what is added to its output is no colour; {EXPORT_EXACT}")
    return found


def _check(value: Value) -> None:
    """OdmError for a function after which whole numbers of the stream are none any more."""
    has_constant = any(each.made_by == CONSTANT for each in value.inputs)
    if not value.is_module and (value.made_by not in ON_GRID or value.scalar or has_constant):
        raise OdmError(
            f"a value between its layers passes `{value.made_by}`, which leaves the stream's scale; {EXPORT_EXACT}"
        )


# Scales


class _Ranges(Calls):
    """Least and largest of the values at places, by channel where there are two axes behind it."""

    def __init__(self, layers: dict[str, nn.Module], places: Iterable[int]) -> None:
        super().__init__(layers)
        zero = torch.zeros(())
        self.found = dict.fromkeys(places, (zero, zero))

    def _noted(self, x: Tensor) -> Tensor:
        if self.place in self.found:
            least, most = self.found[self.place]
            others = (0, 2, 3) if x.ndim == 4 else tuple(range(x.ndim))
            self.found[self.place] = torch.minimum(least, x.amin(others)), torch.maximum(most, x.amax(others))
        return x

    def left(self, name: str, output: Tensor) -> Tensor:
        return self._noted(output)

    def called(self, name: str, args: Any, kwargs: Any, result: Any) -> Any:
        return self._noted(result) if isinstance(result, Tensor) else result


def _scales(it: Opened, route: _Route, patches: Iterable[Tensor]) -> dict[Value, _Scale]:
    """Of each value that has one."""
    for name, (gain, shift) in it.gains.items():
        gain, shift = gain.float().view(-1, 1, 1), shift.float().view(-1, 1, 1)
        it.folded.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, gain=gain, shift=shift: output * gain + shift
        )
    ranges = _Ranges(leaves(it.folded), (value.place for value in route.ranged))
    for patch in patches:
        height, width = (side // it.folded.multiple * it.folded.multiple for side in patch.shape[2:])
        cut = patch[:, :, :height, :width]
        with ranges:
            it.folded(cut)
    by_group: dict[Value, list[tuple[Tensor, Tensor]]] = {}
    for value in route.ranged:
        by_group.setdefault(route.group[value], []).append(ranges.found[value.place])
    # Channels are told apart where nothing joins or moves them.
    layers = (it.folded.get_submodule(name) for name in (*it.plan.floats, *it.plan.quantized))
    has_linear = any(isinstance(getattr(each, "layer", each), nn.Linear) for each in layers)
    joined = {route.group[each] for each in it.flow.values if not each.is_module and each.made_by not in COMPUTING}
    scales = {route.group[it.flow.output]: _Scale(torch.ones((), dtype=torch.float64), *PIXEL)}
    for group, found in by_group.items():
        if group not in scales:
            scales[group] = _scale(found, not has_linear and group not in joined)
    return {value: scales[group] for value, group in route.group.items() if group in scales}


def _scale(found: list[tuple[Tensor, Tensor]], by_channel: bool) -> _Scale:
    """One zero point and the units that values between such bounds need with it, their squares' sum the least."""
    if not by_channel:
        found = [(least.amin(), most.amax()) for least, most in found]
    least = torch.stack([each for each, _ in found]).amin(0).double()
    most = torch.stack([each for _, each in found]).amax(0).double()
    floor = (most - least).amax().clamp(min=1e-6) * LEAST_RANGE
    zeros = torch.arange(256, dtype=torch.float64).view(-1, *[1] * least.ndim)
    units = torch.maximum(-least / zeros.clamp(min=1e-3), most / (255 - zeros).clamp(min=1e-3)).clamp(min=floor / 255)
    zero = int(units.square().view(256, -1).sum(1).argmin())
    return _Scale(units[zero], -zero, 255 - zero)


# Layers


def _head(it: Opened, scales: dict[Value, _Scale], name: str, seen: tuple[float, float]) -> FixedLayer:
    """In fixed point, in units of the stream; half a unit of its grid keeps its values off all thresholds."""
    scaled = copy.deepcopy(float_layer(it.folded, name))
    unit = scales[it.flow.outputs[name]].unit
    scaled.weight.div_(unit.view(-1, *[1] * (scaled.weight.ndim - 1)) if unit.ndim else unit)
    if scaled.bias is not None:
        scaled.bias.div_(unit)
    made = fixed(scaled, seen[0], 2 * seen[1] / unit.amin().item())
    made.bias.add_(made.high_grid / 2)
    return made


def _quantized(it: Opened, route: _Route, scales: dict[Value, _Scale], name: str) -> IntegerLayer:
    fact, source = it.facts[name], it.folded.get_submodule(name)
    assert isinstance(source, QuantizedLayer)
    is_direct = name in it.plan.direct
    unit = torch.ones(()) if is_direct else scales[it.flow.inputs[name]].unit
    made = IntegerLayer(source.layer, per_channel=(fact.step / unit).ndim > 0)
    made.bits, made.pads_input = source.bits, fact.pads_input
    made.least, made.most = fact.levels.least, fact.levels.most
    if is_direct:
        made.least = max(0, made.least) if it.plan.direct[name][1] else made.least
    else:
        step, origin = half_way(fact.step / unit, fact.origin / unit, GRID, made.zero_point)
        made.step.copy_(step)
        made.origin.copy_(origin)
        if not step.ndim:
            fact.unit = fact.unit * (made.step.double() * unit / fact.step)
    check_codes(made, name)
    finer = finer_by(fact)
    _weigh(it, route, scales, made, name, fact.codes * finer, fact.unit / finer, _coloured(route, name, fact.bias))
    return made


def _eight_bits(it: Opened, route: _Route, scales: dict[Value, _Scale], name: str) -> IntegerLayer:
    layer, scale = float_layer(it.folded, name), scales[it.flow.inputs[name]]
    made = IntegerLayer(layer)
    made.bits, made.least, made.most = (7, 8), scale.least, scale.most
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    weight = layer.weight.double()
    weight = weight * (by_weight(scale.unit, len(weight), groups, weight.ndim) if scale.unit.ndim else scale.unit)
    largest = weight.abs().flatten(1).amax(1)
    bias = torch.zeros_like(largest) if layer.bias is None else layer.bias.double()
    bias = _coloured(route, name, bias)
    # Of next to no weights the unit is that which the bias can be written in.
    largest = torch.maximum(largest, (bias.abs() + 1e-6) * MOST_WEIGHT / MOST_BIAS)
    codes = (weight * (MOST_WEIGHT / largest).view(-1, *[1] * (weight.ndim - 1))).round()
    _weigh(it, route, scales, made, name, codes, largest / MOST_WEIGHT, bias)
    return made


def _coloured(route: _Route, name: str, bias: Tensor) -> Tensor:
    """Of the last layer with the colour that would be added behind it; of any other as it is."""
    if name != route.last or route.colour is None:
        return bias
    colour = route.colour.flatten().double()
    return bias + colour.repeat_interleave(len(bias) // colour.numel())


def _weigh(
    it: Opened,
    route: _Route,
    scales: dict[Value, _Scale],
    made: IntegerLayer,
    name: str,
    codes: Tensor,
    unit: Tensor,
    bias: Tensor,
) -> None:
    """Give a layer its weights, in units of what its output is stored in."""
    readers = {writer: reader for reader, (writer, _) in it.plan.direct.items()}
    if name in readers:
        sees = it.facts[readers[name]]
        # The reader's origin goes into the bias: behind a ReLU both are 0 where the code is.
        worth, bias = sees.step, bias - sees.origin
    else:
        worth = scales[it.flow.outputs[name]].unit
    made.weight.copy_(codes)
    made.unit.copy_(_fraction(unit / worth))
    made.bias.copy_((bias / worth / made.unit.double()).round())


def _fraction(unit: Tensor) -> Tensor:
    """The nearest fraction of an odd denominator near FINE or above."""
    numerator = (FINE * unit).ceil().clamp(min=1)
    return numerator / (2 * (numerator / unit / 2 - 0.5).round() + 1)

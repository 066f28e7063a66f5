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
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from odm.deploy.fixed import FINEST, HEADROOM, SUM_BITS, FixedLayer, Snapped, exponent_above, fixed, snapped
from odm.deploy.integer import IntegerLayer, check_codes, integer_layers, weighted
from odm.deploy.margins import apart
from odm.deploy.nonlinear import SCORE_GRID, counterpart
from odm.deploy.opened import Facts, divisor_of, finer_by, float_layer, measured, opened
from odm.deploy.plan import Plan
from odm.deploy.thresholds import half_way
from odm.errors import OdmError
from odm.networks.backbone import Backbone
from odm.quantization.layer import QuantizedLayer

THRESHOLD_BITS = 21
"""Of thresholds over the grid: three bits, eight roundings, between a threshold and the next value."""
LAST_BITS = 16
"""Of an output that is yet multiplied by a number of up to 8 bits: with the mean colour it still fits float32."""
LEAST_STEPS = 16.0
"""A quantizer's step over the grid; less would move its levels by more than a thirtieth of a step."""


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
    if divisor_of(it.folded) != 1:
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
    for name, each in floats.items():
        layer_made = copy.deepcopy(each)
        if name in found.in_stream:
            layer_made.grid = max(grid, each.grid)
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

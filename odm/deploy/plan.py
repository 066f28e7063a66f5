"""What each layer of a network is in its integer form, told from how values flow."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from odm.deploy.flow import ARITHMETIC, CONSTANT, IMAGE, Flow, Value
from odm.deploy.nonlinear import FUNCTIONS
from odm.errors import OdmError
from odm.networks.backbone import Backbone, Product
from odm.quantization.layer import QuantizedLayer, quantized_layers

PROBE = 24
"""Least side of the image that is looked at."""
ON_GRID = frozenset(
    {
        "add",
        "sub",
        "neg",
        "cat",
        "concat",
        "concatenate",
        "stack",
        "relu",
        "pixel_shuffle",
        "pixel_unshuffle",
        "permute",
        "transpose",
        "contiguous",
        "reshape",
        "view",
        "flatten",
        "unflatten",
        "squeeze",
        "unsqueeze",
        "unbind",
        "getitem",
        "narrow",
        "chunk",
        "split",
        "clone",
        "detach",
        "index_select",
        "roll",
        "pad",
        "max_pool2d",
        "maximum",
        "minimum",
        "expand",
        "repeat",
        "movedim",
        "swapaxes",
        "channel_shuffle",
        "to",
        "float",
    }
)
"""Functions that make multiples of a power of two of multiples of it, exactly."""
ACTIVATIONS = nn.PReLU | nn.LeakyReLU
"""Modules that multiply a value once and are rounded to the grid again."""
MASKS = frozenset({"masked_fill"})
"""Functions before a softmax that take values out of it."""


Kinds = dict[str, nn.Module]


@dataclass
class Plan:
    """By the names of layers, in the order in which they run."""

    quantized: list[str]
    floats: list[str]
    """Float convolutions and linear layers."""
    direct: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """Of a quantized layer the quantized one that alone it reads, which nothing else does, and whether a ReLU lies
    between. Every other one reads the residual stream, or what is joined from several."""
    in_stream: set[str] = field(default_factory=set)
    """Float layers whose output comes before a quantizer or a function."""
    last: set[str] = field(default_factory=set)
    """Float layers that the network's output comes from."""
    activations: set[str] = field(default_factory=set)
    """Modules of ACTIVATIONS whose output has to be rounded."""
    functions: dict[str, int] = field(default_factory=dict)
    """Modules that have a counterpart in fixed point (`nonlinear`), with the last side of what they take first."""
    scores: set[str] = field(default_factory=set)
    """Products that a softmax takes."""
    shares: set[str] = field(default_factory=set)
    """Products whose first factor a softmax gives."""
    constants: set[str] = field(default_factory=set)
    """Parameters that are added to scores."""


def probe(network: Backbone) -> torch.Tensor:
    """A small image that any network takes."""
    side = -(-PROBE // network.multiple) * network.multiple
    return torch.linspace(0, 255, 3 * side * side).view(1, 3, side, side)


def plan(network: Backbone, flow: Flow) -> Plan:
    """OdmError where values pass what no two runtimes compute to the same last bit."""
    layers = quantized_layers(network)
    if not layers:
        raise OdmError("nothing in it is quantized, so there are no integers to export; name a quantized run")
    kinds = {name: network.get_submodule(name) for name in flow.inputs}
    quantized = [name for name, module in kinds.items() if isinstance(module, QuantizedLayer)]
    floats = [name for name, module in kinds.items() if isinstance(module, nn.Conv2d | nn.Linear)]
    made = Plan(quantized, floats)
    for name in quantized:
        if found := _direct(flow, name, kinds):
            made.direct[name] = found
            continue
        for source in _sources(kinds, flow.inputs[name], name, arithmetic=False):
            module = kinds[source]
            if isinstance(module, nn.Conv2d | nn.Linear):
                made.in_stream.add(source)
            elif isinstance(module, ACTIVATIONS):
                made.activations.add(source)
    for name in floats:
        for source in _sources(kinds, flow.inputs[name], name, arithmetic=True):
            if isinstance(kinds[source], ACTIVATIONS):
                made.activations.add(source)
    for name, module in kinds.items():
        if isinstance(module, FUNCTIONS):
            _plan_function(made, network, flow, kinds, name)
    for source in _sources(kinds, flow.output, "the output", arithmetic=True):
        if isinstance(kinds[source], ACTIVATIONS):
            made.activations.add(source)
        elif source in floats:
            made.last.add(source)
    return made


def _plan_function(made: Plan, network: Backbone, flow: Flow, kinds: Kinds, name: str) -> None:
    values, module = flow.outputs[name].inputs, kinds[name]
    made.functions[name] = values[0].width
    is_softmax, is_product = isinstance(module, nn.Softmax), isinstance(module, Product)
    parameters = {id(each): key for key, each in network.named_parameters()} if is_softmax else {}
    if is_product and isinstance(kinds.get(values[0].made_by), nn.Softmax):
        made.shares.add(name)
    for value in values:
        for source in _sources(kinds, value, name, arithmetic=is_product, parameters=parameters):
            if source in parameters.values():
                made.constants.add(source)
            elif is_softmax and isinstance(kinds[source], Product):
                made.scores.add(source)
            elif isinstance(kinds[source], nn.Conv2d | nn.Linear):
                made.in_stream.add(source)
            elif isinstance(kinds[source], ACTIVATIONS):
                made.activations.add(source)


def _direct(flow: Flow, name: str, kinds: Kinds) -> tuple[str, bool] | None:
    value, rectified = flow.inputs[name], False
    if value.made_by == "relu" and value.uses == 1:
        value, rectified = value.inputs[0], True
    layer = kinds[name]
    assert isinstance(layer, QuantizedLayer)
    is_alone = value.is_module and value.uses == 1 and isinstance(kinds[value.made_by], QuantizedLayer)
    return (value.made_by, rectified) if is_alone and layer.offset is None else None


def _sources(
    kinds: Kinds, value: Value, reader: str, arithmetic: bool, parameters: Mapping[int, str] | None = None
) -> Iterator[str]:
    """Names of the modules that a value comes from, those of activations among them and what lies before these.

    Args:
        parameters: names by `id`: scores of a softmax may come from these too, which are named with the modules.
    """
    seen: set[int] = set()
    left = [value]
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if value.is_module:
            yield value.made_by
            if isinstance(kinds[value.made_by], ACTIVATIONS):
                left += value.inputs
            elif isinstance(kinds[value.made_by], nn.BatchNorm2d):
                raise OdmError(
                    f"{value.made_by}: batch normalization behind more than one convolution cannot be folded, and "
                    "rounds as each runtime likes, so that no integer form is exact; fold it, or leave it out"
                )
            elif isinstance(kinds[value.made_by], nn.Softmax) and not arithmetic:
                raise OdmError(
                    f"{reader}: its input comes from {value.made_by}, a softmax, which is exact as a factor of a "
                    "matrix product alone; write a Product of odm.networks.backbone there"
                )
            continue
        if parameters and id(value.constant) in parameters:
            yield parameters[id(value.constant)]
            continue
        stays = value.made_by in (ON_GRID | MASKS if parameters else ON_GRID) and not value.scalar
        once = arithmetic and value.made_by in (*ARITHMETIC, IMAGE, CONSTANT)
        if not (stays or once):
            raise OdmError(_why_not(value, reader))
        left += value.inputs


def _why_not(value: Value, reader: str) -> str:
    what = {
        IMAGE: "the image itself, which the first layer may not quantize here",
        CONSTANT: "a constant that is no layer's bias",
    }.get(value.made_by, f"`{value.made_by}`")
    return (
        f"{reader}: its input passes {what}, whose last bits are each runtime's own, so that no integer form of it is "
        "exact; exported are networks of convolutions, linear layers, ReLU, sums and shuffles, and of the modules of "
        "PReLU, LayerNorm, GELU and Softmax"
    )

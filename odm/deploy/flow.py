"""How values flow through a network: what each layer's input was made of, recorded while a small image runs.

Torch's functions are recorded as they are called, so that any network can be looked at, a user's own too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from odm.deploy.fixed import FixedLayer
from odm.deploy.integer import IntegerLayer
from odm.deploy.nonlinear import FUNCTIONS
from odm.networks.backbone import Backbone
from odm.quantization.layer import QuantizedLayer

IMAGE, CONSTANT = "image", "constant"
ARITHMETIC = ("add", "sub", "mul", "div")
LEAVES: tuple[type[nn.Module], ...] = (
    nn.Conv2d,
    nn.Linear,
    nn.BatchNorm2d,
    nn.PReLU,
    nn.LeakyReLU,
    IntegerLayer,
    FixedLayer,
    *FUNCTIONS,
)


@dataclass(eq=False)
class Value:
    """A tensor that came up."""

    made_by: str
    """The name of a torch function, or of a module among the leaves, or IMAGE or CONSTANT."""
    inputs: list[Value] = field(default_factory=list)
    is_module: bool = False
    scalar: bool = False
    """Whether a number other than a shape or an index took part: of `x + 1`, say."""
    uses: int = 0
    """By how many functions and modules it was taken."""
    width: int = 0
    """Last side of the tensor."""
    place: int = -1
    """Its number among what was called; none of IMAGE and CONSTANT."""
    constant: Tensor | None = None
    """The tensor itself, of CONSTANT."""


class Calls(TorchFunctionMode):
    """Sees what a network calls while the mode is entered, in order: functions that give floats, and leaves, which are
    modules that are looked at from outside. Networks that differ in their leaves alone have the same order of calls."""

    def __init__(self, leaves: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.leaves = leaves
        self.place = -1
        """Of the last call."""
        self._handles: list[Any] = []
        self._inside = 0

    def entered(self, name: str, *inputs: Tensor) -> None:
        """A leaf is called."""

    def left(self, name: str, output: Tensor) -> Tensor:
        """What a leaf gives, and what is to be taken in its stead."""
        return output

    def called(self, name: str, args: Any, kwargs: Any, result: Any) -> Any:
        """The same of a function, by its plain name."""
        return result

    def __enter__(self) -> Calls:
        for name, module in self.leaves.items():
            self._handles.append(module.register_forward_pre_hook(partial(self._entering, name)))
            self._handles.append(module.register_forward_hook(partial(self._leaving, name)))
        self.place = -1
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = _name(func)
        if self._inside or (name != "setitem" and not list(tensors([result]))):
            return result
        self.place += 1
        return self.called(name, args, kwargs, result)

    def _entering(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.entered(name, *inputs)
        self._inside += 1

    def _leaving(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        self.place += 1
        output = self.left(name, output)
        self._inside -= 1
        return output


class Flow(Calls):
    """Runs a network on an image, shape (1, 3, H, W), and keeps by the name of a module what went into it first.

    `inputs` are in the order in which modules ran; `output` is the network's; `values` are all that was made.
    """

    def __init__(self, network: Backbone, image: Tensor) -> None:
        super().__init__(leaves(network))
        self.inputs: dict[str, Value] = {}
        self.outputs: dict[str, Value] = {}
        self._entered: dict[str, list[Value]] = {}
        self.values: list[Value] = []
        self._values: dict[int, Value] = {}
        self._alive: list[Tensor] = []  # an id must stay that of one tensor
        self._note(image, Value(IMAGE))
        with torch.no_grad(), self:
            self.output = self._value(network(image))

    def entered(self, name: str, *inputs: Tensor) -> None:
        self._entered[name] = [self._taken(x) for x in inputs]
        self.inputs[name] = self._entered[name][0]

    def left(self, name: str, output: Tensor) -> Tensor:
        self.outputs[name] = self._made(Value(name, self._entered[name], is_module=True))
        self._note(output, self.outputs[name])
        return output

    def called(self, name: str, args: Any, kwargs: Any, result: Any) -> Any:
        taken = list(tensors([*args, *kwargs.values()]))
        scalar = name in ARITHMETIC and any(isinstance(each, int | float) for each in args)
        value = self._made(Value(name, [self._taken(x) for x in taken], scalar=scalar or bool(kwargs.get("alpha"))))
        for each in list(tensors([result])) or taken[:1]:
            self._note(each, value)
        return result

    def _made(self, value: Value) -> Value:
        value.place = self.place
        self.values.append(value)
        return value

    def _note(self, tensor: Tensor, value: Value) -> None:
        self._alive.append(tensor)
        value.width = tensor.shape[-1] if tensor.ndim else 0
        self._values[id(tensor)] = value

    def _value(self, tensor: Tensor) -> Value:
        if id(tensor) not in self._values:
            self._note(tensor, Value(CONSTANT, constant=tensor))
        return self._values[id(tensor)]

    def _taken(self, tensor: Tensor) -> Value:
        value = self._value(tensor)
        value.uses += 1
        return value


def leaves(network: nn.Module) -> dict[str, nn.Module]:
    """Modules that are looked at from outside, by name."""
    inner = {part for layer in network.modules() if isinstance(layer, QuantizedLayer) for part in layer.modules()}
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, QuantizedLayer) or (isinstance(module, LEAVES) and module not in inner)
    }


def _name(function: Any) -> str:
    """`add` for `torch.add`, `x + y`, `x += y` and `x.add_(y)` alike."""
    name = getattr(function, "__name__", str(function)).strip("_")
    for each in ARITHMETIC:
        if name in (f"i{each}", f"r{each}", f"{each}_"):
            return each
    return {"truediv": "div", "true_divide": "div", "itruediv": "div", "subtract": "sub", "multiply": "mul"}.get(
        name, name
    )


def tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Those of floats; an index is no value."""
    for each in values:
        if isinstance(each, Tensor):
            if each.is_floating_point():
                yield each
        elif isinstance(each, list | tuple):
            yield from tensors(each)

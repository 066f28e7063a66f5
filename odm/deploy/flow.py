"""How values flow through a network: what each layer's input was made of, recorded while a small image runs.

Torch's functions are recorded as they are called, so that any network can be looked at, a user's own too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from odm.networks.backbone import Backbone
from odm.quantization.layer import QuantizedLayer

IMAGE, CONSTANT = "image", "constant"
ARITHMETIC = ("add", "sub", "mul", "div")
Leaf = QuantizedLayer | nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.PReLU | nn.LeakyReLU
"""Modules that are looked at from outside."""


@dataclass(eq=False)
class Value:
    """A tensor that came up."""

    made_by: str
    """The name of a torch function, or of a module among `Leaf`, or IMAGE or CONSTANT."""
    inputs: list[Value] = field(default_factory=list)
    is_module: bool = False
    scalar: bool = False
    """Whether a number other than a shape or an index took part: of `x + 1`, say."""
    uses: int = 0
    """By how many functions and modules it was taken."""


class Flow(TorchFunctionMode):
    """Runs a network on an image, shape (1, 3, H, W), and keeps by the name of a module what went into it.

    `inputs` are in the order in which modules ran; `output` is the network's.
    """

    def __init__(self, network: Backbone, image: Tensor) -> None:
        super().__init__()
        self.inputs: dict[str, Value] = {}
        self.outputs: dict[str, Value] = {}
        self._values: dict[int, Value] = {}
        self._alive: list[Tensor] = []  # an id must stay that of one tensor
        self._inside = 0
        inner = {part for layer in network.modules() if isinstance(layer, QuantizedLayer) for part in layer.modules()}
        handles = []
        for name, module in network.named_modules():
            if isinstance(module, QuantizedLayer) or (isinstance(module, Leaf) and module not in inner):
                handles.append(module.register_forward_pre_hook(self._entering(name)))
                handles.append(module.register_forward_hook(self._leaving(name)))
        self._note(image, Value(IMAGE))
        try:
            with torch.no_grad(), self:
                self.output = self._value(network(image))
        finally:
            for handle in handles:
                handle.remove()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if self._inside:
            return result
        name = _name(func)
        made = list(_tensors([result]))
        if not made and name != "setitem":
            return result
        taken = list(_tensors([*args, *(kwargs or {}).values()]))
        scalar = name in ARITHMETIC and any(isinstance(each, int | float) for each in args)
        value = Value(name, [self._taken(each) for each in taken], scalar=scalar or bool((kwargs or {}).get("alpha")))
        for each in made or taken[:1]:
            self._note(each, value)
        return result

    def _note(self, tensor: Tensor, value: Value) -> None:
        self._alive.append(tensor)
        self._values[id(tensor)] = value

    def _value(self, tensor: Tensor) -> Value:
        if id(tensor) not in self._values:
            self._note(tensor, Value(CONSTANT))
        return self._values[id(tensor)]

    def _taken(self, tensor: Tensor) -> Value:
        value = self._value(tensor)
        value.uses += 1
        return value

    def _entering(self, name: str) -> Callable[..., None]:
        def enter(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.inputs[name] = self._taken(inputs[0])
            self._inside += 1

        return enter

    def _leaving(self, name: str) -> Callable[..., None]:
        def leave(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self._inside -= 1
            self.outputs[name] = Value(name, [self.inputs[name]], is_module=True)
            self._note(output, self.outputs[name])

        return leave


def _name(function: Any) -> str:
    """`add` for `torch.add`, `x + y`, `x += y` and `x.add_(y)` alike."""
    name = getattr(function, "__name__", str(function)).strip("_")
    for each in ARITHMETIC:
        if name in (f"i{each}", f"r{each}", f"{each}_"):
            return each
    return {"truediv": "div", "true_divide": "div", "itruediv": "div", "subtract": "sub", "multiply": "mul"}.get(
        name, name
    )


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Those of floats; an index is no value."""
    for each in values:
        if isinstance(each, Tensor):
            if each.is_floating_point():
                yield each
        elif isinstance(each, list | tuple):
            yield from _tensors(each)

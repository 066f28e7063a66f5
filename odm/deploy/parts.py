"""Whether the numbers in an ONNX file are those of the integer form: which layer and which part is another.

What a runtime computes from a file tells that something differs, and behind which layer; this tells what.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from odm.deploy.fixed import FixedLayer
from odm.deploy.integer import IntegerLayer
from odm.deploy.nonlinear import Function
from odm.deploy.stored import Stored
from odm.networks.backbone import Backbone

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]


class _File:
    """The constants that nodes take, by the layer that the nodes are of."""

    def __init__(self, model: onnx.ModelProto) -> None:
        from onnx import numpy_helper

        self.constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
        self.nodes: dict[str, list[Any]] = {}
        for node in model.graph.node:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            self.nodes.setdefault(node.name.partition("/")[0], []).append(node)
        self.makers = {output: node for node in model.graph.node for output in node.output}

    def of(self, layer: str, operator: str) -> list[tuple[Any, list[Array | None]]]:
        """The nodes of an operator in a layer, each with the constants among its inputs."""
        return [
            (node, [self.constants.get(name) for name in node.input])
            for node in self.nodes.get(layer, ())
            if node.op_type == operator
        ]


def differences(model: onnx.ModelProto, form: Backbone) -> list[str]:
    """`<layer>: <part>` for each part of the file that is not what the integer form has."""
    file = _File(model)
    found = []
    for name, module in form.named_modules():
        parts = (
            _of_integer(file, name, module)
            if isinstance(module, IntegerLayer)
            else _of_fixed(file, name, module)
            if isinstance(module, FixedLayer)
            else _of_codes(file, name, module)
            if isinstance(module, Stored)
            else _of_function(file, name, module)
            if isinstance(module, Function)
            else ()
        )
        found += [f"{name}: {part}" for part, is_equal in parts if not is_equal]
    return found


def _equal(found: Array | None, expected: Any) -> bool:
    expected = np.asarray(expected)
    if found is None or (found.size not in (1, expected.size) and expected.size != 1):
        return False
    return bool((np.asarray(found, np.float64).ravel() == np.asarray(expected, np.float64).ravel()).all())


def _of_codes(file: _File, name: str, layer: IntegerLayer | Stored) -> Iterator[tuple[str, bool]]:
    zero = layer.zero_point
    origins = [constants for _, constants in file.of(name, "Sub")]
    expected = layer.origin.numpy()
    if origins or expected.any():
        yield "origin of its input's codes", bool(origins) and _equal(origins[0][1], expected)
    quantizers = file.of(name, "QuantizeLinear")
    yield "scale of its input's codes", len(quantizers) == 1 and _equal(quantizers[0][1][1], layer.step.numpy())
    yield "zero point of its input's codes", len(quantizers) == 1 and _equal(quantizers[0][1][2], zero)
    bounds = layer.least + zero, layer.most + zero
    clips = [constants[1:3] for _, constants in file.of(name, "Clip")]
    if bounds == (0, 255):
        yield "clip of its input's codes", not clips
    else:
        yield "clip of its input's codes", len(clips) == 1 and all(map(_equal, clips[0], bounds))
    read = [each for _, each in file.of(name, "DequantizeLinear") if each[0] is None]
    yield "scale of codes as they are multiplied", len(read) == 1 and _equal(read[0][1], 1)
    yield "zero point of codes as they are multiplied", len(read) == 1 and _equal(read[0][2], zero)


def _of_integer(file: _File, name: str, layer: IntegerLayer) -> Iterator[tuple[str, bool]]:
    yield from _of_codes(file, name, layer)
    multiplied = {
        kind: [each for _, each in file.of(name, "DequantizeLinear") if each[0] is not None and each[0].dtype == kind]
        for kind in (np.int8, np.int32)
    }
    for kind, what, codes, scale in (
        (np.int8, "weight", layer.weight.numpy(), layer.unit.numpy()),
        (np.int32, "bias", layer.bias.numpy(), np.float32(layer.grid) if layer.grid else layer.unit.numpy()),
    ):
        there = multiplied[kind]
        yield f"{what} codes", len(there) == 1 and _equal(there[0][0], codes)
        yield f"scale of its {what} codes", len(there) == 1 and _equal(there[0][1], scale)
        yield f"zero point of its {what} codes", len(there) == 1 and _equal(there[0][2], 0)


def _of_fixed(file: _File, name: str, layer: FixedLayer) -> Iterator[tuple[str, bool]]:
    multiplied = file.of(name, "MatMul" if layer.is_linear else "Conv")
    weight = layer.weight.numpy()
    expected = weight.T if layer.is_linear else weight
    yield "weights", len(multiplied) == 2 and all(_equal(each[1], expected) for _, each in multiplied)
    biases = [each[2] for _, each in multiplied if len(each) > 2] + [each[1] for _, each in file.of(name, "Add")]
    known = [each for each in biases if each is not None]
    yield "bias", not layer.bias.any() or (bool(known) and _equal(known[0], layer.bias.numpy()))
    grids = sorted(float(each[1]) for _, each in file.of(name, "Mul") if each[1] is not None)
    yield "grids", {1 / layer.input_grid, layer.high_grid} <= set(grids)


def _of_function(file: _File, name: str, function: Function) -> Iterator[tuple[str, bool]]:
    found = [file.constants[each] for node in file.nodes.get(name, ()) for each in node.input if each in file.constants]
    for what, expected in function.constants():
        yield what, any(_equal(each, expected) for each in found)

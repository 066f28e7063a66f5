"""The integer form as an ONNX file that stock runtimes execute: each of our operators as what it stands for there.

Quantized layers are QuantizeLinear, Clip where codes are narrower than 8 bits, DequantizeLinear with scale 1, and a
convolution whose int8 weights carry the unit of the sum; runtimes join these into integer convolutions where they can.
"""

from __future__ import annotations

import ast
import copy
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from odm.deploy import integer, nonlinear  # noqa: F401  (the operators)
from odm.networks.backbone import Backbone

if TYPE_CHECKING:
    import onnx

OPSET = 18
"""Of runtimes from 2023 on."""
IR_VERSION = 9
"""That which came with it: a runtime of its time takes no newer file."""
INPUT, OUTPUT = "image", "enlarged"
NAMESPACE = "pkg.torch.onnx.name_scopes"


def to_onnx(network: Backbone, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """The integer form, checked, for an `image` of shape (1, 3, height, width), float32 in 0-255.

    `enlarged` is float32 too, (1, 3, scale height, scale width), neither rounded nor clipped. Heights and widths are
    multiples of what the network takes.
    """
    import onnx

    side = 16 * network.multiple
    example = torch.zeros(1, 3, side, side + network.multiple)
    with warnings.catch_warnings(), _old_precision():
        warnings.simplefilter("ignore")
        # It says in four lines that torchvision, which none of ours needs, is missing.
        logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
        program: Any = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            custom_translation_table=_translations(),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({2: _multiples("height", network), 3: _multiples("width", network)},),
            optimize=True,
            verbose=False,
        )
    model = program.model_proto
    model.ir_version = IR_VERSION
    _shuffle_codes(model.graph)
    _name_by_layers(model)
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model, full_check=True)
    return model


def _multiples(side: str, network: Backbone) -> Any:
    """Any side that the network takes."""
    if network.multiple == 1:
        return torch.export.Dim(side, min=4)
    return network.multiple * torch.export.Dim(f"{side}_{network.multiple}", min=2)


def _shuffle_codes(graph: onnx.GraphProto) -> None:
    """Have pixels shuffled as codes where a quantizer alone follows: so it comes at once behind the layer before, and
    runtimes join the two."""
    takers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    for shuffle in [each for each in graph.node if each.op_type == "DepthToSpace"]:
        behind = takers.get(shuffle.output[0], [])
        if [each.op_type for each in behind] != ["QuantizeLinear"]:
            continue
        last = quantizer = behind[0]
        if [each.op_type for each in takers[last.output[0]]] == ["Clip"]:
            (last,) = takers[last.output[0]]
        quantizer.input[0] = shuffle.input[0]
        shuffle.input[0], last.output[0], shuffle.output[0] = shuffle.output[0], shuffle.output[0], last.output[0]
        moved = copy.deepcopy(shuffle)
        graph.node.remove(shuffle)
        graph.node.insert(list(graph.node).index(last) + 1, moved)


def codes_of(layer: str) -> str:
    """What a file calls the codes of a layer's input."""
    return f"{layer}.codes"


def _name_by_layers(model: onnx.ModelProto) -> None:
    """Give each node its module's name, and codes that of their layer; runtimes say these names again."""
    graph = model.graph
    places: Counter[str] = Counter()
    renamed = {}
    for node in graph.node:
        scopes = next((each.value for each in node.metadata_props if each.key == NAMESPACE), "[]")
        inside = [each for each in ast.literal_eval(scopes)[:-1] if each]
        module = inside[-1] if inside else "network"
        del node.metadata_props[:]
        node.doc_string = ""
        if node.op_type == "DequantizeLinear" and node.output[0].startswith("codes"):
            renamed[node.input[0]] = codes_of(module)
        places[module] += 1
        node.name = f"{module}/{node.op_type}_{places[module]}"
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(each, each) for each in names]
    del graph.value_info[:]  # of names that are no more
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.doc_string = ""
        if hasattr(value, "metadata_props"):
            del value.metadata_props[:]
    del graph.metadata_props[:]
    graph.name = "network"


def tapped(model: onnx.ModelProto, layers: Sequence[str]) -> bytes:
    """The same model, which also gives the codes of layers, as uint8 by `codes_of`."""
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(model)
    for layer in layers:
        made.graph.output.append(onnx.helper.make_tensor_value_info(codes_of(layer), onnx.TensorProto.UINT8, None))
    return made.SerializeToString()


@contextmanager
def _old_precision() -> Iterator[None]:
    """Let torch's exporter ask for TF32 by the old name, which it may not where the new one has been set."""
    precision = torch.backends.fp32_precision  # type: ignore[attr-defined]
    torch.backends.fp32_precision = "none"  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.backends.fp32_precision = precision  # type: ignore[attr-defined]


def _translations() -> dict[Any, Any]:
    import numpy as np
    import onnx_ir
    from onnxscript import opset18 as op

    def constant(value: Any) -> Any:
        tensor: Any = onnx_ir.tensor(value)  # which the exporter takes, whatever the operator's types say
        return op.Constant(value=tensor)

    def codes(x: Any, origin: Any, step: Any, least: int, most: int, axis: int) -> Any:
        zero_point = max(0, -least)
        channels = step.shape[0] if len(step.shape) else 0
        if channels:
            shape = [1, channels, 1, 1] if axis == 1 else [channels]
            x = op.Sub(x, op.Reshape(origin, constant(np.array(shape))))
            zeros = constant(np.full(channels, zero_point, np.uint8))
            stored = op.QuantizeLinear(x, step, zeros, axis=axis)
        else:
            if not _is_zero(origin):
                x = op.Sub(x, origin)
            stored = op.QuantizeLinear(x, step, constant(np.array(zero_point, np.uint8)))
        bounds = least + zero_point, most + zero_point
        if bounds != (0, 255):
            stored = op.Clip(stored, *(constant(np.array(each, np.uint8)) for each in bounds))
        one = constant(np.array(1, np.float32))
        return op.DequantizeLinear(stored, one, constant(np.array(zero_point, np.uint8)))

    def weighted(
        codes: Any,
        weight: Any,
        unit: Any,
        bias: Any,
        grid: float,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> Any:
        outputs = weight.shape[0]
        scale = constant(np.full(outputs, grid, np.float32)) if grid else unit
        bias = op.DequantizeLinear(bias, scale, constant(np.zeros(outputs, np.int32)), axis=0)
        multiplied = op.DequantizeLinear(weight, unit, constant(np.zeros(outputs, np.int8)), axis=0)
        if len(weight.shape) == 2:
            return op.Add(op.MatMul(codes, op.Transpose(multiplied, perm=[1, 0])), bias)
        pads = [*padding, *padding]
        return op.Conv(codes, multiplied, bias, strides=list(stride), pads=pads, dilations=list(dilation), group=groups)

    def root(x: Any) -> Any:
        return op.Sqrt(x)

    ops = torch.ops.odm
    return {ops.codes.default: codes, ops.weighted.default: weighted, ops.root.default: root}


def _is_zero(value: Any) -> bool:
    known = value.const_value
    return known is not None and not known.numpy().any()

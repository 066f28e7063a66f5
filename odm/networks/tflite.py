"""Convolutions of a TensorFlow Lite file, as networks for phones are published."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from odm.errors import OdmError

READ = frozenset({"CONV_2D", "ADD", "RELU", "MINIMUM", "MAXIMUM", "DEPTH_TO_SPACE"})
"""Operators of a network of convolutions, its shortcuts, clipped outputs and pixel shuffle: all that may be there."""


def read(file: Path) -> dict[str, Tensor]:
    """Weights (out, in, height, width) and biases of its float convolutions in their order: `convolutions.0.weight`.

    The output channels of one before a depth-to-space, there (row, column, colour), are brought into the order of
    torch's pixel shuffle, (colour, row, column). OdmError if the file is damaged or has anything else in it.
    """
    try:
        import tflite
    except ImportError:
        raise OdmError(f"{file}: reading it needs `pip install odm-sr[tflite]`") from None
    try:
        model = tflite.Model.GetRootAsModel(file.read_bytes(), 0)
        graph = model.Subgraphs(0)
        operators = [graph.Operators(index) for index in range(graph.OperatorsLength())]
        kinds = [_kind(tflite, model, operator) for operator in operators]
        if not kinds:
            raise OdmError(f"{file}: no operators in it; put the published file there")
        if other := sorted(set(kinds) - READ):
            raise OdmError(f"{file}: has an operator {other[0]}; only {', '.join(sorted(READ))} are read")
        found: dict[str, Tensor] = {}
        of_output: dict[int, str] = {}  # the convolution whose output a tensor is, clipped or not
        for kind, operator in zip(kinds, operators, strict=True):
            inputs = operator.InputsAsNumpy()
            name = of_output.get(int(inputs[0]))
            if kind == "CONV_2D":
                name = f"convolutions.{len(found) // 2}"
                weight, bias = (_tensor(tflite, model, graph, int(index), file) for index in inputs[1:3])
                found |= {f"{name}.weight": weight.permute(0, 3, 1, 2), f"{name}.bias": bias}
            elif kind == "DEPTH_TO_SPACE" and name:
                for key in (f"{name}.weight", f"{name}.bias"):
                    found[key] = _for_pixel_shuffle(found[key], _block(tflite, operator))
            if name and kind != "ADD":
                of_output[int(operator.OutputsAsNumpy()[0])] = name
        return {key: value.contiguous() for key, value in found.items()}
    except FileNotFoundError:
        raise OdmError(f"{file}: no such file; correct `weights`") from None
    except OSError as error:
        raise OdmError(f"{file}: cannot be read: {error.strerror or error}") from None
    except OdmError:
        raise
    except Exception:  # whatever a broken table of offsets leads to
        raise OdmError(f"{file}: damaged, or no TensorFlow Lite file") from None


def _kind(tflite: Any, model: Any, operator: Any) -> str:
    code = model.OperatorCodes(operator.OpcodeIndex())
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    return str(tflite.opcode2name(number))


def _tensor(tflite: Any, model: Any, graph: Any, index: int, file: Path) -> Tensor:
    tensor = graph.Tensors(index)
    if tensor.Type() != tflite.TensorType.FLOAT32:
        raise OdmError(f"{file}: '{tensor.Name().decode()}' is quantized already; take the float file")
    values = np.frombuffer(model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes(), dtype="<f4")
    return torch.from_numpy(values.copy()).view(*(int(side) for side in tensor.ShapeAsNumpy()))


def _block(tflite: Any, operator: Any) -> int:
    options = tflite.DepthToSpaceOptions()
    table = operator.BuiltinOptions()
    options.Init(table.Bytes, table.Pos)
    return int(options.BlockSize())


def _for_pixel_shuffle(values: Tensor, block: int) -> Tensor:
    return values.unflatten(0, (block**2, -1)).transpose(0, 1).flatten(0, 1)

"""Networks for phones as TensorFlow Lite files, made from our own: what the reader is tried on, and the runtime too."""

import flatbuffers
import tflite
import torch
from torch import Tensor

from odm.networks.edsr.network import Edsr

VALID, SAME = 1, 0


class File:
    """A TensorFlow Lite file with one graph, of float tensors (N, H, W, C)."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1 << 16)
        self.buffers: list[bytes] = [b""]
        self.tensors: list[tuple[list[int], int, int]] = []
        self.codes: list[int] = []
        self.operators: list[tuple[int, list[int], int, int, int]] = []

    def tensor(self, shape: list[int], values: Tensor | None = None, kind: int = tflite.TensorType.FLOAT32) -> int:
        buffer = 0
        if values is not None:
            buffer = len(self.buffers)
            self.buffers.append(values.contiguous().numpy().tobytes())
        self.tensors.append((shape, buffer, kind))
        return len(self.tensors) - 1

    def operator(self, code: int, inputs: list[int], shape: list[int], options: int = 0, kind: int = 0) -> int:
        if code not in self.codes:
            self.codes.append(code)
        output = self.tensor(shape)
        self.operators.append((self.codes.index(code), inputs, output, options, kind))
        return output

    def convolution(self, x: int, layer: torch.nn.Conv2d, relu: bool = False) -> int:
        weight = layer.weight.detach().permute(0, 2, 3, 1)
        shape = [*self.tensors[x][0][:3], layer.out_channels]
        inputs = [x, self.tensor(list(weight.shape), weight), self.tensor([layer.out_channels], layer.bias.detach())]
        tflite.Conv2DOptionsStart(self.builder)
        tflite.Conv2DOptionsAddPadding(self.builder, SAME)
        tflite.Conv2DOptionsAddStrideW(self.builder, 1)
        tflite.Conv2DOptionsAddStrideH(self.builder, 1)
        tflite.Conv2DOptionsAddDilationWFactor(self.builder, 1)
        tflite.Conv2DOptionsAddDilationHFactor(self.builder, 1)
        tflite.Conv2DOptionsAddFusedActivationFunction(self.builder, int(relu))
        options = tflite.Conv2DOptionsEnd(self.builder)
        return self.operator(
            tflite.BuiltinOperator.CONV_2D, inputs, shape, options, tflite.BuiltinOptions.Conv2DOptions
        )

    def add(self, a: int, b: int) -> int:
        tflite.AddOptionsStart(self.builder)
        options = tflite.AddOptionsEnd(self.builder)
        shape = self.tensors[a][0]
        return self.operator(tflite.BuiltinOperator.ADD, [a, b], shape, options, tflite.BuiltinOptions.AddOptions)

    def clipped(self, x: int) -> int:
        """As published: at 255, then at 0."""
        shape = self.tensors[x][0]
        x = self.operator(tflite.BuiltinOperator.MINIMUM, [x, self.tensor([], torch.tensor(255.0))], shape)
        return self.operator(tflite.BuiltinOperator.RELU, [x], shape)

    def depth_to_space(self, x: int, block: int) -> int:
        tflite.DepthToSpaceOptionsStart(self.builder)
        tflite.DepthToSpaceOptionsAddBlockSize(self.builder, block)
        options = tflite.DepthToSpaceOptionsEnd(self.builder)
        n, height, width, channels = self.tensors[x][0]
        return self.operator(
            tflite.BuiltinOperator.DEPTH_TO_SPACE,
            [x],
            [n, height * block, width * block, channels // block**2],
            options,
            tflite.BuiltinOptions.DepthToSpaceOptions,
        )

    def bytes(self, x: int, y: int) -> bytes:
        """The whole file, of the graph from one tensor to another."""
        b = self.builder
        tensors = []
        for shape, buffer, kind in self.tensors:
            sides, name = self._numbers(shape), b.CreateString(f"tensor {len(tensors)}")
            tflite.TensorStart(b)
            tflite.TensorAddShape(b, sides)
            tflite.TensorAddType(b, kind)
            tflite.TensorAddBuffer(b, buffer)
            tflite.TensorAddName(b, name)
            tensors.append(tflite.TensorEnd(b))
        operators = []
        for code, inputs, output, options, kind in self.operators:
            ins, outs = self._numbers(inputs), self._numbers([output])
            tflite.OperatorStart(b)
            tflite.OperatorAddOpcodeIndex(b, code)
            tflite.OperatorAddInputs(b, ins)
            tflite.OperatorAddOutputs(b, outs)
            if options:
                tflite.OperatorAddBuiltinOptionsType(b, kind)
                tflite.OperatorAddBuiltinOptions(b, options)
            operators.append(tflite.OperatorEnd(b))
        parts = [self._offsets(tensors), self._numbers([x]), self._numbers([y]), self._offsets(operators)]
        tflite.SubGraphStart(b)
        tflite.SubGraphAddTensors(b, parts[0])
        tflite.SubGraphAddInputs(b, parts[1])
        tflite.SubGraphAddOutputs(b, parts[2])
        tflite.SubGraphAddOperators(b, parts[3])
        graphs = self._offsets([tflite.SubGraphEnd(b)])
        codes = []
        for code in self.codes:
            tflite.OperatorCodeStart(b)
            tflite.OperatorCodeAddDeprecatedBuiltinCode(b, code)
            tflite.OperatorCodeAddBuiltinCode(b, code)
            tflite.OperatorCodeAddVersion(b, 1)
            codes.append(tflite.OperatorCodeEnd(b))
        codes_vector = self._offsets(codes)
        buffers = []
        for content in self.buffers:
            data = b.CreateByteVector(content) if content else 0
            tflite.BufferStart(b)
            if content:
                tflite.BufferAddData(b, data)
            buffers.append(tflite.BufferEnd(b))
        buffers_vector = self._offsets(buffers)
        tflite.ModelStart(b)
        tflite.ModelAddVersion(b, 3)
        tflite.ModelAddOperatorCodes(b, codes_vector)
        tflite.ModelAddSubgraphs(b, graphs)
        tflite.ModelAddBuffers(b, buffers_vector)
        b.Finish(tflite.ModelEnd(b), b"TFL3")
        return bytes(b.Output())

    def _numbers(self, values: list[int]) -> int:
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.builder.PrependInt32(value)
        return self.builder.EndVector()

    def _offsets(self, values: list[int]) -> int:
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.builder.PrependUOffsetTRelative(value)
        return self.builder.EndVector()


def tensorflow_order(layer: torch.nn.Conv2d, block: int) -> torch.nn.Conv2d:
    """A convolution before a pixel shuffle as it is before a depth-to-space."""
    other = torch.nn.Conv2d(layer.in_channels, layer.out_channels, 3, padding=1)
    order = torch.arange(layer.out_channels).view(-1, block**2).T.flatten()
    other.weight.data, other.bias.data = layer.weight.data[order], layer.bias.data[order]
    return other


def file_of(network: Edsr, height: int, width: int) -> bytes:
    """An EDSR with the direct upsampler for images of one size, as MLCommons publishes it."""
    file = File()
    x = file.tensor([1, height, width, 3])
    shallow = deep = file.convolution(x, network.head)
    for block in network.blocks:
        deep = file.add(deep, file.convolution(file.convolution(deep, block.conv1, relu=True), block.conv2))
    deep = file.add(shallow, file.convolution(deep, network.last))
    y = file.convolution(deep, tensorflow_order(network.upsampler[0], network.scale))
    y = file.depth_to_space(file.clipped(y), network.scale)
    return file.bytes(x, y)

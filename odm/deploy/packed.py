"""An integer form as one small file: weight codes at their true width behind a small binary header.

    ODMI, version (1 byte) | length (4) and zlib of a JSON text: what it is | a record a layer | SHA-256 of all before

Numbers are little-endian. Records come in the order of the network's convolutions and linear layers; codes of a layer
are packed without gaps, their first bit first.
"""

import hashlib
import json
import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn

from odm.deploy.fixed import FixedLayer, Snapped
from odm.deploy.integer import IntegerLayer
from odm.deploy.nonlinear import Function, counterpart
from odm.deploy.opened import settle_mean
from odm.deploy.stored import storing
from odm.errors import OdmError
from odm.files import unreadable, whole
from odm.model import Model
from odm.networks.backbone import Backbone
from odm.networks.build import build

MAGIC = b"ODMI"
VERSION = 2
SUFFIX = ".odmi"
DIGEST = 32
INTEGER, FIXED = 1, 2

Array = NDArray[Any]


def pack(indices: Array, width: int) -> bytes:
    """Whole numbers in [0, 2^width) at so many bits each."""
    bits = (indices.reshape(-1, 1) >> np.arange(width)) & 1
    return np.packbits(bits.astype(np.uint8)).tobytes()


def unpack(content: bytes, width: int, count: int) -> Array:
    """What `pack` packed."""
    bits = np.unpackbits(np.frombuffer(content, np.uint8), count=width * count)
    return (bits.reshape(count, width).astype(np.int64) << np.arange(width)).sum(1)


class _Writer:
    def __init__(self) -> None:
        self.content = bytearray()

    def numbers(self, layout: str, *values: float) -> None:
        self.content += struct.pack(f"<{layout}", *values)

    def array(self, values: Tensor, kind: str) -> None:
        """One number where all are equal."""
        flat = values.detach().numpy().astype(kind).ravel()
        if flat.size > 1 and (flat == flat[0]).all():
            flat = flat[:1]
        self.numbers("I", flat.size)
        self.content += flat.astype(f"<{kind}").tobytes()

    def codes(self, values: Tensor) -> None:
        """Whole numbers at the width that they need: odd ones, say, are counted in twos."""
        flat = values.detach().numpy().astype(np.int64).ravel()
        lowest = int(flat.min())
        stride = int(np.gcd.reduce(flat - lowest)) or 1
        indices = (flat - lowest) // stride
        width = int(indices.max()).bit_length()
        self.numbers("iIB", lowest, stride, width)
        if width:
            self.content += pack(indices, width)


class _Reader:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.place = 0

    def take(self, count: int) -> bytes:
        self.place += count
        return self.content[self.place - count : self.place]

    def numbers(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}")))

    def array(self, into: Tensor, kind: str) -> None:
        (size,) = self.numbers("I")
        values = np.frombuffer(self.take(size * np.dtype(kind).itemsize), f"<{kind}")
        into.copy_(torch.from_numpy(np.broadcast_to(values, into.numel()).copy()).view(into.shape))

    def codes(self, into: Tensor, unit: float = 1.0) -> None:
        lowest, stride, width = self.numbers("iIB")
        indices = np.zeros(into.numel(), np.int64)
        if width:
            indices = unpack(self.take(-(-into.numel() * width // 8)), width, into.numel())
        into.copy_((torch.from_numpy(indices * stride + lowest).double() * unit).view(into.shape))


def write(path: Path, model: Model, form: Backbone) -> None:
    """Write an integer form; equal ones give equal bytes."""
    layers = {name: each for name, each in form.named_modules() if isinstance(each, IntegerLayer | FixedLayer)}
    snapped = {name: each.grid for name, each in form.named_modules() if isinstance(each, Snapped)}
    functions = {name: each.numbers() for name, each in form.named_modules() if isinstance(each, Function)}
    inside = tuple(f"{name}." for name in layers)
    rest = {key: value.tolist() for key, value in form.state_dict().items() if not key.startswith(inside)}
    bare = build(model.network)
    folded = [
        name
        for name, each in bare.named_modules()
        if isinstance(each, nn.BatchNorm2d) and isinstance(form.get_submodule(name), nn.Identity)
    ]
    said = {"model": json.loads(model.model_dump_json(exclude_defaults=True))}
    stored = {place: [each.least, each.most] for place, each in getattr(form, "stored", nn.ModuleDict()).items()}
    passed = getattr(form, "passed", {})
    parts = {
        "folded": folded,
        "snapped": snapped,
        "functions": functions,
        "rest": rest,
        "stored": stored,
        "passed": passed,
    }
    said |= {key: value for key, value in parts.items() if value}
    writer = _Writer()
    writer.content += MAGIC + bytes([VERSION])
    text = zlib.compress(json.dumps(said, separators=(",", ":")).encode(), 9)
    writer.numbers("I", len(text))
    writer.content += text
    for layer in layers.values():
        if isinstance(layer, IntegerLayer):
            _integer(writer, layer)
        else:
            _fixed(writer, layer)
    content = bytes(writer.content)
    with whole(path) as beside:
        beside.write_bytes(content + hashlib.sha256(content).digest())


def _integer(writer: _Writer, layer: IntegerLayer) -> None:
    weight_bits, activation_bits = layer.bits
    writer.numbers(
        "BBBhhB?", INTEGER, weight_bits, activation_bits, layer.least, layer.most, layer.step.ndim, layer.pads_input
    )
    writer.numbers("f", layer.grid)
    writer.array(layer.origin, "f4")
    writer.array(layer.step, "f4")
    writer.array(layer.unit, "f4")
    writer.codes(layer.bias)
    writer.codes(layer.weight)


def _fixed(writer: _Writer, layer: FixedLayer) -> None:
    writer.numbers("Bfff", FIXED, layer.input_grid, layer.weight_grid, layer.grid)
    writer.codes((layer.bias.double() / (layer.high_grid / 2)).round())
    writer.codes((layer.weight.double() / layer.low_grid).round())


def _said(path: Path) -> tuple[dict[str, Any], _Reader]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise OdmError(f"{path}: no such file; `odm export <run>` writes one") from None
    except OSError as error:
        raise unreadable(path, error) from None
    body, digest = content[:-DIGEST], content[-DIGEST:]
    if not content.startswith(MAGIC) or hashlib.sha256(body).digest() != digest:
        raise OdmError(f"{path}: damaged, or none of `odm export`; export it again")
    if content[len(MAGIC)] != VERSION:
        raise OdmError(f"{path}: of version {content[len(MAGIC)]} and this program reads {VERSION}; export it again")
    reader = _Reader(body)
    reader.take(len(MAGIC) + 1)
    (length,) = reader.numbers("I")
    said = json.loads(zlib.decompress(reader.take(length)))
    return said, reader


def _model(path: Path, said: dict[str, Any]) -> Model:
    try:
        return Model.model_validate({"method": None, "run": None} | said["model"])
    except ValidationError as error:
        first = error.errors()[0]
        raise OdmError(f"{path}: of another version of this program ({first['msg']}); export it again") from None


def about(path: Path) -> Model:
    """What a file says of its network, once all of it has been compared with its digest. OdmError as `read`."""
    return _model(path, _said(path)[0])


def read(path: Path) -> tuple[Model, Backbone]:
    """The integer form of a file. OdmError if the file is missing, damaged or another's."""
    said, reader = _said(path)
    model = _model(path, said)
    form = build(model.network)
    settle_mean(form)
    for name in said.get("folded", ()):
        form.set_submodule(name, nn.Identity())
    places = [name for name, each in form.named_modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    for name in places:
        layer = form.get_submodule(name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        form.set_submodule(name, _read_layer(reader, layer))
    for name, grid in said.get("snapped", {}).items():
        rounded = Snapped(form.get_submodule(name))
        rounded.grid = grid
        form.set_submodule(name, rounded)
    for name, numbers in said.get("functions", {}).items():
        function = counterpart(form.get_submodule(name), name)
        function.settle(numbers)
        form.set_submodule(name, function)
    rest = {key: torch.tensor(value) for key, value in said.get("rest", {}).items()}
    missing = form.load_state_dict(rest, strict=False)
    assert not missing.unexpected_keys
    form.convolutional = False
    if "stored" in said:
        storing(form, said["stored"], said.get("passed", {}))
    return model, form.eval()


def _read_layer(reader: _Reader, layer: nn.Conv2d | nn.Linear) -> IntegerLayer | FixedLayer:
    (kind,) = reader.numbers("B")
    if kind == INTEGER:
        weight_bits, activation_bits, least, most, channels, pads_input = reader.numbers("BBhhB?")
        made = IntegerLayer(layer, per_channel=channels > 0)
        made.bits, made.least, made.most, made.pads_input = (weight_bits, activation_bits), least, most, pads_input
        (made.grid,) = reader.numbers("f")
        for values in (made.origin, made.step, made.unit):
            reader.array(values, "f4")
        reader.codes(made.bias)
        reader.codes(made.weight)
        return made
    fixed = FixedLayer(layer)
    fixed.input_grid, fixed.weight_grid, fixed.grid = reader.numbers("fff")
    reader.codes(fixed.bias, fixed.high_grid / 2)
    reader.codes(fixed.weight, fixed.low_grid)
    return fixed


def layers_of(form: Backbone) -> str:
    """How many layers of which bits an integer form has, in words."""
    bits = Counter(f"W{each.bits[0]}A{each.bits[1]}" for each in form.modules() if isinstance(each, IntegerLayer))
    fixed = sum(isinstance(each, FixedLayer) for each in form.modules())
    return ", ".join(f"{count} layers of {each}" for each, count in bits.items()) + f", {fixed} in fixed point"

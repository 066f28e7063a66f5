"""Stock runtimes that execute an ONNX file: how each is started, what it computed, which operators it made of it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odm.deploy.extra import installed

Array = NDArray[Any]
RESTRICTIONS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Environment variables that keep OpenVINO from instructions that this processor has; ours, for torch, among them."""
FEATURES = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
"""Of a processor, those that decide how integers are multiplied."""
VNNI = ("avx_vnni", "avx512_vnni", "amx_int8")


@dataclass(frozen=True)
class Operator:
    """What a runtime made of a layer's multiplication."""

    layer: str
    ran_as: str
    integer: bool
    why: str = ""
    """Where it is not in integers."""


class Session:
    """A model that has been loaded."""

    def run(self, image: Array) -> dict[str, Array]:
        """Outputs by name, of an image of shape (1, 3, H, W), float32 in 0-255."""
        raise NotImplementedError


class Runtime:
    name: str

    @property
    def version(self) -> str:
        return importlib.metadata.version(self.name)

    def open(self, model: bytes, threads: int = 1) -> Session:
        raise NotImplementedError

    def operators(self, model: bytes, layers: list[str]) -> list[Operator]:
        """Of each layer, read from the graph that the runtime has made for this processor."""
        raise NotImplementedError


FLOAT_STREAM = "no quantizer alone follows it: it writes to the float residual stream"


class OnnxRuntime(Runtime):
    name = "onnxruntime"

    def open(self, model: bytes, threads: int = 1, optimized: Path | None = None) -> Session:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if optimized:
            options.optimized_model_filepath = str(optimized)
        return _OrtSession(ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]))

    def operators(self, model: bytes, layers: list[str]) -> list[Operator]:
        import onnx

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "optimized.onnx"
            self.open(model, optimized=path)
            graph = onnx.load(path).graph
        # An integer operator takes a layer's weights as they are; for a float one they have been turned into floats.
        takers = {name: node for node in graph.node for name in node.input}
        # Those of a linear layer are turned around first, so that it goes by its own name.
        linear = {node.name.partition("/MatMul")[0]: node for node in graph.node if "/MatMul" in node.name}
        found = []
        for layer in layers:
            node = linear.get(layer, takers.get(f"{layer}.weight"))
            kind = node.op_type if node is not None else "Conv"
            is_integer = kind not in ("Conv", "DequantizeLinear", "FusedConv", "MatMul", "Gemm")
            if not is_integer and layer not in linear:
                kind = next((each.op_type for each in graph.node if each.name.startswith(f"{layer}/Conv")), "Conv")
            found.append(Operator(layer, kind, is_integer, "" if is_integer else FLOAT_STREAM))
        return found


class _OrtSession(Session):
    def __init__(self, session: Any) -> None:
        self.session = session
        self.names = [each.name for each in session.get_outputs()]

    def run(self, image: Array) -> dict[str, Array]:
        return dict(zip(self.names, self.session.run(None, {self.session.get_inputs()[0].name: image}), strict=True))


class OpenVino(Runtime):
    name = "openvino"

    def _compile(self, model: bytes, threads: int) -> Any:
        import openvino as ov

        with unrestricted():
            # Its default for the float rest is bfloat16 where the processor has it.
            settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
            core = ov.Core()
            return core.compile_model(core.read_model(model), "CPU", settings)

    def open(self, model: bytes, threads: int = 1) -> Session:
        return _OpenVinoSession(self._compile(model, threads))

    def operators(self, model: bytes, layers: list[str]) -> list[Operator]:
        compiled = self._compile(model, 1)
        kinds: dict[str, str] = {}
        for node in compiled.get_runtime_model().get_ordered_ops():
            told = node.get_rt_info()
            if _said(told, "layerType") not in ("Convolution", "FullyConnected", "MatMul"):
                continue
            for name in (*_said(told, "originalLayersNames").split(","), node.get_friendly_name()):
                layer, _, kind = name.partition("/")
                if kind.startswith(("Conv", "MatMul")):
                    kinds[layer] = _said(told, "primitiveType")
        found = []
        for layer in layers:
            kind = kinds.get(layer, "not found")
            is_integer = kind.upper().endswith(("I8", "U8"))
            found.append(Operator(layer, kind, is_integer, "" if is_integer else "its plugin chose float for it"))
        return found


class _OpenVinoSession(Session):
    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self.request = compiled.create_infer_request()

    def run(self, image: Array) -> dict[str, Array]:
        outputs = self.request.infer([image])
        # A port goes by every name that its value has had.
        return {name: np.array(value) for port, value in outputs.items() for name in port.get_names()}


def _said(told: Mapping[str, Any], key: str) -> str:
    value = told[key] if key in told else ""  # noqa: SIM401 (it is no dict)
    return str(value.value if hasattr(value, "value") else value)


@contextmanager
def unrestricted() -> Iterator[None]:
    """Without what the environment forbids OpenVINO; torch, which has computed, has read it already."""
    before = {key: os.environ.pop(key) for key in RESTRICTIONS if key in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def runtimes() -> list[Runtime]:
    """Those that are installed."""
    return [each for each in (OnnxRuntime(), OpenVino()) if installed(each.name)]


def features() -> list[str]:
    """Of FEATURES, what this processor has."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return [each for each in FEATURES if each in flags]


def lacks_vnni() -> bool:
    """Whether this processor may add two products in 16 bits (`MOST_PAIR`), as those of x86 do that are not known to
    have VNNI."""
    return platform.machine().lower() in ("x86_64", "amd64") and not set(VNNI) & set(features())

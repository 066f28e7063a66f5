"""`odm info <file>`: what any file of ours is."""

from pathlib import Path

from odm.deploy import packed
from odm.deploy.bundle import read_model
from odm.deploy.extra import need
from odm.errors import OdmError, some
from odm.model import Model, about
from odm.names import shown
from odm.sealed import DamagedError, read_metadata, read_sealed_json


def run(path: str) -> None:
    """A model file, an integer form, an ONNX file, a certificate, stored weights. OdmError if it is none of these."""
    file = Path(path)
    if file.is_dir() or not file.exists():
        raise OdmError(f"{file}: {'a folder; name a file in it' if file.is_dir() else 'no such file'}")
    kinds = {packed.SUFFIX: _form, ".onnx": _onnx, ".json": _certificate, ".safetensors": _model}
    kind = kinds.get(file.suffix)
    if kind is None:
        raise OdmError(f"{file}: no file of ours has this suffix; there are: {', '.join(kinds)}")
    for key, value in kind(file):
        print(f"{key:<12} {shown(value)}")
    print(f"{'size':<12} {file.stat().st_size / 1000:.1f} kB")


Lines = list[tuple[str, str]]


def _form(file: Path) -> Lines:
    model, form = packed.read(file)
    layers = packed.layers_of(form)
    return [("file", f"integer form, {layers}"), *_said(model)]


def _model(file: Path) -> Lines:
    try:
        metadata = read_metadata(file)
    except DamagedError:
        raise OdmError(f"{file}: damaged, or none of ours") from None
    if "model" in metadata:
        return [("file", "model file of `odm ship`"), *_said(about(file))]
    return [("file", "stored tensors of a suite"), *((key, value[:80]) for key, value in metadata.items())]


def _onnx(file: Path) -> Lines:
    need("onnx")
    model = read_model(file)
    said = {each.key.removeprefix("odm."): each.value for each in model.metadata_props if each.key.startswith("odm.")}
    if not said:
        raise OdmError(f"{file}: an ONNX model, but none of `odm export`")
    inputs = ", ".join(each.name for each in model.graph.input)
    opset = ", ".join(str(each.version) for each in model.opset_import)
    return [("file", f"ONNX model, opset {opset}, of {inputs}"), *said.items()]


def _certificate(file: Path) -> Lines:
    said = read_sealed_json(file, "export it again")
    if "runtimes" not in said:
        raise OdmError(f"{file}: a record of a suite, but no certificate of `odm export`")
    lines = [("file", f"certificate of {said['title']}")]
    for name, runtime in said["runtimes"].items():
        differing = sum(runtime["codes"].values())
        lines.append((name, f"{runtime['version']}: {differing} codes, {runtime['bytes_untapped']} bytes differ"))
    lines += [("psnr", f"{name}: {_scores(sets)}") for name, sets in said["psnr"].items()]
    return [*lines, ("images", some([f"{name} ({len(each)})" for name, each in said["images"].items()]))]


def _said(model: Model) -> Lines:
    network = model.network.model_dump(exclude_none=True, exclude={"seed"})
    lines = [
        ("name", model.name),
        ("network", ", ".join(f"{key} {value}" for key, value in network.items())),
    ]
    if model.method is not None and model.run is not None:
        bits = f"W{model.run.weight_bits}A{model.run.activation_bits}"
        lines.append(("method", f"{model.method.kind}, {bits}, seed {model.run.seed}"))
    else:
        lines.append(("method", "float"))
    lines += [("trained on", ", ".join(model.trained_on))]
    for name, scores in model.scores.items():
        lines.append((name, f"{scores['psnr']:.2f} dB, SSIM {scores['ssim']:.4f}"))
    return [*lines, ("settings", model.settings), ("licence", model.licence or "none stated")]


def _scores(sets: dict[str, float]) -> str:
    return ", ".join(f"{name} {psnr:.4f} dB" for name, psnr in sets.items())

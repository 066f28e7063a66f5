"""`odm evaluate <network, dial or run>`: score it on every test image, and count what it costs."""

import math
import time
from dataclasses import asdict
from fractions import Fraction
from importlib.metadata import version
from typing import Any

import torch

from odm import __version__, inference
from odm.card import origin
from odm.errors import OdmError
from odm.files import write_json
from odm.images import summary
from odm.images.imresize import imresize
from odm.images.metrics import score
from odm.images.prepared import Prepared
from odm.networks.backbone import Backbone
from odm.networks.cost import cost
from odm.networks.device import cpu_name, device_of, vectors
from odm.quantization.layer import quantized_layers
from odm.sealed import write_sealed_json
from odm.settings.suite import Settings

Scores = dict[str, dict[str, dict[str, float]]]


def run(settings: Settings, name: str) -> None:
    device = device_of(settings)
    prepared = Prepared(settings.results / "data" / "test.safetensors")
    network = inference.load(settings, name, device)
    scale = network.scale

    scores: Scores = {}
    bicubic: Scores = {}
    seconds = 0.0
    for index, (set_name, image) in enumerate(prepared.images):
        low, high = prepared.pair(index, scale, check=True)
        began = time.perf_counter()
        what = f"{name}: '{image}' of '{set_name}'"
        output = inference.upscale(network, low, what)  # ends on the host, so a GPU has finished
        seconds += time.perf_counter() - began
        scores.setdefault(set_name, {})[image] = _score(output, high, scale, what)
        if name in settings.floats:
            enlarged = imresize(low, Fraction(scale))
            bicubic.setdefault(set_name, {})[image] = _score(
                enlarged, high, scale, f"bicubic: '{image}' of '{set_name}'"
            )

    out = settings.results / ("networks" if name in settings.floats else "runs") / name
    description = _description(settings, name, network, device)
    metrics = description | {"scores": scores, "bicubic": bicubic or None}
    write_sealed_json(out / "metrics.json", metrics)
    means = summary.of(metrics)
    write_json(out / "summary.json", means)
    write_sealed_json(
        out / "timing.json",
        {
            "seconds_per_image": seconds / len(prepared.images),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "cpu": cpu_name(),
            "threads": settings.threads,
            "torch": torch.__version__,
        },
    )
    said = [f"{each} {psnr:.2f} dB" for each, psnr in means["psnr"].items()]
    print(f"{name}: {', '.join(said)}: {out}/metrics.json")


def _score(output: inference.Image, high: inference.Image, scale: int, what: str) -> dict[str, float]:
    found = score(output, high, scale)
    if not all(math.isfinite(value) for value in found.values()):
        raise OdmError(f"{what}: the score is not finite ({found}); the weights or the image are broken")
    return {key: round(value, 6) for key, value in found.items()}


def _description(settings: Settings, name: str, network: Backbone, device: torch.device) -> dict[str, Any]:
    layers = quantized_layers(network)
    shared = {
        "name": name,
        "settings": origin(settings, name),
        "scale": network.scale,
        **{key: round(value, 6) for key, value in asdict(cost(network)).items()},
        "quantized_layers": list(layers),
        "offsets": {
            part: [each for each, layer in layers.items() if layer.offset is not None and part in layer.offset.parts()]
            for part in ("shift", "scale")
        },
        "device": str(device),
        "threads": settings.threads,
        "vectors": vectors(),
        "versions": {"odm": __version__, "torch": torch.__version__, "scikit-image": version("scikit-image")},
    }
    if name in settings.floats:
        return shared | {
            "network": name,
            "method": "float",
            "weight_bits": 32,
            "activation_bits": 32,
            "seed": settings.network_of(name).seed,
            "coverage": None,
        }
    run_settings = settings.runs[name]
    method = settings.methods[run_settings.method]
    return shared | {
        "network": run_settings.network,
        "method": run_settings.method,
        "weight_bits": run_settings.weight_bits,
        "activation_bits": run_settings.activation_bits,
        "seed": run_settings.seed,
        "coverage": method.coverage,
    }

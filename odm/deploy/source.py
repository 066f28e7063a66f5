"""What is exported: a run of the suite in force, or a model file."""

import hashlib
from pathlib import Path

import torch

from odm import inference, model
from odm.card import origin
from odm.deploy.integer import saturating
from odm.errors import OdmError
from odm.images import summary
from odm.model import Model
from odm.networks.backbone import Backbone
from odm.networks.reach import reach
from odm.sealed import read_sealed_json
from odm.settings.suite import Settings

CPU = torch.device("cpu")


def of_run(settings: Settings, name: str) -> tuple[Model, Backbone]:
    """A run, with its scores if it has been evaluated under the settings in force."""
    if name in settings.floats:
        raise OdmError(f"{name}: a float network, and integers are what is exported; name a quantized run")
    run = settings.runs[name]
    digest = origin(settings, name)
    scores: dict[str, dict[str, float]] = {}
    metrics = settings.results / "runs" / name / "metrics.json"
    if metrics.exists():
        found = read_sealed_json(metrics, f"run `odm evaluate {name}` again")
        if found["settings"] == digest:
            means = summary.of(found)
            scores = {each: {key: means[key][each] for key in ("psnr", "ssim")} for each in means["psnr"]}
    made = Model(
        name=name,
        network=settings.network_of(run.network).model_copy(update={"weights": None}),
        method=settings.methods[run.method],
        run=run,
        trained_on=settings.images.train,
        scores=scores,
        settings=digest,
        licence="",
    )
    return made, inference.load(settings, name, CPU)


def of_file(path: Path) -> tuple[Model, Backbone]:
    """A model file of `odm ship`."""
    about = model.about(path)
    if about.run is None:
        raise OdmError(f"{path}: a float network, and integers are what is exported; ship a quantized run")
    return about, model.load(path, CPU)


def digest_of(network: Backbone) -> str:
    """SHA-256 of all of a network's values."""
    found = hashlib.sha256()
    for key, value in network.state_dict().items():
        found.update(key.encode())
        found.update(value.contiguous().cpu().numpy().tobytes())
    return found.hexdigest()


def metadata(about: Model, network: Backbone, form: str, made: Backbone) -> dict[str, str]:
    """What an ONNX file says of itself: of a network's form, and of what was made of it."""
    assert about.run is not None and about.method is not None
    halo = reach(network)
    return {
        "odm.name": about.name,
        "odm.form": form,
        "odm.method": about.method.kind,
        "odm.weight_bits": str(about.run.weight_bits),
        "odm.activation_bits": str(about.run.activation_bits),
        "odm.scale": str(network.scale),
        "odm.multiple": str(network.multiple),
        "odm.halo": "" if halo is None else str(halo),
        "odm.needs": "vnni" if saturating(made) else "",
        "odm.colour_range": "RGB, 0-255, float32",
        "odm.licence": about.licence or "none stated",
        "odm.settings": about.settings,
        "odm.weights_sha256": digest_of(network),
    }

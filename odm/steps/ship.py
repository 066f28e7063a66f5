"""`odm ship <network or run>`: one file that stands alone, with scores and terms."""

from pathlib import Path

from odm import inference, model
from odm.card import origin
from odm.errors import OdmError
from odm.images import summary
from odm.networks.device import device_of
from odm.reporting import results
from odm.sealed import read_sealed_json
from odm.settings.suite import Settings


def run(settings: Settings, name: str, output: str, licence: str) -> None:
    """Without an output it is <name>.safetensors, where the command is given."""
    is_run = name in settings.runs
    network = settings.network_of(settings.runs[name].network if is_run else name)
    if network.backbone == "custom":
        raise OdmError(f"{name}: its network is a Python file of yours, which a model file cannot hold; ship both")
    path = Path(output or f"{name}.safetensors")
    again = f"run `odm evaluate {name}` first"
    metrics = read_sealed_json(results.folder(settings, name) / "metrics.json", again)
    if metrics["settings"] != origin(settings, name):
        raise OdmError(f"{name}: scored under other settings than those in force; {again}")
    means = summary.of(metrics)
    made = model.Model(
        name=path.stem,
        network=network.model_copy(update={"weights": None}),
        method=settings.methods[settings.runs[name].method] if is_run else None,
        run=settings.runs[name] if is_run else None,
        trained_on=settings.images.train,
        scores={each: {key: means[key][each] for key in ("psnr", "ssim")} for each in settings.images.test},
        settings=metrics["settings"],
        licence=licence,
    )
    model.write(path, made, inference.load(settings, name, device_of(settings)))
    print(f"{path}: {name}, {path.stat().st_size / 1000:.0f} kB")

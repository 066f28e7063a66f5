"""`odm ship <network or run>`: one file that stands alone, with scores and terms, and what is to be said of it."""

from pathlib import Path

from odm import inference, model, model_card
from odm.card import origin
from odm.errors import OdmError
from odm.files import write_json, write_text
from odm.images import summary
from odm.networks.catalogue import READY
from odm.networks.device import device_of
from odm.reporting import results
from odm.sealed import read_sealed_json
from odm.settings.suite import Settings


def run(settings: Settings, name: str, output: str, licence: str, url: str = "") -> None:
    """Without an output it is <name>.safetensors, where the command is given; a page and an entry for hubs of models,
    <name>.md and <name>.json, lie beside it. `url` is where the file will be had from."""
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
        starts_from=_starts_from(network.weights),
        training=settings.qat if is_run else None,
        trained_on=settings.images.train if is_run or not network.weights else [],
        scores={each: {key: means[key][each] for key in ("psnr", "ssim")} for each in settings.images.test},
        settings=metrics["settings"],
        licence=licence,
    )
    loaded = inference.load(settings, name, device_of(settings))
    model.write(path, made, loaded)
    card = model_card.Card(path, made, loaded)
    write_text(path.with_suffix(".md"), model_card.page(card))
    write_json(path.with_suffix(".json"), model_card.entry(card, url))
    print(f"{path}: {name}, {path.stat().st_size / 1000:.0f} kB; what to say of it is in {path.stem}.md and .json")


def _starts_from(weights: str | None) -> str:
    if not weights:
        return ""
    ready = READY.get(weights)
    return f"weights by {ready.trained_by} ({ready.file}, {ready.terms})" if ready else f"the weights {weights}"

"""`odm upscale IN... OUT`: enlarge photographs with a trained network."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from odm import inference, model
from odm.deploy import enlarger as exported
from odm.deploy import packed
from odm.errors import OdmError, nearest
from odm.files import digest_of_file
from odm.hold import held
from odm.names import shown
from odm.networks.device import device_of, set_vectors
from odm.settings.suite import Settings
from odm.upscaling import plan, tiles
from odm.upscaling.batch import DONE, FAILED, FINISHED, Batch, Result
from odm.upscaling.enlarger import Enlarger, OfNetwork
from odm.upscaling.formats import FORMATS
from odm.upscaling.journal import FOLDER, Journal
from odm.upscaling.progress import Progress

FORM = 1
"""Of how pixels are made of a network's output: to be counted up where that changes, so that none is taken for finished
that would come out otherwise."""


@dataclass(frozen=True)
class Chosen:
    """What enlarges, and what is said of it."""

    enlarger: Enlarger
    name: str
    digest: str


def run(
    settings: Settings | None,
    paths: Sequence[str],
    name: str,
    output: str,
    *,
    force: bool = False,
    suffix: str = "",
    window: int = 0,
    as_json: bool = False,
) -> None:
    """Paths are images and folders of images; without an `output` the last of several is where to write.

    `name` is a file of `odm ship` or `odm export`, a shipped network, or a name of the settings, which are needed for
    nothing else; the shipped default if it is empty. One image without an output becomes a PNG beside it. OdmError,
    after all others are done, if any image is not.
    """
    if suffix and f".{suffix}" not in FORMATS:
        raise OdmError(f"--format: '{suffix}' is none{nearest(suffix, (each[1:] for each in FORMATS))}")
    chosen = _chosen(settings, name or model.DEFAULT)
    side = tiles.checked(window, chosen.enlarger) if window else tiles.window_of(chosen.enlarger)
    sources, target = [Path(each) for each in paths], output
    if not output and len(sources) > 1:
        target = str(sources.pop())
    if len(sources) == 1 and not sources[0].is_dir() and _is_file(target, bool(output)):
        beside = sources[0].with_name(f"{sources[0].stem}_x{chosen.enlarger.scale}_{chosen.name}.{suffix or 'png'}")
        todo = plan.single(sources[0], Path(target) if target else beside)
        return _one(Batch(chosen.enlarger, side, None, force), todo, chosen, as_json)
    if not target:
        raise OdmError(f"{sources[0]}: is a folder; say behind it where to write")
    folder = Path(target)
    todo = plan.many(sources, folder, f".{suffix}" if suffix else "")
    made_by = _digest({"form": FORM, "window": side, "options": {key: each.options for key, each in FORMATS.items()}})
    with held(folder / FOLDER / "upscale.lock", f"odm upscale into {folder}"):
        journal = Journal(folder, chosen.digest, made_by)
        _all(Batch(chosen.enlarger, side, journal, force), todo, chosen, as_json)


def _is_file(target: str, by_option: bool) -> bool:
    """Whether one image is written to a file of this name, not into a folder of it."""
    path = Path(target)
    return not target or (not path.is_dir() and not target.endswith("/") and (by_option or bool(path.suffix)))


def _chosen(settings: Settings | None, name: str) -> Chosen:
    """What a name means: a file, of `odm ship` or `odm export`, or a network that is shipped, or one of the suite."""
    file = model.shipped().get(name) or (Path(name) if Path(name).suffix else None)
    if file is not None and file.suffix in exported.SUFFIXES:
        return _exported(file)
    if file is not None:
        network = model.load(file, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        return Chosen(OfNetwork(network, file.stem), file.stem, digest_of_file(file))
    if settings is None:
        raise OdmError(f"'{name}' is no shipped network{nearest(name, model.shipped())}, and there is no suite here")
    network = inference.load(settings, name, device_of(settings))
    kind = "networks" if name in settings.floats else "runs"
    weights = settings.results / kind / name / "weights.safetensors"
    return Chosen(OfNetwork(network, name), name, digest_of_file(weights))


def _exported(file: Path) -> Chosen:
    name = file.parent.name or file.stem
    if file.suffix != packed.SUFFIX:
        return Chosen(exported.OfFile(file), name, digest_of_file(file))
    set_vectors("avx2")  # as it was certified
    form, halo = exported.integer(file)
    return Chosen(OfNetwork(form, name, halo), name, digest_of_file(file))


def _one(batch: Batch, todo: plan.Plan, chosen: Chosen, as_json: bool) -> None:
    with Progress(todo.jobs) as progress:
        (result,) = batch.run(todo.jobs, progress.piece)
    if as_json:
        print(json.dumps(_told(result)))
    if result.status == FAILED:
        raise OdmError(result.reason)
    if not as_json:
        for note in result.notes:
            print(f"note: {shown(result.job.source)}: {note}")
        print(f"{shown(result.job.target)}: {chosen.name}, x{chosen.enlarger.scale}")


def _all(batch: Batch, todo: plan.Plan, chosen: Chosen, as_json: bool) -> None:
    results = []
    with Progress(todo.jobs) as progress:
        for result in batch.run(todo.jobs, progress.piece):
            progress.result(result)
            results.append(result)
            if as_json:
                print(json.dumps(_told(result)), flush=True)
            elif not progress.bar and result.status == DONE:
                made = f"{shown(result.job.source)} -> {shown(result.job.target)}"
                print(", ".join(filter(None, (f"{progress.files()} {made}", progress.left()))), flush=True)
    counts = {status: sum(each.status == status for each in results) for status in (DONE, FINISHED, FAILED)}
    if as_json:
        print(json.dumps({"with": chosen.name, "scale": chosen.enlarger.scale, **counts, "no_images": todo.others}))
    else:
        for result in results:
            for note in result.notes:
                print(f"note: {shown(result.job.source)}: {note}")
        for result in results:
            if result.status == FAILED:
                print(f"not done: {shown(result.reason)}")
        others = f", {todo.others} other files left aside" if todo.others else ""
        print(
            f"{chosen.name}, x{chosen.enlarger.scale}: {counts[DONE]} done, {counts[FINISHED]} finished before, "
            f"{counts[FAILED]} not done{others}"
        )
    if counts[FAILED]:
        raise OdmError(f"{counts[FAILED]} of {len(results)} images are not done; why is said above, of each")


def _told(result: Result) -> dict[str, Any]:
    told: dict[str, Any] = {
        "image": str(result.job.source),
        "output": str(result.job.target),
        "status": result.status,
        "seconds": round(result.seconds, 3),
    }
    return told | {key: value for key in ("size", "notes", "reason") if (value := getattr(result, key))}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

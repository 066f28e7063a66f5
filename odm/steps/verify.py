"""`odm verify`: re-read everything that the suite has, and name each file that is not what was written."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from odm import card, inference
from odm.card import Job, origin
from odm.errors import OdmError, some
from odm.files import read_json, unreadable
from odm.images import summary
from odm.images.prepared import Prepared
from odm.model import about, shipped
from odm.model import load as load_model
from odm.networks.device import device_of
from odm.reporting import results
from odm.reporting.rendering import rendered
from odm.rescoring import is_here, rescored
from odm.sealed import read_sealed_json
from odm.settings.reading import SUITES, load
from odm.settings.suite import Settings

Check = Callable[[], object]
"""Reads a file; OdmError if there is anything against it."""
RESCORED = ("skimage_test", "set5", "set14")
"""Small test sets, seconds a network."""
TOLERANCES = {"psnr": 5e-4, "ssim": 5e-5}
"""Of a score taken anew: other machines may round another way in the last bit of a value."""


def run(settings: Settings) -> None:
    """Read every file of every job of the suite in force, what other suites have left, and the shipped networks, which
    are scored anew on small test sets that are here. OdmError, after a line for each that differs from its digest, from
    its settings or from what the others make of it, if there is one. What is not there is no mistake."""
    missing: list[Path] = []
    wrong: dict[Path, str] = {}
    read = 0
    for path, check, is_expected in [*_of_suite(settings), *_of_other_suites(settings), *_shipped(settings)]:
        try:
            if not path.exists():
                missing += [path] * is_expected
                continue
            read += 1
            check()
        except OdmError as error:
            wrong[path] = str(error)
        except OSError as error:
            wrong[path] = str(unreadable(path, error))
    for line in dict.fromkeys(_line(path, said) for path, said in wrong.items()):
        print(line)
    if missing:
        print(f"not there: {some(missing, 1)}")
    if wrong:
        raise OdmError(f"{len(wrong)} of {read} files do not agree: {some(list(wrong))}")
    if not read:
        raise OdmError(f"{settings.results}: nothing is there yet; run `snakemake --cores 2 all`")
    print(f"{read} files read, and all agree")


def _line(path: Path, said: str) -> str:
    """Of a file that is damaged, or that another stands in the way of: tables are held to all metrics."""
    return said if said.startswith(str(path)) else f"{path}: not held to what it comes from: {said}"


Checks = Iterator[tuple[Path, Check, bool]]
"""A file, what it is held to, and whether it is to be said where it is not there."""


def _of_suite(settings: Settings) -> Checks:
    for job in card.jobs(settings):
        for path, check in _files(settings, *job):
            yield path, partial(_checked, settings, job, path, check), True


def _of_other_suites(settings: Settings) -> Checks:
    """What is there of them: git brings their metrics and tables."""
    for file in sorted(SUITES.glob("*.yaml")):
        if file.stem == settings.suite or not (settings.results.parent / file.stem).is_dir():
            continue
        try:
            other = load(file)
        except OdmError as error:
            yield file, partial(_raise, error), False
            continue
        jobs = list(card.jobs(other))
        if not any(
            (results.folder(other, name) / "metrics.json").exists() for step, name in jobs if step == "evaluate"
        ):
            jobs.remove(("tables", ""))  # with nothing to render them from
        for job in jobs:
            for path, check in _files(other, *job):
                if other.results in path.parents:  # less that of the suite in force
                    yield path, check, False


def _shipped(settings: Settings) -> Checks:
    device = device_of(settings)
    for path in shipped().values():
        yield path, partial(_scores, settings, path, device), False


def _checked(settings: Settings, job: Job, path: Path, check: Check) -> None:
    check()
    _by_its_card(settings, job, path)


def _raise(error: OdmError) -> None:
    raise error


def _scores(settings: Settings, path: Path, device: torch.device) -> None:
    model, network = about(path), load_model(path, device)
    for name in RESCORED:
        if name not in model.scores or not is_here(name, settings.images):
            continue
        found = rescored(network, name, settings.images)
        for key, most in TOLERANCES.items():
            if abs(found[key] - model.scores[name][key]) > most:
                raise OdmError(
                    f"{path}: scores {key} {found[key]:.4f} on {name}, and says {model.scores[name][key]:.4f}; take "
                    "it anew from where it came"
                )


def _files(settings: Settings, step: str, name: str) -> Iterator[tuple[Path, Check]]:
    """What a job has written, each file with what to hold it against."""
    if step == "data":
        path = settings.results / "data" / f"{name}.safetensors"
        yield path, partial(_images, settings, name, path)
    elif step == "tables":
        made: dict[Path, str] = {}  # once for all of them
        for name in ("tables.md", "tables.csv", "tables.tex", "paper.csv", "timings.csv"):
            yield settings.results / name, partial(_table, settings, settings.results / name, made)
        in_force = settings.results.parent / "tables.md"
        yield in_force, partial(_table, settings, in_force, made)
    elif step == "figures":
        for picture in sorted((settings.results / "figures").glob("*.png")):
            yield picture, partial(_picture, picture)
    else:
        yield from _of_a_network(settings, step, name)


def _of_a_network(settings: Settings, step: str, name: str) -> Iterator[tuple[Path, Check]]:
    folder = results.folder(settings, name)
    if step in ("pretrain", "dial", "train"):
        yield folder / "weights.safetensors", partial(inference.load, settings, name, torch.device("cpu"))
    if step in ("pretrain", "train"):
        yield folder / "history.csv", partial(results.history, settings, name)
    if step == "mismatch":
        yield folder / "mismatch.json", partial(_mismatch, settings, name, folder / "mismatch.json")
    if step == "evaluate":
        yield folder / "metrics.json", partial(_metrics, settings, name, folder / "metrics.json")
        yield folder / "summary.json", partial(_summary, name, folder / "summary.json")
        yield folder / "timing.json", partial(results.timing, settings, name)


def _images(settings: Settings, split: str, path: Path) -> None:
    prepared = Prepared(path, check=True)
    sets = list(dict.fromkeys(name for name, _ in prepared.images))
    if sets != list(dict.fromkeys(getattr(settings.images, split))):
        raise OdmError(f"{path}: of the sets {', '.join(sets)}, not those in force; run `odm data {split}` again")
    for scale in settings.images.scales:
        prepared.pair(0, scale)


def _mismatch(settings: Settings, name: str, path: Path) -> None:
    results.mismatch(settings, name)
    again = f"run `odm mismatch {name}` again"
    if read_sealed_json(path, again).get("settings") != origin(settings, name, "mismatch"):
        raise OdmError(f"{path}: measured under other settings than those in force; {again}")


def _metrics(settings: Settings, name: str, path: Path) -> None:
    metrics = results.metrics(settings, name)
    if metrics is not None and metrics.settings != origin(settings, name):
        raise OdmError(f"{path}: scored under other settings than those in force; run `odm evaluate {name}` again")


def _summary(name: str, path: Path) -> None:
    again = f"run `odm evaluate {name}` again"
    if read_json(path) != summary.of(read_sealed_json(path.with_name("metrics.json"), again)):
        raise OdmError(f"{path}: not what metrics.json beside it gives; {again}")


def _table(settings: Settings, path: Path, made: dict[Path, str]) -> None:
    if not made:
        made |= rendered(results.read(settings))
    if path.read_bytes() != made[path].replace("\n", os.linesep).encode():
        raise OdmError(f"{path}: not what the results give when they are rendered anew; run `odm tables` again")


def _picture(path: Path) -> None:
    """By the checksums that a PNG has of its own."""
    try:
        with Image.open(path) as picture:
            picture.verify()
    except OSError as error:
        if error.errno:
            raise
        raise OdmError(f"{path}: damaged; run `odm figures` again") from None
    except (SyntaxError, ValueError):
        raise OdmError(f"{path}: damaged; run `odm figures` again") from None


def _by_its_card(settings: Settings, job: Job, path: Path) -> None:
    """Whether what the job was last done under here is what is in force; code aside, which `odm check` looks at."""
    before = card.recorded(settings, *job)
    changed = card.card(settings, *job).changes(before)[0] if before else []
    if changed:
        again = " ".join(filter(None, ["odm", *job]))
        raise OdmError(f"{path}: made under other settings ({changed[0]}); run `{again}` again")

"""The card of a job: every setting value that its result depends on, and the code it computes with.

Snakemake, DVC, checkpoints, stored weights and `odm check` all go by it. What a job reads from files is not on it, for
the engines see the files; but for a user's own folders of images, which they do not look into. Free of torch.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from odm.code import closure
from odm.errors import OdmError
from odm.files import read_json, write_text
from odm.images.catalogue import CATALOGUE, Packaged
from odm.images.contents import contents, contents_of
from odm.networks.catalogue import READY
from odm.networks.settings import NetworkSettings
from odm.settings.images import Images
from odm.settings.suite import Settings
from odm.settings.training import Training

Job = tuple[str, str]
"""Step and name, as on the command line; '' where a step has one job."""


@dataclass(frozen=True)
class Card:
    settings: dict[str, Any]
    code: dict[str, str]
    """By source file, the digest of what it computes."""

    @cached_property
    def digest(self) -> str:
        return digest(self.settings, self.code)

    def text(self) -> str:
        """As it stands in a file."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    def changes(self, before: "Card") -> tuple[list[str], list[str]]:
        """Settings, in words, and source files in which it differs from an earlier one."""
        # In one order of keys: a card that was read from a file has them sorted.
        old, new = (
            {key: json.dumps(value, sort_keys=True) for key, value in _flat(each.settings)} for each in (before, self)
        )
        settings = [
            f"{key} {old.get(key, 'not there')} -> {new.get(key, 'not there')}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
        return settings, sorted({path for path, _ in before.code.items() ^ self.code.items()})


def digest(*parts: Any) -> str:
    """Twelve hexadecimal digits that change when any part does, in whichever order mappings have their keys."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def jobs(settings: Settings) -> Iterator[Job]:
    """Every job of a suite."""
    yield from (("data", split) for split in ("train", "test"))
    for step, names in (
        ("pretrain", settings.networks),
        ("dial", settings.dials),
        ("mismatch", settings.floats),
        ("train", settings.runs),
        ("evaluate", [*settings.floats, *settings.runs]),
    ):
        yield from ((step, name) for name in names)
    yield from (("tables", ""), ("figures", ""), ("report", ""))


def card(settings: Settings, step: str, name: str = "") -> Card:
    """The card of one job."""
    values = _values(settings, step, name)
    # Not of `origin`: what was trained on a folder stays of use where the folder is not.
    if step == "data" and (held := _contents(settings.images, name)):
        values["contents"] = held
    if step == "pretrain" and (given := settings.networks[name].weights) and given not in READY:
        values["contents"] = contents_of(given)
    return Card(values, closure(frozenset(_modules(settings, step, name))))


def origin(settings: Settings, name: str, step: str = "") -> str:
    """Digest of the settings of a job and of those that it builds on; without a step, of the one that makes the
    weights of a network, dial or run. What is stored carries it, and is refused where it is another."""
    step = step or ("pretrain" if name in settings.networks else "dial" if name in settings.dials else "train")
    own = _values(settings, step, name)
    if step == "pretrain":
        return digest(_values(settings, "data", "train"), own)
    if step == "dial":
        return digest(origin(settings, settings.dials[name].network), own)
    if step == "mismatch":
        return digest(origin(settings, name), own)
    return digest(origin(settings, settings.runs[name].network, "mismatch"), own)


def _modules(settings: Settings, step: str, name: str) -> Iterator[str]:
    """What the job's code is gathered from: its step and the kinds that it uses."""
    yield f"odm.steps.{step}"
    if step in ("data", "tables"):
        return
    is_of_all = step in ("figures", "report")
    runs = settings.runs if is_of_all else {name: settings.runs[name]} if name in settings.runs else {}
    floats = settings.floats if is_of_all else [settings.runs[name].network if runs else name]
    yield "odm.networks.build"
    yield from (f"odm.networks.{settings.network_of(each).backbone}.network" for each in floats)
    if runs:
        yield "odm.methods.build"
        yield from (f"odm.methods.{settings.methods[run.method].kind}.method" for run in runs.values())


def _values(settings: Settings, step: str, name: str) -> dict[str, Any]:
    """The settings of a job, defaults filled in."""
    if step == "data":
        return _images(settings.images, name)
    if step in ("tables", "figures", "report"):
        shown = {"suite", "networks", "dials", "methods", "runs"}
        values = settings.model_dump(mode="json", include=shown) | {"test": settings.images.test}
        if step == "figures":
            return values | _machine(settings)
        trained = {key: _training(getattr(settings, key)) for key in ("pretraining", "qat")}
        costs = {name: method.step_cost for name, method in settings.methods.items()}
        values |= trained | {"train": settings.images.train, "step_costs": costs}
        return values | _machine(settings) if step == "report" else values

    run = settings.runs.get(name)
    network = {"network": _network(settings.network_of(run.network if run else name))}
    if step == "dial":
        return network | {"dial": _dump(settings.dials[name], "network"), "vectors": settings.vectors}
    values = network | _machine(settings)
    if step == "pretrain":
        # Weights that are taken over are tried on one batch.
        training = settings.pretraining
        return values | {"pretraining": (_training if name in settings.pretrained else _patches)(training)}
    if step == "mismatch":
        return values | {"mismatch": _dump(settings.mismatch), "qat": _patches(settings.qat)}
    if run is None:
        return values | {"name": name}
    method = settings.methods[run.method]
    values |= {"method": _dump(method, *(() if method.rate else ("rate",)))}
    if step == "train":
        return values | {"qat": _training(settings.qat), "run": _dump(run, "network", "method")}
    return values | {"name": name, "run": _dump(run)}


def _dump(model: BaseModel, *but: str) -> dict[str, Any]:
    return model.model_dump(mode="json", exclude=set(but))


def _network(network: NetworkSettings) -> dict[str, Any]:
    """With what weights of the catalogue are known by; without what is absent."""
    ready = READY.get(network.weights or "")
    return network.model_dump(mode="json", exclude_none=True) | ({"sha256": ready.sha256} if ready else {})


def _machine(settings: Settings) -> dict[str, Any]:
    return {"device": settings.device, "threads": settings.threads, "vectors": settings.vectors}


def _patches(training: Training) -> dict[str, Any]:
    return {"batch": training.batch, "patch": training.patch}


def _training(training: Training) -> dict[str, Any]:
    """Without what has no effect."""
    idle = ["halve_every"] if training.schedule == "cosine" else []
    idle += [key for key in ("warmup", "clip_norm") if not getattr(training, key)]
    return _dump(training, *idle)


def _images(images: Images, split: str) -> dict[str, Any]:
    """The sets of a split, each by where a user's own lies or by what a known one is known by."""
    sets = []
    for name in getattr(images, split):
        entry = CATALOGUE.get(name)
        if name in images.folders:
            known: dict[str, Any] = {"folder": images.folders[name]}
        elif isinstance(entry, Packaged):
            known = {"sha256": [image.sha256 for image in entry.images]}
        else:
            assert entry is not None, f"{name} is in no catalogue"
            known = {"pixels": entry.pixels} if entry.pixels else {"count": entry.count, "root": images.root}
        sets.append({"set": name} | known)
    return {"sets": sets, "scales": sorted(set(images.scales))}


def _contents(images: Images, split: str) -> dict[str, str]:
    """What lies in the folders of the user's own that a split takes its sets from; a published set that is held to its
    pixels may lie anywhere."""
    found = {}
    for name in getattr(images, split):
        is_held = getattr(CATALOGUE.get(name), "pixels", None) and name not in images.folders
        if not is_held and (content := contents(name, images)):
            found[name] = content
    return found


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values by dotted key."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def file(settings: Settings, step: str, name: str = "") -> Path:
    """Where DVC finds a card."""
    folder = settings.results / "cards"
    return folder / step / f"{name}.json" if name else folder / f"{step}.json"


def write(settings: Settings) -> int:
    """Put the cards of all jobs there, and no others; their number."""
    shutil.rmtree(settings.results / "cards", ignore_errors=True)
    made = {job: card(settings, *job) for job in jobs(settings)}
    for job, each in made.items():
        write_text(file(settings, *job), each.text())
    return len(made)


def record(settings: Settings, step: str, name: str, made: Card) -> None:
    """Note under which card a job was done, for `recorded`."""
    write_text(beside_log(settings, step, name, ".card.json"), made.text())


def recorded(settings: Settings, step: str, name: str) -> Card | None:
    """The card that a job was last done under on this machine; None if it was not."""
    path = beside_log(settings, step, name, ".card.json")
    return _read(path) if path.exists() else None


def planned_by_dvc(settings: Settings, step: str, name: str) -> str:
    """Digest of the card that DVC goes by, if it is DVC that runs the job; else ''."""
    path = file(settings, step, name)
    return _read(path).digest if "DVC_STAGE" in os.environ and path.exists() else ""


def _read(path: Path) -> Card:
    try:
        return Card(**read_json(path))
    except TypeError:
        raise OdmError(f"{path}: not a card; remove it") from None


def beside_log(settings: Settings, step: str, name: str, suffix: str) -> Path:
    """Where what is known of a job on this machine lies."""
    return Path("logs") / settings.suite / step / f"{name or 'suite'}{suffix}"

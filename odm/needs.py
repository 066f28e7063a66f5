"""What the jobs of a suite ask of a scheduler: time and memory, by the estimates that `odm check` goes by too.

They take a look at each network in torch (`odm needs`) and are kept, so that an engine starts without. Free of torch.
"""

import math
from collections.abc import Mapping
from pathlib import Path

from odm import card
from odm.card import Job
from odm.code import closure
from odm.engines import asked
from odm.errors import OdmError
from odm.files import read_json, write_json
from odm.settings.suite import Settings

# What is asked for over what is estimated: the speed of a machine is known to a factor of two.
TIME_MARGIN, MEMORY_MARGIN = 2, 1.5
# Of any job: on a busy file system torch alone may be minutes in loading.
LEAST_MINUTES = 10
LEAST_MEGABYTES = 1000


def minutes(seconds: float, attempt: int = 1) -> int:
    """To ask for a job of so many seconds: at each attempt more. What a time limit killed goes on where it was."""
    return attempt * max(LEAST_MINUTES, math.ceil(TIME_MARGIN * seconds / 60))


def megabytes(memory: float, attempt: int = 1) -> int:
    """To ask for a job of so many bytes: at each attempt half as much again, since none is told what it died of."""
    return math.ceil(max(LEAST_MEGABYTES, MEMORY_MARGIN * memory / 1e6) * (1 + attempt) / 2)


def needs(settings: Settings) -> dict[Job, tuple[float, float]]:
    """Seconds and bytes of each job, by estimates that are made now if there are none of these settings, images and
    networks. OdmError if they cannot be made."""
    if (found := _kept(settings)) is None:
        asked("odm.cli", "needs")
        found = _kept(settings)
    if found is None:
        raise OdmError(f"{_file(settings)}: settings have changed meanwhile; start again")
    return found


def keep(settings: Settings, found: Mapping[Job, tuple[float, float]]) -> None:
    """Have `needs` go by these."""
    write_json(_file(settings), {"of": _of(settings), "needs": {" ".join(job): each for job, each in found.items()}})


def _kept(settings: Settings) -> dict[Job, tuple[float, float]] | None:
    try:
        content = read_json(_file(settings))
        if content["of"] != _of(settings):
            return None
        return {(job.split(" ")[0], job.split(" ")[1]): (each[0], each[1]) for job, each in content["needs"].items()}
    except (OdmError, KeyError, TypeError, IndexError):
        return None


def _file(settings: Settings) -> Path:
    return Path("logs") / settings.suite / "needs.json"


def _of(settings: Settings) -> str:
    """Digest of all that the estimates depend on."""
    networks = (f"odm.networks.{each.backbone}.network" for each in settings.networks.values())
    return card.digest(
        settings.model_dump(mode="json"),
        [card.card(settings, "data", split).digest for split in ("train", "test")],
        closure(frozenset(["odm.training.estimate", *networks])),
    )

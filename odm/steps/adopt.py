"""Bring Snakemake and DVC in step: each remembers what it ran itself, and knows nothing of the other's work."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import typer

from odm import card, engines, leftovers
from odm.card import Job
from odm.engines import BEFORE, CARD, Plan
from odm.errors import OdmError
from odm.hold import refuse_while_held
from odm.settings.suite import Settings


def run(settings: Settings, keep: bool = False, yes: bool = False) -> None:
    """Tell the engine that has not run what the other has made; refuse when the work of both is stale.

    The half-measures are traps. DVC told to commit while Snakemake is stale locks stale results as up to date, and
    Snakemake given files without the record of their cards stays silent about what changes later. Before that, what a
    killed engine left behind is put right.

    Args:
        keep: take what is there although the code has changed since: the user vouches that it changes no number.
        yes: do not ask.
    """
    refuse_while_held(Path("logs"))
    mended = [f"{each.what}: {each.mend()}" for each in leftovers.found()]
    for each in mended:
        print(each, flush=True)
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(engines.snakemake)
        dvc = engines.dvc(settings)
        snakemake = asked.result()
    changed = _changed_code(settings) if keep else {}
    if changed:
        _keep(settings, changed, (snakemake, dvc), yes)
    elif snakemake.content and dvc.content:
        print(f"{settings.results}: Snakemake and DVC are in step already")
    elif snakemake.content:
        _refuse_made_since(settings)
        _tell_dvc(settings)
        print(f"{settings.results}: DVC has taken over what Snakemake made")
    elif dvc.content:
        _tell_snakemake()
        print(f"{settings.results}: Snakemake has taken over what DVC made")
    elif mended:
        print(f"{settings.results}: start `snakemake --cores 8 all` or `dvc repro` again; it goes on where it was")
        return
    else:
        raise OdmError(
            f"{settings.results}: neither Snakemake nor DVC is up to date; run `snakemake --cores 8 all` or "
            "`dvc repro`, then `odm adopt`; or `odm adopt --keep` after an edit of code that changes no number"
        )
    for job in card.jobs(settings):
        card.record(settings, *job, card.card(settings, *job))


def _refuse_made_since(settings: Settings) -> None:
    """Settings that were tried by DVC and taken back leave Snakemake with a record of what is no longer there."""
    for job in card.jobs(settings):
        before = card.recorded(settings, *job)
        if before and (values := card.card(settings, *job).changes(before)[0]):
            raise OdmError(
                f"{settings.results}: what is there was made under other settings since Snakemake ran "
                f"({engines.named([job])}: {values[0]}); run `dvc repro`, then `odm adopt`"
            )


def _changed_code(settings: Settings) -> dict[str, list[Job]]:
    """The jobs whose code has changed since they were done, by the files. OdmError if the settings of one have."""
    found: dict[str, list[Job]] = {}
    for job in card.jobs(settings):
        before = card.recorded(settings, *job)
        values, files = card.card(settings, *job).changes(before) if before else ([engines.NOT_MADE], [])
        if values:
            raise _more(settings, job, values[0])
        if files:
            found.setdefault(", ".join(files), []).append(job)
    return found


def _keep(settings: Settings, changed: Mapping[str, list[Job]], plans: Sequence[Plan], yes: bool) -> None:
    """Both take what is there, if one of them has nothing against it but cards."""
    if not any(plan.knows and set(plan.due.values()) <= {CARD, BEFORE} for plan in plans):
        others = [each for plan in plans for each in plan.due.items() if each[1] not in (CARD, BEFORE)]
        job, cause = others[0] if others else (("snakemake", ""), "has no record of what it made")
        raise _more(settings, job, cause)
    for files, jobs in changed.items():
        print(f"{files}: {engines.named(jobs)}")
    count = sum(len(jobs) for jobs in changed.values())
    if not (yes or typer.confirm(f"{settings.results}: keep the results of {count} jobs, as they are?")):
        raise OdmError("nothing was kept")
    _tell_snakemake()
    _tell_dvc(settings)
    print(f"{settings.results}: both engines have taken what is there")


def _more(settings: Settings, job: Job, what: str) -> OdmError:
    return OdmError(f"{settings.results}: more than code has changed ({engines.named([job])}: {what}); run what is due")


def _tell_snakemake() -> None:
    engines.asked("snakemake", "--touch", "--forceall", "--cores", "1", "--quiet", "all", "--", "all")


def _tell_dvc(settings: Settings) -> None:
    card.write(settings)
    # Relinking would give large files new times, and Snakemake work.
    engines.asked("dvc", "commit", "--force", "--no-relink", "--quiet")

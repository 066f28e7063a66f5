"""What Snakemake and DVC would run, and why: asked of each of them, and explained by the cards."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from odm import card
from odm.card import Job
from odm.errors import OdmError, some
from odm.settings.suite import Settings

CARD, BEFORE = "another card", "what they build on is made anew"
NOT_MADE = "not made yet"


@dataclass(frozen=True)
class Plan:
    """What an engine has to do."""

    due: dict[Job, str]
    """Why, of each job that it would run: CARD, BEFORE or its own words."""
    knows: bool = True
    """Whether it has a record of all that it takes for made."""

    @property
    def content(self) -> bool:
        return not self.due and self.knows


def snakemake() -> Plan:
    """By a dry run. A job that follows another one is BEFORE, be its card another or not."""
    said = asked("snakemake", "--dry-run", "--printshellcmds", "--quiet", "host", "--", "all")
    due: dict[Job, str] = {}
    reason = ""
    for line in said.splitlines():
        if found := re.match(r"\s+reason: (.*)", line):
            reason = found[1]
        elif found := re.match(r"Shell command: odm (\w+) ?(\w*) --card ", line):
            due[found[1], found[2]] = _of_snakemake(reason)
    return Plan(due, not re.search("(missing|outdated) provenance", said))


def _of_snakemake(reason: str) -> str:
    if reason.startswith("Params have changed"):
        return CARD
    if reason.startswith("Input files updated by another job"):
        return BEFORE
    return NOT_MADE if reason.startswith("Missing output files") else reason[0].lower() + reason[1:]


def dvc(settings: Settings) -> Plan:
    """By what DVC has locked: cards are compared as they would be now, all else is its own status."""
    import networkx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import SCMError

    due: dict[str, str] = {}
    try:
        with Repo() as repo:
            status = repo.status()
            stages = {stage.addressing: stage for stage in repo.index.stages}
            graph = repo.index.graph
    except SCMError:
        raise OdmError(
            "dvc: no git repository here; `git init`, or `dvc config --local core.no_scm true` to do without one"
        ) from None
    except DvcException as error:
        raise OdmError(f"dvc: {str(error).splitlines()[0]}") from None
    job_of: dict[str, Job] = {}
    for name, stage in stages.items():
        step, _, of = stage.cmd.removeprefix("odm ").partition(" ")
        if step == "cards":
            continue
        job_of[name] = (step, of)
        path = str(card.file(settings, step, of))
        now = hashlib.md5(card.card(settings, step, of).text().encode(), usedforsecurity=False).hexdigest()
        locked = next(dep.hash_info.value if dep.hash_info else None for dep in stage.deps if dep.def_path == path)
        if other := list(_of_dvc(status.get(name, []), path)):
            due[name] = NOT_MADE if locked is None else "; ".join(other)
        elif locked != now:
            due[name] = CARD if locked else NOT_MADE
    after = {each.addressing for name in due for each in networkx.ancestors(graph, stages[name])}
    return Plan({job: due.get(name, BEFORE) for name, job in job_of.items() if name in due or name in after})


def _of_dvc(status: Iterable[object], its_card: str) -> Iterator[str]:
    """What DVC's status says of a stage, but for its card."""
    for entry in status:
        if not isinstance(entry, dict):
            yield str(entry)
            continue
        for what, paths in entry.items():
            for path, state in paths.items() if isinstance(paths, dict) else ():
                if path != its_card:
                    yield f"{path} is {state}" if what != "changed outs" or state != "deleted" else NOT_MADE


def reasons(settings: Settings, plan: Plan) -> dict[str, list[Job]]:
    """The due jobs by why: where a job was done under another card, by what differs in it."""
    found: dict[str, list[Job]] = {}
    for job in card.jobs(settings):
        if job in plan.due:
            before = card.recorded(settings, *job)
            values, files = card.card(settings, *job).changes(before) if before else ([], [])
            found.setdefault(some([*values, *files]) or plan.due[job], []).append(job)
    return found


def named(jobs: Iterable[Job]) -> str:
    """Jobs in words: `train a, b and 3 more; tables`."""
    by_step: dict[str, list[str]] = {}
    for step, name in jobs:
        by_step.setdefault(step, []).append(name)
    return "; ".join(f"{step} {some(names)}".strip() for step, names in by_step.items())


def asked(tool: str, *arguments: str) -> str:
    """All that a tool says; OdmError with its last line if it fails."""
    done = subprocess.run([sys.executable, "-m", tool, *arguments], capture_output=True, text=True)
    if done.returncode:
        said = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
        raise OdmError(f"{tool} {arguments[0]}: failed: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout + done.stderr

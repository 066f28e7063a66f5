"""Bring Snakemake and DVC in step: each remembers what it ran itself, and knows nothing of the other's work."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from odm.errors import OdmError
from odm.settings.suite import Settings


def run(settings: Settings) -> None:
    """Tell the tool that has not run what the other has made; refuse when the work of both is stale.

    The half-measures are traps. DVC told to commit while Snakemake is stale locks stale results as up to date, and
    Snakemake given files without the record of their settings stays silent about the settings that change later.
    """
    with ThreadPoolExecutor() as pool:
        answers = pool.map(lambda question: question(), [_snakemake_is_content, _dvc_is_content])
    snakemake, dvc = answers
    if snakemake and dvc:
        print(f"{settings.results}: Snakemake and DVC are in step already")
    elif snakemake:
        # Relinking would give large files new times, and Snakemake work.
        _asked("dvc", "commit", "--force", "--no-relink", "--quiet")
        print(f"{settings.results}: DVC has taken over what Snakemake made")
    elif dvc:
        _asked("snakemake", "--touch", "--forceall", "--cores", "1", "--quiet", "all", "--", "all")
        print(f"{settings.results}: Snakemake has taken over what DVC made")
    else:
        raise OdmError(
            f"{settings.results}: neither Snakemake nor DVC is up to date; "
            "run `snakemake --cores 8 all` or `dvc repro`, then `odm adopt`"
        )


def _snakemake_is_content() -> bool:
    """Nothing to do, and not merely by the files' times: a record of settings and inputs is there for each job."""
    answer = _asked("snakemake", "--dry-run", "--quiet", "rules", "host", "--", "all")
    return "Nothing to be done" in answer and "missing provenance" not in answer and "outdated provenance" not in answer


def _dvc_is_content() -> bool:
    return not json.loads(_asked("dvc", "status", "--json"))


def _asked(tool: str, *arguments: str) -> str:
    """All that the tool says; OdmError with its last line if it fails."""
    done = subprocess.run([sys.executable, "-m", tool, *arguments], capture_output=True, text=True)
    if done.returncode:
        said = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
        raise OdmError(f"{tool} {arguments[0]}: failed: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout + done.stderr

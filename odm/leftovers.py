"""What an engine leaves behind that was killed, and no command of its own gets past: locks, and a `dvc.lock` cut short.

Whether a holder lives is asked of this machine: an engine that runs in the same folder on another one is not seen.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from odm import engines
from odm.files import write_text

SNAKEMAKE_LOCKS = Path(".snakemake", "locks")
DVC_LOCKS = Path(".dvc", "tmp", "rwlock")
DVC_LOCK = Path("dvc.lock")
DAMAGED = Path(".dvc", "tmp", "dvc.lock.damaged")


@dataclass(frozen=True)
class Leftover:
    what: str
    mend: Callable[[], str]
    """Puts it right, and says how."""


def found() -> Iterator[Leftover]:
    """What lies about in the project. Nothing is said of an engine that runs, since all is its own."""
    if SNAKEMAKE_LOCKS.is_dir() and any(SNAKEMAKE_LOCKS.glob("*.lock")) and not _runs("snakemake"):
        yield Leftover("Snakemake's lock, whose holder is dead", _unlock)
    if DVC_LOCKS.exists() and _is_dead(DVC_LOCKS) and not _runs("dvc"):
        yield Leftover(f"DVC's lock {DVC_LOCKS}, whose holder is dead", _remove)
    if DVC_LOCK.exists() and not _is_sound() and not _runs("dvc"):
        yield Leftover(f"{DVC_LOCK}, which is cut short or damaged", _restore)


def _unlock() -> str:
    engines.asked("snakemake", "--unlock", "--quiet", "all")
    return "removed"


def _remove() -> str:
    DVC_LOCKS.unlink()
    return "removed"


def _restore() -> str:
    """As git knows it, or not at all: DVC writes it anew, and finds what was computed in its cache."""
    DVC_LOCK.replace(DAMAGED)
    try:
        known = subprocess.run(["git", "show", f"HEAD:./{DVC_LOCK}"], capture_output=True, text=True)
    except FileNotFoundError:
        known = None
    if known and known.returncode == 0:
        write_text(DVC_LOCK, known.stdout)
        if _is_sound():
            return f"restored from git; what it was is {DAMAGED}"
        DVC_LOCK.unlink()
    return f"moved to {DAMAGED}; DVC writes it anew"


def _is_dead(locks: Path) -> bool:
    """Whether a file of DVC's locks was cut short, or names holders of which none lives as a process of DVC."""
    try:
        content = json.loads(locks.read_text())
        holders = [
            *content.get("write", {}).values(),
            *(each for all in content.get("read", {}).values() for each in all),
        ]
        # Another process may have the number of a dead one by now, which DVC takes for the holder.
        return bool(holders) and not any(_is_engine(int(each["pid"]), "dvc") for each in holders)
    except (ValueError, AttributeError, TypeError, KeyError):
        return True


def _is_sound() -> bool:
    from dvc.dvcfile import Lockfile
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.utils.serialize import ParseError

    try:
        with Repo() as repo:
            try:
                Lockfile(repo, str(DVC_LOCK)).load()
            except (DvcException, ParseError, UnicodeDecodeError):
                return False
    except DvcException:
        pass  # no repository to DVC: its own status says so
    return True


def _runs(tool: str) -> bool:
    """Whether a process of a tool works in this project, or in a folder that this user may not be told."""
    import psutil

    here = Path.cwd()
    for pid in psutil.pids():
        if _is_engine(pid, tool):
            try:
                if here in (at := Path(psutil.Process(pid).cwd()), *at.parents):
                    return True
            except psutil.NoSuchProcess:
                continue
            except (psutil.Error, OSError):
                return True
    return False


def _is_engine(pid: int, tool: str) -> bool:
    import psutil

    try:
        process = psutil.Process(pid)
        command = [] if process.status() == psutil.STATUS_ZOMBIE else process.cmdline()
    except (psutil.Error, OSError):
        return False
    return any(Path(each).name in (tool, f"{tool}.exe") for each in command)

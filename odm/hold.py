"""One process a job: whoever comes second is told who is at it."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from odm.errors import OdmError
from odm.files import read_json, write_json


class HeldError(OdmError):
    """Another process has the lock."""

    def __init__(self, who: str) -> None:
        super().__init__(f"{who}; wait for it, or end it")
        self.who = who


@contextmanager
def held(path: Path, job: str) -> Iterator[None]:
    """Hold a job, by a lock at `path`, while the block runs. HeldError if another process does.

    The system frees what a dead process held: what lies at `path` means nothing by itself.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise HeldError(_holder(path, job)) from None
    try:
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        write_json(_note(path), {"job": job, "pid": os.getpid(), "host": socket.gethostname(), "since": since})
        yield
    finally:
        lock.release()


def refuse_while_held(folder: Path) -> None:
    """HeldError if a process holds a lock in a folder or below."""
    for path in sorted(folder.rglob("*.lock")):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise HeldError(_holder(path, str(path.with_suffix("")))) from None
        lock.release()


def _note(path: Path) -> Path:
    """Not the lock itself, which some versions of filelock empty when they try it."""
    return path.with_suffix(".holder.json")


def _holder(path: Path, job: str) -> str:
    """Who has a lock, in words."""
    try:
        found = read_json(_note(path))
        return f"{found['job']}: process {found['pid']} on {found['host']} is at it since {found['since']}"
    except (OdmError, KeyError, TypeError):
        return f"{job}: another process is at it"

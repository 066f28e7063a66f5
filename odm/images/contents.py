"""What a user's folder holds, as one digest: it may change without a change of settings, and then its job is due."""

import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path

from odm.errors import OdmError
from odm.files import of_user, remember
from odm.images.folders import files_of_a_users
from odm.settings.images import Images

MEMORY = Path("logs") / "images.json"
"""Digests of files by their path, each with what the file's state was: a start then costs no more than a look."""
SETTLED = 2.0
"""Seconds after which a change of a file shows in its time, on any file system."""

MISSING = "missing or unreadable"


def contents(name: str, images: Images) -> str | None:
    """Digest of the names and contents of a set's files where the user keeps them, MISSING where they cannot be read,
    which the data step says in words; None for a set that lies elsewhere."""
    try:
        files = files_of_a_users(name, images)
        if files is None:
            return None
        digests = _digests(files)
    except (OdmError, OSError):
        return MISSING
    held = [(file.name, digest) for file, digest in zip(files, digests, strict=True)]
    return hashlib.sha256(json.dumps(held).encode()).hexdigest()[:12]


def contents_of(path: str) -> str:
    """Digest of one file, as the user wrote its path; MISSING where it cannot be read."""
    try:
        return _digests([of_user("weights", path)])[0][:12]
    except (OdmError, OSError):
        return MISSING


def _digests(files: Iterable[Path]) -> list[str]:
    """SHA-256 of each file, read only if it has changed since it was read last."""
    known = _remembered()
    found, is_new = [], False
    for file in files:
        key, state = str(file.absolute()), _state(file)
        if known.get(key, [None])[:-1] != state:
            with file.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
            known.pop(key, None)
            # A file changed just now may change once more with no new time.
            if _state(file) == state and time.time() - max(state[1:3]) / 1e9 > SETTLED:
                known[key], is_new = [*state, digest], True
        else:
            digest = str(known[key][-1])
        found.append(digest)
    if is_new:
        remember(MEMORY, known)
    return found


def _state(file: Path) -> list[int]:
    found = file.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _remembered() -> dict[str, list[int | str]]:
    try:
        stored = json.loads(MEMORY.read_bytes())
        return {str(key): list(each) for key, each in stored.items() if each}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}

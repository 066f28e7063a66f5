"""Files that are either whole or not there: written beside their place, then renamed."""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from odm.errors import OdmError

# Bytes; of nearly all file systems.
LONGEST_NAME = 255


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place if the block succeeds, remove it if not.

    The name is always the same, so that what a killed process left is written over by the next one. A symbolic link
    stays, and what it leads to is written, on the disk where that lies. What is no regular file is refused. A full
    disk, a folder that may not be written and the like are raised as OdmError.
    """
    target = _regular(path)
    beside = beside_of(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        with beside.open("r+b") as file:  # Windows syncs nothing that is open for reading alone
            os.fsync(file.fileno())
        beside.replace(target)
    except (FileExistsError, NotADirectoryError):
        raise OdmError(f"{path}: cannot be written: a file is in its folder's place; move it away") from None
    except OSError as error:
        raise OdmError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):  # nothing was written where nothing can be removed, and that has been said
            beside.unlink()


def beside_of(target: Path) -> Path:
    """Where the temporary file of a target lies, which is no link."""
    name = f".{target.name}.part"
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()}.part"
    return target.with_name(name)


def _regular(path: Path) -> Path:
    """The regular file that a path leads to, or will. OdmError if there is something else."""
    target = Path(os.path.realpath(path))
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink() and not target.parent.is_dir():
            raise OdmError(
                f"{path}: cannot be written: it is a link to {target}, whose folder is not there; mount it, or remove "
                "the link"
            ) from None
        return target
    except NotADirectoryError:
        return target  # said when its folder is made
    except OSError as error:
        raise OdmError(f"{path}: cannot be written: {error.strerror or error}") from None
    if stat.S_ISDIR(mode):
        raise OdmError(f"{path}: cannot be written: {os.strerror(errno.EISDIR)}")
    if not stat.S_ISREG(mode):
        raise OdmError(f"{path}: cannot be written: a device or pipe and no file; name another")
    return target


def of_user(key: str, path: str) -> Path:
    """A path as a user wrote it, its `~` or `~name` replaced. OdmError, which begins with `key`, if that is nobody's
    home or the path no path."""
    try:
        found = Path(path).expanduser()
    except RuntimeError:
        home = Path(path).parts[0]
        raise OdmError(f"{key}: {path}: there is no home of '{home}'; write the folder out") from None
    if "\0" in path:
        raise OdmError(f"{key}: {path!r}: no path holds a zero byte; correct it")
    return found


def write_text(path: Path, text: str) -> None:
    with whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def remember(path: Path, content: Any) -> None:
    """Note as JSON what would else be found again, more slowly: nothing is said where it cannot be written. By a name
    of one's own, since both engines, and several of their jobs, may be starting."""
    beside = path.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            beside.write_text(json.dumps(content))
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _missing(path) from None
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, RecursionError):
        raise OdmError(f"{path}: not a JSON file; remove it and run the step that writes it again") from None


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's content."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise _missing(path) from None
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> OdmError:
    """What to say of a file that is there and does not open or come."""
    return OdmError(f"{path}: cannot be read: {error.strerror or error}")


def _missing(path: Path) -> OdmError:
    return OdmError(f"{path}: no such file; run the step that writes it (`snakemake --cores 2 all` runs all)")

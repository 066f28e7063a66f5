"""Files that are either whole or not there: written beside their place, then renamed."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from odm.errors import OdmError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place if the block succeeds, remove it if not.

    The name is always the same, so that what a killed process left is written over by the next one. A full disk, a
    folder that may not be written and the like are raised as OdmError.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except (FileExistsError, NotADirectoryError):
        raise OdmError(f"{path}: cannot be written: a file is in its folder's place; move it away") from None
    except OSError as error:
        raise OdmError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):  # nothing was written where nothing can be removed, and that has been said
            beside.unlink()


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


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _missing(path) from None
    except ValueError:
        raise OdmError(f"{path}: not a JSON file; remove it and run the step that writes it again") from None


def write_tensors(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write torch tensors as safetensors; equal content gives equal bytes."""
    from safetensors.torch import save

    # Not `save_file`: its files are closed to other users, and a full disk is no OSError to it.
    content = save(dict(tensors), dict(metadata) if metadata else None)
    with whole(path) as beside:
        beside.write_bytes(content)


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's content."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise _missing(path) from None


def _missing(path: Path) -> OdmError:
    return OdmError(f"{path}: no such file; run the step that writes it (`snakemake --cores 2 all` runs all)")

"""What a folder's images were made of, so that none is made twice: a line for each, of digests.

The line is written when the image is whole beside its place, before it is put there. Killed between the two, the next
process finds image and line, and puts it in place; killed before, it finds neither, and makes the image again.
"""

import json
import os
from pathlib import Path
from typing import Any

from odm.errors import OdmError
from odm.files import beside_of, digest_of_file

FOLDER = ".odm"
"""In the output folder; hidden, and never taken for input."""


class Journal:
    def __init__(self, folder: Path, model: str, settings: str) -> None:
        """The journal of an output folder, for images made with a model and settings of these digests."""
        self.folder = folder
        self.made_with = {"model": model, "settings": settings}
        self.path = folder / FOLDER / "upscaled.jsonl"
        self.entries: dict[str, dict[str, Any]] = {}
        try:
            content = self.path.read_bytes() if self.path.exists() else b""
            if content and not content.endswith(b"\n"):  # of a process that was killed as it wrote
                self._append(b"\n")
        except OSError as error:
            raise OdmError(f"{self.path}: cannot be read: {error.strerror or error}") from None
        for line in content.splitlines():
            try:
                entry = json.loads(line)
                self.entries[entry["output"]] = entry
            except (ValueError, KeyError, TypeError):
                continue

    def has(self, target: Path, image: str) -> bool:
        """Whether a target is finished: made of an image of this digest with this model and settings, and unchanged
        since. One that is whole beside its place is put there."""
        entry = self.entries.get(self._name(target), {})
        if {**entry, **self.made_with, "image": image} != entry:
            return False
        if target.exists():
            return target.is_file() and digest_of_file(target) == entry.get("written")
        beside = beside_of(Path(os.path.realpath(target)))
        if not beside.is_file() or digest_of_file(beside) != entry.get("written"):
            return False
        beside.replace(target)
        return True

    def note(self, target: Path, image: str, beside: Path) -> None:
        """That a target, whole by now beside its place, is made of an image of this digest."""
        entry = {"output": self._name(target), "image": image, **self.made_with, "written": digest_of_file(beside)}
        self._append(json.dumps(entry).encode() + b"\n")
        self.entries[entry["output"]] = entry

    def _name(self, target: Path) -> str:
        return target.relative_to(self.folder).as_posix()

    def _append(self, line: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

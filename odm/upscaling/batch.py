"""Images one after another: each is finished, made, or ends with its reason while the others go on."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from odm.errors import OdmError
from odm.files import whole
from odm.upscaling import formats, photo, tiles
from odm.upscaling.enlarger import Enlarger
from odm.upscaling.journal import Journal
from odm.upscaling.picture import Picture
from odm.upscaling.plan import Job

DONE, FINISHED, FAILED = "done", "finished", "failed"


@dataclass
class Result:
    job: Job
    status: str
    """DONE now, FINISHED by an earlier process, or FAILED."""
    reason: str = ""
    notes: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None
    """Width and height of what was written."""
    seconds: float = 0.0


@dataclass(frozen=True)
class Batch:
    enlarger: Enlarger
    window: int
    journal: Journal | None
    """None where each file is for itself, and none is known to be finished."""
    force: bool = False
    """Whether what is there and was not finished by the journal may be written over."""

    def run(self, jobs: list[Job], progress: Callable[[int, int], None]) -> Iterator[Result]:
        """Do them in order; `progress` is told the pieces done and all of the image at hand."""
        for job in jobs:
            began = time.monotonic()
            result = self._tried(job, progress)
            result.seconds = time.monotonic() - began
            yield result

    def _tried(self, job: Job, progress: Callable[[int, int], None]) -> Result:
        try:
            return self._one(job, progress)
        except OdmError as error:
            return Result(job, FAILED, str(error))
        except Exception as error:
            if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error)):
                return Result(job, FAILED, f"{job.source}: out of memory; take a smaller --window, or a smaller image")
            if self.journal is None:
                raise  # for whoever writes a log of it
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"
            return Result(job, FAILED, f"{job.source}: an error nobody thought of: {said}; please report it")

    def _one(self, job: Job, progress: Callable[[int, int], None]) -> Result:
        if job.trouble:
            raise OdmError(job.trouble)
        digest = ""
        if self.journal:
            digest = _digest(job.source)
            if self.journal.has(job.target, digest):
                return Result(job, FINISHED)
        if job.target.is_file() and not self.force:
            raise OdmError(f"{job.target}: is there already; --force writes over it")
        image = photo.read(job.source)
        scale, (height, width) = self.enlarger.scale, image.colour.shape[:2]
        bits = 8 * image.colour.itemsize
        exif = photo.resized(image.exif, width * scale, height * scale)
        picture = Picture(width * scale, height * scale, image.channels, bits, image.icc, exif)
        picture, notes = formats.prepared(job.target, picture)
        rows, columns = tiles.pieces(image.colour.shape, self.window, self.enlarger)
        count = 0

        def done() -> None:
            nonlocal count
            count += 1
            progress(count, len(rows) * len(columns))

        bands = tiles.bands(image.colour, image.alpha, self.enlarger, rows, columns, done)
        with whole(job.target) as beside:
            formats.write(job.target, beside, picture, bands)
            if self.journal:
                self.journal.note(job.target, digest, beside)
        return Result(job, DONE, notes=[*image.notes, *notes], size=(picture.width, picture.height))


def _digest(file: Path) -> str:
    """SHA-256 of an image file, in the words of one that is to be read."""
    photo.refuse_pipes(file)
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise OdmError(f"{file}: cannot be read: {said}; replace it or take it out") from None

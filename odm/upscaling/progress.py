"""How far a batch is: a bar on a terminal, and how long the rest will take, by the bytes of the images."""

import os
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from odm.upscaling.batch import FINISHED, Result
from odm.upscaling.plan import Job


class Progress:
    """Told of pieces and results; the bar is on stderr, so that what is printed can go elsewhere."""

    def __init__(self, jobs: list[Job]) -> None:
        self.sizes = [_size(job) for job in jobs]
        self.number = 0
        self.computed = 0
        self.began = time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            columns = (BarColumn(), *(TextColumn(f"{{task.fields[{each}]}}") for each in ("files", "pieces", "left")))
            self.bar = Bar(*columns, console=Console(stderr=True))
            self.task = self.bar.add_task("", total=sum(self.sizes) or 1, pieces="", left="", files=self.files())

    def __enter__(self) -> "Progress":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()

    def piece(self, done: int, of: int) -> None:
        """Of the image at hand."""
        self._show(self.sizes[self.number] * done / of, f"piece {done}/{of}")

    def result(self, result: Result) -> None:
        if result.status != FINISHED:
            self.computed += self.sizes[self.number]
        self.number += 1
        self._show(0, "")

    def files(self) -> str:
        return f"{self.number}/{len(self.sizes)}"

    def left(self, within: float = 0) -> str:
        """Of the time, '' while nobody knows; `within` are the bytes done of the image at hand."""
        rest = sum(self.sizes[self.number :]) - within
        done = self.computed + within
        return _in_words((time.monotonic() - self.began) * rest / done) if done and rest > 0 else ""

    def _show(self, within: float, pieces: str) -> None:
        if self.bar:
            at = sum(self.sizes[: self.number]) + within
            self.bar.update(self.task, completed=at, pieces=pieces, left=self.left(within), files=self.files())


def _in_words(seconds: float) -> str:
    for unit, long in (("h", 3600), ("min", 60)):
        if seconds >= 2 * long:
            return f"{seconds / long:.0f} {unit} left"
    return f"{seconds:.0f} s left"


def _size(job: Job) -> int:
    try:
        return os.stat(job.source).st_size
    except (OSError, ValueError):
        return 0

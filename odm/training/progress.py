"""How far a training job is: a bar on a terminal, plain lines in a log."""

import sys
import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Rate and time left, of the steps done since this process started."""

    def __init__(self, start: int, steps: int) -> None:
        self.start, self.done, self.steps = start, start, steps
        self.began = time.monotonic()
        self.loss = ""
        self.bar = None
        if sys.stdout.isatty():
            self.bar = Bar(
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[loss]}"),
            )
            self.task = self.bar.add_task("", total=steps, completed=start, rate="", loss="")
        elif start:
            print(f"going on from step {start}", flush=True)

    def __enter__(self) -> "Progress":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()

    def advance(self) -> None:
        self.done += 1
        if self.bar:
            self.bar.update(self.task, completed=self.done, rate=f"{self._rate():.1f} steps/s", loss=self.loss)

    def row(self, row: dict[str, float]) -> None:
        """Report a row of the history."""
        self.loss = f"loss {row['loss']:.3f}"
        if "spike" in row:
            said = f"step {row['step']:.0f}: since the last row the loss was {row['spike']:.1f} times its usual value"
            (self.bar.print if self.bar else print)(said)
        if not self.bar:
            rate = self._rate()
            left = (self.steps - row["step"]) / rate
            print(
                f"step {row['step']:.0f}/{self.steps}  {self.loss}  {rate:.1f} steps/s  {left:.0f} s left", flush=True
            )

    def _rate(self) -> float:
        return max(1, self.done - self.start) / max(time.monotonic() - self.began, 1e-9)

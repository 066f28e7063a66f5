"""How long an image takes in each runtime and form: a process for each, asked in turn.

A process of its own has no restriction of vectors, shares no threads or memory with another, and its peak is its own.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from odm.deploy.runtimes import RESTRICTIONS, Operator, runtimes
from odm.errors import OdmError

if TYPE_CHECKING:
    from odm.networks.backbone import Backbone

TORCH = "torch"
FLOAT = "float"
Image = NDArray[np.float32]


@dataclass(frozen=True)
class Contender:
    """A form of a network in a runtime."""

    runtime: str
    form: str
    model: Path | Callable[[], Backbone]
    """An ONNX file; for torch what gives the network, which goes to another process."""
    layers: tuple[str, ...] = ()
    """Of integers, of which it is asked what the runtime made."""


@dataclass
class Timed:
    """What came of a contender."""

    contender: Contender
    threads: int
    seconds: list[float] = field(default_factory=list)
    """Of each pass: of all its threads' work on one core, of the clock on several."""
    peak_mib: float | None = None
    """Over the process before the model was loaded; None where the system does not tell."""
    operators: list[Operator] = field(default_factory=list)


def timed(contenders: Sequence[Contender], image: Image, threads: int, rounds: int) -> list[Timed]:
    """Passes of all contenders in turn, round after round, after one that sets up kernels and memory.

    OdmError, which names the contender, if one ends.

    Args:
        image: (1, 3, H, W), float32 in 0-255.
    """
    with _started(contenders, image, threads) as lines:
        found = [Timed(each, threads) for each in contenders]
        order = list(zip(found, lines, strict=True))
        for round_ in range(rounds):
            for each, line in order if round_ % 2 else reversed(order):
                each.seconds.append(_ask(each.contender, line, "pass"))
        for each, line in order:
            each.peak_mib, each.operators = _ask(each.contender, line, "end")
    return found


@contextmanager
def _started(contenders: Sequence[Contender], image: Image, threads: int) -> Iterator[list[Any]]:
    context = multiprocessing.get_context("spawn")
    processes, lines = [], []
    try:
        for each in contenders:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, each, image, threads), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            lines.append(ours)
        for each, line in zip(contenders, lines, strict=True):
            _ask(each, line, "pass")
        yield lines
    finally:
        for line in lines:
            line.close()
        for process in processes:
            process.join(1)
            process.terminate()


def _ask(contender: Contender, line: Any, what: str) -> Any:
    try:
        line.send(what)
        answer = line.recv()
    except (EOFError, OSError):
        answer = "its process has ended"
    if isinstance(answer, str):
        raise OdmError(f"{contender.form} in {contender.runtime}: {answer}")
    return answer


def _serve(line: Any, contender: Contender, image: Image, threads: int) -> None:
    """The process of a contender: a pass for each time it is asked, and at the end what else is known."""
    try:
        for key in RESTRICTIONS:
            os.environ.pop(key, None)
        run, operators = (_torch if contender.runtime == TORCH else _stock)(contender, threads)
        before = memory("VmRSS")
        started = run()
        clock = time.process_time if threads == 1 else time.perf_counter
        while True:
            if line.recv() == "end":
                peak = memory("VmHWM")
                line.send((None if peak is None or before is None else max(0.0, peak - before), operators()))
                continue
            began = clock()
            started(image)
            line.send(clock() - began)
    except EOFError:
        pass  # whoever asked has gone
    except Exception as error:
        line.send(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")


Opening = Callable[[], Callable[[Image], Any]]


def _stock(contender: Contender, threads: int) -> tuple[Opening, Callable[[], list[Operator]]]:
    assert isinstance(contender.model, Path)
    runtime = next(each for each in runtimes() if each.name == contender.runtime)
    __import__(contender.runtime)
    content = contender.model.read_bytes()
    return lambda: runtime.open(content, threads).run, lambda: runtime.operators(content, list(contender.layers))


def _torch(contender: Contender, threads: int) -> tuple[Opening, Callable[[], list[Operator]]]:
    import torch

    from odm.networks.device import placed, set_vectors

    set_vectors("native")
    torch.set_num_threads(threads)

    def opened() -> Callable[[Image], Any]:
        assert not isinstance(contender.model, Path)
        network = placed(contender.model(), torch.device("cpu")).eval()

        def run(image: Image) -> None:
            with torch.inference_mode():
                network(torch.from_numpy(image).contiguous(memory_format=torch.channels_last))

        return run

    return opened, list


def memory(key: str) -> float | None:
    """Of this process in MiB, as Linux tells it: VmRSS is now, VmHWM its peak.

    Not getrusage: its peak outlives exec, so a child starts from that of the process that bore it.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:")), None)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Median between the lower and the upper one."""
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower, median, upper

"""Jobs killed at random moments, or run side by side, leave the same bytes as jobs left alone: with real processes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml
from trial import moments

from odm.files import write_text

SETTINGS = {
    "suite": "killed",
    "device": "cpu",
    "threads": 1,
    "images": {"train": ["skimage_train"], "test": ["skimage_test"], "scales": [2]},
    "networks": {"net": {"backbone": "edsr", "channels": 8, "blocks": 2, "scale": 2}},
    "pretraining": {"steps": 64, "batch": 2, "patch": 16, "rate": 0.001, "schedule": "cosine", "log_every": 8},
    "mismatch": {"batches": 2},
    "qat": {
        "steps": 48,
        "batch": 2,
        "patch": 16,
        "rate": 0.0005,
        "schedule": "cosine",
        "log_every": 6,
        "calibration_batches": 2,
    },
    "methods": {"plain": {"kind": "plain"}, "odm": {"kind": "odm"}},
    "runs": {
        f"{method}_{bits}": {"network": "net", "method": method, "weight_bits": bits, "activation_bits": bits}
        for method in ("plain", "odm")
        for bits in (2, 4)
    },
}
JOBS = {
    "data train": ("data", "train.safetensors"),
    "pretrain net": ("networks/net", "weights.safetensors", "history.csv"),
    "train odm_2": ("runs/odm_2", "weights.safetensors", "history.csv"),
}

# A process that has loaded what jobs need; each line that comes in is a job, done by a child of it.
NURSERY = """
import os, sys
import torch._dynamo  # by the optimizer
import odm.steps.data, odm.steps.pretrain, odm.steps.train
from odm.cli import main
while line := sys.stdin.readline():
    if not (pid := os.fork()):
        sys.argv = ["odm", *line.split()]
        main()
        os._exit(0)
    print("pid", pid, flush=True)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Nursery:
    """Real processes that need not load torch first, each of which may be killed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin and process.stdout
        self.into, self.out = process.stdin, process.stdout

    def start(self, job: str) -> int:
        self.into.write(f"{job}\n")
        self.into.flush()
        return int(self.until("pid ").split()[1])

    def ended(self) -> int:
        return int(self.until("ended ").split()[1])

    def until(self, word: str) -> str:
        while line := self.out.readline():
            if line.startswith(word):
                return line
        raise AssertionError("the nursery is no more")

    def kill(self, job: str, rows: int, later: float) -> bool:
        """SIGKILL, which no process can answer: `later` seconds after so many rows of history were reported. Whether
        it met the job alive."""
        pid = self.start(job)
        for _ in range(rows):
            self.until("step ")
        time.sleep(later)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return self.ended() == -signal.SIGKILL

    def finish(self, job: str) -> float:
        """Seconds that a job took."""
        began = time.monotonic()
        self.start(job)
        assert self.ended() == 0
        return time.monotonic() - began


@contextmanager
def nursery(folder: Path) -> Iterator[Nursery]:
    process = subprocess.Popen([sys.executable, "-c", NURSERY], cwd=folder, stdin=-1, stdout=-1, text=True)
    try:
        yield Nursery(process)
    finally:
        process.communicate()


def start(folder: Path, job: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "odm.cli", *job.split()]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)


def finish(folder: Path, job: str) -> float:
    """Seconds that a job took, its start included."""
    began = time.monotonic()
    process = start(folder, job)
    process.communicate()
    assert process.returncode == 0
    return time.monotonic() - began


def made(folder: Path, names: tuple[str, ...] = ("weights.safetensors", "history.csv")) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    (folder / "params.yaml").write_text(yaml.safe_dump(SETTINGS))
    for job in ("data train", "pretrain net", "mismatch net"):
        finish(folder, job)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_killed_at_random_moments(project: Path, job: str) -> None:
    """One while the job starts, the others anywhere between its first row and its last write."""
    folder, *files = JOBS[job]
    out, names = project / "results/killed" / folder, tuple(files)
    draw = random.Random(job)
    killed, tried = 0, 0

    def again() -> None:
        for name in names:
            (out / name).unlink(missing_ok=True)

    with nursery(project) as run:
        again()
        took = run.finish(job)
        undisturbed = made(out, names)
        assert len(undisturbed) == len(names)
        rows = len((out / "history.csv").read_text().splitlines()) - 1 if "history.csv" in names else 0
        while killed < moments(5):
            again()
            if tried == 0:
                process = start(project, job)
                time.sleep(draw.uniform(0, 2 * took))
                process.kill()
                killed += process.wait() == -signal.SIGKILL
                process.communicate()
            else:
                at = draw.randint(0, rows)
                killed += run.kill(job, at, draw.uniform(0, 0.1) if at else draw.uniform(0, took))
            tried += 1
            assert tried <= 20 + 4 * moments(5), "too seldom before the job's end"
            run.finish(job)
            assert not list(out.glob(".*"))  # a write that was cut short leaves nothing for ever
            assert made(out, names) == undisturbed
    assert not any((project / "checkpoints").rglob("last.*"))
    print(f"{job}: killed {killed} times, and {tried - killed} times too late; each time finished to the same bytes")


# Writes two contents in turn, over and over, and says when it has begun.
WRITER = """
import sys
from pathlib import Path
from odm.files import write_text
path, size = Path(sys.argv[1]), int(sys.argv[2])
print(flush=True)
while True:
    for letter in "ab":
        write_text(path, letter * size)
"""


@pytest.mark.parametrize("size", [10, 8_000_000])
def test_killed_while_it_writes(size: int, tmp_path: Path) -> None:
    """The file is the old or the new one, whole, whenever its writer dies; what is left beside it the next removes."""
    path = tmp_path / "file"
    draw = random.Random(size)
    left = 0
    write_text(path, "a" * size)
    for _ in range(moments(10)):
        process = subprocess.Popen([sys.executable, "-c", WRITER, path, str(size)], stdout=-1)
        assert process.stdout and process.stdout.readline()
        time.sleep(draw.uniform(0, 0.05))
        process.kill()
        process.communicate()
        assert path.read_text() in ("a" * size, "b" * size)
        left += len(list(tmp_path.iterdir())) - 1
        write_text(path, "c" * size)
        assert path.read_text() == "c" * size
        assert list(tmp_path.iterdir()) == [path]
        write_text(path, "a" * size)
    print(f"{size} bytes: {moments(10)} moments, {left} of them in the midst of a write")
    assert left or size < 1000


# Is killed by itself as it asks the system for its n-th call, or ends unharmed.
AT_CALL = """
import os, signal, sys
from pathlib import Path
from odm import files
left = int(sys.argv[2])
def watch(event, _):
    global left
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.truncate"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sync = os.fsync
os.fsync = lambda file: (watch("open", None), sync(file))
sys.addaudithook(watch)
files.write_text(Path(sys.argv[1]), "new")
"""


@pytest.mark.parametrize("before", ["old", None])
def test_killed_before_each_call_of_a_write(before: str | None, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    for call in range(100):
        shutil.rmtree(path.parent, ignore_errors=True)
        if before:
            path.parent.mkdir()
            path.write_text(before)
        done = subprocess.run([sys.executable, "-c", AT_CALL, path, str(call)])
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        assert (path.read_text() if path.exists() else None) in (before, "new")
        write_text(path, "again")
        assert path.read_text() == "again"
        assert list(path.parent.iterdir()) == [path]
    else:
        raise AssertionError("it never ends")
    assert call >= 4
    assert path.read_text() == "new"


@pytest.mark.slow
def test_four_side_by_side_equal_one_after_another(project: Path) -> None:
    results = project / "results/killed/runs"
    shutil.rmtree(results, ignore_errors=True)
    for run in SETTINGS["runs"]:
        finish(project, f"train {run}")
    alone = {run: made(results / run) for run in SETTINGS["runs"]}
    shutil.rmtree(results)
    processes = [start(project, f"train {run}") for run in SETTINGS["runs"]]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert {run: made(results / run) for run in SETTINGS["runs"]} == alone

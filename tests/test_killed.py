"""Jobs killed at random moments, or run side by side, leave the same bytes as jobs left alone: with real processes."""

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

SETTINGS = {
    "suite": "killed",
    "device": "cpu",
    "threads": 1,
    "images": {"train": ["skimage_train"], "test": ["skimage_test"], "scales": [2]},
    "networks": {"net": {"backbone": "edsr", "channels": 8, "blocks": 2, "scale": 2}},
    "pretraining": {"steps": 160, "batch": 2, "patch": 16, "rate": 0.001, "schedule": "cosine", "log_every": 20},
    "mismatch": {"batches": 2},
    "qat": {
        "steps": 120,
        "batch": 2,
        "patch": 16,
        "rate": 0.0005,
        "schedule": "cosine",
        "log_every": 15,
        "calibration_batches": 2,
    },
    "methods": {"plain": {"kind": "plain"}, "odm": {"kind": "odm"}},
    "runs": {
        f"{method}_{bits}": {"network": "net", "method": method, "weight_bits": bits, "activation_bits": bits}
        for method in ("plain", "odm")
        for bits in (2, 4)
    },
}
JOBS = {"pretrain net": Path("results/killed/networks/net"), "train odm_2": Path("results/killed/runs/odm_2")}


def start(folder: Path, job: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "odm.cli", *job.split()]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)


def kill(folder: Path, job: str, rows: int, later: float) -> None:
    """SIGKILL, which no process can answer: `later` seconds after so many rows of history were reported."""
    process = start(folder, job)
    assert process.stdout is not None
    while rows and (line := process.stdout.readline()):
        rows -= line.startswith("step ")
    time.sleep(later)
    process.kill()
    process.communicate()


def finish(folder: Path, job: str) -> float:
    """Seconds that a job took."""
    began = time.monotonic()
    process = start(folder, job)
    process.communicate()
    assert process.returncode == 0
    return time.monotonic() - began


def made(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.name in ("weights.safetensors", "history.csv")
    }


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
    """Five moments each: one while the job starts, four anywhere between its first row and its last write."""
    out = project / JOBS[job]
    took = finish(project, job)
    undisturbed = made(out)
    assert len(undisturbed) == 2
    moments = random.Random(job)
    rows = len((out / "history.csv").read_text().splitlines()) - 1
    for at in (0, *(moments.randint(1, rows) for _ in range(4))):
        for name in undisturbed:
            (out / name).unlink(missing_ok=True)
        kill(project, job, at, moments.uniform(0, 0.1) if at else moments.uniform(0, took))
        finish(project, job)
        assert not list(out.glob(".*"))  # a write that was cut short leaves nothing for ever
        assert made(out) == undisturbed
    assert not any((project / "checkpoints").rglob("last.*"))


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

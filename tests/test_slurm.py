"""A whole suite through a real Slurm of two nodes: a job that its time limit kills goes on, all bytes are as here."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from test_front_ends import ROOT
from trial import photographs

from odm.files import read_json

CLUSTER = ROOT / "tests" / "slurm" / "cluster"
CONFIGURATION = Path("/etc/slurm/slurm.conf")
NEEDED = ("slurmctld", "slurmd", "sbatch", "munged")
SBIN = f"{os.environ['PATH']}:/usr/sbin"

SETTINGS = {
    "suite": "slurm",
    "device": "cpu",
    "images": {"train": ["mine"], "test": ["held"], "scales": [2], "folders": {"mine": "mine", "held": "held"}},
    "networks": {"net": {"backbone": "edsr", "channels": 8, "blocks": 2, "scale": 2}},
    "dials": {},
    "pretraining": {"steps": 60, "batch": 2, "patch": 16, "rate": 0.001, "schedule": "cosine"},
    "mismatch": {"batches": 2},
    "qat": {"steps": 300, "batch": 2, "patch": 16, "rate": 0.0005, "schedule": "cosine", "log_every": 10},
    "methods": {"plain": {"kind": "plain"}, "odm": {"kind": "odm"}},
    "runs": {
        kind: {"network": "net", "method": kind, "weight_bits": 2, "activation_bits": 2} for kind in ("plain", "odm")
    },
}
CHECKPOINT, HOLDER = Path("checkpoints/slurm/runs/odm/last.safetensors"), Path("logs/slurm/train/odm.holder.json")
# This Slurm keeps no account of jobs, and may be asked often.
OFTEN = ["--slurm-init-seconds-before-status-checks=2", "--seconds-between-status-checks=2"]
THROUGH = ["--workflow-profile=profiles/slurm", "--slurm-status-command=squeue", *OFTEN]
# A minute, then two, and so on: less than any estimate, and the least that Slurm knows.
SHORT = "--set-resources=train:runtime=attempt"


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[None]:
    if missing := [each for each in NEEDED if not shutil.which(each, path=SBIN)]:
        pytest.skip(f"no {', '.join(missing)} here; Debian's packages slurm-wlm and munge have them")
    if os.geteuid():
        pytest.skip("starting a Slurm takes root")
    if CONFIGURATION.exists():
        pytest.skip(f"{CONFIGURATION}: this machine has a Slurm of its own")
    try:
        subprocess.run([CLUSTER, "start", tmp_path / "cluster"], check=True)
        yield
    finally:
        subprocess.run([CLUSTER, "stop", tmp_path / "cluster"])


def project(folder: Path) -> Path:
    for name in ("profiles", "workflow"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "Snakefile", folder)
    (folder / "params.yaml").write_text(yaml.safe_dump(SETTINGS))
    photographs(folder, (24, 24), side=4)
    return folder


def snakemake(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with (folder / "said.log").open("wb") as said:
        command = [sys.executable, "-m", "snakemake", *arguments, "all"]
        return subprocess.Popen(command, cwd=folder, stdout=said, stderr=subprocess.STDOUT)


def made(folder: Path) -> dict[str, bytes]:
    """All results but timings, which are others each time."""
    files = (each for each in (folder / "results").rglob("*") if each.is_file() and "timing" not in each.name)
    return {each.relative_to(folder).as_posix(): each.read_bytes() for each in files}


@pytest.mark.slow
def test_a_suite_through_slurm(slurm: None, tmp_path: Path) -> None:
    ours, local = project(tmp_path / "ours"), project(tmp_path / "local")
    process = snakemake(ours, *THROUGH, SHORT)
    stopped = 0
    try:
        while process.poll() is None:
            # As soon as there is something to go on from, the job goes on no more: its limit must come.
            if not stopped and (ours / CHECKPOINT).exists():
                stopped = read_json(ours / HOLDER)["pid"]
                os.kill(stopped, signal.SIGSTOP)
            time.sleep(0.05)
    finally:
        process.terminate()
    said = (ours / "said.log").read_text()
    assert process.returncode == 0, said
    assert stopped

    asked = ["squeue", "--states=all", "--noheader", "--sort=i", "--format=%i %T %N %l %M %k"]
    jobs = subprocess.run(asked, stdout=-1, text=True).stdout
    print(jobs)
    ended = [line.split() for line in jobs.splitlines()]
    of_odm = [state for _, state, *_, comment in ended if comment == "rule_train_wildcards_odm"]
    assert "TIMEOUT" in of_odm and of_odm[-1] == "COMPLETED"
    assert {node for _, _, node, *_ in ended} == {"one", "two"}
    # Logs of attempts that failed are shown; the last one's is there.
    log = (ours / "logs/slurm/train/odm.log").read_text()
    assert re.search(r"^odm: .*\ngoing on from step [1-9]\d*$", said + log, re.MULTILINE)

    process = snakemake(local, "--cores", "2")
    assert process.wait() == 0, (local / "said.log").read_text()
    undisturbed = made(local)
    assert len(undisturbed) > 20
    assert made(ours) == undisturbed
    # And the same records: here, nothing is left to do.
    assert snakemake(ours, "--cores", "2").wait() == 0
    assert "Nothing to be done" in (ours / "said.log").read_text()

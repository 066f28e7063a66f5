"""What jobs take, by estimate, and what they ask a cluster for."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from test_front_ends import ROOT, SUITES, put_in_force, run
from test_front_ends import project as project  # a fixture
from torch import nn
from trial import photographs

from odm import card
from odm.needs import megabytes, minutes, needs
from odm.networks.build import build
from odm.settings.reading import load
from odm.training import estimate

PROFILE = ["snakemake", "--dry-run", "--workflow-profile", "profiles/slurm"]
# A job that says the most memory it had.
PEAK = """
import atexit, re
from pathlib import Path
from odm.cli import main
atexit.register(lambda: print("peak", *re.findall(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())))
main()
"""
ESTIMATES = Path("logs/quick/needs.json")


def test_what_a_step_keeps_is_counted() -> None:
    """Of two convolutions with a ReLU between them: both inputs, of 3 and of 8 channels, and no copy of the second."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    found = estimate.footprint(network)
    assert found.parameters == 3 * 8 * 9 + 8 + 8 * 3 + 3
    assert found.macs == estimate.PASSES * (3 * 8 * 9 + 8 * 3)
    assert found.kept == 4 * (3 + 8)
    assert found.live == 4 * (8 + 8)


def test_counting_changes_nothing() -> None:
    network = build(load(ROOT / "suites" / "paper.yaml").networks["srresnet_x4"])
    before = {key: value.clone() for key, value in network.state_dict().items()}
    estimate.footprint(network)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(each.grad is None for each in network.parameters())


@pytest.mark.parametrize("suite", SUITES)
def test_each_job_of_each_suite_has_one(suite: str) -> None:
    settings = load(ROOT / "suites" / f"{suite}.yaml")
    found = estimate.needs(
        settings, {name: estimate.footprint(build(each)) for name, each in settings.networks.items()}
    )
    assert found.keys() == set(card.jobs(settings))
    assert all(each.seconds >= 0 and each.memory >= estimate.PROCESS for each in found.values())


def test_more_is_asked_for_at_each_attempt() -> None:
    assert [minutes(30 * 60, attempt) for attempt in (1, 2, 3)] == [60, 120, 180]
    assert [minutes(1, attempt) for attempt in (1, 2)] == [10, 20]
    assert [megabytes(2e9, attempt) for attempt in (1, 2, 3)] == [3000, 4500, 6000]
    assert megabytes(1) == 1000


def test_estimates_are_made_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def make(*command: str) -> None:
        asked.append(" ".join(command))
        assert run(*command).returncode == 0

    monkeypatch.setattr("odm.needs.asked", make)
    first = needs(load())
    assert first.keys() == set(card.jobs(load()))
    assert needs(load()) == first
    assert asked == ["odm.cli needs"]
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("steps: 1800", "steps: 180000"))
    more = needs(load())
    assert len(asked) == 2
    assert more["pretrain", "edsr_tiny"][0] == pytest.approx(100 * first["pretrain", "edsr_tiny"][0])
    ESTIMATES.write_text("{cut short")
    assert needs(load()) == more


def resources(said: str) -> dict[str, set[str]]:
    """What the jobs of each rule ask for, from a dry run."""
    found: dict[str, set[str]] = {}
    for rule, asked in re.findall(r"^rule (?!all:)(\w+):\n(?:    .*\n)*?    resources: (.*)$", said, re.MULTILINE):
        found.setdefault(rule, set()).update(asked.split(", "))
    return found


def test_each_rule_asks_a_cluster_for_time_memory_and_gpus(project: Path) -> None:
    params = project / "params.yaml"
    params.write_text(
        params.read_text().replace("device: cpu", "device: cuda").replace("steps: 1800", "steps: 90000000")
    )
    done = run(*PROFILE, "all")
    assert done.returncode == 0, done.stdout + done.stderr
    found = resources(done.stdout)
    assert found.keys() == {"data", "pretrain", "dial", "mismatch", "train", "evaluate_network", "evaluate_run"} | {
        "tables",
        "figures",
        "report",
    }
    for rule, asked in found.items():
        assert any(each.startswith("runtime=") for each in asked), rule
        assert any(each.startswith("mem_mb=") for each in asked), rule
        assert ("gpu=1" in asked) == (rule not in ("data", "dial", "tables")), rule
        assert not any(each.startswith("processors=") for each in asked), rule
    assert "runtime=1440" in found["pretrain"]  # of 90,000,000 steps, and no more: what a partition is presumed to give
    assert "runtime=10" in found["train"]


def test_a_cluster_is_told_whether_jobs_need_a_gpu(project: Path) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("device: cpu", "device: auto"))
    done = run(*PROFILE)
    assert done.returncode == 1
    assert "device: auto does not tell a cluster whether jobs need a GPU; say `cuda` or `cpu`" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert run("snakemake", "--dry-run").returncode == 0


def test_a_single_machine_starts_without_estimates(project: Path) -> None:
    """They take torch."""
    put_in_force(project, "quick")
    done = run("snakemake", "--dry-run", "all")
    asked = {each for each in resources(done.stdout)["train"] if not each.startswith("tmpdir=")}
    assert asked == {"gpu=0", "processors=1"}
    assert not ESTIMATES.exists()


@pytest.mark.slow
def test_jobs_take_no_more_memory_than_they_ask_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the system's count, of a batch that is most of it."""
    kinds = ("plain", "odm", "odm_eccv", "pams", "daq", "ddtb")
    monkeypatch.chdir(tmp_path)
    photographs(tmp_path, (24, 24), side=16)
    training = {"steps": 2, "batch": 16, "patch": 64, "rate": 0.001, "schedule": "cosine"}
    content = {
        "suite": "wide",
        "device": "cpu",
        "images": {"train": ["mine"], "test": ["held"], "scales": [2], "folders": {"mine": "mine", "held": "held"}},
        "networks": {"net": {"backbone": "edsr", "channels": 32, "blocks": 4, "scale": 2}},
        "pretraining": training,
        "qat": training | {"calibration_batches": 1},
        "mismatch": {"batches": 1},
        "methods": {kind: {"kind": kind} for kind in kinds},
        "runs": {kind: {"network": "net", "method": kind, "weight_bits": 2, "activation_bits": 2} for kind in kinds},
    }
    Path("params.yaml").write_text(yaml.safe_dump(content))
    settings = load()
    found = estimate.needs(settings, {"net": estimate.footprint(build(settings.networks["net"]))})
    for step, name in card.jobs(settings):
        if step in ("tables", "figures", "report"):
            continue
        done = subprocess.run([sys.executable, "-c", PEAK, step, name], capture_output=True, text=True)
        peak = 1024 * int(done.stdout.rpartition("peak ")[2])
        asked = 1e6 * megabytes(found[step, name].memory)
        print(f"{step} {name}: {peak / 1e6:,.0f} MB of {found[step, name].memory / 1e6:,.0f} estimated")
        assert peak < asked, f"{step} {name}: {peak / 1e6:,.0f} MB of {asked / 1e6:,.0f}"

"""A miniature suite in throw-away clones: both tools make the same, and neither has anything left to do."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MINIATURE = """\
suite: miniature
device: cpu
threads: 1
images: {train: [skimage_train], test: [skimage_test], scales: [2]}
networks:
  tiny: {backbone: edsr, channels: 4, blocks: 2, scale: 2}
dials:
  turned: {network: tiny, strength: 1.0, kind: scale, seed: 1}
pretraining: {steps: 6, batch: 2, patch: 8, rate: 0.001, schedule: cosine, log_every: 2}
mismatch: {batches: 2}
qat: {steps: 4, batch: 2, patch: 8, rate: 0.0005, schedule: cosine, log_every: 2, calibration_batches: 2}
methods:
  plain: {kind: plain}
  odm: {kind: odm}
runs:
  first: {network: tiny, method: plain, weight_bits: 4, activation_bits: 4}
  second: {network: tiny, method: odm, weight_bits: 2, activation_bits: 2}
  third: {network: turned, method: plain, weight_bits: 32, activation_bits: 3}
"""
ALL = {
    *("data train", "data test", "pretrain tiny", "mismatch tiny", "evaluate tiny"),
    *("dial turned", "mismatch turned", "evaluate turned"),
    *("train first", "evaluate first", "train second", "evaluate second", "train third", "evaluate third"),
    *("tables", "figures", "report"),
}
OF_SECOND = {"train second", "evaluate second", "tables", "figures", "report"}


class Clone:
    """A copy of the project with nothing made in it yet, and the commands of a user in it."""

    def __init__(self, folder: Path, settings: str = MINIATURE) -> None:
        self.folder = folder
        folder.mkdir()
        # What git knows or would add: results and records of this checkout stay behind.
        listed = _said(["git", "ls-files", "--cached", "--others", "--exclude-standard"], ROOT)
        for name in listed.splitlines():
            if not name.startswith("results/") and (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        _said(["git", "init", "--quiet"], folder)
        (folder / "params.yaml").write_text(settings)

    @classmethod
    def of(cls, folder: Path) -> "Clone":
        """One that is there already."""
        clone = cls.__new__(cls)
        clone.folder = folder
        return clone

    def snakemake(self) -> str:
        return _said([sys.executable, "-m", "snakemake", "--cores", "8", "all"], self.folder)

    def dvc(self) -> str:
        return _said([sys.executable, "-m", "dvc", "repro"], self.folder)

    def odm(self, *arguments: str) -> str:
        return _said([sys.executable, "-m", "odm.cli", *arguments], self.folder)

    def adopt(self, *options: str) -> str:
        return self.odm("adopt", *options)

    def refused(self, *arguments: str) -> str:
        """What an `odm` command says that does not succeed."""
        with pytest.raises(AssertionError) as refusal:
            self.odm(*arguments)
        return str(refusal.value)

    def edit_second_run(self) -> None:
        params = self.folder / "params.yaml"
        before = params.read_text()
        params.write_text(before.replace("weight_bits: 2, activation_bits: 2", "weight_bits: 3, activation_bits: 2"))
        assert params.read_text() != before

    def made(self) -> dict[str, bytes]:
        """Every file of the results but those that hold timings."""
        results = self.folder / "results"
        return {
            str(path.relative_to(results)): path.read_bytes()
            for path in sorted(results.rglob("*"))
            if path.is_file()
            and path.name not in ("timing.json", "timings.csv", ".snakemake_timestamp")
            and "cards" not in path.parts  # DVC alone has them
        }


def _said(command: list[str], folder: Path) -> str:
    """All that a command says; it must succeed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    # The clone's own modules, wherever the `odm` on the path was installed from.
    environment = os.environ | {
        "PATH": path,
        "PYTHONPATH": str(folder),
        "DVC_SITE_CACHE_DIR": str(folder / ".dvc/site"),
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def jobs(said: str) -> set[str]:
    """The `odm` commands that either tool says it ran, without the word `odm`."""
    return set(re.findall(r"^(?:Shell command:|>) odm ([\w ]+?)(?: --card .*)?$", said, re.MULTILINE))


@pytest.mark.slow
def test_both_tools_make_the_same_and_agree_on_what_is_left(tmp_path: Path) -> None:
    ours, theirs = Clone(tmp_path / "snakemake"), Clone(tmp_path / "dvc")

    assert jobs(ours.snakemake()) == ALL
    assert (ours.folder / "results/tables.md").read_text()
    assert "Nothing to be done" in ours.snakemake()
    assert "DVC has taken over" in ours.adopt()
    assert jobs(ours.dvc()) == {"cards"}
    assert "Nothing to be done" in ours.snakemake()
    assert "in step already" in ours.adopt()

    assert jobs(theirs.dvc()) == ALL | {"cards"}
    assert ours.made() == theirs.made()
    locked = (theirs.folder / "dvc.lock").read_bytes()
    assert (ours.folder / "dvc.lock").read_bytes() == locked, "two runs lock the same, though they took other times"
    assert "Snakemake has taken over" in theirs.adopt()
    assert "Nothing to be done" in theirs.snakemake()

    for clone in (ours, theirs):
        clone.edit_second_run()
    assert "neither" in ours.refused("adopt")
    assert jobs(ours.snakemake()) == OF_SECOND
    assert jobs(theirs.dvc()) == OF_SECOND | {"cards"}
    assert ours.made() == theirs.made()


@pytest.mark.slow
def test_a_clone_with_results_but_no_weights_runs_everything(tmp_path: Path) -> None:
    """Git brings tables and metrics; they must not pass for finished work."""
    clone = Clone(tmp_path / "clone")
    for name in ["tables.md", "miniature/tables.md", "miniature/tables.csv", "miniature/runs/first/metrics.json"]:
        (clone.folder / "results" / name).parent.mkdir(parents=True, exist_ok=True)
        (clone.folder / "results" / name).write_text("as committed\n")
    planned = _said([sys.executable, "-m", "snakemake", "--dry-run"], clone.folder)
    assert jobs(planned) == ALL

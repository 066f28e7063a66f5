"""What Snakemake and DVC need to find that nothing is to do, against another revision of the project in the same run.

    python benchmarks/engines.py [--runs 14 120 250] [--against HEAD] [--rounds 3]

Both trees, the working tree and a checkout of the revision, get one suite of so many runs whose files are there (of a
few bytes: engines look at names, times and digests) and which both engines take for made. Then each command is called
in both in turn, round after round. Printed is CPU time of the process and its children, least of the rounds, and ratio.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "snakemake, nothing to do": ["snakemake", "--cores", "8", "all"],
    "snakemake -n": ["snakemake", "--dry-run"],
    "dvc repro, nothing to do": ["dvc", "repro"],
    "dvc commit -f": ["dvc", "commit", "--force", "--quiet"],
}
MAKE_FILES = """\
from pathlib import Path
from dvc.repo import Repo
with Repo() as repo:
    outs = [out.fspath for out in repo.index.outs]
for out in map(Path, outs):
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(str(out.name))
"""


def suite(runs: int) -> str:
    """Settings of a suite of so many runs on one network, from the quick suite's."""
    content = yaml.safe_load((ROOT / "suites" / "quick.yaml").read_text())
    one = {"network": "edsr_tiny", "weight_bits": 2, "activation_bits": 2}
    methods = ("plain", "odm")
    content |= {
        "suite": "many",
        "dials": {},
        "methods": {kind: {"kind": kind} for kind in methods},
        "runs": {f"run_{seed}": one | {"method": methods[seed % 2], "seed": seed} for seed in range(1, runs + 1)},
    }
    return yaml.safe_dump(content, sort_keys=False)


def seconds(tree: Path, command: list[str]) -> float:
    """CPU time of a command in a tree; it must succeed."""
    environment = os.environ | {
        "PYTHONPATH": str(tree),
        "DVC_SITE_CACHE_DIR": str(tree / ".dvc" / "site"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *command], cwd=tree, env=environment, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{tree}: {' '.join(command)}:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def prepare(tree: Path, runs: int) -> None:
    """A tree in which both engines believe that a suite of so many runs is finished."""
    for left in ("results", ".snakemake", "dvc.lock"):
        path = tree / left
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    (tree / "params.yaml").write_text(suite(runs))
    if (tree / "odm" / "card.py").exists():
        seconds(tree, ["-m", "odm.cli", "cards"])
    seconds(tree, ["-c", MAKE_FILES])
    seconds(tree, ["-m", "snakemake", "--touch", "--forceall", "--cores", "1", "--quiet", "all", "--", "all"])
    seconds(tree, ["-m", "dvc", "commit", "--force", "--quiet"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[14, 120, 250])
    parser.add_argument("--against", default="HEAD", help="a revision")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"CPU seconds, least of {options.rounds}\n\n| runs | command | now | {options.against} | ratio |")
    print("|--:|:--|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        now, then = Path(folder) / "now", Path(folder) / "then"
        for tree in (now, then):
            subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tree)], check=True)
        subprocess.run(["git", "checkout", "--quiet", options.against], cwd=then, check=True)
        for name in ("odm", "workflow"):
            shutil.rmtree(now / name)
            shutil.copytree(ROOT / name, now / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "dvc.yaml", now)
        for runs in options.runs:
            for tree in (now, then):
                prepare(tree, runs)
            for what, command in COMMANDS.items():
                rounds = [[seconds(tree, ["-m", *command]) for tree in (now, then)] for _ in range(options.rounds)]
                ours, theirs = (min(each) for each in zip(*rounds, strict=True))
                print(f"| {runs} | {what} | {ours:.2f} | {theirs:.2f} | {ours / theirs:.2f} |", flush=True)


if __name__ == "__main__":
    main()

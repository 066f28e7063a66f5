"""Every command that the documents show is run: here, in their order of use, or by another test that is named.

A command is a line of a block that begins with one of PROGRAMS. What only a network or a GPU could tell says so.
"""

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from skimage import data, io
from test_cli import COMMANDS
from test_docs import DOCUMENTS
from test_reproduction import Clone

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks" / "README.md"
PROGRAMS = {"odm", "snakemake", "dvc", "tensorboard", "make", "pip", "python", "pytest", "git", "conda", "sbatch"}

HERE = {
    # What it must say. The suite is that of docs/suites.md, a small one of it.
    "odm suite mine": r"suites/mine\.yaml is in force",
    "odm check": r"2 runs to train.*Snakemake: 12 of 12 jobs due.*DVC: 12 of 12",
    "snakemake --cores 8 all": r"13 of 13 steps \(100%\) done",
    "odm adopt": "DVC has taken over what Snakemake made",
    "dvc repro": r"Running stage 'cards'.*Stage 'report' didn't change, skipping",
    "snakemake --report report.html": r"Adding report\.html .*Report created",
    "dvc metrics show": r"results/mine/runs/w2a2_odm_1/summary\.json",
    "dvc plots show": r"dvc_plots/index\.html",
    "odm --install-completion": "bash completion installed in",
    "odm doctor": "threads: torch takes",
    "odm verify": r"\d+ files read, and all agree",
    "odm needs": r"train w2a2_odm_1: 10 min",
    "odm tensorboard": "tensorboard/mine: 3 of 3 trainings",
    "odm new my_project": "my_project: a project with the suite quick in force",
    "odm train w2a2_odm_1": r"runs/w2a2_odm_1/weights\.safetensors: loss \d",
    "odm ship w2a2_odm_1": r"w2a2_odm_1\.safetensors: w2a2_odm_1, \d+ kB",
    "odm export w4a4_plain": "exported/w4a4_plain_exact: ",
    "odm certify exported/w4a4_plain_exact": "exported/w4a4_plain_exact: equal to its integer form",
    "odm info exported/w4a4_plain_exact/model.odmi": "file +integer form, 4 layers of W4A4",
    "odm upscale photo.png": r"photo_x2_(\w+)\.png: \1, x2",
    "odm upscale photo.png --with w2a2_odm_1": "photo_x2_w2a2_odm_1.png: w2a2_odm_1, x2",
    "odm upscale photo.png --with exported/w4a4_plain_exact/model.onnx": "photo_x2_w4a4_plain_exact.png: w4a4_plain",
    "odm upscale photo.png large.jpg": r"large.jpg: \w+, x2",
    "odm upscale holiday large": r"\w+, x2: 1 done, 0 finished before, 0 not done",
    "odm upscale holiday more/*.tif large": r"\w+, x2: 2 done, 0 finished before, 0 not done",
    "odm upscale holiday large --with w2a2_odm_1": "w2a2_odm_1, x2: 1 done, 0 finished before, 0 not done",
    "odm upscale holiday large --with exported/w4a4_plain_exact/model.onnx": "w4a4_plain_exact, x2: 1 done, 0 finished",
    "dvc exp run -n w2a3 -S runs.w2a2_odm_1.activation_bits=3": r"> odm train w2a2_odm_1.*experiment\(s\): w2a3",
    "dvc exp show --only-changed": "w2a3",
    "dvc exp diff": r"runs\.w2a2_odm_1\.activation_bits +2 +3",
    "dvc plots diff HEAD": r"dvc_plots/index\.html",
    "dvc exp apply w2a3": "",
    "dvc exp run -n more -S '+runs.w3a3={network: edsr_small, method: odm, weight_bits: 3, activation_bits: 3}'": (
        r"> odm train w3a3.*experiment\(s\): more"
    ),
}
ELSEWHERE = {
    "make results": "network: packages are installed from the lock; then `snakemake --cores 8 all`",
    "make test": "network: packages are installed from the lock; then these tests",
    "pip install 'odm-sr[deploy]'": "network",
    "pip install 'odm-sr[tensorboard]'": "network",
    "odm export shipped.safetensors --set set5": "network: Set5 is downloaded; otherwise as the following, which is "
    "test_certificate.py::test_export_certify_and_info",
    "pip install 'odm-sr[slurm]'": "network",
    "snakemake --workflow-profile profiles/slurm all": "test_slurm.py::test_a_suite_through_slurm",
    "snakemake --cores 8 --resources gpu=4 all": "GPU: jobs share out cards in test_gpus.py, with none at hand",
    "odm export w4a4_plain --form fast": "test_bench_inference.py::test_every_command_of_the_document_runs",
    "odm bench-inference w4a4_plain": "test_bench_inference.py::test_every_command_of_the_document_runs",
    "tensorboard --logdir tensorboard": "test_tensorboard.py::test_the_viewer_shows_it_and_follows",
    "odm adopt --keep": "test_due.py::test_results_are_kept_after_an_edit_that_changes_no_number",
    "python -m odm.settings": "test_adding.py::test_a_method_and_a_network_are_a_folder_each",
    "snakemake -n all": "test_paper_suite.py::test_a_dry_run_lists_all_jobs_in_seconds",
    "dvc repro -P --dry --force": "test_paper_suite.py::test_a_dry_run_lists_all_jobs_in_seconds",
}


def blocks(document: Path) -> Iterator[str]:
    """Lines of blocks, fenced or set in."""
    fenced = False
    for line in document.read_text().splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.strip()


def shown(document: Path) -> Iterator[str]:
    """Commands of the blocks, without the words behind #."""
    for line in blocks(document):
        for command in line.split(" # ")[0].split("; "):
            if command.split(" ")[0] in PROGRAMS:
                yield command.strip()


@pytest.mark.parametrize("document", [*DOCUMENTS, BENCHMARKS], ids=lambda path: path.name)
def test_each_command_of_a_document_is_run_or_says_what_it_needs(document: Path) -> None:
    for command in shown(document):
        assert command in HERE or command in ELSEWHERE, f"{document.name}: `{command}`: add it to HERE or to ELSEWHERE"


def test_the_tables_are_of_what_the_documents_show() -> None:
    found = {command for document in DOCUMENTS for command in shown(document)}
    assert not (HERE.keys() | ELSEWHERE.keys()) - found
    for where in ELSEWHERE.values():
        if named := re.search(r"(test_\w+\.py)::(\w+)", where):
            tree = ast.parse((ROOT / "tests" / named[1]).read_text())
            assert named[2] in {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}, where
        else:
            assert where.startswith(("network", "GPU")), where


@pytest.mark.parametrize("document", [*DOCUMENTS, BENCHMARKS], ids=lambda path: path.name)
def test_each_command_in_a_sentence_is_one(document: Path) -> None:
    """Sub-commands and options, `<...>` standing for a name, and scripts."""
    for command in re.findall(r"`((?:odm|python) [^`]+)`", document.read_text()):
        program, first, *rest = shlex.split(command)
        if program == "python":
            assert first == "-m" or (ROOT / first).is_file(), command
        elif not first.startswith("-"):
            assert first in COMMANDS, command
            known = {option for parameter in COMMANDS[first].params for option in parameter.opts}
            assert {each for each in rest if each.startswith("-")} <= known, command


@pytest.mark.slow
def test_the_commands_of_the_documents(tmp_path: Path) -> None:
    clone = Clone(tmp_path / "clone")
    (suite,) = re.findall(r"```yaml\n(suite: mine\n.*?)```", (ROOT / "docs" / "suites.md").read_text(), re.DOTALL)
    content = yaml.safe_load(suite)
    content["networks"]["edsr_small"] |= {"channels": 4, "blocks": 2}
    for part in ("pretraining", "qat"):
        content[part] |= {"steps": 4, "batch": 2, "patch": 8}
    (clone.folder / "suites" / "mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    for name in ("photo.png", "holiday/sea/1.png", "more/2.tif"):
        (clone.folder / name).parent.mkdir(parents=True, exist_ok=True)
        io.imsave(clone.folder / name, data.chelsea()[:40, :50], check_contrast=False)
    environment = os.environ | {
        "HOME": str(tmp_path),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(clone.folder),
        "DVC_SITE_CACHE_DIR": str(tmp_path / "site"),
        **{f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        "COLUMNS": "500",
    }
    for command, said in HERE.items():
        # What the line before enlarged would be left alone; an experiment begins with a commit.
        before = (
            "git add -A && git commit -qm ." if command.startswith("dvc exp run -n w2a3") else "rm -rf large* photo_*"
        )
        done = subprocess.run(
            ["bash", "-c", f"{before}\n{command}\nexit $?"],
            cwd=clone.folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
        assert re.search(said, done.stdout + done.stderr, re.DOTALL), f"{command}:\n{done.stdout}\n{done.stderr}"

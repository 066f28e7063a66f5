"""`odm new` lays out a project in which both engines run: from a checkout, and from a wheel by itself."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
from test_cli import main
from test_reproduction import ALL, MINIATURE, jobs

from odm import __version__
from odm.settings.reading import load

ROOT = Path(__file__).parents[1]
TRACKED = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)


def tree(folder: Path) -> dict[str, str]:
    files = (each for each in folder.rglob("*") if each.is_file() and ".git" not in each.parts)
    return {each.relative_to(folder).as_posix(): each.read_text() for each in files}


def test_from_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(monkeypatch, "new", "deep/in") == 0
    assert capsys.readouterr().out.startswith("deep/in: a project with the suite quick in force. In it: `git init`")
    made = tree(tmp_path / "deep" / "in")
    parts = ("suites/", "workflow/", "profiles/")
    kept = {each for each in TRACKED.stdout.splitlines() if each.startswith(parts) and (ROOT / each).exists()}
    beside = {"Snakefile", "dvc.yaml", "params.yaml", "params.schema.json", ".gitignore", ".dvcignore"}
    assert made.keys() == kept | beside | {".dvc/config", ".dvc/.gitignore"}
    others = {"dvc.yaml", "workflow/envs/odm.yaml", "params.yaml"}
    assert {name: (ROOT / name).read_text() for name in made.keys() - others} == {
        name: made[name] for name in made.keys() - others
    }
    assert "    deps: [params.yaml]\n" in made["dvc.yaml"] and made["dvc.yaml"].count("always_changed: true") == 1
    assert f"- odm-sr=={__version__}" in made["workflow/envs/odm.yaml"] and "-e " not in made["workflow/envs/odm.yaml"]
    monkeypatch.chdir(tmp_path / "deep" / "in")
    assert load().suite == "quick"
    assert main(monkeypatch, "suite", "quick") == 0
    assert "kept" not in capsys.readouterr().out


def test_nothing_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    assert main(monkeypatch, "new", "empty") == 0
    Path("mine").mkdir()
    Path("mine/params.yaml").write_text("mine\n")
    Path("file").write_text("mine\n")
    before = tree(tmp_path)
    for name in ("mine", "file", "empty"):
        assert main(monkeypatch, "new", name) == f"odm: {name}: is there and not empty; name a new folder"
    assert tree(tmp_path) == before


def test_outside_a_project_the_way_in_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    way = "lay one out: `odm new <folder>`"
    assert main(monkeypatch, "check") == f"odm: params.yaml: no such file; go to the folder of a project, or {way}"
    assert main(monkeypatch, "suite", "quick") == f"odm: suites: no such folder; go to that of a project, or {way}"


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"odm {__version__}\n"


BASH = """
source <(odm --show-completion)
COMP_WORDS=(odm "$@")
COMP_CWORD=$#
_odm_completion odm
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        (["ch"], "check"),
        (["train", "w2"], "w2a2_plain_1 w2a2_plain_2 w2a2_plain_3 w2a2_odm_1 w2a2_odm_2 w2a2_odm_3"),
        (["pretrain", ""], "edsr_tiny"),
        (["dial", "e"], "edsr_tiny_dial"),
        (["evaluate", "edsr"], "edsr_tiny edsr_tiny_dial"),
        (["upscale", "photo.png", "--with", "w4a4_o"], "w4a4_odm"),
        (["suite", "di"], "dial"),
        (["info", "ph"], ""),  # then the shell's own, which are files
    ],
)
def test_a_shell_completes(typed: list[str], completed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    monkeypatch.chdir(tmp_path)
    assert main(monkeypatch, "new", ".") == 0
    environment = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    asked = ["bash", "-c", BASH, "bash", *typed]
    assert said(asked, tmp_path, environment).split() == completed.split()
    Path("params.yaml").write_text("suite: 1\n")
    left = completed.split() if typed[0] in ("ch", "suite") else []
    assert said(asked, tmp_path, environment).split() == left


def test_a_wheel_carries_each_file_that_is_needed() -> None:
    """Of the folders that it carries files of, all."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    for folder, patterns in listed.items():
        for pattern in patterns:
            files = list(ROOT.glob(pattern))
            assert files, f"{pattern} names nothing"
            assert {f"share/odm/{each.parent.relative_to(ROOT).as_posix()}".removesuffix("/.") for each in files} == {
                folder
            }


@pytest.mark.slow
def test_from_a_wheel_in_a_fresh_environment(tmp_path: Path) -> None:
    source, environment, project = tmp_path / "source", tmp_path / "environment", tmp_path / "project"
    for name in TRACKED.stdout.splitlines():
        if not name.startswith(("results/", "tests/")) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    said([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source], tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    said([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], tmp_path)
    shutil.rmtree(source)
    # All but our own package is taken from where the tests have it: a path, so no editable installation comes with it.
    (own,) = environment.glob("lib/python*/site-packages")
    (own / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")

    bare = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    bare["PATH"] = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    bare["DVC_SITE_CACHE_DIR"] = str(tmp_path / "site")
    where = said([python, "-c", "import odm; print(odm.__file__)"], tmp_path, bare)
    assert Path(where.strip()).is_relative_to(environment)
    said(["odm", "new", project], tmp_path, bare)
    said(["git", "init", "--quiet"], project, bare)
    # By force: without it DVC looks for what earlier stages would have made, in any fresh project.
    planned = jobs(said([python, "-m", "snakemake", "--dry-run"], project, bare))
    assert {"data train", "tables", "figures"} <= planned
    assert jobs(said([python, "-m", "dvc", "repro", "--dry", "--force"], project, bare)) == planned | {"cards"}
    (project / "params.yaml").write_text(MINIATURE)
    assert jobs(said([python, "-m", "snakemake", "--cores", "2", "all"], project, bare)) == ALL
    assert "DVC has taken over" in said(["odm", "adopt"], project, bare)
    assert jobs(said([python, "-m", "dvc", "repro"], project, bare)) == {"cards"}
    # Code that is edited where it is installed makes its jobs due.
    path = own / "odm" / "reporting" / "markdown.py"
    path.write_text(f"{path.read_text()}\n\nMORE = 1\n")
    assert jobs(said([python, "-m", "dvc", "repro"], project, bare)) == {"cards", "tables"}
    assert re.search("Snakemake: 1 of 17 jobs due", said(["odm", "check"], project, bare))


def said(command: list[str | Path], folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr

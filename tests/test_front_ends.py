"""Snakemake and DVC are given one graph, in rules that keep to the style of either."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from odm import card
from odm.card import Card
from odm.settings.reading import load
from odm.steps import cards

ROOT = Path(__file__).parents[1]
SUITES = sorted(path.stem for path in (ROOT / "suites").glob("*.yaml"))


class Job(NamedTuple):
    """What a job is to either tool; all paths relative to the project."""

    inputs: frozenset[str]
    outputs: frozenset[str]
    card: frozenset[str]
    """Its digest."""


Graph = dict[str, Job]  # by command


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what both tools read, and the working directory."""
    for name in ["odm", "profiles", "workflow", "suites"]:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ["Snakefile", "dvc.yaml", "params.yaml", ".dvcignore"]:
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text((ROOT / ".dvc" / "config").read_text() + "    no_scm = true\n")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / ".dvc" / "site"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put_in_force(project: Path, suite: str) -> None:
    shutil.copy(project / "suites" / f"{suite}.yaml", project / "params.yaml")


def snakemake_graph(project: Path) -> Graph:
    """Every job of `all`, from a forced dry run."""
    from snakemake.api import SnakemakeApi
    from snakemake.settings.enums import Quietness
    from snakemake.settings.types import DAGSettings, OutputSettings, ResourceSettings

    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(ResourceSettings(cores=1), snakefile=project / "Snakefile")
        workflow.dag(DAGSettings(targets={"all"}, forceall=True)).execute_workflow(executor="dryrun")
        jobs = [job for job in workflow._workflow.dag.jobs if job.rule.name != "all"]
        return {
            command: Job(
                frozenset(map(str, job.input)),
                frozenset(map(str, job.output)),
                frozenset([job.params.card, planned]),
            )
            for job in jobs
            for command, planned in [job.shellcmd.split(" > ")[0].split(" --card ")]
        }


def dvc_graph(project: Path) -> Graph:
    """Every stage but that of the cards; a folder of outputs that one depends on stands for those beneath."""
    from dvc.repo import Repo

    with Repo(str(project)) as repo:
        stages = [stage for stage in repo.index.stages if stage.cmd != "odm cards"]
    made = {out.def_path for stage in stages for out in stage.outs}
    cards.run(load(project / "params.yaml"))
    graph = {}
    for stage in stages:
        paths = {dep.def_path for dep in stage.deps}
        own = {path for path in paths if "/cards/" in path}
        graph[stage.cmd] = Job(
            frozenset(
                file
                for path in paths - own
                for file in {each for each in made if each.startswith(f"{path}/")} or {path}
            ),
            frozenset(out.def_path for out in stage.outs),
            frozenset(Card(**json.loads((project / path).read_text())).digest for path in own),
        )
    return graph


def differences(snakemake: Graph, dvc: Graph) -> list[str]:
    """One line each: which command, and what only one of the tools says of it."""
    found = []
    for command in sorted({*snakemake, *dvc}):
        if command not in snakemake or command not in dvc:
            found.append(f"{command}: only {'DVC' if command in dvc else 'Snakemake'} runs it")
            continue
        for field in Job._fields:
            ours, theirs = getattr(snakemake[command], field), getattr(dvc[command], field)
            found += [f"{command}: {field}: only Snakemake has {each}" for each in sorted(ours - theirs)]
            found += [f"{command}: {field}: only DVC has {each}" for each in sorted(theirs - ours)]
    return found


@pytest.mark.parametrize("suite", SUITES)
def test_both_tools_have_the_same_graph(suite: str, project: Path) -> None:
    put_in_force(project, suite)
    different = differences(snakemake_graph(project), dvc_graph(project))
    assert not different, "\n".join(["workflow/ and dvc.yaml differ:", *different])


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_runs_each_of_its_networks_and_runs(suite: str, project: Path) -> None:
    put_in_force(project, suite)
    settings = yaml.safe_load((project / "params.yaml").read_text())
    networks, dials, runs = (len(settings[key]) for key in ("networks", "dials", "runs"))
    steps = Counter(command.split()[1] for command in snakemake_graph(project))
    assert steps == {
        "data": 2,
        "pretrain": networks,
        **({"dial": dials} if dials else {}),
        "mismatch": networks + dials,
        "train": runs,
        "evaluate": networks + dials + runs,
        "tables": 1,
        "figures": 1,
        "report": 1,
    }


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_spells_out_each_setting_that_dvc_reads(suite: str) -> None:
    """It reads the file and knows no defaults: it stops at a key that is not there."""
    content = yaml.safe_load((ROOT / "suites" / f"{suite}.yaml").read_text())
    named = set(re.findall(r"\$\{(\w+)\}", (ROOT / "dvc.yaml").read_text())) - {"key", "item"}
    assert named == {"suite", "networks", "dials", "runs"}
    assert not named - content.keys(), f"suites/{suite}.yaml: write out {', '.join(named - content.keys())}"


def test_the_cards_are_those_of_all_jobs(project: Path) -> None:
    settings = load()
    cards.run(settings)
    commands = {f"odm {step} {name}".strip() for step, name in card.jobs(settings)}
    assert commands == snakemake_graph(project).keys()
    stored = {path for path in (settings.results / "cards").rglob("*") if path.is_file()}
    assert stored == {card.file(settings, *job) for job in card.jobs(settings)}
    for path in stored:
        assert len(path.read_bytes()) < 8192


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)


def test_the_bare_command_finds_rules_and_profile(project: Path) -> None:
    done = run("snakemake", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "profiles/default" in done.stderr


def test_damaged_settings_stop_snakemake_with_their_message(project: Path) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("pretraining:", "pretrainin:"))
    done = run("snakemake", "--dry-run")
    assert done.returncode == 1
    assert "params.yaml: pretrainin: unknown key; did you mean 'pretraining'?" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_rules_pass_the_linter(project: Path) -> None:
    done = run("snakemake", "--lint")
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_are_formatted(project: Path) -> None:
    done = run("snakefmt", "--check", "--line-length", "120", "Snakefile", "workflow")
    assert done.returncode == 0, done.stdout + done.stderr

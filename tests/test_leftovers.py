"""What killed processes leave behind, and two that would do the same job."""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml
from test_cli import main
from test_front_ends import project  # noqa: F401
from trial import moments

from odm import card, engines, leftovers
from odm.errors import OdmError
from odm.hold import held, refuse_while_held
from odm.settings.reading import load
from odm.steps import adopt

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("project")


def mended() -> list[str]:
    return [f"{each.what}: {each.mend()}" for each in leftovers.found()]


@contextmanager
def running(*names: str) -> Iterator[int]:
    """A process that is called like an engine, in the working directory."""
    process = subprocess.Popen([sys.executable, "-c", "print(flush=True); input()", *names], stdin=-1, stdout=-1)
    assert process.stdout and process.stdout.readline()
    try:
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def dead() -> int:
    """The number of a process that is no more."""
    with running() as pid:
        return pid


def test_nothing_is_left_behind_where_nothing_was_killed() -> None:
    assert mended() == []
    for path, text in ((leftovers.DVC_LOCKS, "{}"), (leftovers.DVC_LOCKS, '{"write": {}, "read": {}}')):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        assert mended() == []


def test_the_lock_of_a_dead_snakemake() -> None:
    leftovers.SNAKEMAKE_LOCKS.mkdir(parents=True)
    (leftovers.SNAKEMAKE_LOCKS / "0.output.lock").write_text("results/tables.md\n")
    with running("snakemake", "--cores", "8"):
        assert mended() == []
    with running("/elsewhere/bin/snakemake"):
        assert mended() == []
    assert mended() == ["Snakemake's lock, whose holder is dead: removed"]
    assert not leftovers.SNAKEMAKE_LOCKS.exists()
    assert mended() == []


def locked(pid: int) -> str:
    return json.dumps({"write": {"results/quick/cards": {"pid": pid, "cmd": "dvc repro"}}, "read": {}})


def test_the_locks_of_a_dead_dvc() -> None:
    leftovers.DVC_LOCKS.parent.mkdir(parents=True, exist_ok=True)
    with running("dvc", "repro") as pid:
        for text in (locked(pid), locked(pid)[:20]):
            leftovers.DVC_LOCKS.write_text(text)
            assert mended() == []
    # Cut short by a kill; and of a process whose number another one has by now.
    for text in (locked(dead()), locked(os.getpid()), locked(pid)[:20], "", "[]", '{"write": 1}', "\0" * 9):
        leftovers.DVC_LOCKS.write_text(text)
        assert mended() == [f"DVC's lock {leftovers.DVC_LOCKS}, whose holder is dead: removed"], text
        assert not leftovers.DVC_LOCKS.exists()


def test_a_lock_file_that_is_cut_short() -> None:
    """Where git has none it is written anew. What is still a lock file, if a short one, DVC makes the best of."""
    whole = (ROOT / "dvc.lock").read_text()
    damaged = 0
    for share in range(13):
        cut = whole[: len(whole) * share // 13 + share]
        leftovers.DVC_LOCK.write_text(cut)
        if said := mended():
            damaged += 1
            assert said == [
                f"dvc.lock, which is cut short or damaged: moved to {leftovers.DAMAGED}; DVC writes it anew"
            ]
            assert leftovers.DAMAGED.read_text() == cut
            assert not leftovers.DVC_LOCK.exists()
        dvc = subprocess.run([sys.executable, "-m", "dvc", "status", "cards"], capture_output=True, text=True)
        assert dvc.returncode == 0, dvc.stderr
        if share == 6:
            with running("dvc"):
                leftovers.DVC_LOCK.write_text("schema: ")
                assert mended() == []
    assert damaged


def test_a_lock_file_that_git_has() -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=b"]
    shutil.copy(ROOT / "dvc.lock", ".")
    whole = leftovers.DVC_LOCK.read_bytes()
    for command in (["init", "-q"], ["add", "dvc.lock"], ["commit", "-qm", "locked"]):
        subprocess.run([*git, *command], check=True)
    leftovers.DVC_LOCK.write_bytes(whole[: whole.rindex(b"\n    - path") + 9])
    said = f"dvc.lock, which is cut short or damaged: restored from git; what it was is {leftovers.DAMAGED}"
    assert mended() == [said]
    assert leftovers.DVC_LOCK.read_bytes() == whole
    leftovers.DVC_LOCK.write_bytes(b"\0" * 100)
    assert mended() == [said]


def test_adopt_mends_and_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    leftovers.DVC_LOCK.write_text("schema: ")
    leftovers.SNAKEMAKE_LOCKS.mkdir(parents=True)
    (leftovers.SNAKEMAKE_LOCKS / "0.input.lock").write_text("results/tables.md\n")
    assert main(monkeypatch, "check") == 0
    said = capsys.readouterr().out
    assert "left behind: Snakemake's lock, whose holder is dead; `odm adopt` mends it\n" in said
    assert "left behind: dvc.lock, which is cut short or damaged; `odm adopt` mends it\n" in said
    assert main(monkeypatch, "adopt") == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "results/quick: start `snakemake --cores 8 all` or `dvc repro` again; it goes on where it was"
    )
    assert str(main(monkeypatch, "adopt")).startswith("odm: results/quick: neither Snakemake nor DVC is up to date")


def test_adopt_takes_over_nothing_made_since_under_settings_taken_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Snakemake goes by the settings it last ran with, and sees in the files only that they are newer."""
    settings = load()
    tried = settings.model_copy(update={"qat": settings.qat.model_copy(update={"rate": 0.0002})})
    job = ("train", "w4a4_odm")
    told: list[object] = []
    monkeypatch.setattr(engines, "snakemake", lambda: engines.Plan({}))
    monkeypatch.setattr(engines, "dvc", lambda settings: engines.Plan({job: engines.CARD}))
    monkeypatch.setattr(adopt, "_tell_dvc", told.append)
    card.record(settings, *job, card.card(tried, *job))
    assert main(monkeypatch, "adopt") == (
        "odm: results/quick: what is there was made under other settings since Snakemake ran (train w4a4_odm: qat.rate "
        "0.0002 -> 0.0005); run `dvc repro`, then `odm adopt`"
    )
    assert not told
    card.record(settings, *job, card.card(settings, *job))
    assert main(monkeypatch, "adopt") == 0
    assert told == [settings]


# Where DVC has no repository, and Snakemake no path


def test_no_git(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(ROOT / ".dvc" / "config", ".dvc/config")
    ways = "dvc: no git repository here; `git init`, or `dvc config --local core.no_scm true` to do without one"
    assert main(monkeypatch, "check") == 0
    assert f"DVC: cannot say what is due ({ways})" in capsys.readouterr().out
    assert main(monkeypatch, "adopt") == f"odm: {ways}"
    subprocess.run([sys.executable, "-m", "dvc", "config", "--local", "core.no_scm", "true"], check=True)
    assert "neither Snakemake nor DVC" in str(main(monkeypatch, "adopt"))


@pytest.mark.parametrize("name", ["a{b}", "{", "}", "{{x}}"])
def test_braces_in_the_project_s_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / name
    folder.mkdir()
    for each in ("params.yaml", "Snakefile", "workflow", "profiles"):
        (folder / each).symlink_to(tmp_path / each)
    monkeypatch.chdir(folder)
    said = f"{folder}: the name of a folder has braces, which Snakemake and DVC fill in; rename it"
    assert main(monkeypatch, "cards") == f"odm: {said}"
    done = subprocess.run([sys.executable, "-m", "snakemake", "--dry-run"], capture_output=True, text=True)
    assert done.returncode == 1
    assert said in done.stdout + done.stderr


# Two at once


HOLD = """
import sys
from pathlib import Path
from odm.hold import held
with held(Path(sys.argv[1]), sys.argv[2]):
    print(flush=True)
    input()
"""


@contextmanager
def holding(path: Path, job: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, path, job], stdin=-1, stdout=-1, text=True)
    assert process.stdout and process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("job", [("data", "train"), ("train", "w4a4_odm"), ("tables", "")])
def test_the_second_is_told_who_is_at_it(job: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    command = " ".join(["odm", *filter(None, job)])
    path = card.beside_log(load(), *job, ".lock")
    with holding(path, command) as process:
        for arguments in ([each for each in job if each], ["adopt"]):
            said = str(main(monkeypatch, *arguments))
            assert re.fullmatch(
                rf"odm: {command}: process {process.pid} on {re.escape(socket.gethostname())} is at it since "
                r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d; wait for it, or end it",
                said,
            ), said
    # It was killed just now: what it held is nobody's.
    with held(path, command):
        pass
    refuse_while_held(Path("logs"))


def test_a_job_that_fails_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "job.lock"
    with pytest.raises(KeyboardInterrupt), held(path, "job"):
        raise KeyboardInterrupt
    with held(path, "job"), holding(tmp_path / "other.lock", "other"):
        pass
    path.with_suffix(".holder.json").write_text("cut sho")
    with holding(tmp_path / "other.lock", "other"):
        (tmp_path / "other.holder.json").write_text("cut sho")
        with (
            pytest.raises(OdmError, match=r"^job: another process is at it; wait for it, or end it$"),
            held(tmp_path / "other.lock", "job"),
        ):
            pass  # fmt: skip


# What was planned and what is done


def test_a_job_is_refused_whose_card_is_another_by_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Snakemake plans goes with the command, what DVC plans lies in its file: nothing wrong is recorded."""
    said = ": settings or code have changed since this run was planned; start Snakemake or DVC again"
    settings = load()
    for step, name in (("data", "train"), ("mismatch", "edsr_tiny"), ("train", "w4a4_odm"), ("figures", "")):
        arguments = [step, name] if name else [step]
        sound = card.card(settings, step, name)
        assert main(monkeypatch, *arguments, "--card", "0123456789ab") == f"odm: odm {' '.join(arguments)}{said}"
        monkeypatch.setenv("DVC_STAGE", "x")
        file = card.file(settings, step, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(card.Card(sound.settings | {"seed": 9}, sound.code).text())
        assert main(monkeypatch, *arguments) == f"odm: odm {' '.join(arguments)}{said}"
        monkeypatch.delenv("DVC_STAGE")
        assert not card.recorded(settings, step, name)
        monkeypatch.setattr(f"odm.steps.{step}.run", lambda *_: None)
        for planned in ([], ["--card", sound.digest]):
            assert main(monkeypatch, *arguments, *planned) == 0
        file.write_text(sound.text())
        monkeypatch.setenv("DVC_STAGE", "x")
        assert main(monkeypatch, *arguments) == 0
        monkeypatch.delenv("DVC_STAGE")
    assert not Path("results/quick/data").exists()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["snakemake", "dvc"])
def test_settings_that_are_edited_and_put_back_while_an_engine_runs(engine: str, tmp_path: Path) -> None:
    """What was edited meanwhile is not done under the old name; once put back, all is as if nothing had been."""
    from test_reproduction import ALL, Clone, jobs

    undisturbed, clone = Clone(tmp_path / "undisturbed"), Clone(tmp_path / "clone")
    getattr(undisturbed, engine)()
    params = clone.folder / "params.yaml"
    sound = params.read_text()
    process = start(engine, clone.folder)
    waiting = time.monotonic() + 300
    while not list((clone.folder / "logs").rglob("pretrain/tiny.card.json")) and time.monotonic() < waiting:
        time.sleep(0.02)
    content = yaml.safe_load(sound)
    content["qat"]["rate"] = 0.0004
    params.write_text(yaml.safe_dump(content))
    said = process.communicate()[0]
    assert process.returncode != 0
    assert "settings or code have changed since this run was planned" in said
    params.write_text(sound)
    done = jobs(getattr(clone, engine)())
    assert "tables" in done and done <= ALL | {"cards"}
    assert clone.made() == undisturbed.made()


def start(engine: str, folder: Path) -> subprocess.Popen[str]:
    command = {"snakemake": ["snakemake", "--cores", "2", "all"], "dvc": ["dvc", "repro"]}[engine]
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(folder),
        "DVC_SITE_CACHE_DIR": str(folder / ".dvc/site"),
    }
    return subprocess.Popen(
        [sys.executable, "-m", *command], cwd=folder, env=environment, stdout=-1, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["snakemake", "dvc"])
def test_an_engine_that_is_killed_again_and_again(engine: str, tmp_path: Path) -> None:
    """At moments over its whole run; `odm adopt`, and the engine again: no file is to be removed by hand."""
    from test_reproduction import Clone, jobs

    undisturbed = Clone(tmp_path / "undisturbed")
    began = time.monotonic()
    getattr(undisturbed, engine)()
    took = time.monotonic() - began
    draw = random.Random(engine)
    clones, killed, found = [Clone(tmp_path / "0")], 0, []
    while killed < moments(3):
        clone = clones[-1]
        process = start(engine, clone.folder)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=draw.uniform(0.5, took / 3))
        process.kill()
        while True:  # the job that it ran goes on by itself
            done = subprocess.run(
                [sys.executable, "-m", "odm.cli", "adopt"],
                cwd=clone.folder,
                env=os.environ
                | {"PYTHONPATH": str(clone.folder), "DVC_SITE_CACHE_DIR": str(clone.folder / ".dvc/site")},
                capture_output=True,
                text=True,
            )
            if "wait for it, or end it" not in done.stderr:
                break
            time.sleep(0.5)
        said = process.communicate()[0]
        assert done.returncode == 0 or "neither Snakemake nor DVC is up to date" in done.stderr, done.stderr
        if process.returncode == -signal.SIGKILL:
            killed += 1
            found.append(len(list((clone.folder / "logs").rglob("*.card.json"))))
        else:  # done before its moment came
            assert process.returncode == 0, said
            clones.append(Clone(tmp_path / str(len(clones))))
    for clone in clones:
        getattr(clone, engine)()
        assert jobs(getattr(clone, engine)()) <= {"cards"}
        assert clone.made() == undisturbed.made()
    print(f"{engine}: killed {killed} times, with {found} of 16 jobs done, in {len(clones)} clones; no file removed")

"""One job a card, without a card: a driver that lists two is put before the real one; the processes are real."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from test_cli import main

from odm import cli
from odm.gpus import VISIBLE, installed, taken, visible
from odm.settings.reading import PARAMS, in_force

A, B = "GPU-0a1b2c3d-0000", "GPU-4e5f6a7b-0000"

JOB = """
import os, sys
from odm.gpus import taken
with taken(sys.argv[1], sys.argv[2]):
    print(os.environ.get("CUDA_VISIBLE_DEVICES", "all"), flush=True)
    input()
"""
# Holds a card for a moment, and notes from when until when.
BRIEF = """
import os, sys, time
from odm.gpus import taken
with taken("cuda", sys.argv[1]):
    began = time.monotonic()
    time.sleep(0.3)
    print(os.environ["CUDA_VISIBLE_DEVICES"], began, time.monotonic(), flush=True)
"""

Start = Callable[..., subprocess.Popen[str]]


def driver(folder: Path, cards: list[str]) -> str:
    """A search path on which `nvidia-smi` lists these."""
    folder.mkdir()
    lines = [f"GPU {index}: NVIDIA H100 80GB HBM3 (UUID: {card})" for index, card in enumerate(cards)]
    tool = folder / "nvidia-smi"
    tool.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    tool.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.fixture(autouse=True)
def _two_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", driver(tmp_path / "driver", [A, B]))
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a job that ends when it is told to, under changes of the environment."""
    started: list[subprocess.Popen[str]] = []

    def job(name: str, device: str = "cuda", **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", JOB, device, name]
        process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=os.environ | environment)
        started.append(process)
        return process

    yield job
    for process in started:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.mark.parametrize(
    ("told", "cards"),
    [
        (None, [A, B]),
        ("1", [B]),
        (" 1, 0", [B, A]),
        ("", []),
        ("0,-1,1", [A]),
        ("7", []),
        (B, [B]),
        ("GPU-4e5f", [B]),
        ("MIG-11", ["MIG-11"]),
    ],
)
def test_cards_are_told_apart_by_more_than_a_number(
    told: str | None, cards: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if told is not None:
        monkeypatch.setenv(VISIBLE, told)
    assert visible() == cards


def test_parts_of_cards_and_machines_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "driver" / "nvidia-smi").open("a") as file:
        file.write("echo '  MIG 1g.10gb     Device  0: (UUID: MIG-11)'\n")
    assert installed() == [A, B]
    (tmp_path / "driver" / "nvidia-smi").write_text("#!/bin/sh\necho 'no devices were found'\nexit 6\n")
    assert installed() == []
    monkeypatch.setenv("PATH", str(tmp_path))
    assert installed() == []
    with taken("auto", "odm train a"):
        assert VISIBLE not in os.environ


def test_two_at_once_never_share(start: Start) -> None:
    assert {said(start("odm train a")), said(start("odm train b"))} == {A, B}


def test_who_comes_third_waits_and_says_once_for_whom(start: Start) -> None:
    first, second = start("odm train a"), start("odm train b")
    held = {said(first): first, said(second): second}
    third = start("odm train c")
    at_it = r"odm train [ab]: process {} on \S+ is at it since [-\d]+ [:\d+-]+"
    cards = "; ".join(f"{card}: {at_it.format(held[card].pid)}" for card in (A, B))
    assert re.fullmatch(rf"odm train c: waits for a card \({cards}\)", said(third))
    time.sleep(5)  # two more looks
    held[B].send_signal(signal.SIGKILL)
    assert said(third) == B


def test_more_jobs_than_cards_take_turns() -> None:
    command = [sys.executable, "-c", BRIEF]
    processes = [subprocess.Popen([*command, f"odm train {index}"], stdout=-1, text=True) for index in range(6)]
    spans = [process.communicate()[0].splitlines()[-1].split() for process in processes]
    assert {card for card, _, _ in spans} == {A, B}
    for card in (A, B):
        mine = sorted((float(began), float(ended)) for each, began, ended in spans if each == card)
        assert all(ended <= began for (_, ended), (began, _) in pairwise(mine))


def test_what_the_environment_shows_is_kept_to(start: Start, tmp_path: Path) -> None:
    """By the card and not by its number: one job a card, whichever way it is named, and in whichever allocation."""
    assert said(start("odm train a", CUDA_VISIBLE_DEVICES="1")) == B
    assert said(start("odm train b", CUDA_VISIBLE_DEVICES="0")) == A
    assert said(start("odm train c", CUDA_VISIBLE_DEVICES=B)).startswith(f"odm train c: waits for a card ({B}: ")
    # A scheduler's allocation, which sees another card and none beside it.
    own = driver(tmp_path / "allocation", ["GPU-99"])
    assert said(start("odm train d", CUDA_VISIBLE_DEVICES="0", PATH=own)) == "GPU-99"


def test_a_card_that_the_settings_name_is_theirs(start: Start) -> None:
    assert {said(start("odm train a")), said(start("odm train b"))} == {A, B}
    assert said(start("odm train c", "cuda:1")) == "all"
    assert said(start("odm train d", "cpu")) == "all"


def test_the_environment_is_as_before_when_the_job_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    for before in (None, "1,0"):
        if before:
            monkeypatch.setenv(VISIBLE, before)
        with suppress(KeyboardInterrupt), taken("cuda", "job"):
            assert os.environ[VISIBLE] == (B if before else A)
            raise KeyboardInterrupt
        assert os.environ.get(VISIBLE) == before
        with taken("cuda", "job"):
            pass


def test_the_jobs_that_compute_take_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str | None] = {}
    monkeypatch.setattr(cli, "_run", lambda settings, step, *of: seen.update({step: os.environ.get(VISIBLE)}))
    root = Path(__file__).parents[1]
    monkeypatch.chdir(tmp_path)
    PARAMS.write_text(in_force(root / "suites" / "quick.yaml").replace("device: cpu", "device: auto"))
    jobs = ["data test", "pretrain edsr_tiny", "dial edsr_tiny_dial", "mismatch edsr_tiny", "train w4a4_odm"]
    for job in [*jobs, "evaluate w4a4_odm", "tables", "figures", "report"]:
        assert main(monkeypatch, *job.split()) == 0, job
    assert {step for step, card in seen.items() if card is None} == {"data", "dial", "tables"}
    assert set(seen.values()) == {None, A}

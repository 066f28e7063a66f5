"""`odm upscale` of many images: what goes where, what is finished, what is refused, and what a kill leaves."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_errors import one_line
from test_upscale_files import Repeated

from odm import model
from odm.errors import OdmError
from odm.networks.build import build
from odm.networks.edsr.settings import Edsr
from odm.steps import upscale
from odm.upscaling.batch import DONE, FAILED, FINISHED, Batch, Result
from odm.upscaling.journal import Journal
from odm.upscaling.plan import many


def image(path: Path, seed: int = 0, side: int = 12) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(path)
    return path


def model_file(path: Path, seed: int = 1) -> Path:
    """A network that has learned nothing, as `odm ship` writes it."""
    settings = Edsr(backbone="edsr", channels=8, blocks=1, scale=2, seed=seed)
    made = model.Model(
        name=path.stem, network=settings, method=None, run=None, trained_on=[], scores={}, settings="", licence="CC0"
    )
    model.write(path, made, build(settings))
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """Images and whatever else is below a folder, but for what is noted of it."""
    files = [each for each in folder.rglob("*") if each.is_file() and ".odm" not in each.parts]
    return {each.relative_to(folder).as_posix(): each.read_bytes() for each in files}


def batch(folder: Path, force: bool = False, made_with: str = "m") -> Batch:
    return Batch(Repeated(), 96, Journal(folder, made_with, "s"), force)


def done(sources: list[Path], folder: Path, **more: Any) -> list[Result]:
    return list(batch(folder, **more).run(many(sources, folder, "").jobs, lambda done, of: None))


def statuses(results: list[Result]) -> list[str]:
    return [each.status for each in results]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed, name in enumerate(("a.png", "b/c.jpg", "b/d/e.tif", "f.gif")):
        image(tmp_path / "photos" / name, seed)
    image(tmp_path / "photos" / ".hidden.png")
    image(tmp_path / "photos" / ".thumbnails" / "a.png")
    (tmp_path / "photos" / "notes.txt").write_text("of no concern\n")
    return tmp_path / "photos"


# What goes where


def test_folders_keep_their_sub_folders(photos: Path, tmp_path: Path) -> None:
    plan = many([photos, image(tmp_path / "x.png")], tmp_path / "out", "")
    assert [job.target.relative_to(tmp_path / "out").as_posix() for job in plan.jobs] == [
        "a.png", "f.png", "b/c.jpg", "b/d/e.tif", "x.png",
    ]  # fmt: skip
    assert plan.others == 1
    everything_png = many([photos], tmp_path / "out", ".png")
    assert {job.target.suffix for job in everything_png.jobs} == {".png"}


def test_the_output_folder_is_no_input(photos: Path) -> None:
    inside = photos / "large"
    assert set(statuses(done([photos], inside))) == {DONE}
    assert set(statuses(done([photos], inside))) == {FINISHED}
    with pytest.raises(OdmError, match="is where the images are; name another folder to write to"):
        many([photos], photos / "b" / "..", "")


def test_two_images_do_not_become_one_file(photos: Path, tmp_path: Path) -> None:
    image(photos / "f.png")
    other = image(tmp_path / "other" / "a.png", 9)
    results = done([photos, other, photos / "a.png"], tmp_path / "out")
    failed = {each.job.source: each.reason for each in results if each.status == FAILED}
    out = tmp_path / "out"
    assert failed == {
        photos / "f.png": f"{photos}/f.png: would become {out}/f.png, as {photos}/f.gif does; rename one of them",
        other: f"{other}: would become {out}/a.png, as {photos}/a.png does; rename one of them",
    }
    assert len(results) == 4 + 2, "an image that is given twice is one"


def test_no_image_is_written_over_one_that_is_given(tmp_path: Path) -> None:
    one, other = image(tmp_path / "one" / "x.png"), image(tmp_path / "two" / "x.png", 1)
    before = other.read_bytes()
    (first, _) = done([one, tmp_path / "two"], tmp_path / "two" / "..", force=True)[:2]
    assert first.status == DONE
    results = done([one, other], tmp_path / "two", force=True)
    assert "would be written over" in results[0].reason
    assert other.read_bytes() == before


def test_mistakes_of_the_command_line(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = str(model_file(tmp_path / "net.safetensors"))
    empty = tmp_path / "empty"
    empty.mkdir()
    for paths, more, said in (
        (["photos"], {}, "photos: is a folder; say behind it where to write"),
        (["photos/a.png", "photos/f.gif", "photos/b/c.jpg"], {}, "photos/b/c.jpg: is a file; name a folder to write"),
        (["empty", "out"], {}, "empty: no images in it; there are read: .png"),
        (["photos", "out"], {"suffix": "jpgg"}, "--format: 'jpgg' is none; did you mean 'jpg'?"),
        (["photos", "out"], {"window": 10}, "--window: 10: pieces must be of 96 pixels at least"),
        (["photos/a.png", "a.gif"], {}, "a.gif: no image format has this suffix; there are: .png"),
        (["photos/a.png", "photos/b/c.jpg"], {}, "photos/b/c.jpg: is there already; --force writes over it"),
    ):
        with pytest.raises(OdmError) as error:
            upscale.run(None, paths, file, "", **more)  # type: ignore[arg-type]
        assert str(error.value).startswith(said)


def test_one_image_into_a_folder_or_a_file(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = str(model_file(tmp_path / "net.safetensors"))
    upscale.run(None, ["photos/a.png", "made"], file, "")
    upscale.run(None, ["photos/a.png"], file, "made")
    upscale.run(None, ["photos/a.png", "new/b.tiff"], file, "")
    upscale.run(None, ["photos/a.png"], file, "", suffix="webp")
    assert sorted(tree(tmp_path / "made")) == ["a.png"]
    assert sorted(tree(tmp_path / "new")) == ["b.tiff"]
    assert (tmp_path / "photos" / "a_x2_net.webp").exists()


# What is finished


def test_what_is_finished_is_left_alone(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert statuses(done([photos], out)) == [DONE] * 4
    before = {path: os.stat(out / path) for path in tree(out)}
    assert statuses(done([photos], out)) == statuses(done([photos], out, force=True)) == [FINISHED] * 4
    assert {path: os.stat(out / path).st_mtime_ns for path in before} == {
        path: each.st_mtime_ns for path, each in before.items()
    }
    (out / "a.png").unlink()
    assert statuses(done([photos], out)) == [DONE, FINISHED, FINISHED, FINISHED]


def test_another_image_model_or_hand_is_not_written_over_unasked(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done([photos], out)
    image(photos / "a.png", 77)  # another image
    (out / "f.png").write_bytes(b"edited")
    results = done([photos], out)
    assert statuses(results) == [FAILED, FAILED, FINISHED, FINISHED]
    assert results[0].reason == f"{out}/a.png: is there already; --force writes over it"
    assert statuses(done([photos], out, made_with="another")) == [FAILED] * 4
    assert statuses(done([photos], out, force=True)) == [DONE, DONE, FINISHED, FINISHED]
    assert statuses(done([photos], out, force=True, made_with="another")) == [DONE] * 4
    assert statuses(done([photos], out, made_with="another")) == [FINISHED] * 4


def test_whole_beside_its_place_it_is_put_there(photos: Path, tmp_path: Path) -> None:
    """As a process leaves it that is killed between the line of the journal and the last step."""
    out = tmp_path / "out"
    done([photos], out)
    expected = tree(out)
    (out / "a.png").rename(out / ".a.png.part")
    (out / "f.png").rename(out / ".f.png.part")
    (out / ".f.png.part").write_bytes(expected["f.png"][:-1])
    assert statuses(done([photos], out)) == [FINISHED, DONE, FINISHED, FINISHED]
    assert tree(out) == expected


@pytest.mark.parametrize("left", [0, 1, 40])
def test_a_line_that_was_cut_short_counts_for_nothing(photos: Path, tmp_path: Path, left: int) -> None:
    out = tmp_path / "out"
    done([photos], out)
    journal = out / ".odm" / "upscaled.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:left] + b"\xff" * (left > 1))
    (out / json.loads(lines[-1])["output"]).unlink()
    assert statuses(done([photos], out)) == [FINISHED] * 3 + [DONE]
    assert statuses(done([photos], out)) == [FINISHED] * 4


def test_names_that_are_no_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"a\xff.png")
    image(tmp_path / "in" / name)
    assert statuses(done([tmp_path / "in"], tmp_path / "out")) == [DONE]
    assert statuses(done([tmp_path / "in"], tmp_path / "out")) == [FINISHED]


# What is said


def test_what_is_said(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    file = str(model_file(tmp_path / "net.safetensors"))
    (photos / "b" / "bad.png").write_bytes(b"no image")
    with pytest.raises(OdmError, match="1 of 5 images are not done; why is said above, of each"):
        upscale.run(None, ["photos", "out"], file, "")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("1/5 photos/a.png -> out/a.png, ") and said[0].endswith(" left")
    assert said[-2:] == [
        "not done: photos/b/bad.png: cannot be read: not an image, or of a format that is not read; replace it or "
        "take it out",
        "net, x2: 4 done, 0 finished before, 1 not done, 1 other files left aside",
    ]
    with pytest.raises(OdmError):
        upscale.run(None, ["photos", "out"], file, "", as_json=True)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["status"] for each in told[:-1]].count("finished") == 4
    (failed,) = (each for each in told[:-1] if each["status"] == "failed")
    assert failed["image"] == "photos/b/bad.png" and failed["reason"].startswith("photos/b/bad.png: cannot be read")
    assert told[-1] == {"with": "net", "scale": 2, "done": 0, "finished": 4, "failed": 1, "no_images": 1}
    upscale.run(None, ["photos/a.png", "one.png"], file, "", as_json=True)
    (alone,) = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (alone["status"], alone["size"], alone["output"]) == ("done", [24, 24], "one.png")


def test_exit_code_and_two_in_one_folder(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = str(model_file(tmp_path / "net.safetensors"))
    (photos / "bad.png").write_bytes(b"")
    assert (
        one_line("upscale", "photos", "out", "--with", file)
        == "odm: 1 of 5 images are not done; why is said above, of each"
    )
    from filelock import FileLock

    with FileLock(tmp_path / "out" / ".odm" / "upscale.lock"):
        assert "odm upscale into out: " in one_line("upscale", "photos", "out", "--with", file)


def test_what_nobody_thought_of_ends_one_image_only(photos: Path, tmp_path: Path) -> None:
    class Odd(Repeated):
        def __call__(self, pixels: np.ndarray) -> np.ndarray:
            raise KeyError("of two\nlines")

    results = list(
        Batch(Odd(), 96, Journal(tmp_path / "out", "m", "s")).run(
            many([photos], tmp_path / "out", "").jobs, lambda done, of: None
        )
    )
    assert statuses(results) == [FAILED] * 4
    assert "a.png: an error nobody thought of: KeyError: 'of two\\nlines'; please report it" in results[0].reason


# Kills


@pytest.mark.slow
def test_three_hundred_images_killed_ten_times(tmp_path: Path) -> None:
    """With one in twenty damaged: no half file, nothing made twice, the same bytes, and each reason told."""
    folder, bad = tmp_path / "in", []
    for number in range(300):
        path = image(folder / f"{number % 7}" / f"{number}.png", number, 24)
        if number % 20 == 7:
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2])
            bad.append(path)
    file = model_file(tmp_path / "net.safetensors")
    command = [sys.executable, "-m", "odm.cli", "upscale", "in", "out", "--with", str(file), "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start() -> subprocess.Popen[str]:
        """It stops at a page of lines that nobody has read: a slow reader is not far behind."""
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                env=environment, pipesize=4096)  # fmt: skip

    process = start()
    lines = [json.loads(line) for line in process.communicate()[0].splitlines()]
    assert process.returncode == 1
    assert (lines[-1]["done"], lines[-1]["failed"]) == (285, 15)
    expected = tree(tmp_path / "out")
    assert len(expected) == 285
    shutil.rmtree(tmp_path / "out")

    draw = random.Random(5)
    journal = tmp_path / "out" / ".odm" / "upscaled.jsonl"
    made: dict[str, int] = {}
    for kill in range(10):
        process = start()
        assert process.stdout is not None
        new = draw.randint(1, 25) if kill else 0
        while new and (line := process.stdout.readline()):
            new -= json.loads(line)["status"] == "done"
        time.sleep(draw.uniform(0, 0.06) if kill else 1)
        process.kill()
        process.communicate()
        now = {
            path: os.stat(tmp_path / "out" / path).st_mtime_ns
            for path in expected
            if (tmp_path / "out" / path).exists()
        }
        assert all((tmp_path / "out" / path).read_bytes() == expected[path] for path in now), "no half file"
        assert {path: now[path] for path in made} == made, "none is written again"
        made = now
    assert 50 < len(made) < 285
    process = start()
    lines = [json.loads(line) for line in process.communicate()[0].splitlines()]
    assert process.returncode == 1
    assert tree(tmp_path / "out") == expected
    outputs = [
        json.loads(line)["output"]
        for line in journal.read_bytes().splitlines()
        if line.startswith(b'{"output"') and line.endswith(b"}")
    ]
    assert sorted(outputs) == sorted(expected), "each once"
    assert {tmp_path / each["image"] for each in lines[:-1] if each["status"] == "failed"} == set(bad)
    assert all(
        each["reason"].endswith("damaged PNG; replace it or take it out") for each in lines[:-1] if "reason" in each
    )
    assert lines[-1]["finished"] + lines[-1]["done"] == 285 and lines[-1]["finished"] >= len(made)


def test_the_model_is_part_of_what_is_finished(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    upscale.run(None, ["photos", "out"], str(model_file(tmp_path / "net.safetensors")), "")
    before = tree(tmp_path / "out")
    with pytest.raises(OdmError, match="4 of 4 images are not done"):
        upscale.run(None, ["photos", "out"], str(model_file(tmp_path / "net.safetensors", seed=2)), "")
    assert tree(tmp_path / "out") == before
    upscale.run(None, ["photos", "out"], str(tmp_path / "net.safetensors"), "", force=True)
    assert tree(tmp_path / "out").keys() == before.keys() and tree(tmp_path / "out") != before

"""What a user's own folders hold is on the card of the data job, at the cost of a look."""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from odm import card
from odm.images import contents
from odm.images.catalogue import CATALOGUE, Benchmark
from odm.images.folders import ROOT_VARIABLE
from odm.settings.reading import load
from odm.settings.suite import Settings

SUITE = Path(__file__).parents[1] / "suites" / "quick.yaml"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is trained on, an hour old, and the working directory beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(ROOT_VARIABLE, raising=False)
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("a.png", "b.jpg"):
        settled(folder / name, name)
    return folder


def settled(file: Path, content: str) -> None:
    file.write_text(content)
    hour_ago = time.time() - 3600
    os.utime(file, (hour_ago, hour_ago))


def suite(**images: object) -> Settings:
    settings = load(SUITE)
    images = {"train": ["mine"], "folders": {"mine": "mine"}, **images}
    return settings.model_copy(update={"images": settings.images.model_copy(update=images)})


def digests(settings: Settings | None = None) -> tuple[str, str]:
    settings = settings or suite()
    return card.card(settings, "data", "train").digest, card.card(settings, "data", "test").digest


CHANGES: dict[str, tuple[Callable[[Path], object], bool]] = {
    "added": (lambda folder: (folder / "c.png").write_text("c"), True),
    "removed": (lambda folder: (folder / "a.png").unlink(), True),
    "renamed": (lambda folder: (folder / "a.png").rename(folder / "c.png"), True),
    "swapped": (lambda folder: [settled(folder / "a.png", "b.jpg"), settled(folder / "b.jpg", "a.png")], True),
    "of the same size": (lambda folder: (folder / "a.png").write_text("z.png"), True),
    "of the same size and time": (lambda folder: settled(folder / "a.png", "z.png"), True),
    "emptied": (lambda folder: [each.unlink() for each in folder.iterdir()], True),
    "gone": (lambda folder: folder.rename(folder.with_name("away")), True),
    "a file in its place": (lambda folder: (folder.rename(folder.with_name("away")), folder.write_text("")), True),
    "a link that leads nowhere": (lambda folder: (folder / "c.png").symlink_to("nowhere"), True),
    "a folder among them": (lambda folder: (folder / "c.png").mkdir(), True),
    "touched": (lambda folder: (folder / "a.png").touch(), False),
    "written anew": (lambda folder: (folder / "a.png").write_text("a.png"), False),
    "another file": (lambda folder: (folder / "notes.txt").write_text("c"), False),
    "a hidden file": (lambda folder: (folder / "._a.png").write_text("c"), False),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_of_the_folder_is_on_the_card(what: str, mine: Path) -> None:
    change, is_due = CHANGES[what]
    train, test = digests()
    assert (train, test) == digests()
    origin = card.origin(suite(), next(iter(suite().networks)))
    change(mine)
    after, other = digests()
    assert (after != train) == is_due
    assert other == test
    # What was trained is not refused for it.
    assert card.origin(suite(), next(iter(suite().networks))) == origin


def test_a_file_is_read_once(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, kind: read.append(file.name) or digest(file, kind))
    monkeypatch.setattr(contents, "SETTLED", -1.0)  # times of a file's inode cannot be set back
    first = digests()
    assert sorted(read) == [str(Path("mine") / "a.png"), str(Path("mine") / "b.jpg")]
    assert digests() == first
    assert len(read) == 2
    settled(mine / "a.png", "z.png")
    assert digests() != first
    assert len(read) == 3


def test_a_file_that_was_changed_just_now_is_read_again(mine: Path) -> None:
    digests()
    assert not contents.MEMORY.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', '{"a": "b"}', "null", '{"a": [[]]}'])
def test_a_damaged_memory_is_as_none(content: str, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digests()
    monkeypatch.setattr(contents, "SETTLED", -1.0)
    contents.MEMORY.parent.mkdir()
    contents.MEMORY.write_text(content)
    assert digests() == first


def test_under_a_root(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set that is held to its pixels may lie anywhere; of another one the content counts."""
    monkeypatch.setitem(CATALOGUE, "free", Benchmark(2, "none", ("mine",)))
    monkeypatch.setitem(CATALOGUE, "held", Benchmark(2, "none", ("mine",), pixels="0"))
    monkeypatch.setenv(ROOT_VARIABLE, str(mine.parent))
    free, held = suite(train=["free"], folders={}), suite(train=["held"], folders={})
    named = suite(train=["held"], folders={"held": "mine"})
    before = [digests(each)[0] for each in (free, held, named)]
    settled(mine / "a.png", "z.png")
    after = [digests(each)[0] for each in (free, held, named)]
    assert [one != other for one, other in zip(before, after, strict=True)] == [True, False, True]
    for root in ("nowhere", "~nobody_of_this_name/sets"):
        monkeypatch.setenv(ROOT_VARIABLE, root)
        missing = card.card(free, "data", "train").settings
        assert missing["contents"] == {"free": contents.MISSING}


def test_what_differs_from_the_card_that_was_recorded(mine: Path) -> None:
    def changes() -> tuple[list[str], list[str]]:
        before = card.recorded(suite(), "data", "train")
        assert before is not None
        return card.card(suite(), "data", "train").changes(before)

    made = card.card(suite(), "data", "train")
    card.record(suite(), "data", "train", made)
    assert changes() == ([], [])
    settled(mine / "a.png", "z.png")
    (words,), files = changes()
    assert words.startswith("contents.mine ")
    assert files == []


def test_quick_has_no_folders_on_its_cards(mine: Path) -> None:
    for split in ("train", "test"):
        assert "contents" not in card.card(load(SUITE), "data", split).settings

"""What of a source counts as code, and what of a card is told: without any engine."""

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from odm import card, code
from odm.errors import OdmError
from odm.settings.reading import load

ROOT = Path(__file__).parents[1]
SOURCE = '''
"""A module."""

from typing import TYPE_CHECKING

from odm.errors import OdmError

if TYPE_CHECKING:
    from odm.inference import load


def half(x: int) -> float:
    """In two."""
    assert x, "none"
    if x < 0:
        raise OdmError(f"{x}: below zero")
    if x > 9:
        raise ValueError(f"{x} is large")
    print("half of", x)
    return x / 2
'''


def read(source: str, name: str = "odm.images.trial") -> list[str]:
    """Digest and imports."""
    file = code.ROOT.parent.joinpath(*name.split(".")).with_suffix(".py")
    return code._parsed(name, file, textwrap.dedent(source).encode())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"""A module."""', '"""The same module."""'),
        ('"""In two."""', "# In two."),
        ("    return x / 2", "    return (  x /\n        2)  # half"),
        ('"none"', '"there is nothing"'),
        ('f"{x}: below zero"', '"negative: correct it"'),
        ('f"{x} is large"', 'f"too large: {x}"'),
        ('print("half of", x)', 'print(x, "in two")'),
        ('    print("half of", x)\n', ""),
        ("import load", "import load, upscale"),
    ],
)
def test_words_do_not_count(before: str, after: str) -> None:
    assert before in SOURCE
    assert read(SOURCE.replace(before, after)) == read(SOURCE)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x / 2", "x / 3"),
        ("x < 0", "x <= 0"),
        ("raise ValueError", "raise TypeError"),
        ("x: int", "x: float"),
        ("    return x / 2", "    return x // 2"),
        ("def half", "def halved"),
    ],
)
def test_everything_else_does(before: str, after: str) -> None:
    assert read(SOURCE.replace(before, after))[0] != read(SOURCE)[0]


def test_what_an_exception_carries_is_no_word() -> None:
    assert read("raise Reached(features)")[0] != read("raise Reached(others)")[0]


@pytest.mark.parametrize(
    ("source", "imports"),
    [
        ("import odm.seeds", ["odm.seeds"]),
        ("from odm import seeds, files", ["odm.files", "odm.seeds"]),
        ("from odm import __version__", ["odm"]),
        ("from odm.images.prepared import Prepared", ["odm.images.prepared"]),
        (
            "from . import prepared\nfrom .digest import digest\nfrom ..seeds import named",
            ["odm.images.digest", "odm.images.prepared", "odm.seeds"],
        ),
        ("def late():\n    from odm.images import imresize", ["odm.images.imresize"]),
        ("import numpy\nfrom torch import nn", []),
    ],
)
def test_imports(source: str, imports: list[str]) -> None:
    assert read(source)[1:] == imports


def test_a_mistake_in_a_source_is_one_line() -> None:
    with pytest.raises(OdmError, match=r"^odm/images/trial\.py, line 2: [^\n]+$"):
        read("x = 1\nx +")


def test_a_module_counts_with_its_data_and_the_packages_it_is_in() -> None:
    found = code.closure(frozenset(["odm.reporting.published"]))
    assert found.keys() == {"odm/reporting/published.py", "odm/reporting/published.csv"}


def test_what_was_remembered_of_sources_is_of_these(tmp_path: Path) -> None:
    """A damaged memory, and one of other sources, are not believed."""
    shutil.copytree(ROOT / "odm", tmp_path / "odm", ignore=shutil.ignore_patterns("__pycache__"))
    memory = tmp_path / "odm" / "__pycache__" / "code.json"
    seeds = tmp_path / "odm" / "seeds.py"

    def digest() -> str:
        script = "from odm import code; print(code.closure(frozenset(['odm.seeds']))['odm/seeds.py'])"
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    first = digest()
    assert memory.exists() and digest() == first
    seeds.write_text(seeds.read_text().replace(">> 1", ">> 2"))
    assert digest() != first
    seeds.write_text(seeds.read_text().replace(">> 2", ">> 1"))
    for damage in ("", "[]", '{"rules": "other", "known": {}}', memory.read_text()[:50]):
        memory.write_text(damage)
        assert digest() == first


def test_a_card_tells_what_differs() -> None:
    settings = load(ROOT / "suites" / "quick.yaml")
    mine = card.card(settings, "train", "w2a2_odm_1")
    other = card.Card(mine.settings | {"threads": 2, "more": {"a": None}}, mine.code | {"odm/seeds.py": "other"})
    assert mine.changes(mine) == ([], [])
    assert mine.changes(other) == (["more.a null -> not there", "threads 2 -> 1"], ["odm/seeds.py"])
    assert mine.digest != other.digest


def test_a_card_holds_what_the_result_depends_on_and_nothing_else() -> None:
    settings = load(ROOT / "suites" / "quick.yaml")
    assert card.card(settings, "train", "w2a2_odm_1").settings.keys() == {
        *("device", "threads", "vectors", "network", "method", "qat", "run")
    }
    assert card.card(settings, "train", "w2a2_odm_1").settings["run"] == {
        "weight_bits": 2,
        "activation_bits": 2,
        "seed": 1,
    }
    for step, name in card.jobs(settings):
        made = card.card(settings, step, name)
        assert not {path for path in made.code if "settings" in path or path in ("odm/cli.py", "odm/card.py")}
        kinds = {path.split("/")[2] for path in made.code if path.startswith("odm/methods/") and path.count("/") == 3}
        if step in ("data", "pretrain", "dial", "mismatch", "tables"):
            assert not kinds
        elif name in settings.runs:
            kind = settings.methods[settings.runs[name].method].kind
            assert kinds == {kind, "plain"}  # which all of the quick suite's extend


@pytest.mark.parametrize(
    "changes",
    [
        {"pads": "quantized_zero"},
        {"rectified_lower": "zero"},
        {"weight_granularity": "channel"},
        {"offsets": {"powers_of_two": True}},
    ],
)
def test_what_came_later_is_on_a_card_where_it_is_set(changes: dict[str, Any]) -> None:
    """Off, it is on none, so that nothing made before there were such settings is due."""
    settings = load(ROOT / "suites" / "quick.yaml")
    (key,) = changes
    was = settings.methods["odm"].model_dump()
    other = was | {key: was[key] | changes[key] if isinstance(changes[key], dict) else changes[key]}
    made = settings.model_validate(
        settings.model_dump() | {"methods": {**settings.model_dump()["methods"], "odm": other}}
    )
    plain, towards = (card.card(each, "train", "w2a2_odm_1").settings["method"] for each in (settings, made))
    assert plain != towards and not {"pads", "rectified_lower", "weight_granularity"} & plain.keys()
    assert "powers_of_two" not in plain["offsets"]
    assert towards[key] == other[key] if key != "offsets" else towards[key]["powers_of_two"]

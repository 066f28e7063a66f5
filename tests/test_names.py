"""Names of files that a figure, a terminal or UTF-8 cannot take: none ends a job."""

import json
import os
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from safetensors import safe_open
from test_errors import one_line
from test_figures import made, photographs  # noqa: F401 - a fixture
from test_tables import IMAGES

from odm.images import prepare
from odm.images.prepared import Prepared
from odm.images.reading import read_set
from odm.names import shown
from odm.reporting.style import drawable, save, styled
from odm.sealed import read_sealed_json, write_sealed_json
from odm.settings.images import Images
from odm.settings.reading import load
from odm.settings.suite import Settings
from odm.steps import figures

NASTY = {
    "mathtext": rb"a$b$c_{",
    "one dollar": b"cost 5$",
    "two dollars": b"$\\frac{",
    "unknown command": b"$\\nosuch$",
    "backslash": b"a\\b",
    "percent and braces": b"{0}%s%(a)d",
    "undecodable": b"a\xffb\xfe",
    "latin-1": "müller".encode("latin-1"),
    "overlong UTF-8": b"\xc0\xaf",
    "surrogate in UTF-8": b"\xed\xa0\x80",
    "cut UTF-8": "日".encode()[:2],
    "escape sequence": b"\x1b[2J\x1b[31mred",
    "title of a terminal": b"\x1b]0;owned\x07",
    "newline": b"a\nb",
    "carriage return": b"a\rb",
    "tab": b"a\tb",
    "backspace": b"a\b\b\bb",
    "delete": b"a\x7fb",
    "right to left": "a\u202egpj".encode(),
    "zero width": "a\u200bb".encode(),
    "line separator": "a\u2028b".encode(),
    "C1 control": "a\u009b31mb".encode(),
    "private use": "\ue000".encode(),
    "not assigned": "\U000e1000".encode(),
    "Chinese": "春天的花园".encode(),
    "Devanagari": "नमस्ते".encode(),
    "Thai": "ภาพถ่าย".encode(),
    "Egyptian": "\U00013000\U00013001".encode(),
    "emoji": "🦀👩‍👩‍👧".encode(),
    "Arabic": "صورة".encode(),
    "combining": ("a" + "\u0301" * 20).encode(),
    "long": b"x" * 240,
    "quotes": b"\"a\" 'b' `c`",
    "markdown": b"a|b|<b>c",
    "spaces": b"  a  ",
    "only a dollar": b"$",
}


def put(folder: Path, name: bytes, seed: int = 1) -> None:
    folder.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (18, 20, 3), np.uint8)
    with open(os.path.join(os.fsencode(folder), name + b".png"), "wb") as file:
        Image.fromarray(pixels).save(file, "PNG")


def names_in(folder: Path) -> list[str]:
    images = Images.model_validate(
        {"train": ["mine"], "test": ["mine"], "scales": [2], "folders": {"mine": str(folder)}}
    )
    path = folder / "out.safetensors"
    prepare.write(path, {"mine": read_set("mine", images)}, [2])
    with safe_open(path, "np") as file:  # another program's reader, which takes UTF-8 alone
        assert len(list(file.keys())) == 2
    return [name for _, name in Prepared(path).images]


def is_harmless(name: str) -> bool:
    return name.isprintable() and name.encode().decode() == name and json.loads(json.dumps(name)) == name


def is_drawn(title: str, path: Path) -> None:
    with warnings.catch_warnings(action="error"), styled():
        figure = Figure(figsize=(3, 1))
        figure.add_axes((0.1, 0.1, 0.8, 0.5)).set_title(title)
        save(figure, path)


@pytest.mark.parametrize("what", NASTY)
def test_a_name_through_data_and_a_figure(what: str, tmp_path: Path) -> None:
    put(tmp_path / "mine", NASTY[what])
    (name,) = names_in(tmp_path / "mine")
    assert is_harmless(name)
    is_drawn(name, tmp_path / "title.png")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(min_size=1, max_size=40).filter(lambda name: not {0, 47} & {*name} and name[:1] != b"."),
        st.text("$_{}^\\%#&~", min_size=1, max_size=12).map(str.encode),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0."), min_size=1, max_size=20).map(
            str.encode
        ),
    )
)
def test_any_name(tmp_path_factory: pytest.TempPathFactory, name: bytes) -> None:
    folder = tmp_path_factory.mktemp("names")
    put(folder / "mine", name)
    (found,) = names_in(folder / "mine")
    assert is_harmless(found)
    is_drawn(found, folder / "title.png")


def test_what_prints_is_left_alone() -> None:
    for name in ("astronaut", "Größe 3", "éèê", "花", "🦀", "a$b$c_{", "a b"):
        assert shown(name) == name
    assert shown(os.fsdecode(b"a\xffb\n\x1b")) == r"a\xffb\n\x1b"
    assert drawable("a\n花") == "a\n\\u82b1"
    every = "".join(map(chr, [*range(0x20, 0x3000, 7)]))
    assert all(unicodedata.category(each)[0] != "C" for each in shown(every))


@pytest.mark.parametrize("what", ["mathtext", "undecodable", "escape sequence", "Chinese", "long"])
def test_figures_of_such_a_name(what: str, made: Settings) -> None:  # noqa: F811
    """The whole step, whose crops show the image that it names."""
    name = shown(os.fsdecode(NASTY[what]))
    for path in made.results.rglob("metrics.json"):
        content = read_sealed_json(path, "again")
        text = json.dumps(content).replace(f'"{IMAGES[0]}"', json.dumps(name))
        write_sealed_json(path, json.loads(text))
    images = [(name if each == IMAGES[0] else each, image) for each, image in photographs().items()]
    prepare.write(made.results / "data" / "test.safetensors", {"photos": images}, [2])
    with warnings.catch_warnings(action="error", category=UserWarning):
        figures.run(made)
    assert (made.results / "figures" / "crops.png").exists()


def test_an_error_that_names_such_a_file_is_one_harmless_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = Path(__file__).parents[1]
    (tmp_path / "params.yaml").write_bytes((root / "params.yaml").read_bytes())
    for name in (b"a\xff\x1b[31m.png", "a\nb.png".encode("utf-16")[2:].replace(b"\0", b"")):
        said = one_line("upscale", os.fsdecode(name), "--with", next(iter(load(root / "params.yaml").networks)))
        assert said.isprintable()


def test_a_terminal_of_another_encoding() -> None:
    code = "import odm.cli as c, sys; c.app = lambda: print('花\\udcff'); c.main()"
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.returncode) == ("\\u82b1\\udcff\n", 0), done.stderr

"""What YAML 1.1 and 1.2 read differently is refused wherever it stands; what DVC itself writes is not."""

import io
import math
import re
import string
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import parse_yaml, parse_yaml_for_update
from dvc.utils.serialize._yaml import _dump
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_settings import SOUND, changed

from odm.errors import OdmError
from odm.settings.dialects import Loader, differing
from odm.settings.reading import load

ROOT = Path(__file__).parents[1]


def said(text: bytes | str, folder: Path) -> str:
    path = folder / "params.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(OdmError) as refusal:
        load(path)
    return str(refusal.value).removeprefix(f"{path}")


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("1e5", "text", "100000.0"),
        ("08", "text", "8"),
        ("0o17", "text", "15"),
        ("030", "24", "30"),
        ("0_8", "text", "8"),
        ("12e03", "text", "12000.0"),
        ("yes", "true", "text"),
        ("no", "false", "text"),
        ("on", "true", "text"),
        ("off", "false", "text"),
    ],
)
def test_names(name: str, first: str, second: str, tmp_path: Path) -> None:
    line = said(changed("  w4a4_odm:", f"  {name}:"), tmp_path)
    assert line == (
        f", line 41: runs.{name}: '{name}' reads as {first} in YAML 1.1 and as {second} in YAML 1.2, which DVC reads; "
        "begin the name with a letter"
    )


@pytest.mark.parametrize(
    ("value", "ways"),
    [
        ("030", "(30) or (24)"),
        ("1:30", '("1:30") or (90)'),
        ("1:30.5", '("1:30.5") or (90.5)'),
        ("yes", '("yes") or (true)'),
        ("OFF", '("OFF") or (false)'),
        ("1e-4", '(0.0001) or ("1e-4")'),
        ("5e-5", '(0.00005) or ("5e-5")'),
        ("1e5", '(100000.0) or ("1e5")'),
        ("0o17", '(15) or ("0o17")'),
    ],
)
def test_values_wherever_they_stand(value: str, ways: str, tmp_path: Path) -> None:
    for old, key in (("threads: 1", "threads"), ("rate: 0.001", "pretraining.rate"), ("[2]", "images.scales.0")):
        new = f"[{value}]" if old == "[2]" else f"{old.split(':')[0]}: {value}"
        line = said(changed(old, new), tmp_path)
        assert re.match(rf", line \d+: {re.escape(key)}: '{re.escape(value)}' reads as ", line), line
        assert line.endswith(f"; write it out {ways}")


def test_a_key_that_is_nowhere_known(tmp_path: Path) -> None:
    assert said(SOUND + "on: {08: 1}\n", tmp_path).startswith(", line 42: on: 'on' reads as true in YAML 1.1")
    assert said(SOUND + "more: [{a: 1}, {08: 1}]\n", tmp_path).startswith(", line 42: more.1.08: '08' reads as text")


def readings(text: str) -> tuple[Any, Any]:
    """What PyYAML and DVC read in a scalar; an error where they read nothing."""
    found = []
    for read in (yaml.safe_load, lambda text: parse_yaml(text, "params.yaml")):
        try:
            found.append(read(f"a: {text}")["a"])
        except Exception as error:
            found.append(error)
    return found[0], found[1]


def refused(text: str) -> bool:
    return any(differing(Loader(f"a: {text}").get_single_node()))


SCALARS = st.one_of(
    st.text("0123456789_.:+-eExobfinatyrsuldk", min_size=1, max_size=8).filter(lambda text: not text.endswith(":")),
    st.from_regex(r"[-+]?[0-9_]{1,4}(\.[0-9_]{0,3})?(e[-+]?[0-9]{1,3})?", fullmatch=True),
    st.from_regex(r"[-+]?0[xob]?[0-9a-f_]{1,4}", fullmatch=True),
    st.from_regex(r"[0-9]{1,3}(:[0-6]?[0-9]){1,2}(\.[0-9]*)?", fullmatch=True),
    st.from_regex(r"[0-9]{4}-[01]?[0-9]-[0-3]?[0-9]", fullmatch=True),
    st.sampled_from(
        [case(word) for word in ("yes", "no", "on", "off", "y", "n", "true", "false", "null", "~", ".inf", "-.inf",
                                 ".nan", "=", "none") for case in (str.lower, str.title, str.upper)]
    ),
)  # fmt: skip


@given(SCALARS)
@settings(max_examples=1500, deadline=None)
@example("1e5")
@example("5e-05")
@example("._")
def test_refused_is_what_the_two_read_differently(text: str) -> None:
    """Against both readers themselves: all that differs, and nothing else but what DVC writes."""
    first, second = readings(text)
    if isinstance(first, Exception):
        return  # no YAML, in other words
    is_of_dvc = isinstance(second, float) and repr(second) == text
    differ = repr(first) != repr(second) and first != second
    assert refused(text) == (differ and not is_of_dvc), (first, second)


@given(st.text(string.ascii_lowercase + string.digits + "_", min_size=1, max_size=6))
@settings(max_examples=500, deadline=None)
def test_a_name_that_is_taken_is_one_to_both(name: str) -> None:
    first, second = (
        list(read(f"{name}: 1")) for read in (yaml.safe_load, lambda text: parse_yaml(text, "params.yaml"))
    )
    assert any(differing(Loader(f"{name}: 1").get_single_node())) == (repr(first) != repr(second))


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=500, deadline=None)
@example(5e-05)
@example(-1e-07)
@example(1e16)
@example(1e22)
@example(1.5e-05)
def test_what_dvc_writes_is_taken_as_it_is(number: float) -> None:
    """As `dvc exp run --set-param` puts a number into the file."""
    document = parse_yaml_for_update("a: 1.0\n", "params.yaml")
    document["a"] = number
    stream = io.StringIO()
    _dump(document, stream)
    node = Loader(stream.getvalue()).get_single_node()
    assert not list(differing(node))
    taken = Loader("").construct_document(node)["a"]
    assert isinstance(taken, float)
    assert math.isclose(taken, number, rel_tol=1e-15)


def test_a_small_rate_that_dvc_wrote(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(changed("rate: 0.001", "rate: 5e-05"))
    assert load(path).pretraining.rate == 0.00005


def test_quotes_tags_and_aliases(tmp_path: Path) -> None:
    assert not refused('"1e5"') and not refused("!!str 1e5") and not refused("'yes'")
    assert refused("!!int 030") and refused('!!int "030"')
    assert not list(differing(Loader("a: &b [1, *b]\nc: &d {e: *d}\n").get_single_node()))


def test_sound_settings_need_no_second_reader() -> None:
    """It would take longer to import than the file to read, at each start of Snakemake."""
    import subprocess

    for suite in (ROOT / "suites").glob("*.yaml"):
        code = f"import sys; from odm.settings.reading import *; load(Path({str(suite)!r})); print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "yaml" in done.stdout.split()
        assert "ruamel.yaml" not in done.stdout.split()

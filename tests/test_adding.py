"""docs/adding.md is followed to the letter, in a throw-away clone.

A block of it is of the file whose path, in backticks, ends the line before the block.
"""

import csv
import json
import math
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_reproduction import Clone, _said

DOCUMENT = Path(__file__).parents[1] / "docs" / "adding.md"
NEW = {
    *(f"odm/methods/even/{name}.py" for name in ("__init__", "settings", "method")),
    *(f"odm/networks/stack/{name}.py" for name in ("__init__", "settings", "network")),
}
TRIAL = Path("suites", "trial.yaml")


def section(heading: str) -> str:
    (found,) = re.findall(rf"^## {heading}\n(.*?)(?=^## )", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    return found


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Path and content of each block that a path introduces."""
    block = re.compile(r"`([\w./]+)`:\n\n( *)```\w+\n(.*?)\n\2```$", re.MULTILINE | re.DOTALL)
    for path, _, content in block.findall(text):
        yield path, textwrap.dedent(content) + "\n"


def follow(folder: Path, heading: str) -> None:
    """Do what a section says, in a folder that holds the project."""
    text = section(heading)
    for path in re.findall(r"an empty `([\w./]+)`", text):
        (folder / path).parent.mkdir()
        (folder / path).touch(exist_ok=False)
    assert text.index("`python -m odm.settings`") > text.rindex("```python")
    for path, content in blocks(text):
        if path == str(TRIAL):
            _said([sys.executable, "-m", "odm.settings"], folder)
            write(folder, added(yaml.safe_load((folder / TRIAL).read_text()), yaml.safe_load(content)))
        else:
            assert path in NEW
            (folder / path).write_text(content)


def added(suite: dict[str, Any], block: dict[str, Any]) -> dict[str, Any]:
    """A suite with a block of the document in it."""
    return suite | {key: suite[key] | entries for key, entries in block.items()}


def write(folder: Path, suite: dict[str, Any]) -> None:
    (folder / TRIAL).write_text(yaml.safe_dump(suite, sort_keys=False))


def cards(clone: Clone) -> dict[str, str]:
    """Of all jobs, as text by step and name."""
    clone.odm("cards")
    root = clone.folder / "results" / "trial" / "cards"
    return {" ".join(path.relative_to(root).with_suffix("").parts): path.read_text() for path in root.rglob("*.json")}


def sources(folder: Path) -> dict[str, bytes]:
    """All files that git would keep, but for results."""
    listed = _said(["git", "ls-files", "--others", "--exclude-standard"], folder).splitlines()
    return {path: (folder / path).read_bytes() for path in listed if not path.startswith("results/")}


@pytest.mark.slow
def test_a_method_and_a_network_are_a_folder_each(tmp_path: Path) -> None:
    """As the document has it: from the quick suite, here with few steps, to scores of the new run and network."""
    clone = Clone(tmp_path / "clone")
    folder = clone.folder
    trial = yaml.safe_load((folder / "suites" / "quick.yaml").read_text()) | {"suite": "trial"}
    trial["networks"]["edsr_tiny"] |= {"channels": 4, "blocks": 2}
    trial["pretraining"] |= {"steps": 6, "batch": 2, "patch": 8}
    trial["mismatch"] |= {"batches": 2}
    trial["qat"] |= {"steps": 4, "batch": 2, "patch": 8, "log_every": 2, "calibration_batches": 2}
    write(folder, trial)
    clone.odm("suite", "trial")
    files, before = sources(folder), cards(clone)

    follow(folder, "A method")
    follow(folder, "A network")
    clone.odm("suite", "trial")
    now = sources(folder)
    assert {path for path in files | now if files.get(path) != now.get(path)} == {
        *NEW,
        *("params.schema.json", "params.yaml", str(TRIAL)),
    }
    after = cards(clone)
    assert not before.keys() - after.keys()
    assert {job for job in after if after[job] != before.get(job)} == {
        *("train w2a2_even", "evaluate w2a2_even"),
        *("pretrain stack_tiny", "mismatch stack_tiny", "evaluate stack_tiny"),
        *("train stack_w4a4", "evaluate stack_w4a4"),
        *("tables", "figures", "report"),
    }

    for split in ("train", "test"):
        clone.odm("data", split)
    for network, run in (("edsr_tiny", "w2a2_even"), ("stack_tiny", "stack_w4a4")):
        clone.odm("pretrain", network)
        clone.odm("mismatch", network)
        clone.odm("train", run)
        clone.odm("evaluate", run)
        made = folder / "results" / "trial" / "runs" / run
        with (made / "history.csv").open() as file:
            losses = [float(row["loss"]) for row in csv.DictReader(file)]
        assert losses and all(map(math.isfinite, losses))
        assert json.loads((made / "summary.json").read_text())
    clone.odm("evaluate", "stack_tiny")


def test_every_block_of_code_is_followed() -> None:
    """None is without a path, and so left out above."""
    for heading, count in (("A method", 3), ("A network", 3)):
        text = section(heading)
        assert len(list(blocks(text))) == text.count("```") / 2 == count
    assert {path for heading in ("A method", "A network") for path, _ in blocks(section(heading))} == {
        *(path for path in NEW if not path.endswith("__init__.py")),
        str(TRIAL),
    }

"""Every import is one that docs/house.md allows; its tables are what is read here, so the two cannot drift apart."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOUSE = (ROOT / "docs" / "house.md").read_text()
FILES = sorted(path.relative_to(ROOT / "odm").as_posix() for path in (ROOT / "odm").rglob("*.py"))
NAMED = re.compile(r"`([^`]+)`")
OWN, ALL = "its own folder", "all below"


def table(heading: str) -> list[list[str]]:
    """Cells of the rows of the table under a heading."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", HOUSE, re.MULTILINE | re.DOTALL)
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row] for row in rows]


ROOMS = [(NAMED.findall(room), uses) for room, _, uses in table("The rooms")]
DOORS = [(NAMED.findall(files), by) for files, by in table("Doors")]
ORDER = [patterns[0] for patterns, _ in ROOMS]
FREE_OF_TORCH = NAMED.findall(HOUSE.split("Free of torch", 1)[1].split("\n", 1)[1])


def names(pattern: str, file: str) -> bool:
    """Whether a pattern of the document means a file; one that ends in / means all that is in a folder."""
    return fnmatchcase(file, f"{pattern}*" if pattern.endswith("/") else pattern)


def lowest(rows: list[tuple[list[str], str]], file: str) -> int | None:
    """The lowest row that names a file."""
    found = [row for row, (patterns, _) in enumerate(rows) if any(names(each, file) for each in patterns)]
    return found[-1] if found else None


def objection(importer: str, imported: str) -> str | None:
    """Why one file may not import another."""
    above, below = lowest(ROOMS, importer), lowest(ROOMS, imported)
    if above is None or below is None:
        return f"{importer if above is None else imported} is in no room"
    uses = ROOMS[above][1]
    if below not in (above, len(ROOMS) - 1):
        if below < above:
            return f"{ORDER[below]} is above {ORDER[above]}"
        if uses != ALL and ORDER[below] not in NAMED.findall(uses):
            return f"{ORDER[above]} does not use {ORDER[below]}"
    door = lowest(DOORS, imported)
    if door is not None:
        by = DOORS[door][1]
        is_own = OWN in by and Path(importer).parent == Path(imported).parent
        if not is_own and not any(names(each, importer) for each in NAMED.findall(by)):
            return f"{imported} is for {by}"
    return None


def file_of(module: str) -> str:
    """Of a module or package of ours, '' if it is neither."""
    path = ROOT.joinpath(*module.split("."))
    found = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return found.relative_to(ROOT / "odm").as_posix() if found.is_file() else ""


def imports(source: str) -> Iterator[str]:
    """The files of ours that a source imports, anywhere in it, but for type annotations alone."""
    left: list[ast.AST] = [ast.parse(source)]
    while left:
        node = left.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            left += node.orelse
            continue
        left += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (file_of(alias.name) for alias in node.names if alias.name.split(".")[0] == "odm")
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "imports say whole names"
            if str(node.module).split(".")[0] == "odm":
                for alias in node.names:
                    yield file_of(f"{node.module}.{alias.name}") or file_of(str(node.module))


def loads_torch(modules: list[str]) -> bool:
    code = f"import {', '.join(modules)}, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip() == "True"


def module_of(file: str) -> str:
    return ".".join(["odm", *Path(file).with_suffix("").parts]).removesuffix(".__init__")


@pytest.mark.parametrize("file", FILES)
def test_a_file_imports_what_it_may(file: str) -> None:
    assert lowest(ROOMS, file) is not None, f"odm/{file} is in no room: docs/house.md should say where it belongs"
    for imported in imports((ROOT / "odm" / file).read_text()):
        assert objection(file, imported) is None, f"odm/{file} imports odm/{imported}: {objection(file, imported)}"


def test_the_document_is_of_these_files() -> None:
    """Rooms name only rooms below them, and nothing is named that is not there."""
    for row, (_, uses) in enumerate(ROOMS):
        assert set(NAMED.findall(uses)) <= set(ORDER[row + 1 :]), f"{ORDER[row]} uses what is not below it"
    named = [each for patterns, _ in [*ROOMS, *DOORS] for each in patterns]
    named += [each for _, by in DOORS for each in NAMED.findall(by)] + FREE_OF_TORCH
    assert not [each for each in named if not any(names(each, file) for file in FILES)]
    by_name = {file for file in FILES if "import_module(" in (ROOT / "odm" / file).read_text()}
    assert by_name == {"cli.py", "kinds.py"}


def test_settings_cards_and_the_command_line_load_no_torch() -> None:
    free = [module_of(file) for file in FILES if any(names(each, file) for each in FREE_OF_TORCH)]
    assert {"odm.cli", "odm.card", "odm.settings.reading", "odm.methods.pams.settings"} <= set(free)
    assert not loads_torch(free)


def test_the_checks_would_notice() -> None:
    for importer, imported in (
        ("steps/train.py", "steps/evaluate.py"),  # a step and a step
        ("methods/daq/method.py", "methods/pams/quantizer.py"),  # a kind and a kind
        ("methods/method.py", "methods/pams/settings.py"),
        ("networks/build.py", "networks/edsr/network.py"),
        ("quantization/layer.py", "methods/method.py"),  # upwards
        ("settings/suite.py", "card.py"),
        ("training/loop.py", "card.py"),  # a room that may, but not by this file
        ("reporting/tables.py", "inference.py"),  # a lower room that is not named
        ("new.py", "errors.py"),
    ):
        assert objection(importer, imported), f"{importer} may import {imported}"
    for importer, imported in (
        ("steps/train.py", "training/loop.py"),
        ("methods/even/method.py", "methods/plain/method.py"),
        ("methods/ddtb/method.py", "methods/ddtb/bounds.py"),
        ("quantization/layer.py", "seeds.py"),
    ):
        assert objection(importer, imported) is None
    source = """
from odm import card, kinds
if TYPE_CHECKING:
    from odm.engines import Plan
def f():
    import odm.files
    from odm.quantization.layer import QuantizedLayer
"""
    assert set(imports(source)) == {"card.py", "kinds.py", "files.py", "quantization/layer.py"}
    assert loads_torch(["odm.networks.build"])

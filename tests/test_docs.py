"""What the documents say exists does: links, settings, places in the code.

Two conventions. A setting is named by its path in params.yaml, `*` standing for a name, and may be followed by a value:
`methods.*.strength`, `methods.*.offsets.kind: none`. A link to a Python file whose text is no path names classes,
functions or methods of that file.
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from odm import __version__
from odm.settings.suite import Settings

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("README.md")])
SCHEMA = Settings.model_json_schema()
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
SETTING = re.compile(rf"`((?:{'|'.join(SCHEMA['properties'])})(?:\.[\w*]+)+)(?:: ([^`]+))?`")
FILES = (".json", ".csv", ".md", ".png", ".py")

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def links(document: Path) -> Iterator[tuple[str, Path, str]]:
    """Text, file and anchor of each relative link."""
    for text, target in LINK.findall(document.read_text()):
        if not re.match(r"\w+:", target):
            path, _, anchor = target.partition("#")
            yield text, (document.parent / path if path else document).resolve(), anchor


def anchors(document: Path) -> set[str]:
    """What headings are reached by."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def symbols(source: Path) -> set[str]:
    """Functions, classes, their methods and the constants of a Python file."""
    found = set()
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def at(path: str) -> list[dict[str, Any]]:
    """The parts of the schema that a setting's path may mean: several where methods differ, none if it is no path."""
    nodes = [SCHEMA]
    for part in path.split("."):
        nodes = [
            child
            for node in nodes
            if (child := node.get("properties", {}).get(part) if part != "*" else value_of(node)) is not None
        ]
        nodes = [each for node in nodes for each in resolved(node)]
    return nodes


def value_of(node: dict[str, Any]) -> dict[str, Any] | None:
    """The schema of a mapping's values."""
    values = node.get("additionalProperties") or next(iter(node.get("patternProperties", {}).values()), None)
    return values if isinstance(values, dict) else None


def resolved(node: dict[str, Any]) -> list[dict[str, Any]]:
    if "$ref" in node:
        return resolved(SCHEMA["$defs"][node["$ref"].rsplit("/", 1)[1]])
    return [each for one in node["oneOf"] for each in resolved(one)] if "oneOf" in node else [node]


def admits(node: dict[str, Any], value: Any) -> bool:
    if "enum" in node or "const" in node:
        return value in node.get("enum", [node.get("const")])
    types: dict[str, Any] = {
        "boolean": bool,
        "string": str,
        "integer": int,
        "number": (int, float),
        "array": list,
        "object": dict,
    }
    return isinstance(value, types[node["type"]]) if "type" in node else True


@every_document
def test_links_resolve(document: Path) -> None:
    for _, path, anchor in links(document):
        assert path.exists(), f"{document.name}: no file {path}"
        assert path.is_relative_to(ROOT), f"{document.name}: {path} is outside the project"
        if anchor:
            assert anchor in anchors(path), f"{document.name}: no heading #{anchor} in {path.name}"


@every_document
def test_places_in_the_code_exist(document: Path) -> None:
    for text, path, _ in links(document):
        if path.suffix == ".py" and "/" not in text:
            missing = {name.strip(" `") for name in text.split(",")} - symbols(path)
            assert not missing, f"{document.name}: {path.name} has no {missing}"


@every_document
def test_settings_exist(document: Path) -> None:
    for path, value in SETTING.findall(document.read_text()):
        if not path.endswith(FILES):
            found = at(path)
            assert found, f"{document.name}: no setting {path}"
            if value:
                assert any(admits(node, yaml.safe_load(value)) for node in found), f"{path} cannot be {value}"


def test_the_checks_would_notice() -> None:
    assert at("methods.*.cooperation.rule")
    assert not at("methods.*.cooperation.rules")
    assert not at("pretraining.range_rate")
    assert not any(admits(node, "often") for node in at("methods.*.cooperation.rule"))
    assert "Plain.backward" not in symbols(ROOT / "odm" / "methods" / "odm" / "method.py")


def test_each_setting_of_a_method_is_documented() -> None:
    """What a reader can choose about the method is said to be a choice."""
    named = {path for path, _ in SETTING.findall((ROOT / "docs" / "method.md").read_text())}
    for definition, prefix in (
        ("Odm", "methods.*"),
        ("Pams", "methods.*"),
        ("Daq", "methods.*"),
        ("Ddtb", "methods.*"),
        ("OdmEccv", "methods.*"),
        ("PerChannel", "methods.*"),
        ("NoBody", "methods.*"),
        ("Cooperation", "methods.*.cooperation"),
        ("Offsets", "methods.*.offsets"),
    ):
        for key, node in SCHEMA["$defs"][definition]["properties"].items():
            if key != "kind" or prefix != "methods.*":
                assert f"{prefix}.{key}" in named or "$ref" in json.dumps(node), f"method.md: {prefix}.{key}"


def test_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == __version__

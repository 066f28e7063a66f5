"""What YAML 1.1 and YAML 1.2 read differently: Snakemake's reader keeps to the first, DVC's to the second.

`1e5` is text to one and a number to the other, which then drops runs of that name without a word; `030` is 24 and 30.
"""

import re
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from functools import cache
from typing import Any

import yaml

# What both read alike: files as they should be need no second reader, which takes longer to import than they to read.
_ALIKE = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?|(?!(yes|no|on|off)\Z)[a-z/].*", re.IGNORECASE | re.DOTALL)
# As Python, and so `dvc exp run --set-param`, writes 0.00005: text in YAML 1.1 for want of a point.
_BY_PYTHON = re.compile(r"-?[1-9]e(-[0-9]{2,3}|\+[0-9]{2,3})\Z")
_TEXT = "tag:yaml.org,2002:str"


class Loader(yaml.SafeLoader):
    """PyYAML's, but for numbers as Python writes them; it remembers which scalars mean what they look like."""

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        is_plain = self.peek_event().implicit[0]
        node = super().compose_scalar_node(anchor)
        node.is_plain = is_plain
        return node


Loader.add_implicit_resolver("tag:yaml.org,2002:float", _BY_PYTHON, [*"-123456789"])


def differing(node: yaml.Node | None, key: str = "", seen: set[int] | None = None) -> Iterator[tuple[int, str]]:
    """Line and what is wrong there, of each scalar of a document that is something else in the other YAML."""
    seen = set() if seen is None else seen
    if node is None or id(node) in seen:  # an alias may lead to what it lies in
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        if said := _difference(node, is_name=False):
            yield node.start_mark.line + 1, f"{key}: {said}".removeprefix(": ")
    elif isinstance(node, yaml.SequenceNode):
        for index, each in enumerate(node.value):
            yield from differing(each, f"{key}.{index}".removeprefix("."), seen)
    elif isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if isinstance(name, yaml.ScalarNode):
                here = f"{key}.{name.value}".removeprefix(".")
                if said := _difference(name, is_name=True):
                    yield name.start_mark.line + 1, f"{here}: {said}"
                yield from differing(value, here, seen)


def _difference(node: yaml.ScalarNode, is_name: bool) -> str:
    """What each makes of a scalar, and what to write instead; '' if both make the same of it."""
    text: str = node.value
    if not node.is_plain and node.tag == _TEXT:
        return ""
    if node.is_plain and (_ALIKE.fullmatch(text) or (_is_by_python(text) and not is_name)):
        return ""
    first = yaml.SafeLoader("")
    tag = first.resolve(yaml.ScalarNode, text, (True, False)) if node.is_plain else node.tag
    try:
        ours = first.construct_object(yaml.ScalarNode(tag, text))
    except (ValueError, yaml.YAMLError):
        return ""  # no YAML to either, which is told when the file is read
    theirs = _second(text, "" if node.is_plain else tag)
    if (type(ours), repr(ours)) == (type(theirs), repr(theirs)) or (isinstance(ours, date) and ours == theirs):
        return ""
    ways = [f"({_written(each)})" for each in (theirs, ours)]
    what = "begin the name with a letter" if is_name else f"write it out {' or '.join(ways)}"
    return f"'{text}' reads as {_said(ours)} in YAML 1.1 and as {_said(theirs)} in YAML 1.2, which DVC reads; {what}"


def _is_by_python(text: str) -> bool:
    return bool(_BY_PYTHON.match(text)) and repr(float(text)) == text


def _second(text: str, tag: str) -> Any:
    """What a reader of YAML 1.2 makes of a scalar without quotes; its error if it makes nothing of it."""
    from ruamel.yaml import ScalarNode
    from ruamel.yaml.error import YAMLError

    reader = _reader()
    try:
        node = ScalarNode(tag or reader.resolver.resolve(ScalarNode, text, (True, False)), text)
        return reader.constructor.construct_object(node, deep=True)
    except (ValueError, YAMLError) as error:
        return error


@cache
def _reader() -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True)


def _said(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    return "an error" if isinstance(value, Exception) else _written(value)


def _written(value: Any) -> str:
    """A value as both read it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and abs(value) < float("inf"):
        text = f"{Decimal(repr(value)):f}"
        return text if "." in text else f"{text}.0"
    return f'"{value}"' if isinstance(value, str | date | Exception) else str(value)

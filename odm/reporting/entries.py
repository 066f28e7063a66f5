"""What the paper's tables are made of: a method at a bit width, its marks, and what was published of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, get_args

from odm.reporting import published, ranking
from odm.reporting.layout import Cell
from odm.reporting.ranking import Mark
from odm.reporting.results import BICUBIC, FLOAT, Key, Suite

Line = dict[str, Any]
KEYS: tuple[Key, ...] = get_args(Key)


@dataclass
class Entry:
    """A method at a bit width of a network, over all test sets."""

    method: str
    bits: tuple[int, int] | None
    """Of weights and activations; None for bicubic."""
    lines: dict[str, Line]
    """By test set, as in tables.csv."""
    marks: dict[tuple[str, Key], Mark] = field(default_factory=dict)
    answer: published.Counterpart | None = None
    printed: dict[tuple[str, Key], str] = field(default_factory=dict)
    """What was published of `answer`."""

    @property
    def name(self) -> Cell:
        return Cell(self.method)

    @property
    def width(self) -> Cell:
        return Cell("/".join(map(str, self.bits or ())))

    def of(self, key: str) -> Any:
        """A value that is the same for all test sets."""
        return next(iter(self.lines.values())).get(key)


def blocks(suite: Suite, network: str, lines: Iterable[Line]) -> list[list[Entry]]:
    """Bicubic, float and what else quantizes nothing, then a block for each bit width; lines as `tables.scores`."""
    entries: dict[tuple[Any, ...], Entry] = {}
    for line in lines:
        if line["network"] == network:
            bits = None if line["weight_bits"] is None else (line["weight_bits"], line["activation_bits"])
            entry = entries.setdefault((line["method"], bits), Entry(line["method"], bits, {}))
            entry.lines[line["set"]] = line
    if published.same_network(suite.settings, network):
        for entry in entries.values():
            _print_beside(suite, network, entry)
    methods = suite.settings.methods
    found: dict[tuple[int, int] | None, list[Entry]] = {None: []}
    for entry in entries.values():
        is_float = entry.method in (BICUBIC, FLOAT) or not methods[entry.method].quantizes
        found.setdefault(None if is_float else entry.bits, []).append(entry)
    for bits, block in found.items():
        rows = [row for row in suite.of_network(network) if (row.weight_bits, row.activation_bits) == bits]
        for images in suite.settings.images.test:
            for key in KEYS:
                marks = ranking.marks(suite, rows, images, key)
                for entry in block:
                    if entry.method in marks:
                        entry.marks[images, key] = marks[entry.method]
    return list(found.values())


def answer(suite: Suite, name: str) -> published.Counterpart | None:
    """What is published of the rows of a name: a method's, FLOAT or BICUBIC."""
    if name == FLOAT:
        return published.FLOAT
    method = suite.settings.methods.get(name)
    return published.counterpart(method) if method else None


def _print_beside(suite: Suite, network: str, entry: Entry) -> None:
    entry.answer = answer(suite, entry.method)
    if entry.answer and entry.bits:
        scale = suite.settings.networks[network].scale
        for images in suite.settings.images.test:
            cells = published.printed(entry.answer, scale, entry.bits, images) or ("", "")
            entry.printed |= {(images, key): cell for key, cell in zip(KEYS, cells, strict=True) if cell}

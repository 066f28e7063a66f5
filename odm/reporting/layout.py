"""A table as a paper lays it out, before Markdown or LaTeX make text of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from odm.reporting.ranking import Mark

MISSING = "†"
BROKEN = "‡"
TICK = "✓"
SECOND = "{second}"
"""In a note, what a second best looks like, which differs between the forms."""


@dataclass(frozen=True)
class Cell:
    text: str = ""
    look: Mark | Literal["", "aside"] = ""
    """`aside`: not ours."""


@dataclass(frozen=True)
class Table:
    """Rows of cells in blocks that are set apart, below two lines of head."""

    name: str
    """Unique in its suite, for references."""
    title: str
    head: Sequence[tuple[str, str]]
    """Of each column what stands above it and its neighbours, and its own name. The first is of words."""
    blocks: Sequence[Sequence[Sequence[Cell]]]
    notes: Sequence[str]

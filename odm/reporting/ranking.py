"""Which method is best in a block, and which second: said only where the images bear it out."""

from typing import Literal

from odm.reporting.results import Key, Row, Suite
from odm.reporting.uncertainty import interval

Mark = Literal["best", "second"]
LEAST = 5
"""Images that a mark takes: of 3 all differences have one sign, and so an interval beside 0, in a quarter of all draws
where there is none; of 5, as Set5 has them, in a sixteenth."""


def marks(suite: Suite, rows: list[Row], images: str, key: Key) -> dict[str, Mark]:
    """By method, the marks among rows of one network and bit width.

    The row of the highest mean is `best` if the interval over images of its difference to each other row lies above 0;
    of those left, the first is `second` on the same terms. Nobody is second to a row that is not best, or before
    nobody, and nobody is anything while a run is missing or of fewer images than `LEAST`. References take no part.
    """
    left = [row for row in rows if is_ranked(suite, row)]
    if any(row.missing for row in left):
        return {}
    left.sort(key=lambda row: -(row.mean(images, key) or 0.0))
    found: dict[str, Mark] = {}
    places: tuple[Mark, ...] = ("best", "second")
    for place in places:
        # The nearest rival comes first, and mostly decides.
        if len(left) < 2 or not all(_is_ahead(suite, left[0], other, images, key) for other in left[1:]):
            break
        found[left.pop(0).method] = place
    return found


def is_ranked(suite: Suite, row: Row) -> bool:
    """Whether a row is one of a method that competes, and no control."""
    method = suite.settings.methods[row.method]
    return method.quantizes and not method.is_reference


def _is_ahead(suite: Suite, row: Row, other: Row, images: str, key: Key) -> bool:
    differences = suite.differences(row, other, images, key) or []
    found = interval(differences)
    return len(differences) >= LEAST and found is not None and found[0] > 0

"""The one exception a user's mistake ends in, which the command line prints as one line, and phrases for it."""

import difflib
from collections.abc import Iterable, Sequence


class OdmError(Exception):
    """What is wrong, where (file or key), and what to do: one line, no traceback."""


def nearest(name: str, among: Iterable[str]) -> str:
    """The end of a message about a name that is not `among` those known."""
    known = sorted(among)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; there are: {', '.join(known) or 'none'}"


def some(words: Sequence[object], most: int = 4) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(map(str, words[:most])) + more

"""The one exception a user's mistake ends in, which the command line prints as one line, and a phrase for it."""

import difflib
from collections.abc import Iterable


class OdmError(Exception):
    """What is wrong, where (file or key), and what to do: one line, no traceback."""


def nearest(name: str, among: Iterable[str]) -> str:
    """The end of a message about a name that is not `among` those known."""
    known = sorted(among)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; there are: {', '.join(known) or 'none'}"

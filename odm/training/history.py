"""history.csv: one row each `log_every` steps, no timings in it."""

from pathlib import Path

import pandas as pd

from odm import sealed
from odm.files import write_text
from odm.training.checkpoint import Row


def text(rows: list[Row]) -> str:
    return pd.DataFrame(rows).to_csv(index=False, float_format="%.6g", lineterminator="\n")


def write(path: Path, rows: list[Row]) -> None:
    write_text(path, text(rows))


def digest(rows: list[Row]) -> str:
    """Of the file that `write` makes of them. The weights beside it carry it: a table has no place for its own."""
    return sealed.digest(text(rows))

"""history.csv: one row each `log_every` steps, no timings in it."""

from pathlib import Path

import pandas as pd

from odm.files import write_text
from odm.training.checkpoint import Row


def write(path: Path, rows: list[Row]) -> None:
    write_text(path, pd.DataFrame(rows).to_csv(index=False, float_format="%.6g", lineterminator="\n"))

"""`odm tensorboard`: what all trainings of the suite have written of themselves, for TensorBoard."""

import io
import json
from pathlib import Path

import pandas as pd

from odm.errors import OdmError
from odm.files import whole
from odm.reporting import events, results
from odm.sealed import DamagedError, read_metadata
from odm.settings.suite import Settings
from odm.training import history


def run(settings: Settings, folder: Path) -> None:
    """Writes <folder>/<suite>/<network or run>/, one event file each, over those that are there."""
    found = {name: _history(settings, name) for name in (*settings.networks, *settings.runs)}
    there = {name: rows for name, rows in found.items() if rows is not None}
    if not there:
        raise OdmError(f"{settings.results}: no history.csv in it yet; `snakemake --cores 8 all` or `odm train` first")
    for name, rows in there.items():
        _write(folder / settings.suite / name / events.NAME, events.encoded(rows))
    print(
        f"{folder / settings.suite}: {len(there)} of {len(found)} trainings; `tensorboard --logdir {folder}` shows them"
    )


def _write(path: Path, content: bytes) -> None:
    """A file that begins so, cut short or of an earlier step, is gone on with: TensorBoard follows a file that grows,
    and does not look again at one that is replaced."""
    before = path.read_bytes() if path.is_file() else b""
    if before and content.startswith(before):
        with path.open("ab") as file:
            file.write(content[len(before) :])
    else:
        with whole(path) as beside:
            beside.write_bytes(content)


def _history(settings: Settings, name: str) -> pd.DataFrame | None:
    """history.csv by step; of a training that has not finished, the rows that its checkpoint holds."""
    finished = results.history(settings, name)
    if finished is not None:
        return finished
    kind = results.folder(settings, name).parent.name
    try:
        rows = read_metadata(Path("checkpoints") / settings.suite / kind / name / "last.safetensors")["history"]
    except (FileNotFoundError, DamagedError):
        return None
    # As they will be in the file, whose digits are fewer.
    return pd.read_csv(io.StringIO(history.text(json.loads(rows))), index_col="step").astype(float)

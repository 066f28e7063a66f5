"""Where the weights that a network's settings name are: a file of the user's, or one of the catalogue, fetched."""

import os
from pathlib import Path

from odm.errors import OdmError, nearest
from odm.files import of_user
from odm.networks.catalogue import READY, Ready
from odm.transfer import FailedError, Source, alone, served, unlike

VARIABLE = "ODM_WEIGHTS"
"""Environment variable that names a folder of weights, searched with its folders before any download."""
DOWNLOADS = Path("downloads") / "weights"


def file_of(weights: str) -> Path:
    """The file that `weights` names, held to its digest if it is one of the catalogue. OdmError if there is none."""
    if weights not in READY:
        path = of_user("weights", weights)
        if not path.exists() and "/" not in weights and not path.suffix:
            raise OdmError(f"weights: '{weights}' is no file and no ready network{nearest(weights, READY)}")
        return path
    entry = READY[weights]
    return _of_user(entry) or _downloaded(weights, entry)


def _of_user(entry: Ready) -> Path | None:
    """The file in the user's folder; others of its name, that are not it, are passed over."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        return None
    root = of_user(VARIABLE, folder)
    if not root.is_dir():
        raise OdmError(f"{VARIABLE}: no folder {folder}; correct it or leave it out")
    found = sorted(root.rglob(entry.file))
    return next((file for file in found if file.is_file() and unlike(entry.source, file) is None), None)


def _downloaded(name: str, entry: Ready) -> Path:
    file = DOWNLOADS / entry.file
    put = f"put {entry.file} into {DOWNLOADS} or the folder that {VARIABLE} names"
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    with alone(name, DOWNLOADS):
        if file.is_file():
            if why := unlike(entry.source, file):
                raise OdmError(f"{file}: {why}; remove it, or put the published file there")
            return file
        if not entry.urls:
            raise OdmError(f"{name}: in no folder that was looked at, and nowhere to download from; {put}")
        print(f"{name}: not found here, so it is downloaded; terms of use: {entry.terms}", flush=True)

        def take(part: Path, source: Source) -> None:
            try:
                part.replace(file)
            except OSError as error:
                raise FailedError(f"cannot be written: {error.strerror or error}") from None

        failures = served(name, [entry.source], lambda _: DOWNLOADS / f"{entry.file}.part", take)
    if failures:
        tried = ", ".join(f"{url} ({why})" for url, why in failures.items())
        raise OdmError(f"{name}: could not be downloaded from {tried}; {put}")
    return file

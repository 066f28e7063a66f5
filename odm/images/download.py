"""Fetching a set's archive and unpacking it."""

import logging
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from odm.errors import OdmError
from odm.images.catalogue import Download

DOWNLOADS = Path("downloads")


def place(name: str) -> Path:
    """Where the images of a downloaded set lie; images put there by hand serve as well."""
    return DOWNLOADS / name / "images"


def fetch(name: str, source: Download, images_in: Callable[[Path], list[Path]]) -> None:
    """Download and unpack a set so that its images lie in `place(name)`; each mirror is tried in turn.

    `images_in` lists the images of a folder.
    """
    target = place(name)
    by_hand = f"put its images into {target}, or name their folder under images.folders.{name}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OdmError(f"{target.parent}: cannot be written: {error.strerror}; {by_hand}") from None
    archive = _retrieve(name, source, by_hand)
    # Unpacked beside its place and renamed, so that a kill leaves nothing that looks complete.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpacking-") as beside:
        unpacked = Path(beside) / "unpacked"
        unpacked.mkdir()
        unpack(archive, unpacked)
        folders = [each for each in (unpacked, *unpacked.rglob("*")) if each.is_dir()]
        holding = [each for each in folders if each.as_posix().endswith(source.inside) and images_in(each)]
        if len(holding) != 1:
            raise OdmError(f"{archive}: {len(holding)} folders with the images of '{name}' instead of one; {by_hand}")
        try:
            holding[0].rename(target)
        except OSError as error:
            if not target.exists():  # the other data step may have unpacked the same set meanwhile
                raise OdmError(f"{target}: cannot be written: {error.strerror}; {by_hand}") from None
    archive.unlink(missing_ok=True)


def _retrieve(name: str, source: Download, by_hand: str) -> Path:
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    failures = []
    for url in source.urls:
        try:
            file = pooch.retrieve(
                url,
                known_hash=source.known_hash,
                fname=url.rsplit("/", 1)[1],
                path=place(name).parent,
                downloader=pooch.HTTPDownloader(timeout=30),
            )
            return Path(file)
        except (OSError, ValueError) as error:  # requests' exceptions are OSErrors; a wrong hash is a ValueError
            failures.append(f"{url} ({_reason(error)})")
    raise OdmError(f"{name}: could not be downloaded from {', '.join(failures)}; {by_hand}")


def _reason(error: Exception) -> str:
    if isinstance(error, ValueError):
        return "its hash is not the known one"
    return type(error).__name__


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar or zip archive; one that would write outside `folder` is refused."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as files:
                for member in files.namelist():
                    if not (folder / member).resolve().is_relative_to(folder.resolve()):
                        raise OdmError(f"{archive}: '{member}' would be written outside its folder; do not use it")
                files.extractall(folder)
        else:
            with tarfile.open(archive) as files:
                files.extractall(folder, filter="data")
    except tarfile.FilterError as error:
        raise OdmError(f"{archive}: {str(error).rstrip('.')}; do not use it") from None
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError):
        raise OdmError(f"{archive}: not a whole archive; remove it and run the step again") from None
    except OSError as error:
        raise OdmError(f"{archive}: cannot be unpacked: {error.strerror or error}") from None

"""Where on this machine the images of a set lie. Only the standard library: both engines ask at every start."""

import os
import re
from fnmatch import fnmatchcase
from pathlib import Path

from odm.errors import OdmError
from odm.files import of_user
from odm.images.catalogue import CATALOGUE, SUFFIXES, Benchmark
from odm.settings.images import Images

ROOT_VARIABLE = "ODM_IMAGES"
"""Environment variable that names a folder of data sets, looked at after `images.root`."""
DOWNLOADS = Path("downloads")


def place(name: str) -> Path:
    """Where the images of a downloaded set lie; images put there by hand serve as well."""
    return DOWNLOADS / name / "images"


def files_of_a_users(name: str, images: Images) -> list[Path] | None:
    """The files of a set that lies where the user says, in natural order; None if it is to be found elsewhere.

    That is in `images.folders`, under `images.root`, under $ODM_IMAGES, or in the place of a download where there is
    none. OdmError if one of these is no folder, or does not hold the whole set.
    """
    if name in images.folders:
        return _images_of_a_set(of_user(f"images.folders.{name}", images.folders[name]), f"images.folders.{name}")
    entry = CATALOGUE.get(name)
    if not isinstance(entry, Benchmark):
        return None
    roots = {"images.root": images.root, ROOT_VARIABLE: os.environ.get(ROOT_VARIABLE)}
    for key, root in roots.items():
        if not root:
            continue
        if not of_user(key, root).is_dir():
            raise OdmError(f"{key}: no folder {root}; correct it or leave it out")
        for layout in entry.layouts:
            folder = of_user(key, root) / layout
            # Set5 may hold just HR and LR folders: only a folder with images of its own is a set.
            if folder.is_dir() and (files := members(folder, entry)):
                return complete(name, folder, files, entry)
    if entry.download is None and place(name).is_dir():
        return complete(name, place(name), members(place(name), entry), entry)
    return None


def members(folder: Path, entry: Benchmark) -> list[Path]:
    """The images of a folder that belong to the set."""
    files = [
        file
        for file in images_in(folder)
        if fnmatchcase(file.stem, entry.only) and not fnmatchcase(file.stem, entry.left_out)
    ]
    if entry.numbers is not None:
        files = [file for file in files if file.stem.isdecimal() and int(file.stem) in entry.numbers]
    return files


def complete(name: str, folder: Path, files: list[Path], entry: Benchmark) -> list[Path]:
    """The files of a published set; OdmError if there are more or fewer than it has."""
    if len(files) != entry.count:
        raise OdmError(
            f"{folder}: {len(files)} images where '{name}' has {entry.count}; complete the folder, "
            f"or give what is there a name of its own under images.folders"
        )
    return files


def _images_of_a_set(folder: Path, key: str) -> list[Path]:
    if not folder.is_dir():
        raise OdmError(f"{key}: no folder {folder}; correct it, or put the images there")
    files = images_in(folder)
    if not files:
        raise OdmError(f"{key}: no images in {folder} ({', '.join(sorted(SUFFIXES))}); put some there")
    return files


def images_in(folder: Path) -> list[Path]:
    """Image files directly in a folder, in natural order: 2 before 10, whatever the file system says."""
    try:
        files = [each for each in folder.iterdir() if each.suffix.lower() in SUFFIXES and each.name[0] != "."]
    except OSError as error:
        raise OdmError(f"{folder}: cannot be read: {error.strerror}") from None
    return sorted(files, key=_natural)


def _natural(file: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.findall(r"\d+|\D+", file.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], file.name

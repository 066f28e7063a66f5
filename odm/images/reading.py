"""From the name of a set to its images."""

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from odm.errors import OdmError
from odm.files import of_user
from odm.images import download
from odm.images.catalogue import CATALOGUE, SUFFIXES, Benchmark, Packaged
from odm.images.digest import digest
from odm.settings.images import Images

ROOT_VARIABLE = "ODM_IMAGES"
"""Environment variable that names a folder of data sets, looked at after `images.root`."""

SMALLEST_LR_SIDE = 8


def signature(image: NDArray[np.uint8]) -> str:
    """Size and pixels of one image, in one line."""
    return f"{image.shape[1]}x{image.shape[0]} {digest(image)}"


def set_digest(signatures: Iterable[str]) -> str:
    """SHA-256 over the sorted signatures of a set's images: whatever they are called, and in whichever order."""
    return hashlib.sha256("\n".join(sorted(signatures)).encode()).hexdigest()


def read_set(name: str, images: Images) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Name and pixels, (H, W, 3) or for grey ones (H, W), of every image of a set, in natural order of names.

    A set is looked for in `images.folders`, inside its package, under `images.root`, under $ODM_IMAGES, among earlier
    downloads, and then downloaded. OdmError if it is nowhere, is not whole, or an image is damaged or too small; and,
    after its last image, if a published set has not the pixels it is known by (a printed note instead, where the user
    named its folder).
    """
    smallest = SMALLEST_LR_SIDE * max(images.scales)
    pins: dict[str, str] = {}
    entry = CATALOGUE.get(name)
    if name not in images.folders and isinstance(entry, Packaged):
        files, pins = _packaged(name, entry)
    else:
        files = _in_folders(name, images)
    published = entry if isinstance(entry, Benchmark) else None
    signatures: list[str] = []
    taken: dict[str, Path] = {}
    for file in files:
        if file.stem in taken:
            raise OdmError(f"{file}: has the same name as {taken[file.stem].name}; rename one of them")
        taken[file.stem] = file
        image = _as_published(read_image(file), published)
        if published:
            signatures.append(signature(image))
        if pins and digest(image) != pins[file.name]:
            raise OdmError(
                f"{file}: not the pixels of the set '{name}'; install another version of scikit-image or pillow"
            )
        if min(image.shape[:2]) < smallest:
            size = f"{image.shape[1]}x{image.shape[0]}"
            raise OdmError(
                f"{file}: {size} is too small for x{max(images.scales)}; take out what is under {smallest} a side"
            )
        yield file.stem, image
    if published and (trouble := _other_pixels(name, published, signatures)):
        if name not in images.folders:
            raise OdmError(
                f"{files[0].parent}: {trouble}; put the published images there, "
                f"or give what is there a name of its own under images.folders"
            )
        print(f"note: images.folders.{name}: {trouble}; do not compare its scores with published ones", flush=True)


def _as_published(image: NDArray[np.uint8], entry: Benchmark | None) -> NDArray[np.uint8]:
    """A grey image with one channel or three, as the published set has it: copies differ in that, and so do scores."""
    if entry is None or entry.pixels is None:
        return image
    if image.ndim == 3:
        if (image != image[..., :1]).any():
            return image
        image = np.ascontiguousarray(image[..., 0])
    return image if digest(image) in entry.greys else np.repeat(image[..., None], 3, axis=2)


def _other_pixels(name: str, entry: Benchmark, signatures: list[str]) -> str | None:
    """What is wrong with a set of these images, if it is not the published one."""
    if len(signatures) != entry.count:
        return f"{len(signatures)} images where '{name}' has {entry.count}"
    if entry.pixels is None or set_digest(signatures) == entry.pixels:
        return None
    sides = {int(side) for each in signatures for side in each.split()[0].split("x")}
    # Scripts of some repositories crop test images so that any scale divides them; that changes every score.
    is_cropped = all(side % 12 == 0 for side in sides)
    hint = ": all sides are multiples of 12, so they seem to be cropped" if is_cropped else ""
    return f"its images have not the pixels of the published '{name}'{hint}"


def _wrong(name: str, entry: Benchmark, folder: Path) -> str | None:
    """What is wrong with a downloaded folder of images, if anything is."""
    signatures = []
    for file in _members(folder, entry):
        if entry.pixels is None:
            signatures.append(file.stem)
            continue
        try:
            signatures.append(signature(_as_published(read_image(file), entry)))
        except OdmError:
            return f"'{file.name}' is damaged, or not an image"
    return _other_pixels(name, entry, signatures)


def _packaged(name: str, entry: Packaged) -> tuple[list[Path], dict[str, str]]:
    """Files of a set inside an installed package, found without importing it, and the hash of each."""
    spec = importlib.util.find_spec(entry.package)
    if spec is None or not spec.submodule_search_locations:
        raise OdmError(f"{name}: its images come inside {entry.distribution}, which is not installed; install it")
    folder = Path(spec.submodule_search_locations[0]) / entry.folder
    files = [folder / image.file for image in entry.images]
    for file in files:
        if not file.is_file():
            version = importlib.metadata.version(entry.distribution)
            raise OdmError(f"{file}: not in {entry.distribution} {version}; install another version of it")
    return files, {image.file: image.sha256 for image in entry.images}


def _in_folders(name: str, images: Images) -> list[Path]:
    """Files of a set that lies in a folder; the folder is looked for, and if need be downloaded."""
    if name in images.folders:
        return _images_of_a_set(of_user(f"images.folders.{name}", images.folders[name]), f"images.folders.{name}")
    entry = CATALOGUE.get(name)
    if not isinstance(entry, Benchmark):
        raise OdmError(f"images: no set is called '{name}'; name its folder under images.folders.{name}")
    roots = {"images.root": images.root, ROOT_VARIABLE: os.environ.get(ROOT_VARIABLE)}
    for key, root in roots.items():
        if not root:
            continue
        place = of_user(key, root)
        if not place.is_dir():
            raise OdmError(f"{key}: no folder {root}; correct it or leave it out")
        for layout in entry.layouts:
            folder = place / layout
            # Set5 may hold just HR and LR folders: only a folder with images of its own is a set.
            if folder.is_dir() and (files := _members(folder, entry)):
                return _complete(name, folder, files, entry)
    folder = download.place(name)
    if not folder.is_dir():
        if entry.download is None:
            where = f"put its {entry.count} images into {folder}, or name their folder under images.folders.{name}"
            raise OdmError(f"{name}: in no folder that was looked at, and nowhere to download from; {where}")
        download.fetch(name, entry, lambda unpacked: _wrong(name, entry, unpacked))
    return _complete(name, folder, _members(folder, entry), entry)


def _members(folder: Path, entry: Benchmark) -> list[Path]:
    """The images of a folder that belong to the set."""
    files = [file for file in images_in(folder) if file.stem not in entry.left_out]
    if entry.numbers is not None:
        files = [file for file in files if file.stem.isdecimal() and int(file.stem) in entry.numbers]
    return files


def _complete(name: str, folder: Path, files: list[Path], entry: Benchmark) -> list[Path]:
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


def read_image(file: Path) -> NDArray[np.uint8]:
    """Decode one image file to uint8: (H, W) if it is grey, (H, W, 3) otherwise.

    16-bit grey is scaled to 8 bits, a palette resolved, an alpha channel dropped where it is opaque throughout.
    """
    try:
        with Image.open(file) as opened:
            opened.load()
            image: Image.Image = opened.copy()
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        # OSError without a number is PIL's word for damage; with one, the system's.
        system = isinstance(error, OSError) and error.strerror
        trouble = system or "damaged, or not an image"
        raise OdmError(f"{file}: cannot be read: {trouble}; replace it or take it out") from None
    if image.mode == "F":
        raise OdmError(f"{file}: floating-point pixels; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        return ((np.clip(wide, 0, 65535) * 255 + 32767) // 65535).astype(np.uint8)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if np.asarray(rgba)[..., 3].min() < 255:
            raise OdmError(f"{file}: has transparent pixels; save it without transparency")
    is_grey = image.mode in ("1", "L", "LA")
    return np.asarray(image.convert("L" if is_grey else "RGB"))

"""From the name of a set to its images."""

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from odm.errors import OdmError
from odm.images import download
from odm.images.catalogue import CATALOGUE, Benchmark, Packaged
from odm.images.decode import read_image
from odm.images.digest import digest
from odm.images.folders import complete, files_of_a_users, members, place
from odm.names import shown
from odm.settings.images import Images

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
        image_name = shown(file.stem)  # it goes into headers, tables and figures
        if image_name in taken:
            raise OdmError(f"{file}: has the same name as {taken[image_name].name}; rename one of them")
        taken[image_name] = file
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
        yield image_name, image
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
    for file in members(folder, entry):
        if entry.pixels is None:
            signatures.append(file.stem)
            continue
        try:
            signatures.append(signature(_as_published(read_image(file), entry)))
        except OdmError:
            return f"'{file.name}' is no image that can be read"
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
    if (files := files_of_a_users(name, images)) is not None:
        return files
    entry = CATALOGUE.get(name)
    if not isinstance(entry, Benchmark):
        raise OdmError(f"images: no set is called '{name}'; name its folder under images.folders.{name}")
    folder = place(name)
    if entry.download is None:
        where = f"put its {entry.count} images into {folder}, or name their folder under images.folders.{name}"
        raise OdmError(f"{name}: in no folder that was looked at, and nowhere to download from; {where}")
    if not folder.is_dir():
        download.fetch(name, entry, lambda unpacked: _wrong(name, entry, unpacked))
    return complete(name, folder, members(folder, entry), entry)

"""`odm data <split>`: the images of a split, decoded, shrunk and gathered in one file."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from odm.errors import OdmError
from odm.images.digest import digest
from odm.images.prepare import write
from odm.images.prepared import Prepared
from odm.images.reading import read_set
from odm.settings.images import Images
from odm.settings.suite import Settings

SPLITS = ("train", "test")


def run(settings: Settings, split: str) -> None:
    """Write results/<suite>/data/<split>.safetensors; `split` is `train` or `test`."""
    if split not in SPLITS:
        raise OdmError(f"odm data: no split '{split}'; there are: {', '.join(SPLITS)}")
    images = settings.images
    folder = settings.results / "data"
    other = _trained(images) if split == "test" else _tested(images, folder / "test.safetensors")
    sets = {each: _apart(each, split, images, other) for each in getattr(images, split)}
    path = folder / f"{split}.safetensors"
    write(path, sets, images.scales)
    # Read back and compared, so that a failing disk shows here and not in a training run.
    prepared = Prepared(path, check=True)
    pixels = sum(np.prod(prepared.hr(index).shape[:2]) for index in range(len(prepared.images)))
    scales = ", ".join(f"x{scale}" for scale in sorted(set(images.scales)))
    print(f"{split}: {len(prepared.images)} images, {pixels / 1e6:.1f} megapixels, {scales}: {path}")


def _trained(images: Images) -> dict[str, str]:
    """The training images by digest, read anew: their file may not be there yet."""
    return {digest(image): f"'{name}' of '{each}'" for each in images.train for name, image in read_set(each, images)}


def _tested(images: Images, path: Path) -> dict[str, str]:
    """The test images by digest, as far as they are prepared: later ones are compared when they are."""
    if not path.exists():
        return {}
    found = Prepared(path).by_digest().items()
    return {key: f"'{name}' of '{each}'" for key, (each, name) in found if each in images.test}


def _apart(name: str, split: str, images: Images, other: Mapping[str, str]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """The images of a set; OdmError at one whose pixels are those of an image of the other split."""
    for image_name, image in read_set(name, images):
        if (also := other.get(digest(image))) is not None:
            this = f"'{image_name}' of '{name}'"
            tested, trained = (this, also) if split == "test" else (also, this)
            raise OdmError(f"images.test: {tested} is also trained on, as {trained}; take it out of one")
        yield image_name, image

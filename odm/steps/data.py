"""`odm data <split>`: the images of a split, decoded, shrunk and gathered in one file."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from odm.errors import OdmError
from odm.images.alike import Looks, identity, look
from odm.images.prepare import write
from odm.images.prepared import Prepared, crop
from odm.images.reading import read_set
from odm.settings.images import Images
from odm.settings.suite import Settings

Pixels = NDArray[np.uint8]

SPLITS = ("train", "test")
MOST_WARNINGS = 20


def run(settings: Settings, split: str) -> None:
    """Write results/<suite>/data/<split>.safetensors; `split` is `train` or `test`."""
    if split not in SPLITS:
        raise OdmError(f"odm data: no split '{split}'; there are: {', '.join(SPLITS)}")
    images = settings.images
    folder = settings.results / "data"
    other = Other(_trained(images) if split == "test" else _tested(images, folder / "test.safetensors"))
    sets = {each: _apart(each, split, images, other) for each in getattr(images, split)}
    path = folder / f"{split}.safetensors"
    write(path, sets, images.scales)
    # Read back and compared, so that a failing disk shows here and not in a training run.
    prepared = Prepared(path, check=True)
    pixels = sum(np.prod(prepared.hr(index).shape[:2]) for index in range(len(prepared.images)))
    scales = ", ".join(f"x{scale}" for scale in sorted(set(images.scales)))
    for warning in other.warnings():
        print(warning)
    print(f"{split}: {len(prepared.images)} images, {pixels / 1e6:.1f} megapixels, {scales}: {path}")


class Other:
    """The images of the other split, by their pixels and by how they look."""

    def __init__(self, images: Iterator[tuple[str, Pixels]]) -> None:
        self.by_identity: dict[str, str] = {}
        looks = []
        for name, image in images:
            self.by_identity[identity(image)] = name
            looks.append((name, look(image)))
        self.looks = Looks(looks)
        self.near: list[tuple[str, str]] = []

    def equal(self, image: Pixels) -> str | None:
        return self.by_identity.get(identity(image))

    def note_near(self, this: str, image: Pixels, split: str) -> None:
        if also := self.looks.nearest(image):
            self.near.append((this, also) if split == "test" else (also, this))

    def warnings(self) -> Iterator[str]:
        for tested, trained in self.near[:MOST_WARNINGS]:
            yield (
                f"warning: images.test: {tested} looks like {trained}, which is trained on; "
                f"if one is a copy of the other (turned, resized, compressed anew), take it out"
            )
        if len(self.near) > MOST_WARNINGS:
            yield f"warning: images.test: {len(self.near) - MOST_WARNINGS} more look like one that is trained on"


def _called(name: str, of_set: str) -> str:
    return f"'{name}' of '{of_set}'"


def _trained(images: Images) -> Iterator[tuple[str, Pixels]]:
    """The training images, read anew: their file may not be there yet."""
    for each in images.train:
        yield from ((_called(name, each), image) for name, image in read_set(each, images))


def _tested(images: Images, path: Path) -> Iterator[tuple[str, Pixels]]:
    """The test images, as far as they are prepared: later ones are compared when they are."""
    if path.exists():
        prepared = Prepared(path)
        for index, (each, name) in enumerate(prepared.images):
            if each in images.test:
                yield _called(name, each), prepared.hr(index)


def _apart(name: str, split: str, images: Images, other: Other) -> Iterator[tuple[str, Pixels]]:
    """The images of a set; OdmError at one whose pixels are those of an image of the other split, and at a test image
    that cannot be scored."""
    for image_name, image in read_set(name, images):
        this = _called(image_name, name)
        if also := other.equal(image):
            tested, trained = (this, also) if split == "test" else (also, this)
            raise OdmError(f"images.test: {tested} is also trained on, as {trained}; take it out of one")
        if split == "test" and (scale := _unscorable(image, images.scales)):
            raise OdmError(
                f"images.test: {this} is of one colour where it is scored at x{scale} ({scale} pixels are cut off each "
                f"side): any network has an infinite PSNR; take it out"
            )
        other.note_near(this, image, split)
        yield image_name, image


def _unscorable(image: Pixels, scales: Sequence[int]) -> int | None:
    """A scale at which all scored pixels of an image are equal, if there is one."""
    for scale in scales:
        scored = crop(image, scale)[scale:-scale, scale:-scale]
        if (scored == scored[:1, :1]).all():  # also where nothing is left
            return scale
    return None

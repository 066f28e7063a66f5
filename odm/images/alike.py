"""Whether two images are one photograph: of equal pixels, or so like each other that one is likely a copy."""

import hashlib
from collections.abc import Iterable

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

BITS = 64
NEAR = 8
"""Bits of a perceptual hash in which a copy may differ; those of two photographs differ in 32, give or take 4."""


def identity(image: Pixels) -> str:
    """Of size and pixels, (H, W, 3) or (H, W): a grey image and the colour one of equal channels have the same."""
    if image.ndim == 3 and (image == image[..., :1]).all():
        image = image[..., 0]
    return f"{image.shape} {hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()}"


def look(image: Pixels) -> NDArray[np.float32]:
    """Perceptual hash (DCT of a thumbnail) of an image as it stands, (1, 64), its bits as +1 and -1."""
    return _hashes([_thumbnail(image)])


def turned_looks(image: Pixels) -> NDArray[np.float32]:
    """Those of an image upright, turned and mirrored, (8, 64)."""
    upright = _thumbnail(image)
    return _hashes([upright, *(upright.transpose(each) for each in Image.Transpose)])


def _thumbnail(image: Pixels) -> Image.Image:
    return Image.fromarray(image).convert("L").resize((64, 64), Image.Resampling.BOX)


def _hashes(thumbnails: Iterable[Image.Image]) -> NDArray[np.float32]:
    hashes = [imagehash.phash(each).hash.ravel() for each in thumbnails]
    return np.where(np.stack(hashes), 1, -1).astype(np.float32)


class Looks:
    """Images by what they are called and how they look, to find the one that another is likely a copy of."""

    def __init__(self, images: Iterable[tuple[str, NDArray[np.float32]]]) -> None:
        named = list(images)
        self.names = [name for name, _ in named]
        self.looks = np.concatenate([np.zeros((0, BITS), np.float32), *(look for _, look in named)])

    def nearest(self, image: Pixels) -> str | None:
        """What the image is called that lies nearest to any turn of this one, if it is near."""
        if not self.names:
            return None
        differ = ((BITS - self.looks @ turned_looks(image).T) / 2).min(1)
        place = int(differ.argmin())
        return self.names[place] if differ[place] <= NEAR else None

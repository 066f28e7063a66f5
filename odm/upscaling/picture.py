"""What a writer of image files is told before the pixels come, and the pixels in equal parts."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from odm.images.decode import Samples


@dataclass(frozen=True)
class Picture:
    """Size and kind of the image that the bands of `tiles.bands` are of."""

    width: int
    height: int
    channels: int
    """1 or 3 of colour, one more with alpha."""
    bits: int
    icc: bytes | None
    exif: Image.Exif | None

    @property
    def has_alpha(self) -> bool:
        return self.channels in (2, 4)

    @property
    def is_grey(self) -> bool:
        return self.channels < 3


def by_rows(bands: Iterable[Samples], count: int) -> Iterator[Samples]:
    """The same rows, so many at a time, the last ones fewer."""
    left: list[Samples] = []
    for band in bands:
        left.append(band)
        if sum(map(len, left)) < count:
            continue
        rows = np.concatenate(left)
        ready = len(rows) - len(rows) % count
        yield from np.split(rows[:ready], ready // count)
        left = [rows[ready:]]
    rest = np.concatenate(left)
    if len(rest):
        yield rest

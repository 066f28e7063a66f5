"""PNG, written as its pixels come: grey or RGB, with alpha or without, of 8 or 16 bits a sample.

By the specification (PNG, third edition); Pillow writes no colour of 16 bits, and wants an image whole.
"""

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from odm.images.decode import Samples
from odm.upscaling.picture import Picture, by_rows

ROWS = 64
LEVEL = 6
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPE = {1: 0, 2: 4, 3: 2, 4: 6}
_EXIF_PREFIX = b"Exif\0\0"


def write(path: Path, picture: Picture, bands: Iterable[Samples]) -> None:
    """Write the bands of an image, (rows, width, channels), as one file."""
    with path.open("wb") as file:
        file.write(_SIGNATURE)
        kind = _COLOUR_TYPE[picture.channels]
        _chunk(file, b"IHDR", struct.pack(">IIBBBBB", picture.width, picture.height, picture.bits, kind, 0, 0, 0))
        if picture.icc:
            _chunk(file, b"iCCP", b"ICC profile\0\0" + zlib.compress(picture.icc))
        if picture.exif:
            _chunk(file, b"eXIf", picture.exif.tobytes().removeprefix(_EXIF_PREFIX))
        compressor = zlib.compressobj(LEVEL)
        step = picture.channels * picture.bits // 8
        above = np.zeros((1, picture.width * step), np.uint8)
        for rows in by_rows(bands, ROWS):
            raw = rows.reshape(len(rows), -1)
            if picture.bits == 16:
                raw = raw.astype(">u2").view(np.uint8)
            filtered = _filtered(raw, np.concatenate([above, raw[:-1]]), step)
            above = raw[-1:]
            _chunk(file, b"IDAT", compressor.compress(filtered.tobytes()))
        _chunk(file, b"IDAT", compressor.flush())
        _chunk(file, b"IEND", b"")


def _chunk(file: BinaryIO, name: bytes, content: bytes) -> None:
    if content or name == b"IEND":
        file.write(struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content)))


def _filtered(raw: NDArray[np.uint8], above: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Rows of bytes, each behind the number of its filter: of Sub, Up, Average and Paeth the one whose differences are
    the smallest, as the specification advises."""
    up = above.astype(np.int16)
    left, corner = (np.pad(each, ((0, 0), (step, 0)))[:, :-step] for each in (raw.astype(np.int16), up))
    estimate = left + up - corner
    by_left, by_up, by_corner = (np.abs(estimate - each) for each in (left, up, corner))
    paeth = np.where((by_left <= by_up) & (by_left <= by_corner), left, np.where(by_up <= by_corner, up, corner))
    made = [(raw - guess).astype(np.uint8) for guess in (left, up, (left + up) // 2, paeth)]
    cost = [np.abs(each.view(np.int8).astype(np.int16)).sum(1, dtype=np.int64) for each in made]
    best = np.argmin(cost, 0)
    chosen = np.choose(best[:, None], made)
    return np.concatenate([(best[:, None] + 1).astype(np.uint8), chosen], 1)

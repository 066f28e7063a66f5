"""A photograph in pieces of one size, each with as much around it as counts, so that memory is that of a piece.

Kernels are chosen by the size of what goes in, and the order in which they add up decides the last bits. With one size
for all pieces of an image, a pixel comes out the same wherever the cuts are.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from odm.errors import OdmError
from odm.images.decode import Samples, is_opaque
from odm.upscaling.enlarger import Enlarger, Values

OUTPUT_SIDE = 1024
"""Of a piece with its surroundings: what it takes is decided by the layers behind the upsampler."""
GRAIN = 8
SMALLEST = 96
"""Side of a piece: torch takes other kernels for less than 20480 numbers, whose sums depend on where a pixel lies."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Of BT.601, which makes one grey of the three that a network gives back."""
AROUND_ALPHA = 1
"""Pixels to each side that say whether alpha is opaque or transparent throughout, and stays so."""


@dataclass(frozen=True)
class Cut:
    """One piece along a side: `start` to `stop` go in, `first` to `end` are what is taken of it."""

    start: int
    stop: int
    first: int
    end: int


def window_of(enlarger: Enlarger) -> int:
    """Side of the pieces that an enlarger is given, in pixels of its input, surroundings included.

    As large as gives pieces of one size at every scale, unless so much counts around them that little would be left.
    """
    side = max(OUTPUT_SIDE // enlarger.scale, 4 * (enlarger.halo or 0))
    grain = np.lcm(GRAIN, enlarger.multiple)
    return int(-(-side // grain) * grain)


def checked(window: int, enlarger: Enlarger) -> int:
    """A window that a user wants. OdmError if it is none for this enlarger."""
    least = max(SMALLEST, 2 * max(enlarger.halo or 0, AROUND_ALPHA) + enlarger.multiple)
    if window < least or window % enlarger.multiple:
        raise OdmError(
            f"--window: {window}: pieces must be of {least} pixels at least, and of a multiple of {enlarger.multiple}; "
            f"{window_of(enlarger)} is usual for this network"
        )
    return window


def cuts(side: int, window: int, enlarger: Enlarger) -> list[Cut]:
    """A side in pieces of `window` pixels, or whole if it is no longer than one, or if all of it counts everywhere.

    The last piece ends with the side, filled up to the enlarger's multiple, and so overlaps more.
    """
    multiple = enlarger.multiple
    filled = -(-side // multiple) * multiple
    if enlarger.halo is None or filled <= window:
        return [Cut(0, side, 0, side)]
    halo = max(enlarger.halo, AROUND_ALPHA)
    step = (window - 2 * halo) // multiple * multiple
    starts = [*range(0, filled - window, step), filled - window]
    ends = [start + window - halo for start in starts[:-1]] + [side]
    stops = [min(start + window, side) for start in starts]
    return [Cut(*each) for each in zip(starts, stops, [0, *ends[:-1]], ends, strict=True)]


def pieces(shape: tuple[int, ...], window: int, enlarger: Enlarger) -> tuple[list[Cut], list[Cut]]:
    """Of an image of shape (H, W, ...): its rows and its columns. Of a narrow one pieces are as much longer, since what
    kernels are chosen by is how much goes in."""

    def along(side: int, across: int) -> list[Cut]:
        length = window * window // min(window, across)
        return cuts(side, length - length % enlarger.multiple, enlarger)

    return along(shape[0], shape[1]), along(shape[1], shape[0])


def bands(
    colour: Samples,
    alpha: Samples | None,
    enlarger: Enlarger,
    rows: Sequence[Cut],
    columns: Sequence[Cut],
    done: Callable[[], None] = lambda: None,
) -> Iterator[Samples]:
    """An image, enlarged, in bands from top to bottom: (rows, scale W, channels), in the depth of the image.

    `colour` is (H, W) or (H, W, 3), `alpha` (H, W), both uint8 or uint16; channels are those of the two. Grey goes
    through as three equal colours, of whose output the luma is taken. With alpha, colours are multiplied by it before
    and divided after, and alpha goes through as a grey image of its own: so that what is transparent colours nothing,
    and both have the same edges. `done` is called after each piece.
    """
    scale, width = enlarger.scale, colour.shape[1]
    channels = (1 if colour.ndim == 2 else 3) + (alpha is not None)
    for row in rows:
        band = np.empty(((row.end - row.first) * scale, width * scale, channels), colour.dtype)
        for column in columns:
            piece = np.s_[row.start : row.stop, column.start : column.stop]
            inner = np.s_[
                (row.first - row.start) * scale : (row.end - row.start) * scale,
                (column.first - column.start) * scale : (column.end - column.start) * scale,
            ]
            enlarged = _piece(colour[piece], None if alpha is None else alpha[piece], enlarger)
            band[:, column.first * scale : column.end * scale] = enlarged[inner]
            done()
        yield band


def _piece(colour: Samples, alpha: Samples | None, enlarger: Enlarger) -> Samples:
    """(scale H, scale W, channels) of one piece."""
    white = np.float32(np.iinfo(colour.dtype).max / 255)
    values = _three(colour.astype(np.float32) / white)
    if alpha is None or is_opaque(alpha):
        enlarged = _as_many(enlarger(values), colour)
        parts = [enlarged] if alpha is None else [enlarged, np.full_like(enlarged[..., :1], 255)]
    else:
        opacity = _opacity(alpha, enlarger)
        enlarged = _as_many(enlarger(values * (alpha.astype(np.float32) / (255 * white))[..., None]), colour)
        colours = np.divide(enlarged, opacity, out=np.zeros_like(enlarged), where=opacity > 0)
        parts = [colours, 255 * opacity]
    return np.rint(np.concatenate(parts, -1).clip(0, 255) * white).astype(colour.dtype)


def _opacity(alpha: Samples, enlarger: Enlarger) -> Values:
    """Alpha, enlarged, in 0-1: (scale H, scale W, 1). Where all around a pixel is opaque, or transparent, it stays so
    exactly, which a network only comes near to."""
    most = np.iinfo(alpha.dtype).max
    enlarged = _luma(enlarger(_three(alpha.astype(np.float32) / np.float32(most / 255)))) / 255
    size = 2 * AROUND_ALPHA + 1
    for solid, value in (
        (ndimage.minimum_filter(alpha, size, mode="nearest") == most, 1),
        (ndimage.maximum_filter(alpha, size, mode="nearest") == 0, 0),
    ):
        enlarged[solid.repeat(enlarger.scale, 0).repeat(enlarger.scale, 1)] = value
    return enlarged.clip(0, 1)


def _three(values: Values) -> Values:
    """(H, W, 3) of grey or colour."""
    return values if values.ndim == 3 else values[..., None].repeat(3, -1)


def _as_many(enlarged: Values, colour: Samples) -> Values:
    """As many channels as there were before."""
    return enlarged if colour.ndim == 3 else _luma(enlarged)


def _luma(values: Values) -> Values:
    red, green, blue = (values[..., each, None] * LUMA[each] for each in range(3))
    return red + green + blue

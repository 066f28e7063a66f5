"""MATLAB's bicubic `imresize`, to the pixel: no kept library has its mirrored borders and its rounding."""

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def imresize(image: NDArray[np.uint8], scale: Fraction | float) -> NDArray[np.uint8]:
    """Resize a uint8 image (H, W) or (H, W, C) by `scale` (1/2 halves, 2 doubles) to ceil(scale * size).

    Rows (the vertical direction) first, then columns; rounded and clipped to uint8 after each pass, as MATLAB does
    for uint8 input. A floating-point intermediate, as in most ports, changes 10-15% of the pixels.
    """
    if image.dtype != np.uint8:
        raise TypeError(f"imresize takes uint8 images, not {image.dtype}")
    exact = Fraction(scale).limit_denominator(1 << 16)
    rows = _resize_first_axis(image, exact)
    return np.ascontiguousarray(_resize_first_axis(rows.swapaxes(0, 1), exact).swapaxes(0, 1))


def _resize_first_axis(image: NDArray[np.uint8], scale: Fraction) -> NDArray[np.uint8]:
    indices, weights = _taps(image.shape[0], scale)
    source = image.astype(np.float64, order="C")
    shape = (-1,) + (1,) * (image.ndim - 1)
    total = np.zeros((indices.shape[1], *image.shape[1:]))
    # One gather and one multiply a tap: each output is a sum of few inputs, and its order is the same on any machine.
    for index, weight in zip(indices, weights, strict=True):
        tap = source[index]
        tap *= weight.reshape(shape)
        total += tap
    total += 0.5
    np.floor(total, out=total)
    return np.clip(total, 0, 255, out=total).astype(np.uint8)


@lru_cache(maxsize=256)
def _taps(size: int, scale: Fraction) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Which inputs make each output and how much each counts: indices and weights, both (taps, outputs)."""
    outputs = math.ceil(scale * size)
    ratio = float(scale)
    # Shrinking widens the kernel, which is what keeps the result free of aliases.
    shrink = min(ratio, 1.0)
    width = 4 / shrink
    # Centres of the outputs in the input's coordinates, the first pixel at 0.
    centres = (np.arange(outputs) + 0.5) / ratio - 0.5
    first = np.floor(centres - width / 2)
    positions = first + np.arange(math.ceil(width) + 2)[:, None]
    weights = shrink * _cubic(shrink * (centres - positions))
    weights /= weights.sum(axis=0)
    # Mirrored with the edge pixel repeated: 2 1 0 | 0 1 2 ... n-1 | n-1 n-2 ...
    folded = positions.astype(np.intp) % (2 * size)
    indices = np.where(folded < size, folded, 2 * size - 1 - folded)
    used = weights.any(axis=1)
    return indices[used], weights[used]


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -0.5 (Keys 1981, eq. 15)."""
    x = np.abs(x)
    inner = (1.5 * x - 2.5) * x * x + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, inner, np.where(x <= 2, outer, 0.0))

"""The luma that super-resolution is scored on."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def luma(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """Y of BT.601 in studio range (16-235) from R'G'B' in 0-255, shape (H, W, 3); not rounded.

    MATLAB's rgb2ycbcr rounds for uint8 input; the field converts in floating point, which the published
    figures need (32.47 dB becomes 32.45 with a rounded Y).
    """
    red, green, blue = np.moveaxis(np.asarray(rgb, np.float64), -1, 0)
    return np.asarray(16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255)


def grey(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """Grey in full range (0-255) from R'G'B' in 0-255: equal channels come back as they are."""
    return (luma(rgb) - 16) * (255 / 219)

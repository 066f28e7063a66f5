"""The images by which ranges are measured: photographs that come inside an installed package, and noise."""

from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from odm import seeds
from odm.images.imresize import imresize
from odm.images.prepared import crop
from odm.images.reading import read_set
from odm.settings.images import Images

SET = "skimage_train"
SIDE = 96
"""Of the middle of a photograph, in low-resolution pixels."""


def photographs(scale: int, multiple: int) -> list[Tensor]:
    """Low-resolution images of shape (1, 3, H, W) in 0-255: the same everywhere, so that an export gives the same."""
    images = Images(train=[SET], test=[SET], scales=[scale])  # type: ignore[list-item]
    side = _side(multiple)
    found = []
    for _, pixels in read_set(SET, images):
        high = crop(pixels, scale)
        top, left = (max(0, (each - side * scale) // 2) for each in high.shape[:2])
        low = imresize(high[top : top + side * scale, left : left + side * scale], Fraction(1, scale))
        rgb = np.repeat(low[:, :, None], 3, axis=2) if low.ndim == 2 else low
        rgb = rgb[: rgb.shape[0] // multiple * multiple, : rgb.shape[1] // multiple * multiple]
        found.append(torch.tensor(rgb, dtype=torch.float32).permute(2, 0, 1)[None])
    return found


def measuring_images(scale: int, multiple: int) -> list[Tensor]:
    """These, and the most that an image can ask for: noise of all values and of two."""
    side = _side(multiple)
    generator = torch.Generator().manual_seed(seeds.named(0, "noise"))
    noise = torch.randint(0, 256, (1, 3, side, side), generator=generator).float()
    return [*photographs(scale, multiple), noise, (noise > 127) * 255.0]


def _side(multiple: int) -> int:
    return max(1, SIDE // multiple) * multiple

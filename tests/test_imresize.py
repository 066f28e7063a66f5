from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odm.images.decode import read_image
from odm.images.folders import images_in
from odm.images.imresize import imresize

HALF = Fraction(1, 2)


def column(*values: int) -> np.ndarray:
    """A picture one pixel wide: its width stays as it is when halved."""
    return np.array(values, np.uint8)[:, None]


def test_a_step_halved_by_hand() -> None:
    # Output k is centred between inputs 2k and 2k + 1; inputs 0.5, 1.5, 2.5, 3.5 away from a centre count
    # 111, 29, -9, -3 in 256 (the kernel at half the distance, halved). So the share of the bright side is
    # -3, 29 - 9 - 3 = 17, 256 - 17 and 256 + 3 in 256; times 255: -3.0, 16.9, 238.1, 258.0.
    assert imresize(column(0, 0, 0, 0, 255, 255, 255, 255), HALF)[:, 0].tolist() == [0, 17, 238, 255]


def test_borders_mirror_with_the_edge_pixel_repeated() -> None:
    # Seen from output 0, input 0 also stands 1.5 to the left: (111 + 29) / 256 of it. From output 1 it is 2.5 away,
    # and 3.5 again as its own mirror image.
    assert imresize(column(64, 0, 0, 0, 0, 0, 0, 0), HALF)[:, 0].tolist() == [35, 0, 0, 0]
    bright = 255 - imresize(column(191, 255, 255, 255, 255, 255, 255, 255), HALF)[:, 0].astype(int)
    assert bright.tolist() == [35, 0, 0, 0]


def test_halves_round_up() -> None:
    # 128 at distance 1.5: 128 * 29 / 256 = 14.5, which rounding to even would make 14.
    assert imresize(column(0, 0, 0, 0, 128, 0, 0, 0), HALF)[1, 0] == 15


def test_doubling_by_hand() -> None:
    # Outputs lie a quarter pixel from an input; distances 1.25, 0.25, 0.75, 1.75 count -9, 111, 29, -3 in 128.
    assert imresize(column(0, 0, 128, 0, 0), 2)[:, 0].tolist() == [0, 0, 0, 29, 111, 111, 29, 0, 0, 0]


@pytest.mark.parametrize("scale", [HALF, Fraction(1, 3), Fraction(1, 4)])
def test_rows_first_with_bytes_in_between(scale: Fraction) -> None:
    image = np.random.default_rng(1).integers(0, 256, (24, 36), np.uint8)
    rows = np.hstack([imresize(image[:, [x]], scale) for x in range(image.shape[1])])
    both = np.hstack([imresize(rows[[y]].T, scale) for y in range(rows.shape[0])]).T
    assert np.array_equal(imresize(image, scale), both)
    assert not np.array_equal(imresize(image.T, scale).T, both)


@given(
    value=st.integers(0, 255),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    scale=st.sampled_from([HALF, Fraction(1, 3), Fraction(1, 4), 2, 3, 4, 0.5, 1 / 3]),
)
def test_flat_stays_flat_and_sizes_round_up(value: int, size: tuple[int, int], scale: Fraction | float) -> None:
    result = imresize(np.full((*size, 3), value, np.uint8), scale)
    exact = Fraction(scale).limit_denominator(100)
    assert result.shape == (-(-size[0] * exact // 1), -(-size[1] * exact // 1), 3)
    assert result.dtype == np.uint8
    assert (result == value).all()


def test_channels_are_independent() -> None:
    image = np.random.default_rng(2).integers(0, 256, (17, 22, 3), np.uint8)
    apart = np.stack([imresize(image[..., channel], HALF) for channel in range(3)], axis=-1)
    assert np.array_equal(imresize(image, HALF), apart)


@pytest.mark.parametrize("scale", [2, 4])
def test_every_pixel_of_the_official_files(odm_images: Path, scale: int) -> None:
    files = images_in(odm_images / "Set5" / "HR")
    assert len(files) == 5
    for file in files:
        official = read_image(odm_images / "Set5" / "LR_bicubic" / f"X{scale}" / f"{file.stem}x{scale}.png")
        assert np.array_equal(imresize(read_image(file), Fraction(1, scale)), official), file.name

"""Wherever an image is cut, what comes out is the same to the last bit, for all that is fed to a network of ours."""

import random
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_networks import SMALL
from test_windows import CONVOLUTIONAL, STATIC, learned

from odm import inference, kinds
from odm.errors import OdmError
from odm.methods.build import method_class
from odm.methods.settings import MethodSettings
from odm.networks.backbone import Backbone
from odm.networks.build import build
from odm.quantization.statistics import measured
from odm.settings.training import Run
from odm.upscaling.enlarger import Enlarger, OfNetwork
from odm.upscaling.tiles import SMALLEST, Cut, bands, checked, cuts, pieces, window_of

Image = tuple[np.ndarray, np.ndarray | None]


class Blurred:
    """Twice as large, and each pixel the mean of those around it: what is beyond the image is black."""

    scale, halo, multiple = 2, 3, 1

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        padded = np.pad(pixels, ((3, 3), (3, 3), (0, 0)))
        height, width = pixels.shape[:2]
        parts = [padded[y : y + height, x : x + width] for y in range(7) for x in range(7)]
        total = np.zeros_like(pixels)
        for part in parts:
            total += part
        return (total / 49).repeat(2, 0).repeat(2, 1)


def photograph(height: int, width: int, channels: int, bits: int, seed: int = 3) -> Image:
    """Colour and alpha; of the alpha much is opaque or transparent throughout."""
    drawn = np.random.default_rng(seed).integers(0, 2**bits, (height, width, channels), f"u{bits // 8}")
    colour = drawn[..., 0] if channels < 3 else drawn[..., :3]
    if channels in (1, 3):
        return colour, None
    alpha = drawn[..., -1].copy()
    alpha[: height // 3], alpha[-height // 4 :] = 0, 2**bits - 1
    return colour, alpha


def whole(enlarger: Enlarger, image: Image, rows: list[Cut], columns: list[Cut]) -> np.ndarray:
    return np.concatenate(list(bands(*image, enlarger, rows, columns)))


def anywhere(side: int, window: int, halo: int, draw: random.Random) -> list[Cut]:
    """A side in pieces of one size that begin and end anywhere."""
    if side <= window:
        return [Cut(0, side, 0, side)]
    starts = [0]
    while starts[-1] < side - window:
        starts.append(min(side - window, starts[-1] + draw.randint(1, window - 2 * halo)))
    ends: list[int] = []
    for before, after in pairwise(starts):
        ends.append(draw.randint(max([after + halo, *ends[-1:]]), before + window - halo))
    ends.append(side)
    return [Cut(start, start + window, *each) for start, *each in zip(starts, [0, *ends[:-1]], ends, strict=True)]


@settings(max_examples=300, deadline=None)
@given(
    side=st.integers(1, 4000), halo=st.integers(0, 40), multiple=st.sampled_from([1, 4, 8]), more=st.integers(0, 100)
)
def test_cuts_cover_a_side_once_with_all_that_counts(side: int, halo: int, multiple: int, more: int) -> None:
    class Some:
        scale = 2

        def __call__(self, pixels: np.ndarray) -> np.ndarray:
            return pixels

    enlarger = Some()
    enlarger.halo, enlarger.multiple = halo, multiple  # type: ignore[attr-defined]
    window = -(-(2 * max(halo, 1) + multiple + more) // multiple) * multiple
    found = cuts(side, window, enlarger)  # type: ignore[arg-type]
    assert [cut.first for cut in found] == [0, *(cut.end for cut in found[:-1])]
    assert found[-1].end == found[-1].stop == side
    for cut in found:
        assert cut.start % multiple == 0 and cut.first < cut.end
        assert cut.start == 0 or cut.first - cut.start >= halo
        assert cut.stop == side or cut.stop - cut.end >= halo
        length = -(-(cut.stop - cut.start) // multiple) * multiple
        assert length == window or (len(found) == 1 and length < window)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_every_kind_of_pixel_in_pieces(channels: int, bits: int) -> None:
    image = photograph(61, 83, channels, bits)
    enlarger = Blurred()
    one = whole(enlarger, image, [Cut(0, 61, 0, 61)], [Cut(0, 83, 0, 83)])
    assert one.shape == (122, 166, channels) and one.dtype == image[0].dtype
    for window in (8, 11, 30, 61, 90):
        rows, columns = cuts(61, window, enlarger), cuts(83, window, enlarger)
        assert np.array_equal(whole(enlarger, image, rows, columns), one)


def test_solid_alpha_stays_solid_and_transparent_colours_nothing() -> None:
    class Dull(Blurred):
        def __call__(self, pixels: np.ndarray) -> np.ndarray:
            return 0.98 * super().__call__(pixels) + 1

    alpha = np.zeros((40, 30), np.uint8)
    alpha[10:30, 5:25] = 255
    colour = np.zeros((40, 30, 3), np.uint8)
    colour[...] = (255, 0, 255)
    colour[alpha == 255] = (10, 200, 30)
    (found,) = bands(colour, alpha, Dull(), [Cut(0, 40, 0, 40)], [Cut(0, 30, 0, 30)])
    assert (found[22:58, 12:48, 3] == 255).all()
    assert (found[:18, :, 3] == 0).all() and (found[:18] == 0).all()
    edge = found[(found[..., 3] > 60) & (found[..., 3] < 200)]
    assert len(edge) and (np.abs(edge[:, :3].astype(int) - (10, 200, 30)) < 12).all()


def test_eight_bits_are_what_inference_makes_of_them() -> None:
    network = learned("edsr")
    image = photograph(50, 70, 3, 8)
    enlarger = OfNetwork(network, "net")
    assert np.array_equal(
        whole(enlarger, image, *pieces((50, 70), 512, enlarger)), inference.upscale(network, image[0])
    )


def test_sixteen_bits_are_finer_than_eight() -> None:
    network = learned("edsr")
    enlarger = OfNetwork(network, "net")
    eight, _ = photograph(50, 70, 3, 8)
    coarse = whole(enlarger, (eight, None), *pieces((50, 70), 512, enlarger))
    fine = whole(enlarger, (eight.astype(np.uint16) * 257, None), *pieces((50, 70), 512, enlarger))
    assert np.abs(fine / 257 - coarse).max() <= 0.5 + 1e-3
    assert len(np.unique(fine)) > 4 * 256


def test_windows_of_networks_and_of_users() -> None:
    small = OfNetwork(learned("edsr"), "net")
    assert window_of(small) == 512
    assert window_of(OfNetwork(build(SMALL["edsr"].model_copy(update={"scale": 4})), "net")) == 256
    assert window_of(OfNetwork(build(SMALL["edsr"].model_copy(update={"scale": 3})), "net")) == 344
    assert checked(SMALLEST, small) == SMALLEST
    with pytest.raises(OdmError, match=r"--window: 95: pieces must be of 96 pixels at least.*; 512 is usual"):
        checked(95, small)


def test_narrow_images_go_in_longer_pieces() -> None:
    enlarger = OfNetwork(learned("edsr"), "net")
    rows, columns = pieces((10, 3000), 96, enlarger)
    assert len(rows) == 1
    assert {cut.stop - cut.start for cut in columns} == {96 * 96 // 10}


def quantized(backbone: str, kind: str, bits: int, scale: int) -> Backbone:
    network = build(SMALL[backbone].model_copy(update={"scale": scale})).eval()
    own = kinds.implementation(f"odm.methods.{kind}.settings", MethodSettings)(kind=kind)
    import torch

    lows = [torch.rand(2, 3, 16, 16) * 255 for _ in range(2)]
    layers = measured(network, network.placement("body").layers, lows, percentile=99)
    run = Run(network="n", method="m", weight_bits=bits, activation_bits=bits)
    method_class(kind)(network, own, run).prepare(layers, lows)
    return network.eval()


def cases(count: int) -> Iterator[tuple[Backbone, int, int, int, int, int, int]]:
    """Network, height, width, channels, depth, window and a seed."""
    draw = random.Random(7)
    for seed in range(count):
        backbone, scale = draw.choice(CONVOLUTIONAL), draw.choice([2, 3, 4])
        bits = draw.choice([32, 4, 3, 2])
        if bits == 32:
            network = build(SMALL[backbone].model_copy(update={"scale": scale})).eval()
        else:
            network = quantized(backbone, draw.choice([each for each in STATIC if each != "no_body"]), bits, scale)
        depth = draw.choice([8, 8, 16])
        sides = draw.randint(20, 330), draw.randint(20, 330)
        yield network, *sides, draw.choice([1, 2, 3, 3, 4]), depth, draw.randint(SMALLEST, 160), seed


@pytest.mark.slow
def test_two_hundred_random_cases_leave_no_trace_of_the_cuts(capsys: pytest.CaptureFixture[str]) -> None:
    """Cut as `pieces` does, and anywhere: no byte differs. Beside it how many do from the image in one piece, which
    torch may give to other kernels."""
    of_whole = total = several = 0
    for network, height, width, channels, depth, window, seed in cases(200):
        enlarger = OfNetwork(network, "net")
        image = photograph(height, width, channels, depth, seed)
        rows, columns = pieces((height, width), window, enlarger)
        several += len(rows) * len(columns) > 1
        found = whole(enlarger, image, rows, columns)
        draw = random.Random(seed)
        other = [anywhere(side, one[0].stop - one[0].start, enlarger.halo or 1, draw)
                 for side, one in ((height, rows), (width, columns))]  # fmt: skip
        assert np.array_equal(found, whole(enlarger, image, *other)), f"case {seed}"
        one = whole(enlarger, image, [Cut(0, height, 0, height)], [Cut(0, width, 0, width)])
        of_whole += int((found != one).sum())
        total += found.size
    with capsys.disabled():
        print(f"\n{several} of 200 in several pieces; {of_whole} of {total} samples differ from one piece")
    assert several > 120
    assert of_whole < 1e-5 * total

"""Crops side by side: what the numbers look like."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from odm.images.colour import luma
from odm.images.imresize import imresize
from odm.reporting.results import Row, Suite
from odm.reporting.style import PALETTE, drawable, panel, say, write

Pixels = NDArray[np.uint8]
Upscale = Callable[[str, Pixels], Pixels]
"""Name of a network or run and a low-resolution image (h, w, 3) to a high-resolution one."""

IMAGES = 2
SIDE = 32
"""Side of a crop, in low-resolution pixels."""
COLUMNS = 4
ROW = 2.2
"""Height of a row of crops with its titles, in inches."""
LONGEST = 24
"""Letters of an image's name; more would run into the titles of the crops."""


class Test(Protocol):
    """What is used of `odm.images.prepared.Prepared`."""

    images: list[tuple[str, str]]

    def pair(self, index: int, scale: int, check: bool = False) -> tuple[Pixels, Pixels]: ...


def draw(suite: Suite, test: Test, upscale: Upscale) -> Figure:
    """The two images on which the first network that has runs gains most over bicubic; of each a crop."""
    network = next((name for name in suite.networks if suite.of_network(name)), next(iter(suite.networks)))
    places = gains(suite, network, test)[:IMAGES]
    if not places:
        figure = Figure(figsize=(10, 2))
        say(panel(figure, 0, 0, 10, 2), f"{network} is not finished: no crops yet")
        return figure
    height = ROW * -(-(4 + len(_shown(suite, network))) // COLUMNS)
    figure = Figure(figsize=(10, 0.4 + height * len(places)))
    write(figure, 0.1, 0.1, f"{network}: where float gains most over bicubic. dB: PSNR of the whole image")
    for number, place in enumerate(places):
        _image(suite, network, test, place, upscale, figure, 0.4 + height * number)
    return figure


def gains(suite: Suite, network: str, test: Test) -> list[int]:
    """Places of the colour images in `test`, the largest PSNR gain of the float network over bicubic first."""
    found = suite.networks[network].finished
    if not found or found[0].bicubic is None:
        return []
    gain = {}
    for place, (images, name) in enumerate(test.images):
        ours, bicubic = found[0].scores.get(images, {}).get(name), found[0].bicubic.get(images, {}).get(name)
        if ours and bicubic and test.pair(place, found[0].scale)[1].ndim == 3:
            gain[place] = ours.psnr - bicubic.psnr
    return sorted(gain, key=lambda place: -gain[place])


def region(hr: Pixels, bicubic: Pixels, float_: Pixels, scale: int) -> tuple[int, int, int]:
    """Top, left and side of the square where float has the least squared error on Y below bicubic's.

    Images (H, W, 3); the square lies on whole low-resolution pixels.
    """
    reference = luma(hr)
    gain = (luma(bicubic) - reference) ** 2 - (luma(float_) - reference) ** 2
    side = min(SIDE * scale, *(length - length % scale for length in gain.shape))
    sums = np.pad(gain, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    squares = (sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side])[::scale, ::scale]
    # Rounded, so that the last bits of a sum do not choose between equals.
    top, left = np.unravel_index(np.argmax(squares.round(3)), squares.shape)
    return int(top) * scale, int(left) * scale, side


def _shown(suite: Suite, network: str) -> list[Row]:
    """Of each method its highest and its lowest bits."""
    shown: list[Row] = []
    for method in suite.settings.methods:
        rows = [row for row in suite.compared(network) if row.method == method]
        shown += rows if len(rows) < 2 else [rows[0], rows[-1]]
    return shown


def _image(suite: Suite, network: str, test: Test, place: int, upscale: Upscale, figure: Figure, above: float) -> None:
    scale = suite.settings.networks[network].scale
    lr, hr = test.pair(place, scale, check=True)
    bicubic, ours = imresize(lr, Fraction(scale)), upscale(network, lr)
    top, left, side = region(hr, bicubic, ours, scale)
    panels = _panels(suite, network, test.images[place], upscale, lr, hr, bicubic, ours)
    # As wide as its column, or as high as two rows of crops.
    height = min(2.9 * hr.shape[0] / hr.shape[1], ROW + 1.6)
    axes = panel(figure, 0.1, above + 0.45, height * hr.shape[1] / hr.shape[0], height)
    axes.imshow(hr, aspect="auto")
    axes.add_patch(Rectangle((left, top), side, side, fill=False, edgecolor=PALETTE[4], linewidth=1.5))
    name = drawable(test.images[place][1])
    name = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
    axes.set_title(f"{name} ({test.images[place][0]}), x{scale}")
    axes.set_axis_off()
    for number, (title, image) in enumerate(panels):
        row, column = divmod(number, COLUMNS)
        axes = panel(figure, 3.2 + 1.7 * column, above + 0.45 + ROW * row, 1.6, 1.6)
        axes.set_axis_off()
        _crop(axes, title, image, top, left, side)


def _panels(
    suite: Suite,
    network: str,
    image: tuple[str, str],
    upscale: Upscale,
    lr: Pixels,
    hr: Pixels,
    bicubic: Pixels,
    ours: Pixels,
) -> Iterator[tuple[str, Pixels | None]]:
    """Titles and whole images; None for a run that is not finished."""
    images, name = image
    metrics = suite.networks[network].finished[0]
    yield "HR", hr
    yield "LR, enlarged", lr.repeat(hr.shape[0] // lr.shape[0], 0).repeat(hr.shape[1] // lr.shape[1], 1)
    yield f"bicubic\n{(metrics.bicubic or {})[images][name].psnr:.2f} dB", bicubic
    yield f"float\n{metrics.scores[images][name].psnr:.2f} dB", ours
    for row in _shown(suite, network):
        # The first seed that is there: crops show one network, no mean.
        first = next((result for result in row.results if result.metrics), None)
        if first is None or first.metrics is None:
            yield f"{row.label}\nnot finished", None
        else:
            yield f"{row.label}\n{first.metrics.scores[images][name].psnr:.2f} dB", upscale(first.name, lr)


def _crop(axes: Axes, title: str, image: Pixels | None, top: int, left: int, side: int) -> None:
    axes.set_title(title, loc="center", fontsize=9)
    if image is None:
        return say(axes, "not finished")
    axes.imshow(image[top : top + side, left : left + side], interpolation="nearest")

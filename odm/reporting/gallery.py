"""Parts of test images from every network, for the page to lay over one another."""

import base64
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from odm.images.imresize import imresize
from odm.reporting import crops
from odm.reporting.crops import Pixels, Test
from odm.reporting.results import Metrics, Suite

Box = tuple[int, int, int, int]
"""Top, left, height and width, in low-resolution pixels."""
Enlarge = Callable[[Pixels, Box], Pixels]
"""A box of a low-resolution image (h, w, 3), through a network that sees what lies around it too."""

SIDES = (192, 160, 128, 96)
"""Sides that a part may have, in high-resolution pixels: the largest with which all fit."""
MOST = 3_400_000
"""Letters of all images in the page, which has room for about five million."""


@dataclass(frozen=True)
class Version:
    """Of a scene; equal in size to all its others."""

    label: str
    psnr: float | None
    """Of the whole image, dB."""
    pixels: Pixels


@dataclass(frozen=True)
class Scene:
    """A part of one test image; versions begin with high resolution, bicubic and float."""

    network: str
    images: str
    name: str
    versions: list[Version]


def scenes(suite: Suite, test: Test, load: Callable[[str], Enlarge]) -> list[Scene]:
    """Of each finished network the scenes of `chosen`; of each row the first seed that is there."""
    found: list[Scene] = []
    for network, row in suite.networks.items():
        if row.finished:
            found += _of_network(suite, network, test, load)
    return found


def chosen(suite: Suite, network: str, test: Test) -> list[int]:
    """Places in `test`: of each set the first colour image, then the two on which PSNR differs most between rows."""
    places = crops.gains(suite, network, test)
    first = {test.images[place][0]: place for place in sorted(places, reverse=True)}
    found = sorted(first.values())
    rows = [row.finished[0] for row in suite.compared(network) if row.finished]

    def apart(place: int) -> float:
        psnr = [_psnr(metrics, test.images[place]) for metrics in rows]
        return float(np.ptp(psnr))

    if rows and places:
        found += sorted(places, key=apart, reverse=True)[:2]
    return list(dict.fromkeys(found))


def _of_network(suite: Suite, network: str, test: Test, load: Callable[[str], Enlarge]) -> Iterator[Scene]:
    scale = suite.settings.networks[network].scale
    metrics = suite.networks[network].finished[0]
    enlarge = load(network)
    pairs, boxes, versions = {}, {}, {}
    for place in chosen(suite, network, test):
        lr, hr = test.pair(place, scale, check=True)
        bicubic = imresize(lr, Fraction(scale))
        whole = enlarge(lr, (0, 0, *lr.shape[:2]))
        pairs[place], boxes[place] = lr, _around(crops.region(hr, bicubic, whole, scale), lr.shape[:2], scale)
        images, name = test.images[place]
        scored = (metrics.bicubic or {})[images][name].psnr
        versions[place] = [
            Version(label, psnr, _cut(image, boxes[place], scale))
            for label, psnr, image in (
                ("high resolution", None, hr),
                ("bicubic", scored, bicubic),
                ("float", _psnr(metrics, (images, name)), whole),
            )
        ]
    for row in suite.of_network(network) if pairs else []:
        first = next((result for result in row.results if result.metrics), None)
        if first is None or first.metrics is None:
            continue
        enlarge = load(first.name)
        for place, lr in pairs.items():
            psnr = _psnr(first.metrics, test.images[place])
            versions[place].append(Version(row.label, psnr, enlarge(lr, boxes[place])))
    for place, each in versions.items():
        yield Scene(network, *test.images[place], each)


def _psnr(metrics: Metrics, image: tuple[str, str]) -> float:
    return metrics.scores[image[0]][image[1]].psnr


def _around(region: tuple[int, int, int], shape: tuple[int, ...], scale: int) -> Box:
    """The largest part about the middle of a region that lies within a low-resolution image."""
    top, left, side = (each // scale for each in region)
    sides = [min(SIDES[0] // scale, length) for length in shape]
    corner = [
        min(max(0, start + side // 2 - length // 2), whole - length)
        for start, length, whole in zip((top, left), sides, shape, strict=True)
    ]
    return corner[0], corner[1], sides[0], sides[1]


def _cut(image: Pixels, box: Box, scale: int) -> Pixels:
    top, left, height, width = (each * scale for each in box)
    return image[top : top + height, left : left + width]


def encoded(found: list[Scene], most: int = MOST) -> list[dict[str, Any]]:
    """Scenes for the page, without loss, in `most` letters: smaller parts where all do not fit, then fewer of each
    network. A version behind float is its difference from float, which is an eighth of the bytes."""
    by_network: dict[str, list[Scene]] = {}
    for scene in found:
        by_network.setdefault(scene.network, []).append(scene)
    fullest = max(map(len, by_network.values()), default=0)
    written: list[dict[str, Any]] = []
    for count in range(fullest, 0, -1):
        for side in SIDES:
            written = [_written(scene, side) for each in by_network.values() for scene in each[:count]]
            if sum(len(version["src"]) for scene in written for version in scene["versions"]) <= most:
                return written
    return written


def _written(scene: Scene, side: int) -> dict[str, Any]:
    pixels = [_middle(version.pixels, side) for version in scene.versions]
    versions = [
        {
            "label": version.label if version.psnr is None else f"{version.label}, {version.psnr:.2f} dB",
            "src": _uri(own if place < 3 else apart(own, pixels[2])),
            "of": None if place < 3 else 2,
        }
        for place, (version, own) in enumerate(zip(scene.versions, pixels, strict=True))
    ]
    return {"title": f"{scene.name} ({scene.images}), {scene.network}", "versions": versions}


def apart(pixels: Pixels, reference: Pixels) -> Pixels:
    """A difference about 128, modulo 256: adding the reference gives every pixel back."""
    return (pixels - reference + np.uint8(128)).astype(np.uint8)


def _middle(pixels: Pixels, side: int) -> NDArray[np.uint8]:
    top, left = (max(0, (length - side) // 2) for length in pixels.shape[:2])
    return pixels[top : top + side, left : left + side]


def _uri(pixels: Pixels) -> str:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "WEBP", lossless=True, quality=80, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()

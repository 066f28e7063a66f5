"""The formats that are written, by suffix: what each can hold, and how."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from odm.errors import OdmError
from odm.images.decode import Samples
from odm.upscaling import png, tiff
from odm.upscaling.picture import Picture

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_LONGEST_EXIF = 65533 - 2
"""Bytes that a segment of a JPEG holds."""


@dataclass(frozen=True)
class Format:
    name: str
    longest: int
    """Side of the largest image, in pixels."""
    is_wide: bool = False
    """Whether it holds 16 bits a sample."""
    has_alpha: bool = True
    has_grey: bool = True
    has_icc: bool = True
    has_exif: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    """Of Pillow, for those that it writes."""


_JPEG = Format("JPEG", 65500, has_alpha=False, options={"quality": 95, "subsampling": 0})
FORMATS = {
    ".png": Format("PNG", 2**31 - 1, is_wide=True),
    **dict.fromkeys((".tif", ".tiff"), Format("TIFF", 2**31 - 1, is_wide=True)),
    ".bmp": Format("BMP", 2**31 - 1, has_alpha=False, has_icc=False, has_exif=False),
    ".webp": Format("WEBP", 16383, has_grey=False, options={"lossless": True, "exact": True}),
    **dict.fromkeys((".jpg", ".jpeg"), _JPEG),
    ".avif": Format("AVIF", 65535, options={"quality": 90, "subsampling": "4:4:4"}),
}
"""What a suffix stands for: all as it is computed, but for JPEG and AVIF."""
READ = (*FORMATS, ".gif", ".jfif", ".jpe")
"""Suffixes by which images are known in a folder."""


def format_of(path: Path) -> Format:
    """OdmError if a suffix stands for none, or this Pillow does not write it."""
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise OdmError(f"{path}: no image format has this suffix; there are: {', '.join(FORMATS)}")
    if found.name == "AVIF" and not features.check("avif"):
        raise OdmError(f"{path}: this Pillow writes no AVIF; name a .png, or install another")
    return found


def prepared(path: Path, picture: Picture) -> tuple[Picture, list[str]]:
    """What of a picture its file can hold, and what is left behind, in words. OdmError if it is no more the picture."""
    format = format_of(path)
    if picture.has_alpha and not format.has_alpha:
        raise OdmError(f"{path}: a {format.name} has no transparency, which the image has; name a .png")
    if max(picture.width, picture.height) > format.longest:
        size = f"{picture.width}x{picture.height}"
        raise OdmError(f"{path}: {size} is larger than a {format.name} can be ({format.longest} a side); name a .png")
    notes = []
    bits, icc, exif = picture.bits, picture.icc, picture.exif
    if bits == 16 and not format.is_wide:
        bits = 8
        notes.append(f"of 16 bits {format.name} holds 8")
    if icc and (not format.has_icc or (picture.is_grey and not format.has_grey)):
        icc = None
        notes.append(f"its ICC profile, which {format.name} does not hold, is left out")
    if exif and (not format.has_exif or (format.name == "JPEG" and len(exif.tobytes()) > _LONGEST_EXIF)):
        exif = None
        notes.append(f"its EXIF, which {format.name} does not hold, is left out")
    return Picture(picture.width, picture.height, picture.channels, bits, icc, exif), notes


def write(target: Path, beside: Path, picture: Picture, bands: Iterable[Samples]) -> None:
    """Write a picture that has been `prepared`, in the format of its target's suffix, beside its target. OdmError if
    the format refuses it."""
    format = format_of(target)
    if picture.bits == 8:
        bands = (band if band.dtype == np.uint8 else _to_eight(band) for band in bands)
    try:
        if format.is_wide:
            (png if format.name == "PNG" else tiff).write(beside, picture, bands)
        else:
            _by_pillow(_assembled(picture, bands), beside, format, picture)
    except OverflowError as error:
        raise OdmError(f"{target}: cannot be written as {format.name}: {error}; name a .png") from None


def _assembled(picture: Picture, bands: Iterable[Samples]) -> Image.Image:
    image = Image.new(_MODES[picture.channels], (picture.width, picture.height))
    top = 0
    for band in bands:
        image.paste(Image.fromarray(band.squeeze(-1) if band.shape[-1] == 1 else band), (0, top))
        top += len(band)
    return image


def _by_pillow(image: Image.Image, beside: Path, format: Format, picture: Picture) -> None:
    if picture.is_grey and not format.has_grey:
        image = image.convert("RGBA" if picture.has_alpha else "RGB")
    more = {key: value for key, value in (("icc_profile", picture.icc), ("exif", picture.exif)) if value}
    try:
        image.save(beside, format.name, **format.options, **more)
    except ValueError as error:
        raise OverflowError(error) from None


def _to_eight(band: Samples) -> Samples:
    """The nearest of 0-255."""
    return ((band.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)

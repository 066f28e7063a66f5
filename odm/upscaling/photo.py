"""A user's image file with all that is to outlive it: samples in their depth, transparency, profile and EXIF."""

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms

from odm.errors import OdmError
from odm.images.decode import Layout, Samples, holds_more, is_opaque, opened, orientation_of, samples, upright

CMYK = Layout("CMYK", 8, False)
# What a file says of a picture, not of how its bytes lie: the tags of the first directory that go on into another file.
_TAGS = (
    *("ImageDescription", "Make", "Model", "Software", "DateTime", "Artist", "HostComputer", "Copyright"),
    *("XResolution", "YResolution", "ResolutionUnit", "Rating", "RatingPercent"),
    *("XPTitle", "XPComment", "XPAuthor", "XPKeywords", "XPSubject"),
)
_DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
# Of an ICC profile: its header, where in it the colour space stands and its mark.
_ICC_HEADER, _ICC_SPACE, _ICC_MARK = 128, slice(16, 20), slice(36, 40)
_ICC_NAMES = {2: b"GRAY", 3: b"RGB "}


@dataclass(frozen=True)
class Photo:
    """An image, upright. `colour` is (H, W) if it is grey and else (H, W, 3), `alpha` (H, W) or None where all is
    opaque; both uint8 or uint16."""

    colour: Samples
    alpha: Samples | None
    icc: bytes | None
    exif: Image.Exif | None
    notes: tuple[str, ...]
    """What was left behind, or is not as one would think: each part of a sentence."""

    @property
    def channels(self) -> int:
        return (1 if self.colour.ndim == 2 else 3) + (self.alpha is not None)


def read(file: Path) -> Photo:
    """OdmError of one line, which begins with the file's name, if it is no image that can be read right."""
    refuse_pipes(file)
    notes = []
    with opened(file) as (image, stream, layout):
        icc = image.info.get("icc_profile")
        if holds_more(image):
            notes.append("holds more than one picture, the first is taken")
        alpha: Samples | None = None
        colour: Samples
        if layout == CMYK and image.mode == "CMYK":
            colour, icc = _through_profile(file, image, icc)
            notes.append("turned from CMYK to sRGB through its profile")
        elif layout.how is None:
            raise OdmError(f"{file}: {layout} pixels, which are not read; save it as grey or RGB of 8 or 16 bits")
        else:
            colour, alpha = samples(image, stream, layout)
        orientation = orientation_of(image)
        exif = _copied(image, notes)
    if icc is not None and not _fits(icc, colour.ndim):
        icc = None
        notes.append("its ICC profile is damaged or of other colours, and left out")
    alpha = None if alpha is None or is_opaque(alpha) else upright(alpha, orientation)
    return Photo(upright(colour, orientation), alpha, icc, exif, tuple(notes))


def resized(exif: Image.Exif | None, width: int, height: int) -> Image.Exif | None:
    """The same EXIF with another size, where it says one."""
    if exif is not None:
        inner = exif.get_ifd(ExifTags.IFD.Exif)
        for tag, side in ((ExifTags.Base.ExifImageWidth, width), (ExifTags.Base.ExifImageHeight, height)):
            if tag in inner:
                inner[tag] = side
    return exif


def refuse_pipes(file: Path) -> None:
    """OdmError if a file is one that to open would be to wait for ever. What is not there is said by who opens it."""
    try:
        mode = os.stat(file).st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OdmError(f"{file}: cannot be read: a device or pipe and no file; take it out")


def _through_profile(file: Path, image: Image.Image, icc: Any) -> tuple[Samples, bytes]:
    """sRGB, (H, W, 3), of an image in CMYK, and the profile of sRGB."""
    if not icc:
        raise OdmError(f"{file}: CMYK without an ICC profile, so nobody knows its colours; convert it to RGB")
    image.load()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        turned = ImageCms.profileToProfile(image, own, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        raise OdmError(f"{file}: CMYK with an ICC profile that cannot be used; convert it to RGB") from None
    assert turned is not None
    return np.asarray(turned), srgb.tobytes()


def _fits(icc: Any, dimensions: int) -> bool:
    if not isinstance(icc, bytes) or len(icc) < _ICC_HEADER or icc[_ICC_MARK] != b"acsp":
        return False
    return icc[_ICC_SPACE] == _ICC_NAMES[dimensions]


def _copied(image: Image.Image, notes: list[str]) -> Image.Exif | None:
    """EXIF anew, without what says how the pixels lie: they are turned by now, and are more. None if there is none."""
    made = Image.Exif()
    try:
        found = image.getexif()
        for name in _TAGS:
            tag = ExifTags.Base[name]
            if tag in found:
                made[tag] = found[tag]
        for directory in _DIRECTORIES:
            if content := found.get_ifd(directory):
                made.get_ifd(directory).update(content)
                made[directory] = 0  # where it lies, which Pillow fills in
        if len(made):
            made.tobytes()
    except Exception:  # of a file made to mislead Pillow raises nearly anything
        notes.append("its EXIF is damaged, and left out")
        return None
    return made if len(made) else None

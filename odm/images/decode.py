"""One image file to pixels: which kinds of pixels are read, and what is said of the others.

Pillow opens more than it reads right: it takes signed values for unsigned ones, leaves white as 0 in 16 bits, and cuts
16 bits of a colour to the upper 8. So what a file holds is looked up in a table before its pixels are believed.
"""

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from odm.errors import OdmError
from odm.names import shown

Pixels = NDArray[np.uint8]
Samples = NDArray[np.unsignedinteger[Any]]
"""uint8 or uint16."""

GREY, WHITE_IS_0, RGB, PALETTE = "grey", "grey with white as 0", "RGB", "palette"

EIGHT, WIDE = "eight", "wide"
"""How pixels are read: by Pillow as 8 bits (1, 2 and 4 bits spread over 0-255), or all 16 bits of them here."""

READ: dict[tuple[str, int, bool], str] = {
    # colour, bits a sample, whether there is alpha. Unsigned integers all; what is not here is refused.
    **{(colour, bits, False): EIGHT for colour in (GREY, WHITE_IS_0, PALETTE) for bits in (1, 2, 4, 8)},
    **{(colour, 8, True): EIGHT for colour in (GREY, RGB, PALETTE)},
    (RGB, 8, False): EIGHT,
    **{(colour, 16, False): WIDE for colour in (GREY, WHITE_IS_0, RGB)},
    **{(colour, 16, True): WIDE for colour in (GREY, RGB)},
}

UNSIGNED = "unsigned"
# Tags and values of TIFF 6.0.
_PHOTOMETRIC = {0: WHITE_IS_0, 1: GREY, 2: RGB, 3: PALETTE, 5: "CMYK", 6: "YCbCr", 8: "LAB"}
_SAMPLES = {1: UNSIGNED, 2: "signed", 3: "floating-point"}
_CHANNELS = {WHITE_IS_0: 1, GREY: 1, PALETTE: 1, "CMYK": 4}
_TIFF_JPEG = 7
# Of PNG, by its colour type.
_PNG = {0: (GREY, False), 2: (RGB, False), 3: (PALETTE, False), 4: (GREY, True), 6: (RGB, True)}
# Of all other formats, by the mode that Pillow gives them.
_MODES = {
    "1": (GREY, 1, False),
    "L": (GREY, 8, False),
    "LA": (GREY, 8, True),
    "P": (PALETTE, 8, False),
    "PA": (PALETTE, 8, True),
    "RGB": (RGB, 8, False),
    "RGBA": (RGB, 8, True),
}
_SIGNATURES = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"RIFF": "WEBP",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"GIF8": "GIF",
}
_UNSUPPORTED = re.compile("unsupported|unknown (pixel mode|data organi)|cannot handle|not (available|supported)", re.I)


@dataclass(frozen=True)
class Layout:
    """What the pixels of a file are."""

    colour: str
    bits: int
    alpha: bool
    samples: str = UNSIGNED

    @property
    def how(self) -> str | None:
        return READ.get((self.colour, self.bits, self.alpha)) if self.samples == UNSIGNED else None

    def __str__(self) -> str:
        sign = "" if self.samples == UNSIGNED else f"{self.samples} "
        return f"{self.bits}-bit {sign}{self.colour}{' with transparency' if self.alpha else ''}"


def read_image(file: Path) -> Pixels:
    """Decode one image file to uint8: (H, W) if it is grey, (H, W, 3) otherwise; turned as its EXIF says.

    By the table above: 16 bits are scaled to 8, a palette resolved, an alpha channel dropped where it is opaque
    throughout. Of many pages or frames the first is read, which a printed note says.
    """
    with opened(file) as (image, stream, layout):
        if layout.how is None:
            raise OdmError(f"{file}: {layout} pixels, which are not read; save it with 8 bits, as grey or RGB")
        is_one_of_many = holds_more(image)
        colour, alpha = samples(image, stream, layout)
        if colour.dtype == np.uint16:
            colour = (colour.astype(np.uint32) * 255 + 32767) // 65535
        orientation = orientation_of(image)
    if not is_opaque(alpha):
        raise OdmError(f"{file}: has transparent pixels; save it without transparency")
    if is_one_of_many:
        print(f"note: {shown(file)}: holds more than one picture; the first is taken", flush=True)
    return upright(colour, orientation).astype(np.uint8, copy=False)


@contextmanager
def opened(file: Path) -> Iterator[tuple[Image.Image, BinaryIO, Layout]]:
    """An image file, and what its pixels are, for as long as the block reads them. OdmError of one line, which begins
    with the file's name, of whatever goes wrong within."""
    with _trouble_in_one_line(file), file.open("rb") as stream:
        image = _opened(stream)
        yield image, stream, _layout(image, stream)


def samples(image: Image.Image, stream: BinaryIO, layout: Layout) -> tuple[Samples, Samples | None]:
    """Colour, (H, W) if it is grey and else (H, W, 3), and alpha, (H, W), in the depth of the file, 8 or 16 bits; as
    they are stored, not turned yet. Alpha is None where the file has none; colour is not multiplied by it."""
    return _wide(image, stream, layout) if layout.how == WIDE else _eight(image, layout)


def holds_more(image: Image.Image) -> bool:
    """Whether there are other pictures behind the first. What a camera puts behind a JPEG (MPO) is the same picture: a
    preview, a map of its light."""
    return getattr(image, "is_animated", False) and image.format != "MPO"


def is_opaque(alpha: Samples | None) -> bool:
    return alpha is None or int(alpha.min()) == np.iinfo(alpha.dtype).max


@contextmanager
def _trouble_in_one_line(file: Path) -> Iterator[None]:
    """What Pillow and the system object to, each in its own words; nothing of what Pillow merely warns of."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except OdmError:
        raise
    except (Image.DecompressionBombError, MemoryError):
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise OdmError(
            f"{file}: too large: an image may have {most:.0f} megapixels, and must fit into memory; "
            f"cut it up or take it out"
        ) from None
    except Exception as error:
        # Of a file made to mislead, Pillow's plugins raise nearly anything.
        if isinstance(error, OSError) and error.strerror:
            raise OdmError(f"{file}: cannot be read: {error.strerror}; replace it or take it out") from None
        raise OdmError(f"{file}: cannot be read: {_words(file, error)}; replace it or take it out") from None


def _words(file: Path, error: Exception) -> str:
    try:
        with file.open("rb") as stream:
            head = stream.read(4)
    except OSError as closed:
        return str(closed.strerror or closed)
    if not head:
        return "damaged: it is empty"
    kind = next((kind for signature, kind in _SIGNATURES.items() if head.startswith(signature)), None)
    if isinstance(error, UnidentifiedImageError) and kind is None:
        return "not an image, or of a format that is not read"
    if _UNSUPPORTED.search(str(error)) or isinstance(error.__cause__, KeyError):
        return f"unsupported: a {kind or 'file'} with pixels or compression of a rare kind"
    return f"damaged{f' {kind}' if kind else ''}"


def _opened(stream: BinaryIO) -> Image.Image:
    """OSError and the like of the format's own plugin where Pillow would say no more than that no plugin wants it."""
    try:
        return Image.open(stream)
    except UnidentifiedImageError:
        stream.seek(0)
        head = stream.read(4)
        kind = next((kind for signature, kind in _SIGNATURES.items() if head.startswith(signature)), None)
        if kind is None or kind not in Image.OPEN:
            raise
        stream.seek(0)
        return Image.OPEN[kind][0](stream, "")


def _layout(image: Image.Image, stream: BinaryIO) -> Layout:
    """What the pixels are, by the file's own header."""
    if image.format == "PNG":
        place = stream.tell()
        stream.seek(0)
        header = stream.read(26)
        stream.seek(place)
        colour, alpha = _PNG[header[25]]  # after signature, length and name of IHDR, sizes and depth
        return Layout(colour, header[24], alpha)
    if image.format == "TIFF":
        return _layout_of_tiff(getattr(image, "tag_v2"), image.mode)  # noqa: B009 - the plugin's own
    if image.format == "PPM" and image.mode == "I":
        return Layout(GREY, 16, False)  # whatever its maximum is, Pillow spreads it over 16 bits
    if image.mode in _MODES:
        return Layout(*_MODES[image.mode])
    wide = {"F": (32, "floating-point"), "I": (32, "signed")}.get(image.mode, (16, UNSIGNED))
    is_grey = image.mode[0] in "IF"
    return Layout(GREY if is_grey else image.mode, wide[0] if is_grey else 8, False, wide[1] if is_grey else UNSIGNED)


def _layout_of_tiff(tags: Any, mode: str) -> Layout:
    tag = ExifTags.Base
    colour = _PHOTOMETRIC.get(tags.get(tag.PhotometricInterpretation, 0), "of an unknown colour")
    # JPEG within TIFF is turned into RGB by libtiff; YCbCr that stands there plain is not.
    if colour == "YCbCr" and tags.get(tag.Compression) == _TIFF_JPEG and mode == "RGB":
        colour = RGB
    bits = tuple(tags.get(tag.BitsPerSample, (1,)))
    samples = {_SAMPLES.get(each, "undefined") for each in tags.get(tag.SampleFormat, (1,))}
    # What stands behind the colour is transparency, unless the file says that it is of no meaning (0).
    extra = tuple(tags.get(tag.ExtraSamples, ()))
    channels = tags.get(tag.SamplesPerPixel, len(bits))
    alpha = any(extra) if extra else channels > _CHANNELS.get(colour, 3)
    if len(set(bits)) > 1:
        return Layout(f"{colour} of unequal depths", max(bits), alpha)
    if bits[0] == 16 and channels > 1 and tags.get(tag.PlanarConfiguration, 1) == 2:
        return Layout(f"{colour} in planes", 16, alpha)
    if bits[0] == 16 and tags.get(tag.FillOrder, 1) == 2:
        return Layout(f"{colour} of reversed bits", 16, alpha)
    return Layout(colour, bits[0], alpha, UNSIGNED if samples == {UNSIGNED} else "/".join(samples - {UNSIGNED}))


def _eight(image: Image.Image, layout: Layout) -> tuple[Pixels, Pixels | None]:
    is_grey = layout.colour in (GREY, WHITE_IS_0)
    if layout.alpha and _is_multiplied(image):
        _take_as_stored(image, "La" if is_grey else "RGBA")
        stored = np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, -1)
        colour, opacity = _divided(stored)
        return colour.astype(np.uint8), opacity.astype(np.uint8)
    image.load()
    key = image.info.get("transparency")
    if key is not None and image.format == "PNG" and layout.colour != PALETTE:
        pixels = np.asarray(image.convert("L" if is_grey else "RGB"))
        # One colour that is transparent, in the depth of the file; Pillow spreads 2 and 4 bits of the pixels over
        # 0-255, not those of this colour.
        spread = 255 // (2**layout.bits - 1) if layout.bits in (2, 4) else 1
        return pixels, np.where(_equal(pixels, np.multiply(key, spread)), 0, 255).astype(np.uint8)
    alpha = np.asarray(image.convert("RGBA"))[..., 3] if image.has_transparency_data else None
    return np.asarray(image.convert("L" if is_grey else "RGB")), alpha


def _wide(image: Image.Image, stream: BinaryIO, layout: Layout) -> tuple[NDArray[np.uint16], NDArray[np.uint16] | None]:
    if layout.colour == RGB or layout.alpha:
        wide = _both_bytes(image, stream, layout)
    else:
        image.load()
        wide = np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
    if layout.colour == WHITE_IS_0:
        wide = 65535 - wide
    key = image.info.get("transparency")
    if layout.alpha:
        if _is_multiplied(image):
            colour, alpha = _divided(wide)
            return colour.astype(np.uint16), alpha.astype(np.uint16)
        return wide[..., 0] if layout.colour == GREY else wide[..., :-1], wide[..., -1]
    return wide, None if key is None else np.where(_equal(wide, np.asarray(key)), 0, 65535).astype(np.uint16)


def _both_bytes(image: Any, stream: BinaryIO, layout: Layout) -> NDArray[np.uint16]:
    """(H, W, channels) where Pillow keeps the upper byte of each sample. Told that the bytes stand the other way round,
    it keeps the lower; of grey with alpha, which has no such name, all four bytes are taken for colours."""
    if layout.colour == GREY:
        _take_as_stored(image, "RGBA")
        pairs = np.asarray(image).astype(np.uint16)
        return pairs[..., ::2] * 256 + pairs[..., 1::2]
    mode = _raw_mode(image.tile[0].args)
    if layout.alpha and _is_multiplied(image):  # Pillow would divide each byte by alpha's
        mode = mode.replace("a", "A")
    native = "L" if sys.byteorder == "little" else "B"
    order = native if mode[-1] == "N" else mode[-1]
    stream.seek(0)
    other: Any = Image.open(stream, formats=[str(image.format)])
    _take_as_stored(image, mode[:-1] + order)
    wide = np.asarray(image).astype(np.uint16) * 256
    _take_as_stored(other, mode[:-1] + {"L": "B", "B": "L"}[order])
    wide += np.asarray(other)
    return wide[..., :3] if not layout.alpha else wide


def _is_multiplied(image: Any) -> bool:
    """Whether a TIFF's colours are stored times alpha."""
    return image.format == "TIFF" and tuple(image.tag_v2.get(ExifTags.Base.ExtraSamples, ()))[:1] == (1,)


def _raw_mode(args: Any) -> str:
    return str(args[0] if isinstance(args, tuple) else args)


def _take_as_stored(image: Any, mode: str) -> None:
    """Load an image by another raw mode than its own: of as many bytes, taken otherwise."""
    image.tile = [
        tile._replace(args=(mode, *tile.args[1:]) if isinstance(tile.args, tuple) else mode) for tile in image.tile
    ]
    image.load()


def _divided(stored: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Colour and alpha of samples whose colours are multiplied by alpha: to the nearest, which Pillow does not."""
    most, alpha = np.iinfo(stored.dtype).max, stored[..., -1]
    colour = stored[..., :-1] * float(most) / np.maximum(alpha, 1)[..., None]
    colour = np.minimum(np.rint(colour), most)
    return colour[..., 0] if colour.shape[-1] == 1 else colour, alpha


def _equal(pixels: NDArray[Any], colour: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a pixel is of one colour: (H, W)."""
    same = pixels == colour
    return same.all(-1) if pixels.ndim == 3 else same


def orientation_of(image: Image.Image) -> int:
    """1 to 8 of EXIF; 1 where there is none that can be read. Of a TIFF, Pillow has turned the pixels by now."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # whatever stands there, the pixels are whole
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def upright(pixels: Samples, orientation: int) -> Samples:
    """Pixels, of shape (H, W) or (H, W, channels), turned as an orientation of EXIF says."""
    if orientation > 4:
        pixels = np.swapaxes(pixels, 0, 1)
    upside_down = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    mirrored = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(pixels[upside_down, mirrored])

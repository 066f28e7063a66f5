"""TIFF, written as its pixels come: grey or RGB, with alpha or without, of 8 or 16 bits a sample.

By TIFF 6.0, in strips, each deflated after horizontal differences; Pillow, which writes no colour of 16 bits, makes the
directory.
"""

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

from PIL import ExifTags, TiffTags
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from odm.images.decode import Samples
from odm.upscaling.picture import Picture, by_rows

ROWS = 64
LEVEL = 6
_LARGEST = 2**32 - 2**24  # offsets have 32 bits; with room for the directory
_START = 8
_DEFLATE, _DIFFERENCES, _NOT_MULTIPLIED = 8, 2, 2


def write(path: Path, picture: Picture, bands: Iterable[Samples]) -> None:
    """Write the bands of an image, (rows, width, channels), as one file. OverflowError if it is larger than 4 GB."""
    offsets, lengths = [], []
    with path.open("wb") as file:
        file.write(b"II*\0" + bytes(4))
        for rows in by_rows(bands, ROWS):
            differences = rows.copy()
            differences[:, 1:] -= rows[:, :-1]
            strip = zlib.compress(differences.astype(f"<u{picture.bits // 8}", copy=False).tobytes(), LEVEL)
            offsets.append(file.tell())
            lengths.append(len(strip))
            file.write(strip)
            if file.tell() > _LARGEST:
                raise OverflowError("larger than the 4 GB of a TIFF")
        file.write(bytes(file.tell() % 2))
        place = file.tell()
        file.write(_directory(picture, offsets, lengths, place))
        file.seek(4)
        file.write(struct.pack("<I", place))


def _directory(picture: Picture, offsets: list[int], lengths: list[int], place: int) -> bytes:
    """As it lies at a place in the file."""
    tag = ExifTags.Base
    directory = ImageFileDirectory_v2(b"II*\0" + struct.pack("<I", _START))
    if picture.exif:
        for key, value in picture.exif.items():
            directory[key] = value
        for inner in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            if content := picture.exif.get_ifd(inner):
                directory[inner] = dict(content)
    directory[tag.ImageWidth] = picture.width
    directory[tag.ImageLength] = picture.height
    directory[tag.BitsPerSample] = (picture.bits,) * picture.channels
    directory[tag.Compression] = _DEFLATE
    directory[tag.PhotometricInterpretation] = 1 if picture.is_grey else 2
    directory.tagtype[tag.StripOffsets] = TiffTags.LONG
    directory[tag.StripOffsets] = tuple(offsets)
    directory[tag.SamplesPerPixel] = picture.channels
    directory[tag.RowsPerStrip] = ROWS
    directory[tag.StripByteCounts] = tuple(lengths)
    directory[tag.Predictor] = _DIFFERENCES
    if picture.has_alpha:
        directory[tag.ExtraSamples] = _NOT_MULTIPLIED
    if picture.icc:
        directory[tag.InterColorProfile] = picture.icc
    made = bytearray(directory.tobytes(place))
    # Pillow takes offsets for distances from the directory's end, and adds that to them.
    for entry in range(2, 2 + 12 * len(directory), 12):
        code, _, count, value = struct.unpack_from("<HHII", made, entry)
        if code == tag.StripOffsets:
            struct.pack_into(f"<{count}I", made, entry + 8 if count == 1 else value - place, *offsets)
    return bytes(made)

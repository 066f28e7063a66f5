"""The table of docs/upscale.md, cell by cell: files written by other hands, enlarged, and read by other hands.

What enlarges repeats each pixel, so that all that comes out is known. PNG and BMP are read here by the formats' own
rules, TIFF by tifffile, the others by imagecodecs where that is installed.
"""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms
from test_decode import TURN, chunk, to_eight, write_png, write_tiff

from odm.upscaling.batch import DONE, FAILED, Batch, Result
from odm.upscaling.plan import single

ROOT = Path(__file__).parents[1]
HEIGHT, WIDTH = 22, 18


class Repeated:
    """Each pixel four times."""

    scale, halo, multiple = 2, 1, 1

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        assert pixels.dtype == np.float32 and pixels.shape[2] == 3
        return pixels.repeat(2, 0).repeat(2, 1)


def enlarge(source: Path, target: Path, force: bool = True) -> Result:
    (result,) = Batch(Repeated(), 96, None, force).run(single(source, target).jobs, lambda done, of: None)
    return result


def smooth(channels: int, most: int = 255) -> np.ndarray:
    """A picture that lossy formats come near to: (H, W, channels), integers."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] / HEIGHT
    waves = [np.sin(3 * x + each) + np.cos(2 * y + 2 * each) for each in range(channels)]
    return np.rint((np.stack(waves, -1) / 4 + 0.5) * most).astype(np.int64)


# Input, by case of the table: a file, and what it holds as (H, W, channels) of grey or RGB, alpha behind, and its bits.

Held = tuple[Path, np.ndarray, int]


def png(path: Path, kind: int, bits: int) -> Held:
    values = smooth({0: 1, 2: 3, 4: 2, 6: 4}[kind], 2**bits - 1)
    held = values if bits in (8, 16) else values * (255 // (2**bits - 1))
    return write_png(path / "a.png", values, bits, kind), held, max(bits, 8)


def white_is_zero(path: Path) -> Held:
    values = smooth(1)
    return write_tiff(path / "a.tif", values[..., 0].astype(np.uint8), "miniswhite", None), 255 - values, 8


def times_alpha(path: Path, bits: int) -> Held:
    most = 2**bits - 1
    colour, alpha = smooth(3, most), smooth(1, most)
    multiplied = np.concatenate([np.rint(colour * alpha / most), alpha], -1).astype(f"u{bits // 8}")
    back = np.rint(multiplied[..., :3].astype(float) * most / np.maximum(alpha, 1)).clip(0, most)
    file = write_tiff(path / "a.tif", multiplied, "rgb", "assocalpha")
    return file, np.concatenate([back, alpha], -1).astype(np.int64), bits


def opaque(path: Path) -> Held:
    values = np.concatenate([smooth(3), np.full((HEIGHT, WIDTH, 1), 255)], -1)
    return write_png(path / "a.png", values, 8, 6), values[..., :3], 8


def one_transparent(path: Path) -> Held:
    values = smooth(3)
    key = values[5, 6]
    alpha = np.where((values == key).all(-1, keepdims=True), 0, 255)
    file = write_png(path / "a.png", values, 8, 2, chunk(b"tRNS", key.astype(">u2").tobytes()))
    return file, np.concatenate([values, alpha], -1), 8


def palette(path: Path, transparent: bool) -> Held:
    index, colours = smooth(1, 15), np.stack([np.arange(16) * each % 256 for each in (16, 9, 5)], -1)
    alpha = np.linspace(0, 255, 16).astype(np.uint8)
    more = [chunk(b"PLTE", colours.astype(np.uint8).tobytes())] + [chunk(b"tRNS", alpha.tobytes())] * transparent
    held = colours[index[..., 0]]
    held = np.concatenate([held, alpha[index]], -1) if transparent else held
    return write_png(path / "a.png", index, 4, 3, *more), held, 8


def by_pillow(path: Path, suffix: str, channels: int, **options: object) -> Held:
    file = path / f"a.{suffix}"
    Image.fromarray(smooth(channels).astype(np.uint8)).save(file, **options)
    codecs = pytest.importorskip("imagecodecs")
    return file, codecs.imread(file).astype(np.int64), 8


def profile(space: bytes, kind: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile, by ICC.1:2001-04."""
    start, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    white = struct.pack(">3i", 63190, 65536, 54061)
    header = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02100000, kind, space, connection)
    header += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + white
    return header.ljust(128, b"\0") + table + body


WHITE_POINT = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
GREY_PROFILE = profile(
    b"GRAY", b"mntr", b"XYZ ", {b"wtpt": WHITE_POINT, b"kTRC": b"curv" + bytes(4) + struct.pack(">IH", 1, 563)}
)
RGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def cmyk_profile() -> bytes:
    """Of inks that each take away a colour of sRGB's, black all: from the corners everything is interpolated."""
    corners = np.array(np.meshgrid(*[[0, 1]] * 4, indexing="ij")).reshape(4, -1).T
    rgb = (1 - corners[:, :3]) * (1 - corners[:, 3:])
    from skimage.color import rgb2lab

    lab = rgb2lab(rgb[None].astype(float), illuminant="D65")[0]  # adapted, near enough for corners
    table = np.rint(np.stack([lab[:, 0] * 2.55, lab[:, 1] + 128, lab[:, 2] + 128], -1)).clip(0, 255).astype(np.uint8)
    straight = bytes(range(256))
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + straight * 4 + table.tobytes() + straight * 3
    return profile(b"CMYK", b"prtr", b"Lab ", {b"wtpt": WHITE_POINT, b"A2B0": lut})


INKS = np.array([[c, m, y, k] for c in (0, 255) for m in (0, 255) for y in (0, 255) for k in (0, 255)])


def cmyk(path: Path, with_profile: bool) -> Held:
    values = INKS.repeat(30, 0)[: HEIGHT * WIDTH].reshape(HEIGHT, WIDTH, 4).astype(np.uint8)
    more = {"iccprofile": cmyk_profile()} if with_profile else {}
    file = write_tiff(path / "a.tif", values, "separated", None, **more)
    return file, (255 - values[..., :3].astype(np.int64)) * (255 - values[..., 3:].astype(np.int64)) // 255, 8


def lab(path: Path) -> Held:
    return write_tiff(path / "a.tif", smooth(3).astype(np.uint8), "cielab", None), smooth(3), 8


def floats(path: Path) -> Held:
    return write_tiff(path / "a.tif", smooth(1)[..., 0].astype(np.float32), "minisblack", None), smooth(1), 8


INPUT: dict[str, list[Callable[[Path], Held]]] = {
    "grey, 1 to 8 bits": [lambda path, bits=bits: png(path, 0, bits) for bits in (1, 2, 4, 8)],
    "grey, white as 0": [white_is_zero],
    "grey, 16 bits": [lambda path: png(path, 0, 16)],
    "grey with alpha, 8 bits": [lambda path: png(path, 4, 8)],
    "grey with alpha, 16 bits": [lambda path: png(path, 4, 16)],
    "RGB, 8 bits": [lambda path: png(path, 2, 8)],
    "RGB, 16 bits": [lambda path: png(path, 2, 16)],
    "RGB with alpha, 8 bits": [lambda path: png(path, 6, 8)],
    "RGB with alpha, 16 bits": [lambda path: png(path, 6, 16)],
    "RGB times alpha (TIFF), 8 bits": [lambda path: times_alpha(path, 8)],
    "RGB times alpha (TIFF), 16 bits": [lambda path: times_alpha(path, 16)],
    "alpha, opaque throughout": [opaque],
    "one colour transparent (PNG)": [one_transparent],
    "palette": [lambda path: palette(path, False)],
    "palette with transparency": [lambda path: palette(path, True)],
    "JPEG": [lambda path: by_pillow(path, "jpg", 3)],
    "WebP with alpha": [lambda path: by_pillow(path, "webp", 4, lossless=True, exact=True)],
    "AVIF": [lambda path: by_pillow(path, "avif", 3)],
    "CMYK with a profile": [lambda path: cmyk(path, True)],
    "CMYK without a profile": [lambda path: cmyk(path, False)],
    "CIELAB, YCbCr outside of JPEG": [lab],
    "signed, floating-point, 32 bits": [floats],
}
COLOURS = {"grey": 1, "grey and alpha": 2, "RGB": 3, "RGB and alpha": 4}


def table() -> list[tuple[str, str, str]]:
    """Case, suffix and cell."""
    section = (ROOT / "docs" / "upscale.md").read_text().split("## What becomes of pixels")[1].split("\n## ")[0]
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")
    ]
    return [
        (row[0], suffix, cell)
        for row in rows
        for column, cell in zip(head[1:], row[1:], strict=True)
        for suffix in column.split(", ")
    ]


def test_the_table_is_of_these_cases() -> None:
    assert {case for case, _, _ in table()} == set(INPUT)


# Output, read by other hands: (H, W, channels)


def png_read(path: Path) -> np.ndarray:
    """By the PNG specification, without interlacing; every checksum holds."""
    content, place, data, head = path.read_bytes(), 8, b"", b""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    for name, body in png_chunks(path):
        head = body if name == b"IHDR" else head
        data += body if name == b"IDAT" else b""
    width, height, bits, kind, *rest = struct.unpack(">IIBBBBB", head)
    assert rest == [0, 0, 0] and place
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    step, size = channels * bits // 8, channels * bits // 8 * width
    raw, above, rows = zlib.decompress(data), [0] * size, []
    assert len(raw) == (size + 1) * height
    for number in range(height):
        filtered, *line = raw[number * (size + 1) : (number + 1) * (size + 1)]
        for at in range(size):
            left, corner = (line[at - step], above[at - step]) if at >= step else (0, 0)
            estimate = left + above[at] - corner
            paeth = min((left, above[at], corner), key=lambda each: abs(estimate - each))
            line[at] = (line[at] + [0, left, above[at], (left + above[at]) // 2, paeth][filtered]) % 256
        rows.append(line)
        above = line
    values = np.array(rows, np.uint8).view(">u2" if bits == 16 else np.uint8)
    return values.reshape(height, width, channels).astype(np.uint16 if bits == 16 else np.uint8)


def png_chunks(path: Path) -> list[tuple[bytes, bytes]]:
    content, place, found = path.read_bytes(), 8, []
    while place < len(content):
        length, name = struct.unpack(">I4s", content[place : place + 8])
        body = content[place + 8 : place + 8 + length]
        assert struct.unpack(">I", content[place + 8 + length : place + 12 + length])[0] == zlib.crc32(name + body)
        found.append((name, body))
        place += 12 + length
    return found


def bmp_read(path: Path) -> np.ndarray:
    content = path.read_bytes()
    start, _, width, height, _, bits, compression = struct.unpack("<IIiiHHI", content[10:34])
    assert compression == 0 and height > 0
    stride = -(-width * bits // 32) * 4
    rows = np.frombuffer(content[start:], np.uint8).reshape(height, stride)[::-1, : width * bits // 8]
    return rows.reshape(height, width, -1)[..., ::-1]


def decoded(path: Path) -> np.ndarray:
    if path.suffix == ".tif":
        read = tifffile.imread(path)
    elif path.suffix in (".png", ".bmp"):
        read = {".png": png_read, ".bmp": bmp_read}[path.suffix](path)
    else:
        read = pytest.importorskip("imagecodecs").imread(path)
    if path.suffix == ".avif" and (read == read[..., :1]).all():
        read = read[..., 0]  # of grey it makes three
    return read if read.ndim == 3 else read[..., None]


@pytest.mark.parametrize(("case", "suffix", "cell"), table())
def test_cell(case: str, suffix: str, cell: str, tmp_path: Path) -> None:
    for number, make in enumerate(INPUT[case]):
        source, held, bits = make(tmp_path)
        target = tmp_path / f"out{number}{suffix}"
        result = enlarge(source, target)
        if cell == "refused":
            assert result.status == FAILED and not target.exists()
            assert "\n" not in result.reason and result.reason.startswith((f"{source}: ", f"{target}: "))
            continue
        assert result.status == DONE, result.reason
        kind, _, noted = cell.partition(", ")
        # tifffile writes a resolution into each, which BMP does not hold.
        assert bool(noted) == any("EXIF" not in note for note in result.notes)
        channels, depth = COLOURS[kind.rsplit(" ", 1)[0]], int(kind.rsplit(" ", 1)[1])
        found = decoded(target)
        assert found.dtype == f"u{depth // 8}"
        assert found.shape == (2 * HEIGHT, 2 * WIDTH, channels)
        expected = held.repeat(2, 0).repeat(2, 1)
        if expected.shape[-1] in (2, 4):
            expected = np.where(expected[..., -1:] == 0, 0, expected)
        if depth < bits:
            expected = to_eight(expected, bits)
        if channels != expected.shape[-1]:
            expected = np.concatenate([expected[..., :1].repeat(3, -1), expected[..., 1:]], -1)
        apart = np.abs(found.astype(np.int64) - expected)
        if case == "CMYK with a profile":
            assert apart.mean() < 8
        elif suffix in (".jpg", ".avif"):
            if channels in (2, 4):  # what hardly shows is not worth bits
                apart = apart[expected[..., -1] > 64]
            assert apart.mean() < 6
        else:
            assert not apart.any()


# What lies beside pixels


def exif_of(path: Path) -> dict[int, object]:
    """The first directory's tags, as tifffile reads them."""
    content = path.read_bytes()
    if path.suffix == ".png":
        block = dict(png_chunks(path)).get(b"eXIf", b"")
    elif path.suffix == ".tif":
        block = content
    else:
        block = content[min(place for mark in (b"II*\0", b"MM\0*") if (place := content.find(mark)) >= 0) :]
    with tifffile.TiffFile(io.BytesIO(block)) as read:
        return {tag.code: tag.value for tag in read.pages[0].tags}


def icc_of(path: Path) -> bytes | None:
    content = path.read_bytes()
    if path.suffix == ".png":
        found = dict(png_chunks(path)).get(b"iCCP")
        return None if found is None else zlib.decompress(found.split(b"\0", 1)[1][1:])
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as read:
            tag = read.pages[0].tags.get(34675)
            return None if tag is None else bytes(tag.value)
    mark = content.find(b"acsp")
    if mark < 0:
        return None
    start = mark - 36
    return content[start : start + struct.unpack(">I", content[start : start + 4])[0]]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".avif"])
@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_exif_and_profile_outlive(suffix: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "A camera"
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.XResolution] = 300.0
    exif[ExifTags.Base.StripOffsets] = 77
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    inner |= {
        ExifTags.Base.DateTimeOriginal: "2020:02:03 04:05:06",
        ExifTags.Base.ExposureTime: 0.004,
        ExifTags.Base.ExifImageWidth: WIDTH,
        ExifTags.Base.ExifImageHeight: HEIGHT,
        ExifTags.Base.MakerNote: b"note\0\1\2",
    }
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    source = tmp_path / "in.png"
    pixels = smooth(3).astype(np.uint8)
    Image.fromarray(pixels).save(source, exif=exif, icc_profile=RGB_PROFILE)
    target = tmp_path / f"out{suffix}"
    result = enlarge(source, target)
    assert (result.status, result.notes) == (DONE, [])
    assert icc_of(target) == RGB_PROFILE
    found = exif_of(target)
    assert found[ExifTags.Base.Make] == "A camera"
    assert ExifTags.Base.Orientation not in found
    assert (ExifTags.Base.StripOffsets in found) == (suffix == ".tif")
    read = found[ExifTags.IFD.Exif]
    turned = TURN[orientation](pixels)
    assert isinstance(read, dict)
    assert (read["ExifImageHeight" if "ExifImageHeight" in read else "PixelYDimension"]) == 2 * turned.shape[0]
    assert read["DateTimeOriginal"] == "2020:02:03 04:05:06"
    assert read["MakerNote"] == b"note\0\1\2"
    assert found[ExifTags.IFD.GPSInfo]["GPSLatitudeRef"] == "N"
    if suffix in (".png", ".tif", ".webp"):
        assert np.array_equal(decoded(target), turned.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_a_profile_of_grey(suffix: str, tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    Image.fromarray(smooth(1)[..., 0].astype(np.uint8)).save(source, icc_profile=GREY_PROFILE)
    assert enlarge(source, tmp_path / f"out{suffix}").notes == []
    assert icc_of(tmp_path / f"out{suffix}") == GREY_PROFILE


@pytest.mark.parametrize(
    ("icc", "target"), [(RGB_PROFILE, "a.png"), (b"no profile", "a.tif"), (GREY_PROFILE, "a.webp")]
)
def test_a_profile_that_does_not_fit_is_left_out(icc: bytes, target: str, tmp_path: Path) -> None:
    source = tmp_path / "in.tif"
    write_tiff(source, smooth(1)[..., 0].astype(np.uint8), "minisblack", None, iccprofile=icc)
    result = enlarge(source, tmp_path / target)
    assert result.status == DONE
    assert ["ICC" in note for note in result.notes] == [True]
    assert icc_of(tmp_path / target) is None


def test_damaged_exif_is_left_out(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    block = b"II*\0\x08\0\0\0\x01\0\x0f\x01\x02\0\xff\xff\xff\xff\x1a\0\0\0"
    Image.fromarray(smooth(3).astype(np.uint8)).save(source, exif=b"Exif\0\0" + block)
    assert enlarge(source, tmp_path / "out.png").status == DONE


def test_exif_larger_than_a_jpeg_holds_is_noted(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "A camera"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = bytes(70000)
    Image.fromarray(smooth(3).astype(np.uint8)).save(tmp_path / "in.png", exif=exif)
    result = enlarge(tmp_path / "in.png", tmp_path / "out.jpg")
    assert result.status == DONE and result.notes == ["its EXIF, which JPEG does not hold, is left out"]


def test_larger_than_the_format_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    Image.new("L", (8192, 1)).save(tmp_path / "in.png")
    result = enlarge(tmp_path / "in.png", tmp_path / "out.webp")
    assert "16384x2 is larger than a WEBP can be (16383 a side); name a .png" in result.reason
    assert enlarge(tmp_path / "in.png", tmp_path / "out.png").status == DONE


def test_pngs_are_about_as_small_as_others_write_them(tmp_path: Path) -> None:
    from skimage import data

    Image.fromarray(data.chelsea()).save(tmp_path / "in.jpg", quality=95)
    enlarge(tmp_path / "in.jpg", tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as image:
        image.save(tmp_path / "theirs.png")
        assert np.array_equal(np.asarray(image), np.asarray(Image.open(tmp_path / "in.jpg")).repeat(2, 0).repeat(2, 1))
    assert (tmp_path / "out.png").stat().st_size < 1.05 * (tmp_path / "theirs.png").stat().st_size

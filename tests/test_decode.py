"""Every kind of file, written here from the formats' own rules: its pixels come back right, or it is refused."""

import itertools
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from odm.errors import OdmError
from odm.images.decode import read_image

HEIGHT, WIDTH = 21, 19


def noise(*shape: int, most: int = 255, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, most + 1, shape)


def to_eight(values: np.ndarray, bits: int) -> np.ndarray:
    """Nearest of 0-255, halves up, for unsigned values of some bits: by rational numbers, not by the code's own sum."""
    return np.floor(values.astype(np.float64) * 255 / (2**bits - 1) + 0.5).astype(np.uint8)


def refused(file: Path) -> str:
    with pytest.raises(OdmError) as error:
        read_image(file)
    said = str(error.value)
    assert "\n" not in said
    assert said.startswith(f"{file}: ")
    return said.removeprefix(f"{file}: ")


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def write_png(path: Path, values: np.ndarray, bits: int, kind: int, *more: bytes) -> Path:
    """By the PNG specification: values (H, W, channels), of `bits` each, without filters."""
    rows = values.reshape(len(values), -1)
    if bits == 16:
        packed = rows.astype(">u2").view(np.uint8).reshape(len(rows), -1)
    else:
        in_bits = (rows[..., None] >> np.arange(bits - 1, -1, -1)) & 1
        packed = np.packbits(in_bits.reshape(len(rows), -1).astype(np.uint8), axis=1)
    lines = b"".join(b"\0" + row.tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", values.shape[1], len(values), bits, kind, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PNG_DEPTHS = [(bits, 0) for bits in (1, 2, 4, 8, 16)] + [(8, 2), (16, 2)] + [(bits, 3) for bits in (1, 2, 4, 8)]
PNG_ALPHA = [(8, 4), (16, 4), (8, 6), (16, 6)]


@pytest.mark.parametrize(("bits", "kind"), PNG_DEPTHS)
@pytest.mark.parametrize("key", ["none", "unused", "used"])
def test_png_without_alpha(tmp_path: Path, bits: int, kind: int, key: str) -> None:
    most = 2**bits - 1
    values = noise(HEIGHT, WIDTH, CHANNELS[kind], most=most)
    values[3, 4] = most // 2
    if key == "unused":
        values[(values == most // 2).all(-1)] = most
    more = []
    if kind == 3:
        palette = noise(most + 1, 3, seed=6)
        more.append(chunk(b"PLTE", palette.astype(np.uint8).tobytes()))
        expected = palette[values[..., 0]].astype(np.uint8)
        if key != "none":
            alpha = np.full(most + 1, 255, np.uint8)
            alpha[most // 2] = 0 if key == "used" else 255
            more.append(chunk(b"tRNS", alpha.tobytes()))
    else:
        expected = to_eight(values, bits)
        expected = expected[..., 0] if kind == 0 else expected
        if key != "none":
            of_use = values[3, 4] if key == "used" else np.full(CHANNELS[kind], most // 2)
            more.append(chunk(b"tRNS", of_use.astype(">u2").tobytes()))
    file = write_png(tmp_path / "a.png", values, bits, kind, *more)
    if key == "used":
        assert refused(file) == "has transparent pixels; save it without transparency"
    else:
        assert np.array_equal(read_image(file), expected)


@pytest.mark.parametrize(("bits", "kind"), PNG_ALPHA)
@pytest.mark.parametrize("least", [0, 1, None])
def test_png_with_alpha(tmp_path: Path, bits: int, kind: int, least: int | None) -> None:
    """Opaque throughout, or but for one pixel that lacks one level."""
    most = 2**bits - 1
    values = noise(HEIGHT, WIDTH, CHANNELS[kind], most=most)
    values[..., -1] = most
    if least is not None:
        values[7, 7, -1] = most - 1 if least else 0
    file = write_png(tmp_path / "a.png", values, bits, kind)
    if least is not None:
        assert "transparent" in refused(file)
    else:
        expected = to_eight(values[..., :-1], bits)
        assert np.array_equal(read_image(file), expected[..., 0] if kind == 4 else expected)


def test_every_value_of_sixteen_bits(tmp_path: Path) -> None:
    values = np.arange(65536).reshape(256, 256)
    grey = write_png(tmp_path / "grey.png", values[..., None], 16, 0)
    colour = write_png(tmp_path / "rgb.png", np.stack([values, 65535 - values, values.T], -1), 16, 2)
    expected = to_eight(values, 16)
    assert np.array_equal(read_image(grey), expected)
    assert np.array_equal(read_image(colour), np.stack([expected, 255 - expected, expected.T], -1))


TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8", "u8"]
COLOURS = {"minisblack": 1, "miniswhite": 1, "rgb": 3, "separated": 4, "cielab": 3, "ycbcr": 3}
EXTRA: dict[str, str | None] = {
    "none": None,
    "of no meaning": "unspecified",
    "alpha": "unassalpha",
    "times": "assocalpha",
}
LAYOUTS = list(itertools.product(TYPES, COLOURS, EXTRA))


def write_tiff(path: Path, values: np.ndarray, colour: str, extra: str | None, **more: object) -> Path:
    planar = "contig" if values.ndim == 3 else None
    extras = [extra] if extra else None
    tifffile.imwrite(
        path, values, photometric=colour, extrasamples=extras, planarconfig=more.pop("planar", planar), **more
    )
    assert np.array_equal(tifffile.imread(path), values)
    return path


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_by_type_colour_and_alpha(tmp_path: Path, compression: str | None, order: str) -> None:
    """Of 240 layouts the pixels are those that another library wrote, or they are refused, and not as damaged."""
    read = set()
    for kind, colour, extra in LAYOUTS:
        dtype = np.dtype(kind)
        channels = COLOURS[colour] + (extra != "none")
        most = np.iinfo(dtype).max if dtype.kind in "iu" else 1
        values = (np.random.default_rng(2).random((HEIGHT, WIDTH, channels)) * most).astype(dtype)
        if extra in ("alpha", "times"):
            values[..., -1] = most
        file = tmp_path / "a.tif"
        stored = values if channels > 1 else values[..., 0]
        write_tiff(file, stored, colour, EXTRA[extra], compression=compression, byteorder=order)
        try:
            pixels = read_image(file)
        except OdmError as error:
            said = str(error)
            assert "\n" not in said and said.startswith(f"{file}: ")
            assert "which are not read" in said or "unsupported" in said, (kind, colour, extra, said)
            continue
        read.add((kind, colour, extra))
        own = values[..., : COLOURS[colour]].astype(np.float64)
        expected = to_eight(own if colour != "miniswhite" else most - own, dtype.itemsize * 8)
        assert np.array_equal(pixels, expected[..., 0] if channels - (extra != "none") == 1 else expected), (
            kind,
            colour,
        )
    wanted = {(kind, colour, "none") for kind in ("u1", "u2") for colour in ("minisblack", "miniswhite", "rgb")}
    wanted |= {("u1", colour, extra) for colour in ("minisblack", "rgb") for extra in EXTRA}
    wanted |= {("u2", "rgb", extra) for extra in EXTRA}
    wanted -= {("u2", "miniswhite", "none")} if order == ">" else set()  # Pillow does not open these
    assert read == wanted


@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("extra", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("colour", ["minisblack", "rgb"])
def test_tiff_with_one_transparent_pixel(tmp_path: Path, kind: str, extra: str, colour: str) -> None:
    most = np.iinfo(kind).max
    values = noise(HEIGHT, WIDTH, COLOURS[colour] + 1, most=most).astype(kind)
    values[..., -1] = most
    values[2, 3, -1] = most - 1
    said = refused(write_tiff(tmp_path / "a.tif", values, colour, extra))
    assert "transparent" in said or ((kind, colour) == ("u2", "minisblack") and "unsupported" in said)


def test_tiff_in_planes_in_tiles_and_of_one_bit(tmp_path: Path) -> None:
    values = noise(3, HEIGHT, WIDTH).astype(np.uint8)
    file = tmp_path / "a.tif"
    write_tiff(file, values, "rgb", None, planar="separate")
    assert np.array_equal(read_image(file), np.moveaxis(values, 0, -1))
    write_tiff(file, values.astype(np.uint16) * 257, "rgb", None, planar="separate")
    assert "RGB in planes" in refused(file)
    tiles = noise(40, 56, 3, most=65535).astype(np.uint16)
    for predictor, compression in ((False, None), (False, "zlib"), (True, "zlib")):
        tifffile.imwrite(
            file, tiles, photometric="rgb", tile=(16, 32), compression=compression, predictor=predictor or None
        )
        assert np.array_equal(read_image(file), to_eight(tiles, 16))
    for colour in ("minisblack", "miniswhite"):
        bits = noise(HEIGHT, WIDTH, most=1).astype(bool)
        tifffile.imwrite(file, bits, photometric=colour)
        assert np.array_equal(read_image(file), np.where(bits ^ (colour == "miniswhite"), 255, 0))


@pytest.mark.parametrize("mode", ["CMYK", "LAB", "YCbCr", "HSV", "F", "I"])
@pytest.mark.parametrize("suffix", ["tif", "jpg"])
def test_other_colours(tmp_path: Path, mode: str, suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    image = Image.fromarray(noise(HEIGHT, WIDTH, 3).astype(np.uint8)).convert("L" if mode in "FI" else "RGB")
    try:
        image.convert(mode).save(file)
    except (OSError, KeyError, ValueError):
        pytest.skip("the format has no such images")
    if (mode, suffix) == ("YCbCr", "jpg"):  # how every JPEG stands there
        assert read_image(file).shape == (HEIGHT, WIDTH, 3)
    else:
        assert "damaged" not in refused(file)


TURN = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.swapaxes(a[::-1], 0, 1),
    7: lambda a: np.swapaxes(a[::-1, ::-1], 0, 1),
    8: lambda a: np.swapaxes(a[:, ::-1], 0, 1),
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    orientation=st.integers(1, 8),
    suffix=st.sampled_from(["png", "webp", "tif", "jpg"]),
    is_grey=st.booleans(),
    deflate=st.booleans(),
)
def test_orientation(tmp_path: Path, orientation: int, suffix: str, is_grey: bool, deflate: bool) -> None:
    pixels = noise(HEIGHT, WIDTH, *([] if is_grey else [3])).astype(np.uint8)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    more = {"lossless": True} if suffix == "webp" else {"compression": "tiff_deflate" if deflate else None}
    image.save(tmp_path / f"a.{suffix}", exif=exif, **more)
    image.save(tmp_path / f"plain.{suffix}", **more)
    plain = read_image(tmp_path / f"plain.{suffix}")
    assert np.array_equal(read_image(tmp_path / f"a.{suffix}"), TURN[orientation](plain))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none_turns_nothing(tmp_path: Path, orientation: int) -> None:
    image = Image.fromarray(noise(HEIGHT, WIDTH, 3).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.asarray(image))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(exif=st.binary(min_size=1, max_size=60), is_tiff=st.booleans())
def test_any_exif_leaves_the_pixels_readable(tmp_path: Path, exif: bytes, is_tiff: bool) -> None:
    image = Image.fromarray(noise(HEIGHT, HEIGHT).astype(np.uint8))
    image.save(tmp_path / "a.png", exif=b"Exif\0\0" + (b"II*\0\x08\0\0\0" if is_tiff else b"") + exif)
    assert read_image(tmp_path / "a.png").shape == (HEIGHT, HEIGHT)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_many_pages_the_first(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    pages = [Image.fromarray(noise(HEIGHT, WIDTH, 3, seed=seed).astype(np.uint8)).quantize(8) for seed in (1, 2)]
    more = {"lossless": True} if suffix == "webp" else {}
    frames = pages if suffix == "gif" else [page.convert("RGB") for page in pages]
    file = tmp_path / f"a.{suffix}"
    frames[0].save(file, save_all=True, append_images=frames[1:], **more)
    assert np.array_equal(read_image(file), np.asarray(pages[0].convert("RGB")))
    assert capsys.readouterr().out == f"note: {file}: holds more than one picture; the first is taken\n"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "TIFF"]),
    place=st.floats(0, 1, exclude_max=True),
    value=st.integers(0, 255),
    kept=st.one_of(st.none(), st.floats(0, 1)),
)
def test_damage_anywhere_is_no_traceback(
    tmp_path: Path, kind: str, place: float, value: int, kept: float | None
) -> None:
    file = tmp_path / "a.bin"
    Image.fromarray(noise(HEIGHT, WIDTH, 3).astype(np.uint8)).save(file, kind)
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] = value
    file.write_bytes(content if kept is None else content[: int(kept * len(content))])
    with suppress(OdmError):
        read_image(file)


def test_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong is said, each in its own words."""
    file = tmp_path / "a.png"
    file.write_bytes(b"")
    assert refused(file) == "cannot be read: damaged: it is empty; replace it or take it out"
    file.write_text("not an image\n")
    assert refused(file).startswith("cannot be read: not an image, or of a format that is not read;")
    write_png(file, noise(HEIGHT, WIDTH, 1), 8, 0)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert refused(file) == "cannot be read: damaged PNG; replace it or take it out"
    file.write_bytes(whole)
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        assert refused(file).startswith("too large: an image may have 0 megapixels")
    tifffile.imwrite(file, noise(HEIGHT, WIDTH, 2).astype(np.uint16), photometric="minisblack", planarconfig="contig")
    assert refused(file).startswith("cannot be read: unsupported: a TIFF")
    tifffile.imwrite(file, noise(HEIGHT, WIDTH).astype(np.int16), photometric="minisblack")
    assert refused(file) == "16-bit signed grey pixels, which are not read; save it with 8 bits, as grey or RGB"
    file.unlink()
    assert refused(file).startswith("cannot be read: No such file")
    file.mkdir()
    assert refused(file).startswith("cannot be read: Is a directory")

"""Files as people have them, and as nobody should: each comes out right, or is refused in one line, and never stops the
others."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from test_decode import chunk
from test_upscale_files import Repeated, cmyk_profile, smooth

from odm.upscaling.batch import DONE, FAILED, Batch
from odm.upscaling.journal import Journal
from odm.upscaling.plan import many

PIXELS = smooth(3).astype(np.uint8)
RIGHT = ""
FIVE = np.zeros((9, 9, 5), np.uint8)
TEXT = b"a\0\0" + zlib.compress(bytes(2**26))
ONE_PIXEL, END = chunk(b"IDAT", zlib.compress(b"\0abc")), chunk(b"IEND", b"")


def saved(format: str, pixels: np.ndarray = PIXELS, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format, **options)
    return stream.getvalue()


def cut(format: str, share: float, **options: object) -> bytes:
    content = saved(format, **options)
    return content[: int(share * len(content))]


def png_of(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def header(width: int, height: int, bits: int = 8, kind: int = 2, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlace))


def changed(content: bytes, at: int, value: bytes) -> bytes:
    return content[:at] + value + content[at + len(value) :]


def tiff(values: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


def endless_tiff() -> bytes:
    """Whose directory goes on with itself."""
    content = bytearray(tiff(PIXELS, photometric="rgb"))
    place = struct.unpack("<I", content[4:8])[0]
    count = struct.unpack("<H", content[place : place + 2])[0]
    content[place + 2 + 12 * count : place + 6 + 12 * count] = struct.pack("<I", place)
    return bytes(content)


def frames(format: str) -> bytes:
    pages = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    stream = io.BytesIO()
    pages[0].save(stream, format, save_all=True, append_images=pages[1:])
    return stream.getvalue()


def huge_jpeg() -> bytes:
    content = bytearray(saved("JPEG"))
    place = content.find(b"\xff\xc0")
    content[place + 5 : place + 9] = struct.pack(">HH", 65000, 65000)
    return bytes(content)


def inks(**options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).convert("CMYK").save(stream, "JPEG", **options)
    return stream.getvalue()


FILES: dict[str, tuple[bytes, str]] = {
    # right
    "plain.png": (saved("PNG"), RIGHT),
    "photo.jpg": (saved("JPEG"), RIGHT),
    "progressive.jpeg": (saved("JPEG", progressive=True), RIGHT),
    "grey.jpg": (saved("JPEG", PIXELS[..., 0]), RIGHT),
    "a png of another name.jpg": (saved("PNG"), RIGHT),
    "a jpeg of another name.png": (saved("JPEG"), RIGHT),
    "name of\nseveral lines \x1b[31m.png": (saved("PNG"), RIGHT),
    "写真 ü.webp": (saved("WEBP"), RIGHT),
    "x" * 251 + ".png": (saved("PNG"), RIGHT),
    "upper.PNG": (saved("PNG"), RIGHT),
    "one pixel.png": (saved("PNG", PIXELS[:1, :1]), RIGHT),
    "one row.png": (saved("PNG", PIXELS[:1]), RIGHT),
    "one column.tif": (saved("TIFF", PIXELS[:, :1]), RIGHT),
    "one bit.png": (saved("PNG", PIXELS[..., 0] > 99), RIGHT),
    "interlaced.png": (png_of(header(1, 1, interlace=1), ONE_PIXEL, END), RIGHT),
    "moving.gif": (frames("GIF"), RIGHT),
    "many frames.webp": (frames("WEBP"), RIGHT),
    "many frames.png": (frames("PNG"), RIGHT),
    "many pages.tiff": (frames("TIFF"), RIGHT),
    "large endian.tif": (tiff(PIXELS, photometric="rgb", byteorder=">"), RIGHT),
    "tiles.tif": (tiff(PIXELS, photometric="rgb", tile=(16, 16)), RIGHT),
    "lzw.tif": (saved("TIFF", compression="tiff_lzw"), RIGHT),
    "jpeg within.tif": (saved("TIFF", compression="jpeg"), RIGHT),
    "planes.tif": (tiff(np.moveaxis(PIXELS, -1, 0), photometric="rgb", planarconfig="separate"), RIGHT),
    "thumbnail.jpg": (saved("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\x1a\0\0\0\0\0"), RIGHT),
    "wrong exif.jpg": (saved("JPEG", exif=b"Exif\0\0" + bytes(range(64))), RIGHT),
    "wrong profile.png": (saved("PNG", icc_profile=b"not a profile"), RIGHT),
    "endless directories.tif": (endless_tiff(), RIGHT),
    "inks of a profile.jpg": (inks(icc_profile=cmyk_profile()), RIGHT),
    "behind the end.png": (saved("PNG") + b"something else" * 99, RIGHT),
    # refused
    "empty.png": (b"", "damaged: it is empty"),
    "text.png": (b"not an image\n", "not an image"),
    "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
    "archive.jpg": (b"PK\x03\x04" + bytes(99), "not an image"),
    "cut.png": (cut("PNG", 0.6), "damaged PNG"),
    "cut.jpg": (cut("JPEG", 0.6), "damaged JPEG"),
    "cut.webp": (cut("WEBP", 0.6), "damaged WEBP"),
    "cut.tif": (cut("TIFF", 0.6), "damaged TIFF"),
    "cut.avif": (cut("AVIF", 0.6), "cannot be read"),
    "signature alone.png": (b"\x89PNG\r\n\x1a\n", "damaged PNG"),
    "signature alone.jpg": (b"\xff\xd8\xff", "damaged JPEG"),
    "no data.png": (png_of(header(9, 9), chunk(b"IEND", b"")), "damaged PNG"),
    "no width.png": (png_of(header(0, 9), chunk(b"IDAT", b""), chunk(b"IEND", b"")), "cannot be read"),
    "wrong checksum.png": (changed(saved("PNG"), 30, b"\0\0\0"), "damaged PNG"),
    "bomb.png": (png_of(header(60000, 60000), ONE_PIXEL, END), "too large"),
    "text bomb.png": (png_of(header(1, 1), chunk(b"zTXt", TEXT), ONE_PIXEL, END), "damaged PNG"),
    "bomb.jpg": (huge_jpeg(), "too large"),
    "inks.jpg": (inks(), "CMYK without an ICC profile"),
    "inks of another profile.jpg": (inks(icc_profile=b"CMYK" * 99), "CMYK with an ICC profile that cannot be used"),
    "floats.tif": (tiff(PIXELS[..., 0].astype(np.float32), photometric="minisblack"), "32-bit floating-point"),
    "signed.tif": (tiff(PIXELS[..., 0].astype(np.int16), photometric="minisblack"), "16-bit signed"),
    "lab.tif": (tiff(PIXELS, photometric="cielab"), "LAB"),
    "five channels.tif": (tiff(FIVE, photometric="minisblack", planarconfig="contig"), "cannot be read"),
    "nowhere.tif": (changed(saved("TIFF"), 4, b"\xff\xff\xff\x7f"), "cannot be read"),
}  # fmt: skip


def test_each_file_is_right_or_refused_in_one_line(tmp_path: Path) -> None:
    """All in one folder, with what is no regular file."""
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name, (content, _) in FILES.items():
        (source / name).write_bytes(content)
    (source / "folder.png").mkdir()
    os.mkfifo(source / "pipe.png")
    (source / "gone.png").symlink_to("nowhere")
    (source / "device.png").symlink_to("/dev/zero")
    (source / "link.png").symlink_to("plain.png")
    (source / "round and round").symlink_to(".")
    expected = {name: words for name, (_, words) in FILES.items()}
    expected |= {"pipe.png": "a device or pipe", "device.png": "a device or pipe", "gone.png": "No such file"}
    plan = many([source], target, "")
    assert plan.others == 0
    results = list(Batch(Repeated(), 96, Journal(target, "m", "s"), False).run(plan.jobs, lambda done, of: None))
    assert {each.job.source.name for each in results} == {*expected, "link.png"}
    assert len(results) > 55
    for result in results:
        name = result.job.source.name
        words = expected.get(name, RIGHT)
        if words == RIGHT:
            assert result.status == DONE, (name, result.reason)
            with Image.open(source / name) as before, Image.open(result.job.target) as after:
                sides = [2 * side for side in before.size]
                assert list(after.size) == sides
        else:
            assert result.status == FAILED, name
            assert result.reason.startswith(f"{result.job.source}: ") and words in result.reason, result.reason
            assert "an error nobody thought of" not in result.reason
            assert "\n" not in result.reason.replace(name, "")
            assert not result.job.target.exists()
    noted = {each.job.source.name for each in results if each.notes}
    assert noted >= {"moving.gif", "many frames.webp", "many frames.png", "many pages.tiff", "wrong profile.png"}
    left = {each.name for each in target.rglob("*") if each.is_file()}
    assert left == {each.job.target.name for each in results if each.status == DONE} | {"upscaled.jsonl"}


def test_memory_that_runs_out_ends_one_image_only(tmp_path: Path) -> None:
    class Full(Repeated):
        def __call__(self, pixels: np.ndarray) -> np.ndarray:
            if len(pixels) > 10:
                raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory")
            return super().__call__(pixels)

    for name, side in (("a", 8), ("b", 20), ("c", 9)):
        Image.new("L", (side, side)).save(tmp_path / f"{name}.png")
    plan = many([tmp_path], tmp_path / "out", "")
    results = list(Batch(Full(), 96, Journal(tmp_path / "out", "m", "s")).run(plan.jobs, lambda done, of: None))
    assert [each.status for each in results] == [DONE, FAILED, DONE]
    assert results[1].reason.endswith("b.png: out of memory; take a smaller --window, or a smaller image")

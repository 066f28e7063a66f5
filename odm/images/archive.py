"""Taking the images of a set out of an archive that nobody vouches for.

Nothing is unpacked on the archive's own word: each member is looked at first, wherever in the archive it lies, and then
only the images of one folder are written, under their bare names. What else there is is never opened.
"""

import errno
import gzip
import io
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from odm.errors import OdmError
from odm.images.catalogue import SUFFIXES

MOST_MEMBERS = 20_000
LARGEST_HEADER = 1 << 20
"""Bytes; `tarfile` reads a long name or an extended header into memory in one go, however large it says it is."""
MOST_HEADERS = 64 << 20
ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".lzma", ".zst", ".7z", ".rar"})
CHUNK = 1 << 16


class RefusedError(OdmError):
    """The archive is hostile, damaged, or not of the set; another one may be good."""


class _Contents:
    """What the members of an archive are called and how large they say they are; RefusedError at the first bad one."""

    def __init__(self, inside: str, most: int) -> None:
        self.inside = PurePosixPath(inside).parts
        self.left, self.most = most, most
        self.members = 0
        self.folders: dict[PurePosixPath, dict[str, tuple[str, str]]] = {}
        """Of each folder with images, by their bare names in lower case: bare name of the file, name of the member."""

    def add(self, name: str, size: int, *, is_file: bool, is_folder: bool) -> None:
        shown = repr(name if len(name) <= 80 else f"{name[:77]}...")
        self.members += 1
        self.left -= size
        if self.members > MOST_MEMBERS:
            raise RefusedError(f"it has more than {MOST_MEMBERS} members")
        if size < 0 or self.left < 0:
            raise RefusedError(
                f"unpacked it would be larger than {self.most / 1e6:.0f} MB, the most that this set may take"
            )
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or re.match("[A-Za-z]:", name):
            raise RefusedError(f"{shown} would be written outside its folder")
        if is_folder:
            return
        if not is_file:
            raise RefusedError(f"{shown} is a link or a device")
        folder = path.parent.parts
        if self.inside and folder[-len(self.inside) :] != self.inside:
            return
        if path.suffix.lower() in ARCHIVES:
            raise RefusedError(f"{shown} is an archive within the archive")
        # Finder leaves a file `._baby.png` for each `baby.png`.
        if path.suffix.lower() not in SUFFIXES or path.name.startswith(".") or "__MACOSX" in folder:
            return
        files = self.folders.setdefault(path.parent, {})
        # Some disks take A.png and a.png for one file.
        if path.name.casefold() in files:
            raise RefusedError(f"{shown} is in it twice")
        files[path.name.casefold()] = (path.name, name)

    def images(self) -> list[tuple[str, str]]:
        """Bare name and member of each image of the set."""
        if len(self.folders) != 1:
            raise RefusedError(f"{len(self.folders)} of its folders hold images of the set instead of one")
        return list(next(iter(self.folders.values())).values())


def take_images(archive: Path, folder: Path, inside: str, most: int) -> None:
    """Write the images of an archive (zip, tar or tar.gz) into an empty folder, none of them in a folder of its own.

    `inside` is how the path of their folder ends within the archive (empty: the one folder with images), `most` how
    many bytes all members may take. RefusedError, with a message that does not name the archive, if anything about it
    is wrong; OSError if this machine cannot write. Either may leave images in `folder`: throw it away.
    """
    contents = _Contents(inside, most)
    with _damage_refused():
        if zipfile.is_zipfile(archive):
            _from_zip(archive, folder, contents)
        else:
            _from_tar(archive, folder, contents)


@contextmanager
def _damage_refused() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # Without a number it is the word of `gzip` for damage; with these, a place or a name that cannot be.
        if error.errno in (None, errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG):
            raise RefusedError("it is not a whole archive") from None
        raise
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        ValueError,  # a number or a name in a header that is none
        OverflowError,
        RuntimeError,  # headers upon headers, or a kind of zip that `zipfile` does not read
    ):
        raise RefusedError("it is not a whole archive") from None


def _from_zip(archive: Path, folder: Path, contents: _Contents) -> None:
    with zipfile.ZipFile(archive) as files:
        for info in files.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            is_file = kind in (0, stat.S_IFREG) and not info.is_dir()
            contents.add(
                info.filename,
                info.file_size,
                is_file=is_file,
                is_folder=info.is_dir() and kind in (0, stat.S_IFDIR),
            )
            # The others are decompressed without a bound on memory.
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise RefusedError("it is compressed in a way that sets are not")
            if info.flag_bits & 1:
                raise RefusedError("it is encrypted")
        for name, member in contents.images():
            with files.open(member) as source:
                _copy(source, folder / name, files.getinfo(member).file_size)


class _Bounded(io.RawIOBase):
    """A decompressed tar file, of which only so much is read, and never much at once."""

    def __init__(self, file: io.BufferedIOBase, budget: int) -> None:
        self.file, self.budget = file, budget

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        self.budget -= size
        if not 0 <= size <= LARGEST_HEADER or self.budget < 0:
            raise RefusedError("its headers are larger than those of any set")
        return self.file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()


def _from_tar(archive: Path, folder: Path, contents: _Contents) -> None:
    with archive.open("rb") as packed:
        is_gzip = packed.read(2) == b"\x1f\x8b"
        packed.seek(0)
        bounded = _Bounded(gzip.GzipFile(fileobj=packed) if is_gzip else packed, MOST_HEADERS)
        with tarfile.open(fileobj=bounded, mode="r:") as files:
            found = {}
            # One by one, so that what is too large is refused before it is decompressed to be skipped.
            for info in files:
                contents.add(info.name, info.size, is_file=info.isreg() and not info.issparse(), is_folder=info.isdir())
                found[info.name] = info
            bounded.budget = contents.most + MOST_HEADERS
            for name, member in contents.images():
                source = files.extractfile(found[member])
                assert source is not None  # a regular file
                _copy(source, folder / name, found[member].size)


def _copy(source: IO[bytes], target: Path, size: int) -> None:
    written = 0
    with target.open("xb") as file:
        while chunk := source.read(CHUNK):
            written += len(chunk)
            file.write(chunk)
    if written != size:
        raise RefusedError("it is not a whole archive")

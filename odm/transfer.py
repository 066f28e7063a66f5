"""Files from elsewhere, by mirrors: resumed where one was cut off, given up where it is too slow, checked at the end.

Only the standard library when imported, as the catalogues of what there is are made of `Source`.
"""

import hashlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from odm.errors import OdmError
from odm.files import read_json, write_json

CONNECT_SECONDS = 15.0
STALL_SECONDS = 30.0
"""A mirror that sends nothing for so long is given up, for the next one or for a new connection."""
SLOW_BYTES = 32_000
"""A second; a mirror slower than that over SLOW_SECONDS is left for the last resort."""
SLOW_SECONDS = 20.0
FRUITLESS = 3
"""Connections to one mirror in a row that may break off without bringing anything new."""
MOST_CONNECTIONS = 200
MOST_BYTES = 1 << 30
"""Of a file whose size is not known."""
LINE_SECONDS = 10.0
CHUNK = 1 << 18


@dataclass(frozen=True)
class Source:
    """A file that can be downloaded."""

    urls: tuple[str, ...]
    """Mirrors of this one file, tried in this order."""
    known_hash: str | None = None
    """`algorithm:digest` of its content, where it is known; of the digest at least the beginning."""
    bytes: int | None = None
    """Its size, where it is known."""

    @property
    def file(self) -> str:
        """Its name."""
        return self.urls[0].rsplit("/", 1)[1]


Kind = TypeVar("Kind", bound=Source)


class FailedError(Exception):
    """Why a mirror cannot serve, in words."""


class SlowError(FailedError):
    """It might, with patience."""


class CutError(FailedError):
    """The connection broke off; another one to the same mirror may bring the rest."""


@dataclass
class _Note:
    """Beside a partial file: where its bytes are from, and by what a server will know that it still has that file."""

    url: str
    etag: str | None
    modified: str | None
    total: int | None
    """Bytes of the whole file."""

    @property
    def validator(self) -> str | None:
        """For `If-Range`, which takes no weak tag."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


@contextmanager
def alone(name: str, folder: Path) -> Iterator[None]:
    """Several jobs may want the same at once: one downloads, the others wait. A kill gives the lock back."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / f".{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{name}: waiting for another job, which is downloading it", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def served(
    name: str, sources: Sequence[Kind], part: Callable[[Kind], Path], take: Callable[[Path, Kind], None]
) -> dict[str, str]:
    """Try each mirror in turn, then the slow ones again with patience; why each failed, or nothing if one served.

    `take` makes of a file that has come whole what is wanted of it; FailedError where it is not that. What came of it
    is in `part` until then, to be gone on from after a cut or a kill.
    """
    failures: dict[str, str] = {}
    impatient = [(source, url) for source in sources for url in source.urls]
    slow: list[tuple[Kind, str]] = []
    if len(impatient) == 1:
        impatient, slow = [], impatient
    for hurried, attempts in ((True, impatient), (False, slow)):
        for source, url in attempts:
            try:
                file = retrieve(name, source, url, part(source), hurried)
                try:
                    take(file, source)
                except FailedError:
                    forget(file)
                    raise
            except FailedError as error:
                failures[url] = str(error)
                print(f"{name}: {url}: {error}", flush=True)
                if isinstance(error, SlowError):
                    slow.append((source, url))
                continue
            for each in sources:
                forget(part(each))
            return {}
    return failures


def _note_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note_of(part).unlink(missing_ok=True)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def unlike(source: Source, file: Path) -> str | None:
    """How a file differs from what is known of it."""
    if source.bytes is not None and file.stat().st_size != source.bytes:
        return f"its size is {file.stat().st_size} bytes, not {source.bytes}"
    if source.known_hash is not None:
        algorithm, known = source.known_hash.split(":")
        with file.open("rb") as content:
            # Not for security where it is MD5, but to notice another file.
            found = hashlib.file_digest(content, lambda: hashlib.new(algorithm, usedforsecurity=False))
        if not found.hexdigest().startswith(known):
            return f"its {algorithm} is not the known one"
    return None


def retrieve(name: str, source: Source, url: str, part: Path, hurried: bool) -> Path:
    """The whole file from one mirror, over as many connections as it takes, in `part`.

    FailedError if it cannot be had there, SlowError if it is slow to come and the caller is `hurried`. What has come
    stays in `part`, unless it is wrong.
    """
    fruitless = 0
    resumed = _size(part) > 0
    with _Progress(name, url, hurried) as progress:
        for _ in range(MOST_CONNECTIONS):
            before = _size(part)
            try:
                _receive(source, url, part, progress)
            except CutError as cut:
                resumed = True
                fruitless = 0 if _size(part) > before else fruitless + 1
                if fruitless == FRUITLESS:
                    raise FailedError(str(cut)) from None
                continue
            why = unlike(source, part)
            if why is None:
                return part
            forget(part)
            if not resumed:
                raise FailedError(why)
            # Perhaps only what an earlier connection, or another mirror, had left was wrong.
            resumed = False
    raise FailedError(f"the connection broke off {MOST_CONNECTIONS} times")


def _receive(source: Source, url: str, part: Path, progress: "_Progress") -> None:
    """Append to the partial file what it lacks, over one connection; CutError if that breaks off."""
    import requests
    from urllib3.exceptions import HTTPError, ReadTimeoutError

    start, headers = _resumption(source, url, part)
    if start and start == _noted(part).total:
        return
    try:
        response = requests.get(
            url,
            # The bytes as they are kept: a file that a server thinks of as text packed for the way stays packed.
            headers={"Accept-Encoding": "identity", **headers},
            stream=True,
            timeout=(CONNECT_SECONDS, STALL_SECONDS),
        )
    except requests.exceptions.SSLError:
        raise FailedError("its certificate is not trusted") from None
    except requests.exceptions.Timeout:
        raise FailedError("no answer") from None
    except (requests.exceptions.RequestException, ValueError) as error:
        is_offline = isinstance(error, requests.exceptions.ConnectionError)
        raise FailedError("no connection" if is_offline else type(error).__name__) from None
    with response:
        status = response.status_code
        if start and (status == 416 or (status == 206 and not _goes_on(response.headers, start, _noted(part), url))):
            forget(part)
            raise CutError("the file has changed")
        if status == 200:
            start = 0  # it ignores ranges, or has another file now: this is all of it
        elif status != 206 or not start:
            raise FailedError(f"HTTP {status}")
        # Of a part, `_goes_on` has looked at the range.
        length = (
            response.headers["Content-Range"].split("/")[1] if start else response.headers.get("Content-Length", "")
        )
        total = int(length) if length.isdecimal() else None
        most = source.bytes or MOST_BYTES
        if total is not None and (total != source.bytes if source.bytes else total > most):
            raise FailedError(f"its size is {total} bytes, not {source.bytes}" if source.bytes else f"{total} bytes")
        if not start:
            forget(part)
        note = _Note(url, response.headers.get("ETag"), response.headers.get("Last-Modified"), total)
        write_json(_note_of(part), asdict(note))
        progress.begin(start, total)
        received = start
        with part.open("ab") as file:
            while total is None or received < total:
                try:
                    # Whatever has come so far, so that a mirror that drips is noticed.
                    chunk = response.raw.read1(CHUNK, decode_content=False)
                except ReadTimeoutError:
                    progress.stalled()
                    raise CutError(f"nothing came for {STALL_SECONDS:.0f} s") from None
                except (HTTPError, OSError):
                    raise CutError("the connection broke off") from None
                if not chunk:
                    break
                received += len(chunk)
                if received > most:
                    raise FailedError(f"it goes on beyond {most} bytes")
                file.write(chunk)
                progress.advance(len(chunk))
    if total is not None and received != total:
        raise CutError("the connection broke off")


def _noted(part: Path) -> _Note:
    return _Note(**read_json(_note_of(part)))


def _resumption(source: Source, url: str, part: Path) -> tuple[int, dict[str, str]]:
    """How many bytes there are to go on from, and the headers that ask for the rest."""
    try:
        note = _noted(part)
    except (OdmError, TypeError):  # none, or not ours
        forget(part)
        return 0, {}
    start = _size(part)
    is_same = note.url == url and note.validator is not None
    # Bytes of another mirror, or of a file that cannot be told from another, only where the whole will be checked.
    if not start or not (is_same or source.known_hash) or (note.total is not None and start > note.total):
        forget(part)
        return 0, {}
    headers = {"Range": f"bytes={start}-"}
    if is_same:
        headers["If-Range"] = str(note.validator)
    return start, headers


def _goes_on(headers: Mapping[str, str], start: int, note: _Note, url: str) -> bool:
    """Whether a partial response is the rest of the file that the first `start` bytes are of."""
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", headers.get("Content-Range", ""))
    if not found:
        return False
    first, last, total = map(int, found.groups())
    if (first, last) != (start, total - 1) or (note.total is not None and total != note.total):
        return False
    return note.url != url or (headers.get("ETag"), headers.get("Last-Modified")) == (note.etag, note.modified)


class _Progress:
    """How much has come, and whether fast enough: a bar on a terminal, a line now and then in a log."""

    def __init__(self, name: str, url: str, hurried: bool) -> None:
        self.name, self.url, self.hurried = name, url, hurried
        self.done = 0
        self.total: int | None = None
        self.began = self.since = self.told = time.monotonic()
        self.came = self.recent = 0
        self.bar = None
        if sys.stdout.isatty():
            from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn
            from rich.progress import Progress as Bar

            self.bar = Bar(BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
            self.task = self.bar.add_task("", total=None)

    def __enter__(self) -> "_Progress":
        print(f"{self.name}: {self.url}", flush=True)
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()

    def begin(self, start: int, total: int | None) -> None:
        """A connection begins to bring what follows the first `start` bytes."""
        self.done, self.total = start, total
        if self.bar:
            self.bar.update(self.task, completed=start, total=total)
        elif start:
            print(f"{self.name}: going on from {start / 1e6:.1f} MB", flush=True)

    def advance(self, count: int) -> None:
        """`count` bytes have come; SlowError if that took too long."""
        self.done += count
        self.came += count
        self.recent += count
        now = time.monotonic()
        if self.bar:
            self.bar.update(self.task, completed=self.done)
        elif now - self.told > LINE_SECONDS:
            self.told = now
            of = f" of {self.total / 1e6:.1f}" if self.total else ""
            speed = self.came / (now - self.began) / 1e6
            print(f"{self.name}: {self.done / 1e6:.1f}{of} MB, {speed:.2f} MB/s", flush=True)
        if now - self.since > SLOW_SECONDS:
            if self.hurried and self.recent < SLOW_BYTES * (now - self.since):
                raise SlowError(f"slower than {SLOW_BYTES / 1000:.0f} kB/s")
            self.since, self.recent = now, 0

    def stalled(self) -> None:
        """Nothing came for long; SlowError if there are others to ask."""
        if self.hurried:
            raise SlowError(f"nothing came for {STALL_SECONDS:.0f} s")

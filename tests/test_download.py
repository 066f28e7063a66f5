"""Downloads from a real HTTP server on this machine, that cuts, drips, forgets and lies; and hostile archives."""

import gzip
import hashlib
import http.server
import io
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from odm import transfer
from odm.errors import OdmError
from odm.images import archive, download
from odm.images.catalogue import CATALOGUE, Benchmark, Download
from odm.images.folders import ROOT_VARIABLE
from odm.images.reading import read_set, set_digest, signature
from odm.settings.images import Images

NAMES = ["1.png", "2.png"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Away from the project's downloads and from whatever the environment names."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv(ROOT_VARIABLE, raising=False)


def png(seed: int, side: int = 20) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


PHOTOS = {name: png(seed) for seed, name in enumerate(NAMES)}


def tar(members: dict[str, bytes], mode: str = "w:gz") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as files:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            files.addfile(info, io.BytesIO(content))
    return file.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as files:
        for name, content in members.items():
            files.writestr(name, content)
    return file.getvalue()


def good(folder: str = "Tiny_HR") -> dict[str, bytes]:
    return {f"{folder}/{name}": content for name, content in PHOTOS.items()}


@dataclass
class Served:
    """One file of the server, and how badly it is served."""

    content: bytes
    ranges: bool = True
    etag: str | None = '"one"'
    cuts: Iterator[int] = field(default_factory=lambda: iter(()))
    """Byte, of the whole file, at which each connection breaks off."""
    drip: float = 0.0
    """Seconds between its bytes."""
    length: bool = True
    status: int = 200
    asked: list[str | None] = field(default_factory=list)
    """The range of each request."""


class Server:
    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        files = self.files

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                served = files.get(self.path)
                if served is None:
                    self.send_error(404)
                    return
                asked = self.headers.get("Range")
                served.asked.append(asked)
                if served.status != 200:
                    self.send_error(served.status)
                    return
                start, total = 0, len(served.content)
                is_same = self.headers.get("If-Range") in (None, served.etag)
                if asked and served.ranges and is_same:
                    start = int(asked.removeprefix("bytes=").removesuffix("-"))
                    if start >= total:
                        self.send_error(416)
                        return
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
                else:
                    self.send_response(200)
                if served.length:
                    self.send_header("Content-Length", str(total - start))
                if served.etag:
                    self.send_header("ETag", served.etag)
                self.end_headers()
                content = served.content[start : max(start, next(served.cuts, total))]
                try:
                    if served.drip:
                        for each in content:
                            self.wfile.write(bytes([each]))
                            time.sleep(served.drip)
                    else:
                        self.wfile.write(content)
                except OSError:  # who asked has gone
                    pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"

    def serve(self, path: str, content: bytes, **manner: object) -> tuple[str, Served]:
        self.files[path] = Served(content, **manner)  # type: ignore[arg-type]
        return self.address + path, self.files[path]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    served = Server()
    served.http.daemon_threads = True
    threading.Thread(target=served.http.serve_forever, args=(0.01,), daemon=True).start()
    yield served
    served.http.shutdown()
    served.http.server_close()


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a set of two images into the catalogue, from these downloads."""

    def put(source: Download, **more: object) -> None:
        monkeypatch.setitem(CATALOGUE, "tiny", Benchmark(2, "none", ("Tiny",), source, **more))  # type: ignore[arg-type]

    return put


def read() -> list[str]:
    images = Images.model_validate({"train": ["tiny"], "test": ["tiny"], "scales": [2]})
    return [name for name, _ in read_set("tiny", images)]


def refused(*parts: str) -> str:
    """Reading the set fails with one line that says these; nothing is left but what can be gone on from."""
    with pytest.raises(OdmError) as error:
        read()
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert part in text
    assert not download.place("tiny").exists()
    assert not list(Path().rglob("*.png"))
    assert not list(Path().rglob(".unpacking*"))
    return text


def left() -> list[str]:
    return sorted(each.name for each in Path("downloads/tiny").iterdir())


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.parametrize("pack", [tar, zipped, lambda members: tar(members, "w")])
def test_one_folder_of_an_archive(server: Server, known: Callable[..., None], pack: Callable[..., bytes]) -> None:
    members = {**good(), "other/3.png": png(3), "Tiny_HR/._1.png": b"of Finder", "Tiny_HR/read.me": b"text"}
    url, served = server.serve("/tiny", pack(members))
    known(Download((f"{server.address}/gone", url), inside="Tiny_HR"))
    assert read() == ["1", "2"]
    assert left() == ["images"]
    assert sorted(each.name for each in download.place("tiny").iterdir()) == NAMES
    assert read() == ["1", "2"]
    assert served.asked == [None]


def big(seed: int = 0) -> bytes:
    """An archive of the set that takes several reads."""
    noise = random.Random(seed).randbytes(300_000)
    return tar({**good(), "noise.bin": noise})


@pytest.mark.parametrize("known_hash", [True, False])
def test_cut_at_a_random_byte_twenty_times(
    server: Server, tmp_path: Path, known: Callable[..., None], known_hash: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = big()
    cuts = sorted(random.Random(int(known_hash)).sample(range(1, len(content)), 20))
    url, served = server.serve("/tiny.tgz", content, cuts=iter(cuts))
    source = Download((url,), sha256(content) if known_hash else None)
    part = transfer.retrieve("tiny", source, url, tmp_path / "tiny.part", hurried=True)
    assert part.read_bytes() == content
    assert served.asked == [None, *(f"bytes={cut}-" for cut in cuts)]
    served.cuts = iter(cuts)
    known(source)
    assert read() == ["1", "2"]
    assert left() == ["images"]


def test_a_killed_download_goes_on(server: Server, known: Callable[..., None]) -> None:
    content = big()
    url, served = server.serve("/tiny.tgz", content, drip=0.0002)
    code = f"""
from odm.images import download
from odm.images.catalogue import Benchmark, Download
download.fetch("tiny", Benchmark(2, "none", (), Download(({url!r},))), lambda folder: None)
"""
    job = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    part = Path("downloads/tiny/tiny.tgz.part")
    limit = time.monotonic() + 20
    while time.monotonic() < limit and not (part.exists() and part.stat().st_size > 1000):
        time.sleep(0.01)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    had = part.stat().st_size
    assert 1000 < had < len(content)
    served.drip = 0
    known(Download((url,)))
    assert read() == ["1", "2"]
    assert served.asked == [None, f"bytes={had}-"]
    assert left() == ["images"]


def test_first_mirror_dead_second_slow_third_good(
    server: Server, known: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(transfer, "SLOW_SECONDS", 0.3)
    slow, _ = server.serve("/slow/tiny.tgz", big(), drip=0.05)
    fine, served = server.serve("/fine/tiny.tgz", big())
    known(Download(("http://127.0.0.1:9/tiny.tgz", slow, fine)))
    began = time.monotonic()
    assert read() == ["1", "2"]
    assert time.monotonic() - began < 5
    assert served.asked == [None]
    told = capsys.readouterr().out
    assert "http://127.0.0.1:9/tiny.tgz: no connection" in told
    assert f"{slow}: slower than 32 kB/s" in told
    assert left() == ["images"]


def test_a_mirror_that_stalls_and_an_archive_elsewhere(
    server: Server, known: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "STALL_SECONDS", 0.2)
    stalled, _ = server.serve("/tiny.tgz", big(), drip=20)
    other, _ = server.serve("/all.zip", zipped(good("all/Tiny/HR")))
    known(Download((stalled,), otherwise=Download((other,), inside="Tiny/HR")))
    assert read() == ["1", "2"]


def test_where_all_mirrors_are_slow_they_are_used_with_patience(
    server: Server, known: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "SLOW_SECONDS", 0.1)
    monkeypatch.setattr(transfer, "SLOW_BYTES", 10**9)
    slow, served = server.serve("/tiny.tgz", tar(good()), drip=0.0002)
    known(Download(("http://127.0.0.1:9/tiny.tgz", slow)))
    assert read() == ["1", "2"]
    assert len(served.asked) == 2 and served.asked[1]  # gone on from where it was left


def test_another_mirror_goes_on_where_the_file_is_known(server: Server, known: Callable[..., None]) -> None:
    content = big()
    first, _ = server.serve("/1/tiny.tgz", content, cuts=itertools.repeat(1000))
    second, served = server.serve("/2/tiny.tgz", content, etag='"two"')
    known(Download((first, second), sha256(content), len(content)))
    assert read() == ["1", "2"]
    assert served.asked == ["bytes=1000-"]


def test_what_another_mirror_left_was_wrong(server: Server, known: Callable[..., None]) -> None:
    content = big()
    first, _ = server.serve("/1/tiny.tgz", bytes(len(content)), cuts=itertools.repeat(1000))
    second, served = server.serve("/2/tiny.tgz", content)
    known(Download((first, second), sha256(content), len(content)))
    assert read() == ["1", "2"]
    assert served.asked == ["bytes=1000-", None]


@pytest.mark.parametrize("etag", ['"one"', 'W/"one"', None])
def test_a_server_without_ranges(server: Server, known: Callable[..., None], etag: str | None) -> None:
    url, served = server.serve("/tiny.tgz", big(), ranges=False, etag=etag, cuts=iter([1000]))
    known(Download((url,)))
    assert read() == ["1", "2"]
    assert len(served.asked) == 2
    served.asked.clear()
    served.content, served.cuts = big(1), itertools.repeat(1000)
    download.place("tiny").rename("away")
    with pytest.raises(OdmError, match="broke off"):  # and is not asked for ever
        read()
    assert len(served.asked) < 10


@pytest.mark.parametrize("etag", ['"two"', None, 'W/"two"'])
@pytest.mark.parametrize("smaller", [False, True])
def test_the_file_has_changed_meanwhile(
    server: Server, known: Callable[..., None], etag: str | None, smaller: bool
) -> None:
    def cuts() -> Iterator[int]:
        yield 250_000
        served.content, served.etag = (tar(good()) if smaller else big(1)), etag
        while True:
            yield len(served.content)

    url, served = server.serve("/tiny.tgz", big(), cuts=cuts())
    known(Download((url,)))
    # The first connection is cut; what follows is of the new file, whole.
    assert read() == ["1", "2"]
    assert left() == ["images"]


def test_an_unavailable_server_costs_nothing_of_what_there_is(server: Server, known: Callable[..., None]) -> None:
    url, served = server.serve("/tiny.tgz", big(), cuts=itertools.repeat(1000))
    known(Download((url,)))
    refused(url, "broke off")
    served.status = 503
    refused(url, "HTTP 503")
    assert left() == ["tiny.tgz.part", "tiny.tgz.part.json"]
    served.status, served.cuts = 200, iter(())
    served.asked.clear()
    assert read() == ["1", "2"]
    assert served.asked == ["bytes=1000-"]


def test_wrong_digest_and_wrong_size(server: Server, known: Callable[..., None]) -> None:
    content = tar(good())
    url, _ = server.serve("/tiny.tgz", content)
    endless, _ = server.serve("/endless.tgz", bytes(10**6), length=False)
    known(Download((url,), "sha256:" + "0" * 64))
    refused(url, "its sha256 is not the known one")
    known(Download((url,), sha256(content), len(content) + 1))
    refused(url, f"its size is {len(content)} bytes, not {len(content) + 1}")
    known(Download((endless,), sha256(content), len(content)))
    refused(endless, f"goes on beyond {len(content)} bytes")
    assert "tiny.tgz.part" not in left()


def test_without_a_length(server: Server, known: Callable[..., None]) -> None:
    url, _ = server.serve("/tiny.tgz", big(), length=False)
    known(Download((url,)))
    assert read() == ["1", "2"]


def test_offline_it_says_which_file_to_put_where(known: Callable[..., None]) -> None:
    urls = ("http://127.0.0.1:9/a/tiny.tgz", "http://127.0.0.1:9/b/tiny.tgz")
    content = tar(good())
    known(Download(urls, sha256(content), otherwise=Download(("http://127.0.0.1:9/all.zip",), inside="Tiny_HR")))
    text = refused(*urls, "all.zip", "no connection", "its 2 images into downloads/tiny/images", "images.folders.tiny")
    found = re.search(r"save (\S+) as (\S+),", text)
    assert found and found[1] == urls[0]
    by_hand = Path(found[2])
    by_hand.write_bytes(b"a page that says: please log in")
    refused(str(by_hand), "its sha256 is not the known one", urls[0])
    by_hand.write_bytes(content)
    assert read() == ["1", "2"]
    assert by_hand.read_bytes() == content  # it is the user's


def test_what_is_published_is_told_by_its_pixels(server: Server, known: Callable[..., None]) -> None:
    pixels = set_digest(signature(np.asarray(Image.open(io.BytesIO(each)))) for each in PHOTOS.values())
    url, _ = server.serve("/tiny.tgz", tar({"HR/a.png": PHOTOS["1.png"], "HR/b.png": png(7)}))
    other, _ = server.serve("/all.zip", zipped({"HR/b.png": PHOTOS["1.png"], "HR/a.png": PHOTOS["2.png"]}))
    known(Download((url,)), pixels=pixels)
    refused(url, "not the pixels of the published 'tiny'")
    known(Download((url,), otherwise=Download((other,))), pixels=pixels)
    assert read() == ["a", "b"]


def test_two_jobs_at_once(server: Server, known: Callable[..., None]) -> None:
    url, served = server.serve("/tiny.tgz", tar(good()), drip=0.0003)
    known(Download((url,)))
    answers: list[list[str]] = []
    jobs = [threading.Thread(target=lambda: answers.append(read())) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert answers == [["1", "2"]] * 2
    assert served.asked == [None]


def test_a_folder_that_cannot_be_written(server: Server, known: Callable[..., None]) -> None:
    Path("downloads").write_text("in the way")
    url, served = server.serve("/tiny.tgz", tar(good()))
    known(Download((url,)))
    with pytest.raises(OdmError, match=r"downloads/tiny: cannot be written: .*images\.folders\.tiny"):
        read()
    assert served.asked == []


# --- hostile archives -------------------------------------------------------------------------------------------------


def tar_with(**changes: object) -> bytes:
    """The set, and one member with these properties."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as files:
        for name, content in good().items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            files.addfile(info, io.BytesIO(content))
        info = tarfile.TarInfo("Tiny_HR/3.png")
        for key, value in changes.items():
            setattr(info, key, value)
        files.addfile(info, io.BytesIO(bytes(info.size)))
    return file.getvalue()


def tar_bomb() -> bytes:
    """A gigabyte of zeros in a megabyte, in a member that nobody would take."""
    header = tarfile.TarInfo("zeros.bin")
    header.size = 1 << 40
    return gzip.compress(header.tobuf() + bytes(1 << 22))


def tar_of_headers(kind: bytes, count: int = 1, size: int = 0, name: str = "x") -> bytes:
    header = tarfile.TarInfo(name)
    header.type, header.size = kind, size
    return gzip.compress(header.tobuf(tarfile.GNU_FORMAT) * count + bytes(min(max(size, 0), 1 << 22)), 1)


def zip_with(name: str = "Tiny_HR/3.png", mode: int = 0, size: int | None = None, content: bytes = b"content") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as files:
        for each, photo in good().items():
            files.writestr(each, photo)
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        files.writestr(info, content)
    raw = file.getvalue()
    if size is not None:  # say so in the directory, which is what is believed
        at = raw.rindex(b"PK\x01\x02") + 24
        raw = raw[:at] + size.to_bytes(4, "little") + raw[at + 4 :]
    return raw


def encrypted() -> bytes:
    raw = bytearray(zipped(good()))
    for signature_, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = raw.find(signature_)
        while at >= 0:
            raw[at + offset] |= 1
            at = raw.find(signature_, at + 1)
    return bytes(raw)


def misplaced() -> bytes:
    """A zip that says its directory lies further on than it does, so that members lie before its first byte."""
    raw = zipped(good())
    at = raw.rindex(b"PK\x05\x06") + 16
    return raw[:at] + (int.from_bytes(raw[at : at + 4], "little") + 1000).to_bytes(4, "little") + raw[at + 4 :]


def twice(pack: str) -> bytes:
    file = io.BytesIO()
    if pack == "tar":
        return tar_with(name="./Tiny_HR/1.png")
    with zipfile.ZipFile(file, "w") as files:
        files.writestr("Tiny_HR/1.png", PHOTOS["1.png"])
        with pytest.warns(UserWarning, match="Duplicate"):
            files.writestr("Tiny_HR/1.png", PHOTOS["1.png"])
    return file.getvalue()


ZEROS = bytes(3 << 20)
HOSTILE = {
    "traversal in a tar": (tar_with(name="../../outside.png"), "outside its folder"),
    "traversal in the middle": (tar_with(name="Tiny_HR/../../outside.png"), "outside its folder"),
    "traversal of a folder": (tar_with(name="../outside", type=tarfile.DIRTYPE), "outside its folder"),
    "absolute in a tar": (tar_with(name="/outside.png"), "outside its folder"),
    "traversal in a zip": (zip_with("../../outside.png"), "outside its folder"),
    "absolute in a zip": (zip_with("/outside.png"), "outside its folder"),
    "backslashes": (zip_with("..\\..\\outside.png"), "outside its folder"),
    "a drive": (zip_with("C:outside.png"), "outside its folder"),
    "a line feed in a name": (tar_with(name="../a\nb.png"), r"a\nb.png"),
    "symbolic link": (tar_with(type=tarfile.SYMTYPE, linkname="/etc/passwd"), "link or a device"),
    "hard link": (tar_with(type=tarfile.LNKTYPE, linkname="Tiny_HR/1.png"), "link or a device"),
    "hard link to outside": (tar_with(type=tarfile.LNKTYPE, linkname="../../a"), "link or a device"),
    "device": (tar_with(type=tarfile.CHRTYPE, devmajor=1, devminor=5), "link or a device"),
    "block device": (tar_with(type=tarfile.BLKTYPE), "link or a device"),
    "pipe": (tar_with(type=tarfile.FIFOTYPE), "link or a device"),
    "link in another folder": (tar_with(name="z/y", type=tarfile.SYMTYPE, linkname="/"), "link or a device"),
    "symbolic link in a zip": (zip_with(mode=0o120777), "link or a device"),
    "symbolic link that looks like a folder": (zip_with("Tiny_HR/a/", mode=0o120777), "link or a device"),
    "device in a zip": (zip_with(mode=0o020666), "link or a device"),
    "declared bomb in a zip": (zipped({**good(), "Tiny_HR/3.png": ZEROS}), "larger than 2 MB"),
    "many small ones": (zipped({**good(), **{f"x/{i}": ZEROS[:300_000] for i in range(9)}}), "larger than 2 MB"),
    "undeclared bomb in a zip": (zip_with(content=ZEROS, size=100), "not a whole archive"),
    "declared more than there is": (zip_with(size=100_000), "not a whole archive"),
    "declared bomb in a tar": (tar_bomb(), "larger than 2 MB"),
    "a bomb of a long name": (tar_of_headers(b"L", size=1 << 30), "headers are larger"),
    "a bomb of an extended header": (tar_of_headers(b"x", size=1 << 30), "headers are larger"),
    "headers upon headers": (tar_of_headers(b"L", count=9000), "not a whole archive"),
    "a million members": (tar_of_headers(b"0", count=30_000), "more than 20000 members"),
    "a negative size": (tar_of_headers(b"0", size=-1024), "larger than 2 MB"),
    "another compression": (zipped({**good(), "a.png": ZEROS[:1000]}, zipfile.ZIP_LZMA), "compressed in a way"),
    "encrypted": (encrypted(), "encrypted"),
    "a name twice in a tar": (twice("tar"), "twice"),
    "a name twice in a zip": (twice("zip"), "twice"),
    "names that differ in case": (zip_with("Tiny_HR/1.PNG"), "twice"),
    "nested in a tar": (tar_with(name="Tiny_HR/more.tar.gz"), "archive within the archive"),
    "nested in a zip": (zip_with("Tiny_HR/more.zip"), "archive within the archive"),
    "only nested": (zipped({"Tiny_HR/more.7z": b"7z"}), "archive within the archive"),
    "nested as an image": (
        zipped({"a/1.png": zipped(good()), "a/2.png": PHOTOS["2.png"]}),
        "no image that can be read",
    ),
    "one image too few": (tar({"Tiny_HR/1.png": PHOTOS["1.png"]}), "1 images where 'tiny' has 2"),
    "one image too many": (zipped({**good(), "Tiny_HR/3.png": png(3)}), "3 images where 'tiny' has 2"),
    "two folders of images": (zipped({**good(), "x/3.png": png(3)}), "2 of its folders"),
    "no images": (zipped({"Tiny_HR/read.me": b""}), "0 of its folders"),
    "nothing": (b"", "not a whole archive"),
    "a page of text": (b"<html>please log in</html>", "not a whole archive"),
    "a truncated tar.gz": (tar(good())[:-700], "not a whole archive"),
    "a name that no disk takes": (zip_with(f"Tiny_HR/{'3' * 300}.png", content=PHOTOS["1.png"]), "not a whole archive"),
    "a place before the file": (misplaced(), "not a whole archive"),
    "a tar truncated in a member": (tar(good(), "w")[:2700], "not a whole archive"),
    "a tar truncated in a header": (tar(good(), "w")[:2200], "1 images where 'tiny' has 2"),
    "a truncated zip": (zipped(good())[:-30], "not a whole archive"),
    "a damaged member": (tar({**good(), "Tiny_HR/2.png": PHOTOS["2.png"][:500]}), "'2.png' is no image"),
    "a flipped bit in a zip": (zipped(good()).replace(PHOTOS["1.png"][600:603], b"xyz"), "not a whole archive"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives_are_refused(
    server: Server, tmp_path: Path, known: Callable[..., None], case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content, why = HOSTILE[case]
    url, _ = server.serve("/tiny.bad", content)
    pixels = set_digest(signature(np.asarray(Image.open(io.BytesIO(each)))) for each in PHOTOS.values())
    known(Download((url,), most=2_000_000), pixels=pixels)
    before = set(tmp_path.rglob("*"))
    refused("tiny", url, why)
    made = {each.relative_to(tmp_path).as_posix() for each in set(tmp_path.rglob("*")) - before}
    assert made <= {"here/downloads", "here/downloads/tiny", "here/downloads/.tiny.lock"}
    assert not Path("/outside.png").exists()
    # The same, put there by hand, is refused too, and left to its owner.
    by_hand = Path("downloads/tiny.bad")
    by_hand.write_bytes(content)
    refused(str(by_hand), why)
    assert by_hand.exists()


def test_an_archive_is_never_larger_in_memory_than_a_header() -> None:
    bounded = archive._Bounded(io.BufferedReader(io.BytesIO(ZEROS)), 1 << 30)  # type: ignore[arg-type]
    for size in (-1, archive.LARGEST_HEADER + 1):
        with pytest.raises(OdmError, match="headers"):
            bounded.read(size)


def test_progress_in_a_log_and_on_a_terminal(
    server: Server, known: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(transfer, "LINE_SECONDS", 0.0)
    url, served = server.serve("/tiny.tgz", big(), cuts=iter([200_000]))
    known(Download((url,)))
    read()
    told = capsys.readouterr().out
    assert "terms of use: none" in told
    assert url in told
    assert "tiny: going on from 0.2 MB" in told
    assert re.search(r"tiny: 0\.\d of 0\.\d MB, \d+\.\d\d MB/s", told)
    assert "\x1b" not in told
    assert told.rstrip().endswith("tiny: 2 images in downloads/tiny/images")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    download.place("tiny").rename("away")
    read()
    assert "MB/s" in capsys.readouterr().out or served.asked

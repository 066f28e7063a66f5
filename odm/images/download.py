"""Getting a set that is nowhere on this machine: which mirror, which archive, and whether it holds the set at all."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from odm.errors import OdmError
from odm.images.archive import RefusedError, take_images
from odm.images.catalogue import Benchmark, Download
from odm.images.folders import DOWNLOADS, place
from odm.transfer import FailedError, alone, served, unlike


def fetch(name: str, entry: Benchmark, problem: Callable[[Path], str | None]) -> None:
    """Download and unpack a set so that its images lie in `place(name)`; OdmError if no mirror serves.

    An archive put into the downloads by hand is taken first. `problem` says what is wrong with a folder of images, if
    anything is. What was received of an archive before a cut or a kill is kept, and gone on from.
    """
    sources = list(_archives(entry.download))
    target = place(name)
    others = f"put its {entry.count} images into {target}, or name their folder under images.folders.{name}"
    with _written(target, others), alone(name, DOWNLOADS):
        if target.is_dir():  # the other data step has fetched it meanwhile
            return
        for source in sources:
            by_hand = DOWNLOADS / source.file
            if by_hand.is_file():
                try:
                    if why := unlike(source, by_hand):
                        raise RefusedError(why)
                    _unpack(by_hand, source, target, problem)
                except RefusedError as error:
                    raise OdmError(f"{by_hand}: {error}; put {source.urls[0]} in its place, or remove it") from None
                return
        print(f"{name}: not found here, so it is downloaded; terms of use: {entry.terms}", flush=True)

        def take(archive: Path, source: Download) -> None:
            try:
                _unpack(archive, source, target, problem)
            except RefusedError as error:
                raise FailedError(str(error)) from None

        failures = served(name, sources, lambda source: _part(name, source), take)
        if not failures:
            print(f"{name}: {entry.count} images in {target}", flush=True)
    if failures:
        tried = ", ".join(f"{url} ({why})" for url, why in failures.items())
        by_hand = DOWNLOADS / sources[0].file
        raise OdmError(
            f"{name}: could not be downloaded from {tried}; save {sources[0].urls[0]} as {by_hand}, or {others}"
        )


def _archives(source: Download | None) -> Iterator[Download]:
    while source is not None:
        yield source
        source = source.otherwise


@contextmanager
def _written(target: Path, others: str) -> Iterator[None]:
    """What this machine cannot write is no fault of a mirror."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise OdmError(f"{target.parent}: cannot be written: {error.strerror or error}; {others}") from None


def _unpack(archive: Path, source: Download, target: Path, problem: Callable[[Path], str | None]) -> None:
    # Unpacked beside its place and renamed, so that a kill leaves nothing that looks complete.
    beside = target.with_name(".unpacking")
    shutil.rmtree(beside, ignore_errors=True)  # of a killed job
    try:
        beside.mkdir()
        take_images(archive, beside, source.inside, source.most)
        if why := problem(beside):
            raise RefusedError(why)
        beside.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _part(name: str, source: Download) -> Path:
    return place(name).parent / f"{source.file}.part"

"""Which image becomes which file, before any is read."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from odm.errors import OdmError
from odm.upscaling.formats import FORMATS, READ, format_of


@dataclass(frozen=True)
class Job:
    source: Path
    target: Path
    trouble: str | None = None
    """Why it cannot be done, where that is known already."""


@dataclass(frozen=True)
class Plan:
    jobs: list[Job]
    others: int
    """Files of the folders that are no images by their names."""


def single(source: Path, target: Path) -> Plan:
    """One image to one file. OdmError if its suffix stands for no format, or it is the image itself."""
    format_of(target)
    if _same(target, source):
        raise OdmError(f"{target}: is the image itself, which would be lost; name another file")
    return Plan([Job(source, target)], 0)


def many(sources: Sequence[Path], folder: Path, suffix: str) -> Plan:
    """Images, and those in folders with their sub-folders, to files of the same names below another folder.

    The suffix is the image's own, or .png where no such format is written, if none is given. What is hidden is left
    out, and so is the other folder. OdmError if a folder is that one, or holds no images.
    """
    if folder.exists() and not folder.is_dir():
        raise OdmError(f"{folder}: is a file; name a folder to write to, which is made if it is not there")
    jobs: list[Job] = []
    taken: dict[Path, Path] = {}
    others = 0
    found = [(file, target) for source in sources for file, target in _within(source, folder)]
    inputs = {_real(file) for file, _ in found}
    for file, within in found:
        if within is None:
            others += 1
            continue
        own = suffix or (file.suffix if _is_written(file) else ".png")
        target = within.with_suffix(own) if file.suffix.lower() != own.lower() else within
        first = taken.setdefault(target, file)
        if first is not file:
            if _real(first) != _real(file):
                trouble = f"would become {target}, as {first} does; rename one of them"
                jobs.append(Job(file, target, f"{file}: {trouble}"))
        elif _real(target) in inputs:
            jobs.append(Job(file, target, f"{file}: would be written over {target}, which is an image given here"))
        else:
            jobs.append(Job(file, target))
    return Plan(jobs, others)


def _within(source: Path, folder: Path) -> Iterator[tuple[Path, Path | None]]:
    """Each file that a source is or has in it, and where below `folder` it goes: None if it is no image by its name."""
    if not source.is_dir():
        yield source, folder / source.name
        return
    if _same(source, folder):
        raise OdmError(f"{folder}: is where the images are; name another folder to write to")
    count = 0
    for place, folders, files in os.walk(source):
        here = Path(place)
        folders[:] = sorted(each for each in folders if not each.startswith(".") and not _same(here / each, folder))
        for name in sorted(each for each in files if not each.startswith(".")):
            file = here / name
            is_image = file.suffix.lower() in READ
            count += is_image
            yield file, folder / file.relative_to(source) if is_image else None
    if not count:
        raise OdmError(f"{source}: no images in it; there are read: {', '.join(READ)}")


def _is_written(file: Path) -> bool:
    try:
        format_of(file)
    except OdmError:
        return False
    return file.suffix.lower() in FORMATS


def _real(path: Path) -> str:
    return os.path.realpath(path)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False

"""`odm new <folder>`: a project laid out from what the installed package carries."""

import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path, PurePosixPath

import odm
from odm.errors import OdmError
from odm.files import write_text
from odm.settings.reading import PARAMS, in_force

CARRIED = PurePosixPath("share", "odm")
"""Where a wheel puts what pyproject.toml lists as its data: the one copy of each file is that of the checkout."""
SUITE = "quick"


def run(folder: Path) -> None:
    """Write all that both engines go by, with the quick suite in force. OdmError if the folder holds anything."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OdmError(f"{folder}: is there and not empty; name a new folder")
    carried = dict(sorted(_carried()))
    if PurePosixPath("Snakefile") not in carried:
        raise OdmError("odm new: this installation carries no project; install odm-sr from its wheel or a checkout")
    for place, source in carried.items():
        write_text(folder / place, _elsewhere(place, source.read_text(encoding="utf-8")))
    write_text(folder / PARAMS, in_force(folder / "suites" / f"{SUITE}.yaml"))
    print(
        f"{folder}: a project with the suite {SUITE} in force. In it: `git init` (DVC asks for it), `odm check`, then "
        "`snakemake --cores 8 all` or `dvc repro`"
    )


def _carried() -> Iterator[tuple[PurePosixPath, Path]]:
    """Each file by its place in a project."""
    checkout = Path(odm.__file__).parents[1]
    if (checkout / "pyproject.toml").exists():
        listed = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
        for folder, patterns in listed["data-files"].items():
            place = PurePosixPath(folder).relative_to(CARRIED)
            yield from ((place / path.name, path) for pattern in patterns for path in checkout.glob(pattern))
        return
    try:
        installed = files("odm-sr") or []
    except PackageNotFoundError:
        return
    for file in installed:
        if file.suffix == ".pyc":  # pip compiles the module of the suite `deploy`
            continue
        for above in file.parents:
            if above.parts[-2:] == CARRIED.parts:
                yield PurePosixPath(file).relative_to(above), Path(str(file.locate()))


def _elsewhere(place: PurePosixPath, text: str) -> str:
    """A file of the checkout as it reads where the package is not a folder of the project."""
    if place == PurePosixPath("dvc.yaml"):
        # The stage of cards, which looks at the sources itself, runs each time; all others go by what comes of it.
        return text.replace("    deps: [params.yaml, odm]\n", "    deps: [params.yaml]\n")
    if place.name == "odm.yaml":
        return "".join(
            f"      - odm-sr=={odm.__version__}\n" if line.strip().startswith("- -e ") else line
            for line in text.splitlines(keepends=True)
        )
    return text

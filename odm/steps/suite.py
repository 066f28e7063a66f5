"""`odm suite <name>`: put a ready suite in force as params.yaml."""

from pathlib import Path

from odm.errors import OdmError, nearest
from odm.files import write_text
from odm.settings.reading import PARAMS, load

SUITES = Path("suites")


def run(name: str) -> None:
    """Copy suites/<name>.yaml over params.yaml, unless params.yaml holds edits that are in no suite."""
    known = sorted(path.stem for path in SUITES.glob("*.yaml"))
    if name not in known:
        raise OdmError(f"suites: no suite is called '{name}'{nearest(name, known)}")
    source = SUITES / f"{name}.yaml"
    load(source)  # a suite with a mistake is refused while the one in force stays
    ready = {_in_force(SUITES / f"{each}.yaml") for each in known}
    # Bytes: what is in force may be no text at all.
    if PARAMS.exists() and PARAMS.read_bytes() not in {each.encode() for each in ready}:
        kept = PARAMS.with_suffix(".yaml.bak")
        PARAMS.replace(kept)
        print(f"{PARAMS} was edited by hand: kept as {kept}")
    write_text(PARAMS, _in_force(source))
    print(f"{source} is in force; `odm check` says what it will do")


def _in_force(source: Path) -> str:
    """A suite's text as it reads in params.yaml, where the schema lies beside it and not above."""
    return source.read_text(encoding="utf-8").replace("$schema=../", "$schema=")

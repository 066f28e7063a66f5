"""`odm suite <name>`: put a ready suite in force as params.yaml."""

import subprocess
from itertools import count
from pathlib import Path

from odm.errors import OdmError, nearest
from odm.files import write_text
from odm.settings.reading import PARAMS, SCHEMA_LINE, SUITES, in_force, load


def run(name: str) -> None:
    """Copy suites/<name>.yaml over params.yaml; what is there is kept beside it, unless it is that of a suite."""
    if not SUITES.is_dir():
        raise OdmError(f"{SUITES}: no such folder; go to that of a project, or lay one out: `odm new <folder>`")
    known = sorted(path.stem for path in SUITES.glob("*.yaml"))
    if name not in known:
        raise OdmError(f"suites: no suite is called '{name}'{nearest(name, known)}")
    source = SUITES / f"{name}.yaml"
    load(source)  # a suite with a mistake is refused while the one in force stays
    if PARAMS.exists() and not _is_ready(content := PARAMS.read_bytes()):
        print(f"{PARAMS} is in no version of a suite: kept as {_kept(content)}")
    write_text(PARAMS, in_force(source))
    print(f"{source} is in force; `odm check` says what it will do")


def _is_ready(content: bytes) -> bool:
    """Whether it is that of a suite, as it is or as git knows it; where the schema lies is no difference."""
    text = content.decode(errors="replace").replace("\r\n", "\n")
    if _bare(text) in {_bare(in_force(path)) for path in SUITES.glob("*.yaml")}:
        return True
    # Git knows contents by their hash, whenever a suite had them.
    versions = _said("log", "--all", "--raw", "--no-abbrev", "--format=", "--", str(SUITES)).split()
    bare = _bare(text)
    written = (text, bare, f"{SCHEMA_LINE}../params.schema.json\n{bare}")
    return any(_said("hash-object", "--stdin", given=each).strip() in versions for each in written)


def _said(*arguments: str, given: str = "") -> str:
    """By git; nothing where it is not there or knows nothing."""
    try:
        return subprocess.run(["git", *arguments], input=given, capture_output=True, text=True).stdout
    except OSError:
        return ""


def _bare(text: str) -> str:
    """A suite without the line that names its schema, which lies beside params.yaml and above suites/."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(SCHEMA_LINE))


def _kept(content: bytes) -> Path:
    """Where it now is beside params.yaml: no earlier one is written over, and none is kept twice."""
    for number in count(1):
        path = PARAMS.with_name(f"{PARAMS.name}.bak{number if number > 1 else ''}")
        try:
            with path.open("xb") as file:
                file.write(content)
        except FileExistsError:
            if not path.is_file() or path.read_bytes() != content:
                continue
        return path
    raise AssertionError

"""The code that a job computes with: what its step imports, less what decides no number.

Comments, docstrings and formatting do not count, nor do the words of errors and of what is printed, nor imports for
type annotations alone.
"""

import ast
import hashlib
import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from odm.errors import OdmError
from odm.files import remember

ROOT = Path(__file__).parent

REGISTRIES = ("odm.methods.build", "odm.networks.build")
"""They come to a kind's module by its name: whose job needs one names it, and the kind."""
APART = (
    "odm",  # its version
    # Settings count by their values, which stand in the card, as does what is used of the catalogue.
    *("odm.settings*", "odm.*.settings", "odm.kinds", "odm.images.catalogue", "odm.networks.catalogue"),
    # How images and weights come here: they are held to the digests in the catalogues.
    *("odm.images.archive", "odm.images.download", "odm.networks.ready", "odm.transfer"),
    *REGISTRIES,
    # What is told, refused, written down and remembered.
    *("odm.errors", "odm.files", "odm.sealed", "odm.card", "odm.code", "odm.training.progress"),
    *("odm.training.estimate", "odm.images.alike", "odm.quantization.weight_ranges"),
)
"""Modules, as patterns, whose code counts for nothing where it is merely imported."""


@cache
def closure(modules: frozenset[str]) -> dict[str, str]:
    """Digest of each source file that the modules are made of, by its path in the project; sorted."""
    found: dict[str, str] = {}
    left = set(modules)
    seen: set[str] = set()
    while left:
        name = left.pop()
        seen.add(name)
        if name not in modules and any(fnmatchcase(name, pattern) for pattern in APART):
            continue
        digests, imports = _read(name)
        found |= digests
        # A package runs before what is in it.
        left |= {*imports, name.rpartition(".")[0]} - seen
    _MEMORY.keep()
    return dict(sorted(found.items()))


@cache
def _read(name: str) -> tuple[dict[str, str], list[str]]:
    """Digests of a module's source, if there is anything in it, and of its data; what it imports of the package."""
    file = _file(name)
    if file.stem == "__init__" and not file.is_file():
        return {}, []
    digest, *imports = _MEMORY.look(name, file)
    found = {file: digest} if digest else {}
    # Files of a module's name beside it are its data.
    data = (each for each in file.parent.glob(f"{file.stem}.*") if each != file and each.suffix != ".pyc")
    found |= {each: _digest(each.read_bytes()) for each in data}
    return {path.relative_to(ROOT.parent).as_posix(): each for path, each in found.items()}, imports


def _file(name: str) -> Path:
    path = ROOT.parent.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


class _Memory:
    """What was read of a source, by its content: both engines ask at every start, and parsing is most of the answer."""

    FILE = ROOT / "__pycache__" / "code.json"

    def __init__(self) -> None:
        self.rules = _digest(Path(__file__).read_bytes())
        self.is_new = False
        try:
            stored = json.loads(self.FILE.read_bytes())
            self.known: dict[str, list[str]] = stored["known"] if stored["rules"] == self.rules else {}
        except (OSError, ValueError, KeyError, TypeError):
            self.known = {}

    def look(self, name: str, file: Path) -> list[str]:
        """Digest of a module, '' if there is nothing in it, and the modules of the package that it imports."""
        content = file.read_bytes()
        seen = _digest(content)
        if self.known.get(name, [""])[0] != seen:
            self.known[name] = [seen, *_parsed(name, file, content)]
            self.is_new = True
        return self.known[name][1:]

    def keep(self) -> None:
        if self.is_new:
            self.is_new = False
            remember(self.FILE, {"rules": self.rules, "known": self.known})


_MEMORY = _Memory()


def _parsed(name: str, file: Path, content: bytes) -> list[str]:
    try:
        tree = _Bare().visit(ast.parse(content, file))
    except SyntaxError as error:
        raise OdmError(f"{file.relative_to(ROOT.parent)}, line {error.lineno}: {error.msg}") from None
    digest = _digest(repr(_plain(tree)).encode()) if tree.body else ""
    return [digest, *sorted(set(_imports(name, file, tree)))]


def _imports(name: str, file: Path, tree: ast.Module) -> Iterator[str]:
    package = ROOT.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == package)
        elif isinstance(node, ast.ImportFrom):
            here = name.split(".") if file.stem == "__init__" else name.split(".")[:-1]
            base = ".".join([*here[: len(here) - node.level + 1], *filter(None, [node.module])])
            source = base if node.level else str(node.module)
            if source.split(".")[0] == package:
                for alias in node.names:
                    inner = f"{source}.{alias.name}"
                    yield inner if _file(inner).is_file() else source


class _Bare(ast.NodeTransformer):
    """Takes out of a module what decides no number."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text or _calls(node.value, "print") else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> Any:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return [self.visit(each) for each in node.orelse]
        return self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        node.msg = None
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc.args = [each for each in node.exc.args if not _is_text(each)]
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if _calls(node, "OdmError"):
            node.args, node.keywords = [], []
        return self.generic_visit(node)


def _calls(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _plain(node: Any) -> Any:
    """A syntax tree as tuples, without places and without what is empty: versions of Python differ in the latter."""
    if isinstance(node, ast.AST):
        fields = ((key, _plain(value)) for key, value in ast.iter_fields(node) if value is not None and value != [])
        return (type(node).__name__, *fields)
    return [_plain(each) for each in node] if isinstance(node, list) else node

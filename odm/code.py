"""The code that a job computes with: what its step imports, less what decides no number.

Comments, docstrings and formatting do not count, nor do the words of errors and of what is printed, nor imports for
type annotations alone.
"""

import ast
import hashlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from odm.errors import OdmError

ROOT = Path(__file__).parent

REGISTRIES = ("odm.methods.build", "odm.networks.build")
"""They come to a kind's module by its name: whose job needs one names it, and the kind."""

APART = (
    "odm",  # its version
    # Settings count by their values, which stand in the card, as does what is used of the catalogue.
    *("odm.settings*", "odm.*.settings", "odm.kinds", "odm.images.catalogue"),
    # How images come here: the pixels are held to the digests in the catalogue.
    *("odm.images.archive", "odm.images.download", "odm.images.transfer"),
    *REGISTRIES,
    # What is told, refused, written down and remembered.
    *("odm.errors", "odm.files", "odm.card", "odm.code", "odm.training.progress", "odm.training.estimate"),
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
        file = _file(name)
        digest, imports = _read(name, file)
        for each in (file, *_data(file)):
            found[each.relative_to(ROOT.parent).as_posix()] = digest if each is file else _digest(each.read_bytes())
        # A package runs before what is in it.
        left |= {*imports, name.rpartition(".")[0]} - seen
    return {path: found[path] for path in sorted(found) if found[path]}


def _file(name: str) -> Path:
    path = ROOT.parent.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _data(file: Path) -> list[Path]:
    """Files of a module's name beside it: its data."""
    return [each for each in file.parent.glob(f"{file.stem}.*") if each != file and each.suffix != ".pyc"]


@cache
def _read(name: str, file: Path) -> tuple[str, frozenset[str]]:
    """Digest of a module, '' if there is nothing in it, and the modules of the package that it imports."""
    if file.stem == "__init__" and not file.is_file():
        return "", frozenset()
    try:
        tree = _Bare().visit(ast.parse(file.read_bytes(), file))
    except SyntaxError as error:
        raise OdmError(f"{file.relative_to(ROOT.parent)}, line {error.lineno}: {error.msg}") from None
    return _digest(repr(_plain(tree)).encode()) if tree.body else "", frozenset(_imports(name, file, tree))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


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

"""Kinds of methods and networks, found by their folder: `odm/methods/<kind>/` and `odm/networks/<backbone>/`.

A folder is one if it has a `settings.py`, whose class says the folder's name as its `kind` or `backbone`.
"""

import functools
import importlib
import operator
from pathlib import Path
from typing import Any, TypeVar, get_args

from odm.errors import OdmError

ROOT = Path(__file__).parent
TAGS = {"methods": "kind", "networks": "backbone"}
"""By room, the setting that names the kind."""

Class = TypeVar("Class")


def names(room: str) -> list[str]:
    """All kinds of a room, sorted."""
    return sorted(each.parent.name for each in ROOT.glob(f"{room}/*/settings.py"))


def settings(room: str, base: type[Any]) -> Any:
    """The union of the settings classes of a room's kinds, each the one in its `settings.py` that extends `base`."""
    found = []
    for kind in names(room):
        made = implementation(f"odm.{room}.{kind}.settings", base)
        if get_args(made.model_fields[TAGS[room]].annotation) != (kind,):
            raise OdmError(f'odm/{room}/{kind}/settings.py: {made.__name__} should say {TAGS[room]}: Literal["{kind}"]')
        found.append(made)
    return functools.reduce(operator.or_, found)


def implementation(module: str, base: type[Class]) -> type[Class]:
    """The one class of a module that extends `base`. OdmError if there is none, or more than one."""
    file = f"{module.replace('.', '/')}.py"
    try:
        contents = vars(importlib.import_module(module))
    except SyntaxError as error:
        raise OdmError(f"{error.filename}, line {error.lineno}: {error.msg}") from None
    classes = [
        each
        for each in contents.values()
        if isinstance(each, type) and issubclass(each, base) and each.__module__ == module
    ]
    if len(classes) != 1:
        names = ", ".join(each.__name__ for each in classes) or "none"
        raise OdmError(f"{file}: should hold one class that extends {base.__name__}; has {names}")
    return classes[0]

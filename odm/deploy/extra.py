"""Packages that only exporting and its checks need."""

import importlib
from types import ModuleType

from odm.errors import OdmError


def needed(package: str) -> ModuleType:
    """The package. OdmError that says how to get it where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise OdmError(f"{package}: not installed; `pip install 'odm-sr[deploy]'` brings it") from None


def installed(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True

"""Packages that only exporting and its checks need."""

from importlib.util import find_spec

from odm.errors import OdmError


def installed(package: str) -> bool:
    return find_spec(package) is not None


def need(*packages: str) -> None:
    """OdmError that says how to get one that is not installed."""
    for package in packages:
        if not installed(package):
            raise OdmError(f"{package}: not installed; `pip install 'odm-sr[deploy]'` brings it")

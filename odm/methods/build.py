"""From settings to a method: the class in its kind's folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odm import kinds
from odm.networks.backbone import Backbone
from odm.settings.suite import Settings
from odm.settings.training import Run

if TYPE_CHECKING:
    from odm.methods.method import Method


def method_class(kind: str) -> type[Method]:
    """What `odm/methods/<kind>/method.py` holds."""
    from odm.methods.method import Method

    return kinds.implementation(f"odm.methods.{kind}.method", Method)


def build(settings: Settings, run: Run, network: Backbone) -> Method:
    """The method of a run, around the float network that it will quantize in place."""
    method = settings.methods[run.method]
    return method_class(method.kind)(network, method, run)

"""The paper's ablations: what of ODM a row has, in ticks."""

from collections.abc import Callable
from typing import Any

from odm.methods.odm.settings import Odm
from odm.methods.odm_eccv.settings import OdmEccv
from odm.reporting.comparison import notes_on, scores_head, with_printed
from odm.reporting.entries import Entry
from odm.reporting.layout import TICK, Cell, Table
from odm.reporting.results import Suite
from odm.settings.suite import Method

Tick = Callable[[Any], bool]


def _regularized(method: Any) -> bool:
    return method.regularizer != "none"


def _cooperates(method: Any) -> bool:
    return _regularized(method) and method.cooperation.rule != "always"


VERSIONS: dict[str, tuple[type, dict[str, Tick]]] = {
    "v1": (
        Odm,
        {"Coop.": _cooperates, "Var. reg.": _regularized, "Sel. off.": lambda method: method.offsets.kind != "none"},
    ),
    "v2": (OdmEccv, {"WCC": lambda method: method.correction, "Coop.": _cooperates, "MR": _regularized}),
}
"""By version the settings of its methods, and the columns of its ablation in the order of the paper."""


def ticks(method: Method, version: str) -> list[bool]:
    """Which parts of a version a method has; `plain` has none."""
    kind, columns = VERSIONS[version]
    return [isinstance(method, kind) and has(method) for has in columns.values()]


def table(suite: Suite, network: str, version: str, parts: list[list[Entry]]) -> Table | None:
    """The bit widths at which two rows or more are of a version, `plain` among them; None if there is none."""
    sets, methods = suite.settings.images.test, suite.settings.methods
    kind, columns = VERSIONS[version]
    found = []
    for block in parts:
        shown = [entry for entry in block if entry.method in methods]
        own = [entry for entry in shown if isinstance(methods[entry.method], kind)]
        if len(own) > 1:
            found.append([entry for entry in shown if entry in own or methods[entry.method].kind == "plain"])
    if not found:
        return None
    head = [("", "Method"), ("", "W/A"), *(("", name) for name in columns), *scores_head(sets)]

    def labels(entry: Entry) -> list[Cell]:
        has = ticks(methods[entry.method], version)
        return [entry.name, entry.width, *(Cell(TICK if each else "") for each in has)]

    rows = [[row for entry in block for row in with_printed(entry, sets, labels(entry))] for block in found]
    title = f"Ablation of {version}: {network} x{suite.settings.networks[network].scale}"
    said = ["Rows of equal ticks differ in other settings, which are listed by method under the tables."]
    entries = [entry for block in found for entry in block]
    return Table(f"{network}-ablation-{version}", title, head, rows, said + notes_on(suite, network, entries))

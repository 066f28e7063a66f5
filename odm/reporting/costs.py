"""The paper's table of costs: what a network takes to keep and to run, and what a method adds to that."""

from typing import Any

from odm.methods.plain.settings import Plain
from odm.reporting.entries import Entry
from odm.reporting.layout import MISSING, Cell, Table
from odm.reporting.results import BICUBIC, Suite
from odm.settings.suite import Settings

COLUMNS = {
    "Parameters": ("parameters", ",d"),
    "Storage (K)": ("storage_k", ".1f"),
    "+ added": ("extra_storage_k", ".3f"),
    "BitOPs (T)": ("bitops_t", ".2f"),
    "+ at test time": ("extra_bitops_t", ".2f"),
    "GMAC": ("gmac", ".2f"),
}
"""By column, what of metrics.json it shows and how."""


def table(suite: Suite, network: str, parts: list[list[Entry]]) -> Table:
    """A row for each method and bit width. No seed changes a cost, so one finished run is enough for it."""
    head = [("", name) for name in ("Method", "W/A", *COLUMNS, "Step")]
    rows = [
        [
            [entry.name, entry.width, *_costs(entry), Cell(f"{step(suite.settings, entry.method):.2f}")]
            for entry in block
            if entry.method != BICUBIC
        ]
        for block in parts
    ]
    said = (
        "Storage: thousands of 32-bit numbers, of the network + of a method's ranges and offsets. BitOPs: "
        "multiplications x bits of weight x bits of activation for a 1280x720 output, 32 x 32 where float; of the "
        "network + of what a method computes from each image at test time, in float. GMAC: multiplications for that "
        "output, in thousands of millions. Step: time of a training step over that of plain, an estimate for the kind "
        "of method, as benchmarks/steps.py measures it, and no time of these runs."
    )
    title = f"Costs: {network} x{suite.settings.networks[network].scale}"
    return Table(f"{network}-costs", title, head, rows, [said])


def step(settings: Settings, name: str) -> float:
    """Estimated time of a training step of a method, or of the float network, over that of plain's."""
    method = settings.methods.get(name)
    return (method.step_cost if method else 1.0) / Plain(kind="plain").step_cost


def _costs(entry: Entry) -> list[Cell]:
    if entry.of("parameters") is None:
        return [Cell(MISSING), *[Cell()] * (len(COLUMNS) - 1)]
    values: list[tuple[Any, str]] = [(entry.of(key), form) for key, form in COLUMNS.values()]
    return [Cell(format(value, form)) for value, form in values]

"""The layout of the paper whole: its tables in order, and all that they say as one sheet."""

from typing import Any

from odm.reporting import ablation, comparison, costs, entries
from odm.reporting.entries import KEYS, Entry
from odm.reporting.layout import Table
from odm.reporting.results import BICUBIC, Suite
from odm.reporting.tables import DIGITS

COSTS = [key for key, _ in costs.COLUMNS.values()]


def tables(suite: Suite, lines: list[dict[str, Any]]) -> tuple[list[Table], list[dict[str, Any]]]:
    """The tables of each float network that was pretrained, and the lines of paper.csv; lines as `tables.scores`."""
    found: list[Table | None] = []
    sheet = []
    for network in suite.networks:
        parts = entries.blocks(suite, network, lines)
        found.append(comparison.table(suite, network, parts))
        found += [ablation.table(suite, network, version, parts) for version in ablation.VERSIONS]
        found.append(costs.table(suite, network, parts))
        sheet += [_line(suite, entry) for block in parts for entry in block]
    return [table for table in found if table], sheet


def _line(suite: Suite, entry: Entry) -> dict[str, Any]:
    """Of the sheet; as text what has digits of its own."""
    keys = ("scale", "network", "method", "weight_bits", "activation_bits", "seeds", "finished", "missing", *COSTS)
    line = {key: entry.of(key) for key in keys}
    for images, scores in entry.lines.items():
        for key in KEYS:
            column = f"{images}_{key}"
            line[column] = None if scores[key] is None else f"{scores[key]:.{DIGITS[key]}f}"
            line[f"{column}_mark"] = entry.marks.get((images, key))
            line[f"{column}_printed"] = entry.printed.get((images, key))
    if entry.method != BICUBIC:
        line["step"] = f"{costs.step(suite.settings, entry.method):.2f}"
    if entry.printed and entry.answer:
        line["printed_as"] = entry.answer.method
    method = suite.settings.methods.get(entry.method)
    for version, (kind, columns) in ablation.VERSIONS.items():
        if method and isinstance(method, kind):
            has = zip(columns, ablation.ticks(method, version), strict=True)
            line |= {"version": version, "parts": " ".join(name for name, tick in has if tick)}
    return line


def columns(sets: list[str]) -> list[str]:
    """Of paper.csv."""
    scores = [f"{images}_{key}{more}" for more in ("", "_mark", "_printed") for images in sets for key in KEYS]
    first = ["scale", "network", "method", "weight_bits", "activation_bits", "seeds", "finished", "missing"]
    return [*first, *scores, "printed_as", "version", "parts", *COSTS, "step"]

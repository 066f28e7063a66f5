"""What each method gains over plain at the same bits, and how sure the images make it."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from odm.reporting.results import FLOAT, Suite
from odm.reporting.style import GREY, colour, marker, panel, say
from odm.reporting.tables import scores
from odm.reporting.uncertainty import CONFIDENCE

Lines = list[dict[str, Any]]
ROW = 0.2
"""Inches a method."""
LEFT, ABOVE, BELOW = 1.9, 0.35, 0.65
"""Inches for names, titles and what the axes say."""


def draw(suite: Suite) -> Figure:
    """For each network a row of panels, one a test set: methods down, in blocks by bits; dials have a figure of their
    own."""
    sets = suite.settings.images.test
    lines = [line for line in scores(suite) if line.get("difference") is not None and line["against"] != FLOAT]
    by_network = {name: [line for line in lines if line["network"] == name] for name in suite.networks}
    by_network = {name: found for name, found in by_network.items() if found}
    blocks = {name: _blocks([each for each in found if each["set"] == sets[0]]) for name, found in by_network.items()}
    width = 4.5 if len(sets) == 1 else 1.9
    height = sum(ROW * len(rows) + ABOVE + BELOW for rows in blocks.values())
    figure = Figure(figsize=(LEFT + (width + 0.2) * len(sets), height or 1.5))
    if not blocks:
        say(panel(figure, 0.5, 0.3, 4, 0.9), "no method is finished beside plain yet")
    top = 0.0
    for name, rows in blocks.items():
        for column, images in enumerate(sets):
            axes = panel(figure, LEFT + (width + 0.2) * column, top + ABOVE, width, ROW * len(rows))
            axes.set_title(images if len(sets) > 1 and column else f"{name} on {images}")
            _panel(suite, axes, rows, [line for line in by_network[name] if line["set"] == images])
            if column:
                axes.set_yticklabels([])
        top += ROW * len(rows) + ABOVE + BELOW
    return figure


def _label(line: dict[str, Any]) -> str:
    return f"{line['method']}  W{line['weight_bits']}A{line['activation_bits']}"


def _blocks(lines: Lines) -> list[str]:
    """What stands at the left, '' between bits."""
    found: list[str] = []
    bits = None
    for line in lines:
        if bits not in (None, before := (line["weight_bits"], line["activation_bits"])):
            found.append("")
        bits = before
        found.append(_label(line))
    return found


def _panel(suite: Suite, axes: Axes, rows: list[str], lines: Lines) -> None:
    axes.axvline(0, color=GREY, linewidth=0.9)
    for line in lines:
        place = rows.index(_label(line))
        look: dict[str, Any] = {"color": colour(suite, line["method"])}
        if line["difference_low"] is not None:
            axes.plot([line["difference_low"], line["difference_high"]], [place, place], linewidth=1.4, **look)
        axes.plot(line["difference"], place, marker=marker(suite, line["method"]), markersize=4.5, **look)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks([place for place, row in enumerate(rows) if row], [row for row in rows if row], fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"less plain (dB), {CONFIDENCE:.0%} over images", fontsize=8)

"""PSNR against the strength of the mismatch dial: what each method loses to channels that are set apart."""

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from odm.reporting.results import BICUBIC, FLOAT, Suite
from odm.reporting.style import DASHES, GREY, PALETTE, colour, legend, marker, panel, room, say
from odm.reporting.tables import scores

WIDTH, HEIGHT = 4.4, 3.0
"""Of a panel, in inches."""


def draw(suite: Suite) -> Figure:
    """A panel for each network, kind of dial and bit width (downwards) and test set (across)."""
    sets = suite.settings.images.test
    groups = list(
        dict.fromkeys(
            (dial.network, dial.kind, row.weight_bits, row.activation_bits)
            for name, dial in suite.settings.dials.items()
            for row in suite.of_network(name)
        )
    )
    if not groups:
        figure = Figure(figsize=(7, 1.5))
        say(panel(figure, 0, 0, 7, 1.5), "no run of this suite is of a network that a dial has turned")
        return figure
    figure = Figure(figsize=((WIDTH + 0.8) * len(sets) + 0.6, (HEIGHT + 1.1) * len(groups) + room(suite)))
    lines = [line for line in scores(suite) if line["method"] != BICUBIC]
    for down, group in enumerate(groups):
        for across, images in enumerate(sets):
            axes = panel(figure, 0.75 + (WIDTH + 0.8) * across, 0.35 + (HEIGHT + 1.1) * down, WIDTH, HEIGHT)
            _panel(suite, group, images, lines, axes)
    legend(figure, figure.axes, (HEIGHT + 1.1) * len(groups) - 0.1, "bars: sample deviation over seeds")
    return figure


def _panel(
    suite: Suite, group: tuple[str, str, int, int], images: str, lines: list[dict[str, Any]], axes: Axes
) -> None:
    base, kind, *bits = group
    weights = "float weights" if bits[0] == 32 else f"W{bits[0]}"
    axes.set_title(f"{base}, {kind}, {weights} and A{bits[1]}, on {images}")
    turned = [
        line
        for line in lines
        if line["set"] == images and (line["network"] == base or (line["base"], line["dial"]) == (base, kind))
    ]
    turned.sort(key=lambda line: line["strength"])
    done = [line for line in turned if line["psnr"] is not None]
    floats = [line for line in done if line["method"] == FLOAT]
    quantized = [line for line in done if [line["weight_bits"], line["activation_bits"]] == bits]
    missing = [
        name
        for line in turned
        if [line["weight_bits"], line["activation_bits"]] == bits
        for name in (line.get("missing") or "").split()
    ]
    if not floats and not quantized:
        return say(axes, f"{base}: nothing is finished yet")
    strengths, values = _points(floats)
    axes.plot(strengths, values, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), marker="x", label=FLOAT)
    for place, method in enumerate(suite.settings.methods):
        found = [line for line in quantized if line["method"] == method]
        if found:
            strengths, values = _points(found)
            axes.errorbar(
                strengths,
                values,
                yerr=[math.nan if line["psnr_spread"] is None else line["psnr_spread"] for line in found],
                label=method,
                color=colour(suite, method),
                marker=marker(suite, method),
                linestyle=DASHES[place // len(PALETTE) % len(DASHES)],
                linewidth=1.4,
                markersize=5,
                capsize=4,
            )
    if missing:
        names = ", ".join(missing) if len(missing) < 3 else f"{len(missing)} runs"
        axes.text(0.02, 0.02, f"not finished: {names}", transform=axes.transAxes, color=GREY, fontsize=8)
    axes.set_xlabel("strength of the dial")
    axes.set_ylabel("PSNR on Y (dB)")
    axes.margins(x=0.08, y=0.12)


def _points(lines: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    return [line["strength"] for line in lines], [line["psnr"] for line in lines]

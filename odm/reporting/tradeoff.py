"""PSNR against BitOPs: what each method gets out of its bits."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from odm.reporting.results import Suite
from odm.reporting.style import GREY, colour, legend, marker, panel, room, say
from odm.reporting.uncertainty import mean


def draw(suite: Suite) -> Figure:
    """A panel for each network (downwards) and test set (across)."""
    sets, networks = suite.settings.images.test, list(suite.networks)
    width, height = (5.9, 2.9) if len(sets) == 1 else (2.9, 2.9)
    figure = Figure(figsize=((width + 0.8) * len(sets) + 0.2, (height + 1.1) * len(networks) + room(suite)))
    for row, network in enumerate(networks):
        for column, images in enumerate(sets):
            axes = panel(figure, 0.75 + (width + 0.8) * column, 0.35 + (height + 1.1) * row, width, height)
            _panel(suite, network, images, axes)
    legend(figure, figure.axes, (height + 1.1) * len(networks) - 0.1, "bars: sample deviation over seeds")
    return figure


def _panel(suite: Suite, network: str, images: str, axes: Axes) -> None:
    axes.set_title(f"{network} x{suite.settings.networks[network].scale} on {images}")
    rows = suite.compared(network)
    done = [row for row in rows if not row.missing]
    references = _references(suite, network, images)
    if not done and not references:
        return say(axes, f"{network}: nothing is finished yet")
    for text, psnr in references:
        axes.axhline(psnr, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            text, (1, psnr), (0, 2), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
            ha="right", va="bottom", fontsize=8, color=GREY,
        )  # fmt: skip
    methods = [name for name in suite.settings.methods if any(row.method == name for row in done)]
    costs: dict[tuple[int, int], list[float]] = {}
    for row in sorted(done, key=lambda row: row.finished[0].all_bitops_t):
        costs.setdefault((row.weight_bits, row.activation_bits), []).append(row.finished[0].all_bitops_t)
    # Widths are set evenly apart, their BitOPs said: what is float is most of them, so that along an axis of BitOPs
    # either all widths fall together or a hundredth of the cost looks like all of it.
    places = {bits: place for place, bits in enumerate(costs)}
    for place, method in enumerate(methods):
        points = [row for row in done if row.method == method]
        aside = 0.7 * ((place + 0.5) / len(methods) - 0.5)
        axes.errorbar(
            [places[row.weight_bits, row.activation_bits] + aside for row in points],
            [row.mean(images, "psnr") or 0.0 for row in points],
            yerr=[row.spread(images, "psnr") or math.nan for row in points],  # a single seed has no bar
            label=method,
            color=colour(suite, method),
            marker=marker(suite, method),
            markersize=5 if len(methods) <= 8 else 4,
            linestyle="",
            elinewidth=1.4,
            capsize=4 if len(methods) <= 8 else 2,
        )
    axes.set_xticks(list(places.values()), [_width(bits, each) for bits, each in costs.items()])
    axes.tick_params(axis="x", labelsize=9 if len(places) < 5 else 7)
    axes.set_xlim(-0.5, max(1, len(places)) - 0.5)
    axes.grid(visible=False, axis="x")
    missing = [name for row in rows for name in row.missing]
    if missing:
        names = ", ".join(missing) if len(missing) < 3 else f"{len(missing)} runs"
        axes.text(0.02, 0.02, f"not finished: {names}", transform=axes.transAxes, color=GREY, fontsize=8)
    axes.set_xlabel("bits, and BitOPs for a 1280x720 output")
    axes.set_ylabel("PSNR on Y (dB)")
    axes.margins(y=0.1)


def _width(bits: tuple[int, int], costs: list[float]) -> str:
    low, high = (f"{each:.4g}" for each in (costs[0], costs[-1]))
    cost = low if low == high else f"{low} to\n{high}"
    return f"W{bits[0]}A{bits[1]}\n{cost} T"


def _references(suite: Suite, network: str, images: str) -> list[tuple[str, float]]:
    found = suite.networks[network].finished
    if not found:
        return []
    bicubic = (found[0].bicubic or {}).get(images, {})
    lines = [(f"float, {found[0].bitops_t:.1f} T", mean([each.psnr for each in found[0].scores[images].values()]))]
    return lines + ([("bicubic", mean([each.psnr for each in bicubic.values()]))] if bicubic else [])

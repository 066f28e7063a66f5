"""PSNR against BitOPs: what each method gets out of its bits."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from odm.reporting.results import Suite
from odm.reporting.style import GREY, colour, legend, marker, panel, say
from odm.reporting.uncertainty import mean


def draw(suite: Suite) -> Figure:
    """A panel for each network (downwards) and test set (across)."""
    sets, networks = suite.settings.images.test, list(suite.networks)
    width, height = (5.9, 2.9) if len(sets) == 1 else (2.9, 2.9)
    named = 0.25 * (2 + len(suite.settings.methods) // 4)
    figure = Figure(figsize=((width + 0.8) * len(sets) + 0.2, (height + 1.1) * len(networks) + named))
    for row, network in enumerate(networks):
        for column, images in enumerate(sets):
            axes = panel(figure, 0.75 + (width + 0.8) * column, 0.35 + (height + 1.1) * row, width, height)
            _panel(suite, network, images, axes)
    bars = "bars: sample deviation over seeds; markers of equal bits are set apart sideways"
    # Networks may lack a method: the legend is that of the panel with most.
    fullest = max(figure.axes, key=lambda axes: len(axes.get_legend_handles_labels()[1]))
    legend(figure, fullest, (height + 1.1) * len(networks) - 0.1, bars)
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
    costs = [row.finished[0].all_bitops_t for row in done]
    width = max(costs) - min(costs) or max(costs) if costs else 0.0
    # Methods share their BitOPs: markers are set side by side, a little off their true place, however many they are.
    apart = min(0.025, 0.2 / max(1, len(methods))) * width
    for place, method in enumerate(methods):
        points = [row for row in done if row.method == method]
        aside = (place - (len(methods) - 1) / 2) * apart
        axes.errorbar(
            [row.finished[0].all_bitops_t + aside for row in points],
            [row.mean(images, "psnr") or 0.0 for row in points],
            yerr=[row.spread(images, "psnr") or math.nan for row in points],  # a single seed has no bar
            label=method,
            color=colour(suite, method),
            marker=marker(suite, method),
            markersize=5,
            linestyle="",
            elinewidth=1.4,
            capsize=4,
        )
    for bits in dict.fromkeys((row.weight_bits, row.activation_bits) for row in done):
        same = [row for row in done if (row.weight_bits, row.activation_bits) == bits]
        seeds = max(len(row.results) for row in same)
        low = min((row.mean(images, "psnr") or 0.0) - (row.spread(images, "psnr") or 0.0) for row in same)
        axes.annotate(
            f"W{bits[0]}A{bits[1]}" + (f"\n{seeds} seeds" if seeds > 1 else ""),
            (same[0].finished[0].all_bitops_t, low), (0, -8), textcoords="offset points", ha="center", va="top",
            fontsize=8,
        )  # fmt: skip
    missing = [name for row in rows for name in row.missing]
    if missing:
        names = ", ".join(missing) if len(missing) < 3 else f"{len(missing)} runs"
        axes.text(0.02, 0.02, f"not finished: {names}", transform=axes.transAxes, color=GREY, fontsize=8)
    axes.set_xlabel("BitOPs for a 1280x720 output (T)")
    axes.set_ylabel("PSNR on Y (dB)")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.18, y=0.2)


def _references(suite: Suite, network: str, images: str) -> list[tuple[str, float]]:
    found = suite.networks[network].finished
    if not found:
        return []
    bicubic = (found[0].bicubic or {}).get(images, {})
    lines = [(f"float, {found[0].bitops_t:.1f} T", mean([each.psnr for each in found[0].scores[images].values()]))]
    return lines + ([("bicubic", mean([each.psnr for each in bicubic.values()]))] if bicubic else [])

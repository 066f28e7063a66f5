"""PSNR against BitOPs: what each method gets out of its bits."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from odm.reporting.results import Suite
from odm.reporting.style import GREY, colour, marker, say
from odm.reporting.uncertainty import mean


def draw(suite: Suite) -> Figure:
    """A panel for each network (downwards) and test set (across)."""
    sets = suite.settings.images.test
    figure = Figure(figsize=(max(7.0, 3.6 * len(sets)), 4.0 * len(suite.networks)), layout="constrained")
    panels = figure.subplots(len(suite.networks), len(sets), squeeze=False)
    for row, network in zip(panels, suite.networks, strict=True):
        for axes, images in zip(row, sets, strict=True):
            _panel(suite, network, images, axes)
    legends: dict[str, Any] = {}
    for axes in panels.flat:
        handles, labels = axes.get_legend_handles_labels()
        legends |= dict(zip(labels, handles, strict=True))
    if legends:
        title = "bars: sample deviation over seeds; markers of equal bits are set apart sideways"
        figure.legend(legends.values(), legends, loc="outside lower center", ncols=6, title=title, title_fontsize=8)
    return figure


def _panel(suite: Suite, network: str, images: str, axes: Axes) -> None:
    axes.set_title(f"{network} x{suite.settings.networks[network].scale} on {images}")
    rows = suite.of_network(network)
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
    methods = list(dict.fromkeys(row.method for row in done))
    for place, method in enumerate(methods):
        points = [row for row in done if row.method == method]
        # Methods share their BitOPs: markers are set side by side, a little off their true place.
        aside = ScaledTranslation((place - (len(methods) - 1) / 2) * 10 / 72, 0, axes.figure.dpi_scale_trans)
        axes.errorbar(
            [row.finished[0].bitops_t for row in points],
            [row.mean(images, "psnr") or 0.0 for row in points],
            yerr=[row.spread(images, "psnr") or 0.0 for row in points],
            label=method,
            transform=axes.transData + aside,
            color=colour(suite, method),
            marker=marker(suite, method),
            markersize=6,
            linestyle="",
            elinewidth=1.4,
            capsize=3,
        )
    for bits in dict.fromkeys((row.weight_bits, row.activation_bits) for row in done):
        same = [row for row in done if (row.weight_bits, row.activation_bits) == bits]
        seeds = max(len(row.results) for row in same)
        low = min((row.mean(images, "psnr") or 0.0) - (row.spread(images, "psnr") or 0.0) for row in same)
        axes.annotate(
            f"W{bits[0]}A{bits[1]}" + (f"\n{seeds} seeds" if seeds > 1 else ""),
            (same[0].finished[0].bitops_t, low), (0, -8), textcoords="offset points", ha="center", va="top", fontsize=8,
        )  # fmt: skip
    missing = [name for row in rows for name in row.missing]
    if missing:
        axes.set_xlabel(f"not finished: {', '.join(missing)}\n", color=GREY, fontsize=8)
    axes.set_xlabel(axes.get_xlabel() + "BitOPs for a 1280x720 output (T)")
    axes.set_ylabel("PSNR on Y (dB)")
    axes.margins(x=0.18, y=0.12)


def _references(suite: Suite, network: str, images: str) -> list[tuple[str, float]]:
    found = suite.networks[network].finished
    if not found:
        return []
    bicubic = (found[0].bicubic or {}).get(images, {})
    lines = [(f"float, {found[0].bitops_t:.1f} T", mean([each.psnr for each in found[0].scores[images].values()]))]
    return lines + ([("bicubic", mean([each.psnr for each in bicubic.values()]))] if bicubic else [])

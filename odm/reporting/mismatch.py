"""How far apart the channels of each layer lie, and which layers get an offset for it."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from odm.quantization.offsets import choose
from odm.reporting import results
from odm.reporting.results import Layer, Suite
from odm.reporting.style import FAINT, PALETTE, say

MEAN, DEVIATION = PALETTE[0], PALETTE[1]


def draw(suite: Suite) -> Figure:
    """For each network its most and least mismatched layers by channel, and below them all layers."""
    names = list(suite.networks)
    figure = Figure(figsize=(9.5, 6.4 * len(names)), layout="constrained")
    for part, name in zip(figure.subfigures(len(names), 1, squeeze=False)[:, 0], names, strict=True):
        layers = results.mismatch(suite.settings, name)
        if layers is None:
            say(part.subplots(), f"{name}: the mismatch is not measured yet")
        else:
            _network(suite, name, layers, part)
    return figure


def chosen(suite: Suite, layers: Mapping[str, Layer]) -> tuple[float | None, dict[str, list[str]]]:
    """The largest share of layers that a method of the suite gives offsets to, and those layers by kind of offset."""
    offsets = [
        method.offsets
        for method in suite.settings.methods.values()
        if method.kind == "odm" and method.offsets.kind != "none"
    ]
    if not offsets:
        return None, {"shift": [], "scale": []}
    share = max(each.share for each in offsets)
    kinds = {each.kind for each in offsets if each.share == share}
    found = choose({name: layer.model_dump() for name, layer in layers.items()}, share)
    return share, {kind: found[kind] if kinds & {kind, "both"} else [] for kind in ("shift", "scale")}


def _network(suite: Suite, name: str, layers: Mapping[str, Layer], figure: SubFigure) -> None:
    figure.suptitle(f"{name} in float: what enters its convolutions", x=0.01, ha="left")
    top, bottom = figure.subfigures(2, 1, squeeze=False)[:, 0]
    most = max(layers, key=lambda layer: layers[layer].mean_mismatch)
    least = min(layers, key=lambda layer: layers[layer].mean_mismatch)
    left, right = top.subplots(1, 2)
    _channels(left, f"Most mismatched means: {most}", layers[most])
    _channels(right, f"Least mismatched means: {least}", layers[least])
    left.legend(loc="lower right")
    right.set_ylabel("")
    _layers(bottom.subplots(), layers, *chosen(suite, layers))


def _channels(axes: Axes, title: str, layer: Layer) -> None:
    means, deviations = np.array(layer.channel_means), np.array(layer.channel_deviations)
    order = np.argsort(means, kind="stable")
    axes.axhspan(layer.lower, layer.upper, color=FAINT, alpha=0.6, linewidth=0, label="one range for the layer")
    axes.errorbar(
        np.arange(1, len(means) + 1), means[order], yerr=deviations[order], fmt="o", markersize=3, color=MEAN,
        elinewidth=1, label="a channel's mean ± deviation",
    )  # fmt: skip
    axes.set_title(title)
    axes.set_xlabel("channels, sorted by mean")
    axes.set_ylabel("activation (units of features)")


def _layers(axes: Axes, layers: Mapping[str, Layer], share: float | None, chosen: dict[str, list[str]]) -> None:
    places = np.arange(len(layers))
    for side, kind, key, colour, what in (
        (-0.2, "shift", "mean_mismatch", MEAN, "means"),
        (0.2, "scale", "deviation_mismatch", DEVIATION, "deviations"),
    ):
        taken = np.array([name in chosen[kind] for name in layers])
        heights = np.array([getattr(layer, key) for layer in layers.values()])
        axes.bar(places[~taken] + side, heights[~taken], 0.38, color=colour, alpha=0.35, label=f"of channel {what}")
        if taken.any():
            label = f"of channel {what}: gets a {kind}"
            axes.bar(places[taken] + side, heights[taken], 0.38, color=colour, label=label)
    said = "no method of the suite has offsets" if share is None else f"offsets for a share of {share:g} of the layers"
    axes.set_title(f"Mismatch by layer ({said})")
    axes.set_xticks(
        places, list(layers), rotation=40, ha="right", rotation_mode="anchor", fontsize=min(8, 320 / len(layers))
    )
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("spread over channels\n(units of features)")
    axes.legend(ncols=2)

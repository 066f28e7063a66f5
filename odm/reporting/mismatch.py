"""How far apart the channels of each layer lie, and which layers get an offset for it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from odm.errors import OdmError
from odm.methods.odm.settings import Odm
from odm.networks.build import build
from odm.quantization.offsets import choose
from odm.reporting import results
from odm.reporting.results import Layer, Suite
from odm.reporting.style import FAINT, PALETTE, panel, say, write

MEAN, DEVIATION = PALETTE[0], PALETTE[1]


def draw(suite: Suite) -> Figure:
    """For each network its most and least mismatched layers by channel, and below them all layers."""
    names = list(suite.floats)
    height = 6.6
    figure = Figure(figsize=(9.5, height * len(names)))
    for place, name in enumerate(names):
        layers = results.mismatch(suite.settings, name)
        if layers is None:
            say(panel(figure, 0, height * place, 9.5, height), f"{name}: the mismatch is not measured yet")
        else:
            _network(suite, name, layers, figure, height * place)
    return figure


@dataclass(frozen=True)
class Chosen:
    """What a method does with the measurement."""

    shift: list[str]
    scale: list[str]
    title: str


def chosen(suite: Suite, network: str, layers: Mapping[str, Layer]) -> Chosen:
    """The layers that get offsets from the network's method with the largest share of layers, the first of equals."""
    used = {row.method for row in suite.compared(network)}
    methods = {
        name: method
        for name, method in suite.settings.methods.items()
        if name in used and isinstance(method, Odm) and method.offsets.kind != "none"
    }
    if not methods:
        return Chosen([], [], "no run has offsets")
    name, method = max(methods.items(), key=lambda item: item[1].offsets.share)
    covered = build(suite.settings.network_of(network)).placement(method.coverage).layers
    if missing := [layer for layer in covered if layer not in layers]:
        path = results.folder(suite.settings, network) / "mismatch.json"
        raise OdmError(f"{path}: lacks the layer {missing[0]}; run `odm mismatch {network}` again")
    found = choose({layer: layers[layer].model_dump() for layer in covered}, method.offsets.share)
    kind = method.offsets.kind
    return Chosen(
        found["shift"] if kind != "scale" else [],
        found["scale"] if kind != "shift" else [],
        f"offsets of {name}: {len(found['shift'])} of the {len(covered)} layers it quantizes",
    )


def _network(suite: Suite, name: str, layers: Mapping[str, Layer], figure: Figure, top: float) -> None:
    write(figure, 0.1, top + 0.1, f"{name} in float: what enters its convolutions")
    most = max(layers, key=lambda layer: layers[layer].mean_mismatch)
    least = min(layers, key=lambda layer: layers[layer].mean_mismatch)
    left, right = (panel(figure, left, top + 0.7, 3.95, 2.25) for left in (0.75, 5.4))
    _channels(left, f"Most mismatched means: {most}", layers[most])
    _channels(right, f"Least mismatched means: {least}", layers[least])
    handles, labels = left.get_legend_handles_labels()
    right.legend(handles, labels, ncols=2, loc="lower right", bbox_to_anchor=(1, 1.1), borderaxespad=0)
    right.set_ylabel("")
    _layers(panel(figure, 0.75, top + 3.7, 8.6, 2.0), layers, chosen(suite, name, layers))


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


def _layers(axes: Axes, layers: Mapping[str, Layer], chosen: Chosen) -> None:
    places = np.arange(len(layers))
    for side, kind, key, colour, what in (
        (-0.2, "shift", "mean_mismatch", MEAN, "means"),
        (0.2, "scale", "deviation_mismatch", DEVIATION, "deviations"),
    ):
        taken = np.array([name in getattr(chosen, kind) for name in layers])
        heights = np.array([getattr(layer, key) for layer in layers.values()])
        axes.bar(places[~taken] + side, heights[~taken], 0.38, color=colour, alpha=0.35, label=f"of channel {what}")
        if taken.any():
            label = f"of channel {what}: gets a {kind}"
            axes.bar(places[taken] + side, heights[taken], 0.38, color=colour, label=label)
    axes.set_title(f"Mismatch by layer ({chosen.title})")
    axes.set_xticks(
        places, list(layers), rotation=40, ha="right", rotation_mode="anchor", fontsize=min(8, 320 / len(layers))
    )
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("spread over channels\n(units of features)")
    axes.set_ylim(top=1.35 * axes.get_ylim()[1])  # room for the legend
    axes.legend(ncols=2, loc="upper right")

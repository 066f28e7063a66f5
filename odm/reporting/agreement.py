"""Whether the regularizer works with the reconstruction or against it, and what it does to the activations."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from odm.reporting import results
from odm.reporting.results import Row, Suite
from odm.reporting.style import GREY, legend, look, panel, say, write

LAYER = "agreement."


def draw(suite: Suite) -> Figure:
    """Four panels for each network that has runs: agreement and cosine above, deviation and mismatch below."""
    networks = [name for name in suite.networks if suite.of_network(name)] or [
        name for name in suite.dials if suite.of_network(name)
    ]
    height = 6.6 + 0.2 * (max(len(suite.of_network(name)) for name in networks) // 4)
    figure = Figure(figsize=(9.5, height * len(networks)))
    for place, network in enumerate(networks):
        _network(suite, network, figure, height * place)
    return figure


def pooled(suite: Suite, row: Row) -> pd.DataFrame | None:
    """A row's history by step, averaged over those of its seeds that have one; None if none has."""
    frames = [results.history(suite.settings, result.name) for result in row.results]
    found = [frame for frame in frames if frame is not None]
    return pd.concat(found).groupby(level=0).mean() if found else None


def _network(suite: Suite, network: str, figure: Figure, top: float) -> None:
    write(figure, 0.1, top + 0.1, f"{network}: regularizer and reconstruction over the training")
    agreement, cosine, deviation, mismatch = (
        panel(figure, left, top + below, 3.85, 2.25) for below in (0.7, 3.7) for left in (0.75, 5.5)
    )
    histories = [(row, pooled(suite, row)) for row in suite.of_network(network)]
    found = [(row, history) for row, history in histories if history is not None]
    regularized = [(row, history) for row, history in found if _filled(history, "agreement")]
    for row, history in regularized:
        for layer in [str(name) for name in history.columns if str(name).startswith(LAYER)]:
            agreement.plot(history.index, 100 * history[layer], **look(suite, row), linewidth=0.6, alpha=0.3)
    _lines(suite, agreement, regularized, "agreement", 100)
    _lines(suite, cosine, regularized, "cosine")
    _lines(suite, deviation, found, "deviation")
    _lines(suite, mismatch, found, "mismatch")
    legend(figure, deviation, top + 6.4)
    nothing = "no run of this suite has a regularizer" if found else "no history is there yet"
    _finish(agreement, "Gradient elements of equal sign (thin: layers)", "share (%)", nothing, reference=50)
    _finish(cosine, "Cosine of the two gradients", "cosine", nothing, reference=0)
    _finish(deviation, "Deviation of activations, mean over layers", "deviation (units of features)", nothing)
    _finish(mismatch, "Mismatch, mean over layers", "rms(x - q(x)) / deviation", nothing)


def _filled(history: pd.DataFrame, column: str) -> bool:
    return column in history and bool(history[column].notna().any())


def _lines(suite: Suite, axes: Axes, rows: list[tuple[Row, pd.DataFrame]], column: str, factor: float = 1) -> None:
    for row, history in rows:
        if _filled(history, column):
            seeds = f" ({len(row.results)} seeds)" if len(row.results) > 1 else ""
            axes.plot(history.index, factor * history[column], **look(suite, row), linewidth=2, label=row.label + seeds)


def _finish(axes: Axes, title: str, unit: str, nothing: str, reference: float | None = None) -> None:
    axes.set_title(title)
    if not axes.lines:
        return say(axes, nothing)
    if reference is not None:
        axes.axhline(reference, color=GREY, linewidth=0.9, zorder=0)
    axes.set_xlabel("training step")
    axes.set_ylabel(unit)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))

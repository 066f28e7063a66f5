"""Whether the regularizer works with the reconstruction or against it, and what it does to the activations."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from odm.reporting import results
from odm.reporting.results import Row, Suite
from odm.reporting.style import GREY, colour, legend, marker, panel, room, say, write

Histories = list[tuple[Row, pd.DataFrame]]
MOST_WITH_LAYERS = 2
"""Rows of a panel whose layers can still be told apart."""
DOWN = (
    # Column of a history, what it is, by what it is multiplied, what is neither one nor the other.
    ("agreement", "Gradient elements of equal sign (%, thin: layers)", 100, 50),
    ("cosine", "Cosine of the two gradients", 1, 0),
    ("deviation", "Deviation of activations (units of features, mean over layers)", 1, None),
    ("mismatch", "Mismatch: rms(x - q(x)) / deviation, mean over layers", 1, None),
)
LEFT, BEFORE, WIDTH, HEIGHT, ASIDE, BELOW = 0.6, 0.95, 2.9, 1.7, 0.6, 0.85
"""Inches of a panel, around it, and to the next ones."""
WIDE = 5
"""Of values whose largest is so many times the least, an axis is logarithmic."""


def draw(suite: Suite) -> Figure:
    """For each network that has runs a column for each width, with a panel for each of DOWN."""
    networks = [name for name in suite.networks if suite.of_network(name)] or [
        name for name in suite.dials if suite.of_network(name)
    ]
    found = {name: _by_width(suite, name) for name in networks}
    height = BEFORE + (HEIGHT + BELOW) * len(DOWN) - 0.4 + room(suite)
    columns = max(2, *map(len, found.values()))
    figure = Figure(figsize=(LEFT + (WIDTH + ASIDE) * columns, height * len(networks)))
    for place, network in enumerate(networks):
        _network(suite, network, found[network], figure, height * place)
    return figure


def pooled(suite: Suite, row: Row) -> pd.DataFrame | None:
    """A row's history by step, averaged over those of its seeds that have one; None if none has."""
    frames = [results.history(suite.settings, result.name) for result in row.results]
    found = [frame for frame in frames if frame is not None]
    return pd.concat(found).groupby(level=0).mean() if found else None


def _by_width(suite: Suite, network: str) -> dict[str, Histories]:
    found: dict[str, Histories] = {}
    for row in suite.of_network(network):
        history = pooled(suite, row)
        if history is not None and any(_filled(history, column) for column, *_ in DOWN):  # no_body has none
            found.setdefault(row.bits, []).append((row, history))
    return found


def _network(suite: Suite, network: str, found: dict[str, Histories], figure: Figure, top: float) -> None:
    write(figure, 0.1, top + 0.1, f"{network}: regularizer and reconstruction by training step, means over seeds")
    if not found:
        return say(panel(figure, LEFT, top + BEFORE, WIDTH, HEIGHT), "no history is there yet")
    drawn: list[Axes] = []
    for down, (column, name, factor, reference) in enumerate(DOWN):
        above = top + BEFORE + (HEIGHT + BELOW) * down
        write(figure, LEFT - 0.3, above - 0.5, name)
        for across, (width, histories) in enumerate(found.items()):
            axes = panel(figure, LEFT + (WIDTH + ASIDE) * across, above, WIDTH, HEIGHT)
            axes.set_title(width)
            _panel(suite, axes, [each for each in histories if _filled(each[1], column)], column, factor)
            if not axes.lines:
                say(axes, "no run has a regularizer")
                continue
            if reference is not None:
                axes.axhline(reference, color=GREY, linewidth=0.9, zorder=0)
            elif 0 < WIDE * axes.dataLim.ymin < axes.dataLim.ymax:
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter(ScalarFormatter())
            axes.set_xlim(left=0)
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            drawn.append(axes)
    fullest = sorted(drawn, key=lambda axes: len(axes.lines), reverse=True)
    legend(figure, fullest, top + BEFORE + (HEIGHT + BELOW) * len(DOWN) - 0.4)


def _filled(history: pd.DataFrame, column: str) -> bool:
    return column in history and bool(history[column].notna().any())


def _panel(suite: Suite, axes: Axes, histories: Histories, column: str, factor: float) -> None:
    for row, history in histories:
        if len(histories) <= MOST_WITH_LAYERS:
            for layer in [str(name) for name in history.columns if str(name).startswith(f"{column}.")]:
                axes.plot(
                    history.index, factor * history[layer], color=colour(suite, row.method), linewidth=0.6, alpha=0.3
                )
        axes.plot(
            history.index, factor * history[column], color=colour(suite, row.method), linewidth=1.4,
            marker=marker(suite, row.method), markersize=3.5, label=row.method,
        )  # fmt: skip

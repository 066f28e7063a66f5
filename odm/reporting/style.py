"""How every figure looks, and how it is written: equal content, equal bytes."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.text import Text

from odm.files import whole
from odm.names import shown
from odm.reporting.results import Suite

# Okabe and Ito's palette, told apart by colour-blind readers too; black and greys are kept for references.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vP"
DASHES = ("-", "--", ":", "-.")
GREY = "#777777"
FAINT = "#DDDDDD"

# Not from the user's own matplotlibrc: figures depend on the results alone.
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    # A name of a file may hold dollars; no figure has a formula.
    "text.parse_math": False,
}


def styled() -> Any:
    """A context in which figures are drawn and saved."""
    settings: dict[Any, Any] = {**matplotlib.rcParamsDefault, **STYLE, "backend": "Agg"}
    return matplotlib.rc_context(settings)


def panel(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a fixed place, in inches from the upper left corner of the figure.

    By hand, since matplotlib's constrained layout does not give equal bytes each time (seen in one of 25 drawings).
    """
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def write(figure: Figure, left: float, top: float, text: str) -> None:
    """A heading of panels; its upper left corner in inches from that of the figure."""
    across, down = figure.get_size_inches()
    figure.text(left / across, 1 - top / down, text, ha="left", va="top", fontsize=11)


def legend(figure: Figure, panels: Iterable[Axes], top: float, title: str | None = None) -> None:
    """What is drawn in any of them, named in rows of four across the figure, `top` inches below its upper edge."""
    named: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    place = (0.5, 1 - top / figure.get_size_inches()[1])
    if named:
        figure.legend(
            named.values(), named, loc="upper center", bbox_to_anchor=place, borderaxespad=0, ncols=4, title=title,
            title_fontsize=8,
        )  # fmt: skip


def room(suite: Suite) -> float:
    """Inches that a legend of all methods takes."""
    return 0.4 + 0.18 * math.ceil(len(suite.settings.methods) / 4)


def drawable(text: str) -> str:
    """A text in which what the font has no glyph for is an escape: matplotlib draws a box for it, and warns of each."""
    font = get_font(findfont(FontProperties(family=STYLE["font.family"])))
    return "".join(
        each if each == "\n" or font.get_char_index(ord(each)) else each.encode("unicode_escape").decode()
        for each in shown(text, but="\n")
    )


def save(figure: Figure, path: Path) -> None:
    """PNG without time or program in it, 150 dots an inch."""
    for text in figure.findobj(Text):
        if (said := drawable(text.get_text())) != text.get_text():
            text.set_text(said)
    with whole(path) as beside:
        figure.savefig(beside, format="png", dpi=150, facecolor="white", metadata={"Software": None})


def say(axes: Axes, text: str) -> None:
    """Text in place of a picture that cannot be drawn."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color=GREY, transform=axes.transAxes, wrap=True)


def colour(suite: Suite, method: str) -> str:
    return PALETTE[list(suite.settings.methods).index(method) % len(PALETTE)]


def marker(suite: Suite, method: str) -> str:
    """Another one for the same colour, where there are more methods than colours."""
    place = list(suite.settings.methods).index(method)
    return MARKERS[(place + place // len(PALETTE)) % len(MARKERS)]

"""The paper's first table: every method at every bit width on every test set, the published number beside ours."""

from collections.abc import Iterable

from odm.reporting import published, ranking
from odm.reporting.entries import KEYS, Entry
from odm.reporting.layout import BROKEN, MISSING, SECOND, Cell, Table
from odm.reporting.results import Key, Suite
from odm.reporting.tables import BROKEN as BROKEN_BY
from odm.reporting.uncertainty import CONFIDENCE, FEW


def table(suite: Suite, network: str, parts: list[list[Entry]]) -> Table:
    """Two columns for each test set; under a row what is printed of its method, if the network is the paper's."""
    sets = suite.settings.images.test
    head = [("", "Method"), ("", "W/A"), *scores_head(sets)]
    rows = [[row for entry in block for row in with_printed(entry, sets, [entry.name, entry.width])] for block in parts]
    title = f"{network} x{suite.settings.networks[network].scale}"
    return Table(f"{network}-comparison", f"Comparison: {title}", head, rows, _notes(suite, network, parts))


def scores_head(sets: Iterable[str]) -> list[tuple[str, str]]:
    names = {name.lower(): name for name in published.SETS}
    return [(names.get(images, images), key.upper()) for images in sets for key in KEYS]


def with_printed(entry: Entry, sets: list[str], labels: list[Cell]) -> list[list[Cell]]:
    """The row of an entry behind its labels, and the one of what was printed, if anything was."""
    rows = [labels + [_score(entry, images, key) for images in sets for key in KEYS]]
    if entry.answer and entry.printed:
        cells = [Cell(entry.printed.get((images, key), ""), "aside") for images in sets for key in KEYS]
        rows.append([Cell(f"printed: {entry.answer.method}", "aside"), *[Cell()] * (len(labels) - 1), *cells])
    return rows


def _score(entry: Entry, images: str, key: Key) -> Cell:
    line = entry.lines[images]
    if line[key] is None:
        return Cell(MISSING)
    broken = f" {BROKEN}" if line.get("broken") and key == "psnr" else ""
    return Cell(f"{line[key]:{'.2f' if key == 'psnr' else '.4f'}}{broken}", entry.marks.get((images, key), ""))


def notes_on(suite: Suite, network: str, entries: list[Entry]) -> list[str]:
    """What the printed rows are of, and which runs the marks in the cells stand for."""
    lines = [line for entry in entries for line in entry.lines.values()]
    missing, broken = (
        ", ".join(dict.fromkeys(name for line in lines for name in (line.get(key) or "").split()))
        for key in ("missing", "broken")
    )
    said = []
    if any(entry.printed for entry in entries):
        said.append(f"Printed: the published {published.BACKBONE}{published.training_apart(suite.settings, network)}.")
    if missing:
        said.append(f"{MISSING} Not finished, so no mean is taken: {missing}.")
    if broken:
        said.append(f"{BROKEN} Worse than bicubic by more than {BROKEN_BY:g} dB, a broken training: {broken}.")
    return said


def _notes(suite: Suite, network: str, parts: list[list[Entry]]) -> list[str]:
    entries = [entry for block in parts for entry in block]
    shown = [entry.method for entry in entries]
    references = [name for name, each in suite.settings.methods.items() if each.is_reference and name in shown]
    counts = {
        images: max(each.lines[images]["images"] or 0 for each in entries) for images in suite.settings.images.test
    }
    few = [f"{images} ({count})" for images, count in counts.items() if 0 < count < FEW]
    said = [
        "PSNR (dB) and SSIM on Y, means over images and seeds.",
        f"Bold is the best of a bit width, {SECOND} the second: only where the {CONFIDENCE:.0%} interval over images "
        "(paired bootstrap) of the difference to every other, for the second to all but the best, lies above 0, all of "
        f"their runs are finished and the set has {ranking.LEAST} images or more. It says nothing about seeds.",
    ]
    if references:
        said.append(f"A reference, not ranked: {', '.join(references)}.")
    if few:
        said.append(f"Few images, so that intervals are rough: {', '.join(few)}.")
    return [*said, *notes_on(suite, network, entries)]

"""What `odm tables` writes, as text: equal results give equal bytes."""

from pathlib import Path

from odm.reporting import latex, markdown, paper, tables
from odm.reporting.results import Suite


def rendered(suite: Suite) -> dict[Path, str]:
    """The text of each file; the document stands twice, the second time as that of the suite in force."""
    lines = tables.scores(suite)
    laid_out, sheet = paper.tables(suite, lines)
    document = markdown.document(suite, lines, laid_out)
    folder = suite.settings.results
    return {
        folder / "tables.md": document,
        folder / "tables.csv": tables.csv(lines, tables.SCORE_COLUMNS),
        folder / "tables.tex": latex.document(suite.settings.suite, laid_out),
        folder / "paper.csv": tables.csv(sheet, paper.columns(suite.settings.images.test)),
        folder / "timings.csv": tables.csv(tables.timings(suite), tables.TIMING_COLUMNS),
        folder.parent / "tables.md": document,
    }

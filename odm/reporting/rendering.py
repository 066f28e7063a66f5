"""What `odm tables` writes, as text: equal results give equal bytes."""

from pathlib import Path

from odm.reporting import markdown, tables
from odm.reporting.results import Suite


def rendered(suite: Suite) -> dict[Path, str]:
    """The text of each file; the document stands twice, the second time as that of the suite in force."""
    document = markdown.document(suite)
    folder = suite.settings.results
    return {
        folder / "tables.md": document,
        folder / "tables.csv": tables.csv(tables.scores(suite), tables.SCORE_COLUMNS),
        folder / "timings.csv": tables.csv(tables.timings(suite), tables.TIMING_COLUMNS),
        folder.parent / "tables.md": document,
    }

"""Gather every result of the suite into tables."""

from odm.files import write_text
from odm.reporting import markdown, results, tables
from odm.settings.suite import Settings


def run(settings: Settings) -> None:
    suite = results.read(settings)
    document = markdown.document(suite)
    write_text(settings.results / "tables.md", document)
    write_text(settings.results / "tables.csv", tables.csv(tables.scores(suite), tables.SCORE_COLUMNS))
    write_text(settings.results / "timings.csv", tables.csv(tables.timings(suite), tables.TIMING_COLUMNS))
    write_text(settings.results.parent / "tables.md", document)  # the suite in force
    print(f"{settings.results}/tables.md, tables.csv, timings.csv; {settings.results.parent}/tables.md")

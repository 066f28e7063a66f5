"""Gather every result of the suite into tables."""

from odm.files import write_text
from odm.reporting import results
from odm.reporting.rendering import rendered
from odm.settings.suite import Settings


def run(settings: Settings) -> None:
    written = rendered(results.read(settings))
    for path, text in written.items():
        write_text(path, text)
    print(", ".join(map(str, written)))

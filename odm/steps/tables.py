"""Gather every result of the suite into tables."""

from odm.files import write_text
from odm.reporting import results
from odm.reporting.rendering import rendered
from odm.settings.suite import Settings


def run(settings: Settings) -> None:
    for path, text in rendered(results.read(settings)).items():
        write_text(path, text)

"""`odm cards`: the card of every job of the suite, a file each, by which DVC sees what is due."""

import shutil

from odm import card
from odm.files import write_text
from odm.settings.suite import Settings


def run(settings: Settings) -> None:
    """Write results/<suite>/cards/<step>/<name>.json, and <step>.json where a step has one job."""
    folder = settings.results / "cards"
    shutil.rmtree(folder, ignore_errors=True)
    jobs = list(card.jobs(settings))
    for step, name in jobs:
        path = folder / step / f"{name}.json" if name else folder / f"{step}.json"
        write_text(path, card.card(settings, step, name).text())
    print(f"{folder}: {len(jobs)} cards")

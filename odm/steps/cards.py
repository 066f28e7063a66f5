"""`odm cards`: the card of every job of the suite, a file each, by which DVC sees what is due."""

from odm import card
from odm.settings.suite import Settings


def run(settings: Settings) -> None:
    count = card.write(settings)
    print(f"{settings.results}/cards: {count} cards")

"""`odm needs`: the time and memory that each job asks of a cluster's scheduler."""

from odm.needs import keep, megabytes, minutes
from odm.networks.build import build
from odm.settings.suite import Settings
from odm.training.estimate import duration, footprint, needs


def run(settings: Settings) -> None:
    found = needs(settings, {name: footprint(build(each)) for name, each in settings.networks.items()})
    keep(settings, found)
    for job, need in found.items():
        time, memory = duration(60 * minutes(need.seconds)), megabytes(need.memory)
        print(f"{' '.join(job).rstrip()}: {time}, {memory:,} MB")

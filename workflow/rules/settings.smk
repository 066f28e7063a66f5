# What the rules share: the settings in force, the names of files, and the card of a job.
import os
from pathlib import Path

from odm.errors import OdmError
from snakemake.utils import available_cpu_count

# The most that a job asks a cluster for, as its profile says; on a single machine none.
HOURS = config.get("cluster_hours")

try:
    from odm import card, needs
    from odm.settings.fields import NAME_PATTERN
    from odm.settings.reading import load

    SETTINGS = load()
    CARDS = {job: card.card(SETTINGS, *job).digest for job in card.jobs(SETTINGS)}
    if HOURS and SETTINGS.device == "auto":
        raise OdmError("device: auto does not tell a cluster whether jobs need a GPU; say `cuda` or `cpu`")
    NEEDS = needs.needs(SETTINGS) if HOURS else {}
except OdmError as error:
    raise WorkflowError(str(error)) from None

RESULTS = str(SETTINGS.results)
LOGS = f"logs/{SETTINGS.suite}"
NETWORK = f"{RESULTS}/networks/{{network}}"
RUN = f"{RESULTS}/runs/{{run}}"
TRAIN_IMAGES = f"{RESULTS}/data/train.safetensors"
TEST_IMAGES = f"{RESULTS}/data/test.safetensors"
FIGURES = ["crops", "tradeoff", "differences", "agreement", "mismatch", "dial"]

# One job a card; the profile of a single machine limits `gpu` to 1.
GPU = int(SETTINGS.device.startswith("cuda") or (SETTINGS.device == "auto" and Path(os.sep, "dev", "nvidia0").exists()))
# `--cores 8` on a smaller machine must not start eight trainings at once: they would share its cores and its memory.
if not HOURS:
    workflow.register_resource("processors", available_cpu_count())


def one_of(names):
    """A pattern for a wildcard that stands for one of some names, of which there may be none."""
    return "|".join(names) or "(?!)"


wildcard_constraints:
    part="train|test",
    network=NAME_PATTERN,
    pretrained=one_of(SETTINGS.networks),
    dial=one_of(SETTINGS.dials),
    run=NAME_PATTERN,


def card_of(step):
    """A params function: the digest of a job's card, which has all that its result depends on beside its inputs."""
    return lambda wildcards: CARDS[step, next(iter(wildcards), "")]


def resources_of(step):
    """What a job is scheduled by: a card, if it computes on the device, and the cores of a single machine, or the time
    and memory that a cluster is asked for."""
    on_device = step not in ("data", "dial", "tables")
    if not HOURS:
        return {"gpu": GPU, "processors": SETTINGS.threads} if on_device else {}

    def need(wildcards):
        return NEEDS[step, next(iter(wildcards), "")]

    return ({"gpu": 1} if GPU and on_device else {}) | {
        "runtime": lambda wildcards, attempt: min(int(60 * HOURS), needs.minutes(need(wildcards)[0], attempt)),
        "mem_mb": lambda wildcards, attempt: needs.megabytes(need(wildcards)[1], attempt),
    }


def base_weights(wildcards):
    """The weights of the network that a dial is made from."""
    return f"{RESULTS}/networks/{SETTINGS.dials[wildcards.dial].network}/weights.safetensors"


def of_network(name):
    """A file of the network that a run starts from."""
    return lambda wildcards: f"{RESULTS}/networks/{SETTINGS.runs[wildcards.run].network}/{name}"


def of_networks_and_runs():
    """All that networks and runs leave behind, but for timing.json, which is another on each machine."""
    network_files = ["weights.safetensors", "mismatch.json", "metrics.json", "summary.json"]
    run_files = ["weights.safetensors", "history.csv", "metrics.json", "summary.json"]
    return [
        *(f"{NETWORK.format(network=network)}/history.csv" for network in SETTINGS.networks),
        *(f"{NETWORK.format(network=network)}/{file}" for network in SETTINGS.floats for file in network_files),
        *(f"{RUN.format(run=run)}/{file}" for run in SETTINGS.runs for file in run_files),
    ]


def everything():
    """Every file of the suite: in a fresh clone git has brought the tables, but not the weights they came from."""
    return [
        TRAIN_IMAGES,
        TEST_IMAGES,
        *of_networks_and_runs(),
        *(f"{RESULTS}/{name}" for name in ["tables.md", "tables.csv", "tables.tex", "paper.csv", "report.html"]),
        *(f"{RESULTS}/figures/{figure}.png" for figure in FIGURES),
        "results/tables.md",
    ]

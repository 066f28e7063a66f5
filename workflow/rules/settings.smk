# What the rules share: the settings in force, the names of files, and the sources each step is made of.
import hashlib
import os
from functools import cache
from pathlib import Path

from odm.errors import OdmError
from odm.settings import NAME_PATTERN, load
from snakemake.utils import available_cpu_count

try:
    SETTINGS = load()
except OdmError as error:
    raise WorkflowError(str(error)) from None

RESULTS = str(SETTINGS.results)
LOGS = f"logs/{SETTINGS.suite}"
NETWORK = f"{RESULTS}/networks/{{network}}"
RUN = f"{RESULTS}/runs/{{run}}"
TRAIN_IMAGES = f"{RESULTS}/data/train.safetensors"
TEST_IMAGES = f"{RESULTS}/data/test.safetensors"
FIGURES = ["crops", "tradeoff", "agreement", "mismatch", "dial"]

# One job a card; the profile limits `gpu` to 1.
GPU = int(SETTINGS.device.startswith("cuda") or (SETTINGS.device == "auto" and Path(os.sep, "dev", "nvidia0").exists()))
# `--cores 8` on a smaller machine must not start eight trainings at once: they would share its cores and its memory.
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


# Files and folders whose edit re-runs a step: all that it imports (a test follows the imports), except what gathers
# images, which matters to the others only through the file it gathers them in.
SHARED = ["odm/files.py", "odm/settings.py"]
COMPUTING = ["odm/networks", "odm/seeds.py", "odm/training"]
QUANTIZED = ["odm/inference.py", "odm/methods", "odm/quantization"]
SOURCES = {
    "data": ["odm/images"],
    "pretrain": [*COMPUTING, "odm/images/prepared.py"],
    "dial": ["odm/networks", "odm/seeds.py"],
    "mismatch": [*COMPUTING, *QUANTIZED, "odm/images/prepared.py"],
    "train": [*COMPUTING, *QUANTIZED, "odm/images/prepared.py"],
    "evaluate": [*COMPUTING, *QUANTIZED, "odm/images"],
    "tables": ["odm/reporting"],
    "figures": [*COMPUTING, *QUANTIZED, "odm/images", "odm/reporting"],
}


@cache
def digest_of_source(source):
    """Of a file's content, or of the names and contents of all files in a folder."""
    files = sorted(Path(source).rglob("*")) or [Path(source)]
    content = {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file() and "__pycache__" not in file.parts
    }
    return hashlib.sha256(repr(content).encode()).hexdigest()[:12]


def sources(step):
    """What a step is made of, for `params`: as `input`, some fifty files a job would make every start slow."""
    return {source: digest_of_source(source) for source in [f"odm/steps/{step}.py", *SHARED, *SOURCES[step]]}


def tracked(*keys):
    """A params function: the settings at dotted keys, which may name wildcards and, for a run, `item` (its entry)."""
    settings = SETTINGS.model_dump(mode="json")

    def values(wildcards):
        names = {**wildcards, "item": SETTINGS.runs[wildcards.run] if "run" in wildcards.keys() else None}
        found = {}
        for key in (key.format(**names) for key in keys):
            found[key] = settings
            for part in key.split("."):
                found[key] = found[key][part]
        return found

    return values


def base_weights(wildcards):
    """The weights of the network that a dial is made from."""
    return f"{RESULTS}/networks/{SETTINGS.dials[wildcards.dial].network}/weights.safetensors"


def of_network(name):
    """A file of the network that a run starts from."""
    return lambda wildcards: f"{RESULTS}/networks/{SETTINGS.runs[wildcards.run].network}/{name}"


def of_networks_and_runs():
    """All that networks and runs leave behind."""
    network_files = ["weights.safetensors", "mismatch.json", "metrics.json", "summary.json", "timing.json"]
    run_files = ["weights.safetensors", "history.csv", "metrics.json", "summary.json", "timing.json"]
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
        *(f"{RESULTS}/{name}" for name in ["tables.md", "tables.csv", "timings.csv"]),
        *(f"{RESULTS}/figures/{figure}.png" for figure in FIGURES),
        "results/tables.md",
    ]

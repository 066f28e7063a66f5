"""`odm check`: what a run of the suite will do, before it does it."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch import nn

from odm import card, engines, leftovers
from odm.card import Job
from odm.errors import OdmError
from odm.images.area import area, count
from odm.needs import megabytes, minutes
from odm.networks.build import build
from odm.networks.device import cpu_line, device_of, has_bfloat16, placed, set_vectors
from odm.networks.settings import NetworkSettings
from odm.settings.suite import Settings
from odm.settings.training import Training
from odm.training.estimate import (
    CARDS,
    LONGEST_ON_A_CPU,
    Footprint,
    Need,
    duration,
    footprint,
    needs,
    refuse,
    trainings,
    work,
)

# Multiply-accumulates of a step that a CPU is timed at: well under a second of one thread.
MOST_TIMED = 4e9
# Smaller patches than this cost more than their share.
LEAST_PATCH = 16
# Time of a compiled step over that of an eager one on a CPU; `benchmarks/widths.py` measures it.
COMPILED_ON_A_CPU = 1.3


def run(settings: Settings) -> None:
    """Print jobs, images, steps, and estimates of disk and time, these from training steps that are really timed.

    OdmError, after all that, if the settings' device is not there or is a CPU that would not train so much.
    """
    missing = None
    try:
        device = device_of(settings)
        for training in (settings.pretraining, settings.qat):
            device_of(settings, training.precision)
    except OdmError as error:
        device, missing = torch.device("cpu"), error
    for split in ("train", "test"):
        names = getattr(settings.images, split)
        print(f"{split} images: {', '.join(f'{name} ({_count(name, settings)})' for name in names)}")
    jobs = len(list(card.jobs(settings)))
    dials = f"{len(settings.dials)} dials to turn, " if settings.dials else ""
    print(f"{jobs} jobs: {len(settings.networks)} networks to pretrain, {dials}{len(settings.runs)} runs to train")

    footprints: dict[str, Footprint] = {}
    step: dict[str, dict[str, float]] = {}  # seconds of a float one
    sizes: dict[str, tuple[tuple[int, int, str], float]] = {}  # of the float step that was timed, and its seconds
    for name, network_settings in settings.networks.items():
        network = placed(build(network_settings), device)
        footprints[name] = footprint(network)
        step[name] = {}
        timed: dict[tuple[int, int, str], float] = {}
        for kind, training in (("pretraining", settings.pretraining), ("qat", settings.qat)):
            batch, patch = training.batch, training.patch
            if device.type == "cpu":
                batch, patch = _timed_size(training, footprints[name].macs)
            size = (batch, patch, "float32" if missing else training.precision)
            if size not in timed:
                timed[size] = _seconds_a_step(network, *size, device)
            step[name][kind] = timed[size] * training.batch * training.patch**2 / (batch * patch**2)
            sizes[name] = (size, timed[size])
        given = network_settings.weights
        steps = f"{settings.pretraining.steps} steps of {step[name]['pretraining'] * 1e3:.0f} ms"
        print(f"  {name}: {footprints[name].parameters:,} parameters, {f'weights of {given}' if given else steps}")
    seconds = {name: step[network][kind] * steps for name, network, kind, steps in trainings(settings)}
    print(f"  {len(settings.runs)} runs of {settings.qat.steps} steps each")
    _due(settings)

    print(_disk(settings, {name: each.parameters for name, each in footprints.items()}))
    print(_asked(needs(settings, footprints)))
    slowest = max(sizes, key=lambda name: step[name]["qat"])
    for line in _savings(settings, slowest, *sizes[slowest], device):
        print(line)
    total = sum(seconds.values())
    if missing or total > LONGEST_ON_A_CPU * 3600:
        macs = sum(work(settings, footprints).values())
        for gpu, speed in CARDS.items():
            print(f"about {duration(macs / (speed * 1e9))} on one {gpu}: computed, never timed on one")
    where = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{settings.threads} thread(s) of {cpu_line()}"
    )
    print(f"about {duration(total)} of training one job after another on {where}; less as far as jobs run side by side")
    if missing:
        raise missing
    if device.type == "cpu":
        for name, each in seconds.items():
            refuse(settings, name, each)


def _savings(
    settings: Settings, name: str, size: tuple[int, int, str], seconds: float, device: torch.device
) -> Iterator[str]:
    """What other settings would make of a float step that took so many seconds."""
    batch, patch, precision = size
    others = ["float32"] if settings.vectors == "avx2" else []
    if has_bfloat16(device) and precision == "float32":
        others.append("bfloat16")
    is_cpu = device.type == "cpu"
    if is_cpu and settings.vectors == "avx2" and torch.cpu._is_avx512_supported():
        # Their width is fixed for a process.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            timed = pool.submit(
                _native_seconds, settings.networks[name], batch, patch, others, settings.threads
            ).result()
        said = {"float32": "`vectors: native`", "bfloat16": "`precision: bfloat16` too"}
    elif "bfloat16" in others and (settings.vectors == "native" or not is_cpu):
        network = placed(build(settings.networks[name]), device)
        timed = {"bfloat16": _seconds_a_step(network, batch, patch, "bfloat16", device)}
        said = {"bfloat16": "`precision: bfloat16`"}
    else:
        timed, said = {}, {}
    if timed:
        times = ", ".join(f"{each / seconds:.2f} of it with {said[other]}" for other, each in timed.items())
        yield f"a float step of {name}, {seconds * 1e3:.0f} ms here, would take {times}"
    if is_cpu and (settings.pretraining.compile or settings.qat.compile):
        yield f"compile: on a CPU a compiled step takes about {COMPILED_ON_A_CPU} of an eager one; say `compile: false`"


def _native_seconds(
    settings: NetworkSettings, batch: int, patch: int, precisions: Sequence[str], threads: int
) -> dict[str, float]:
    """Of a float step by precision, in a process that has not computed yet."""
    set_vectors("native")
    torch.set_num_threads(threads)
    device = torch.device("cpu")
    network = placed(build(settings), device)
    return {each: _seconds_a_step(network, batch, patch, each, device) for each in precisions}


def _due(settings: Settings) -> None:
    """What each engine would run, and why; and what keeps it from that."""
    for leftover in leftovers.found():
        print(f"left behind: {leftover.what}; `odm adopt` mends it")
    for engine, there, plan in (
        ("Snakemake", Path("Snakefile"), engines.snakemake),
        ("DVC", Path("dvc.yaml"), lambda: engines.dvc(settings)),
    ):
        if not there.exists():
            print(f"{engine}: no {there} here")
            continue
        try:
            found = plan()
        except OdmError as error:
            print(f"{engine}: cannot say what is due ({error})")
            continue
        print(f"{engine}: {len(found.due)} of {len(list(card.jobs(settings)))} jobs due")
        for reason, jobs in engines.reasons(settings, found).items():
            print(f"  {engines.named(jobs)}: {reason}")


def _disk(settings: Settings, parameters: Mapping[str, int]) -> str:
    """What the suite takes on disk, in one line."""
    names = [*settings.images.train, *settings.images.test]
    shrunk = sum(1 / scale**2 for scale in settings.images.scales)
    images = 3 * (1 + shrunk) * sum(area(name, settings.images) for name in names)
    stored = sum(parameters[settings.base_of(name)] for name in settings.floats)
    stored += sum(parameters[settings.base_of(each.network)] for each in settings.runs.values())
    # A checkpoint holds the network and Adam's two moments, and goes when its job is done.
    return (
        f"disk: about {_size(images)} of images as they are read in training, {_size(4 * stored)} of weights "
        f"(DVC keeps a second copy of both), up to {_size(12 * max(parameters.values()))} of checkpoint a running job"
    )


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _count(name: str, settings: Settings) -> str:
    number = count(name, settings.images)
    if name in settings.images.folders:
        return f"{number} images in your folder {settings.images.folders[name]}"
    return f"{number} images"


def _asked(found: Mapping[Job, Need]) -> str:
    """What a cluster's scheduler is asked for at a job's first attempt, in one line."""
    longest, largest = (max(found, key=lambda job: found[job][index]) for index in (0, 1))
    time, memory = minutes(found[longest].seconds), megabytes(found[largest].memory)
    return (
        f"a cluster is asked for up to {duration(60 * time)} ({' '.join(longest).rstrip()}) and {_size(1e6 * memory)} "
        f"({' '.join(largest).rstrip()}) a job; `odm needs` lists them"
    )


def _timed_size(training: Training, macs: float) -> tuple[int, int]:
    """Batch and patch that a CPU is timed at: of a large step a part, which the whole is counted from by its pixels."""
    batch, patch = training.batch, training.patch
    while batch > 1 and macs * batch * patch**2 > MOST_TIMED:
        batch //= 2
    while patch > LEAST_PATCH and macs * batch * patch**2 > MOST_TIMED:
        patch = max(LEAST_PATCH, patch // 2)
    return batch, patch


def _seconds_a_step(network: nn.Module, batch: int, patch: int, precision: str, device: torch.device) -> float:
    low = torch.rand(batch, 3, patch, patch, device=device).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        network.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            output = network(low)
        output.abs().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    step()  # the first one sets up kernels
    return min(_timed(step) for _ in range(3))


def _timed(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began

"""`odm check`: what a run of the suite will do, before it does it."""

import time
from collections.abc import Callable

import torch
from torch import nn

from odm.device import cpu_name, device_of, placed
from odm.images.catalogue import CATALOGUE, Packaged
from odm.methods.build import METHODS
from odm.networks.build import build
from odm.settings import Settings


def run(settings: Settings) -> None:
    """Print jobs, images, steps and an estimate of the time, from a few training steps that are really timed."""
    device = device_of(settings)
    for split in ("train", "test"):
        names = getattr(settings.images, split)
        print(f"{split} images: {', '.join(f'{name} ({_count(name, settings)})' for name in names)}")
    # data twice; pretrain, mismatch and evaluate a network; train and evaluate a run; tables and figures
    jobs = 2 + 3 * len(settings.networks) + 2 * len(settings.runs) + 2
    print(f"{jobs} jobs: {len(settings.networks)} networks to pretrain, {len(settings.runs)} runs to train")

    seconds = 0.0
    step = {}
    for name, network_settings in settings.networks.items():
        network = placed(build(network_settings), device)
        step[name] = {
            kind: _seconds_a_step(network, training.batch, training.patch, device)
            for kind, training in (("pretraining", settings.pretraining), ("qat", settings.qat))
        }
        seconds += step[name]["pretraining"] * settings.pretraining.steps
        print(
            f"  {name}: {sum(each.numel() for each in network.parameters()):,} parameters, "
            f"{settings.pretraining.steps} steps of {step[name]['pretraining'] * 1e3:.0f} ms"
        )
    for run_settings in settings.runs.values():
        kind = settings.methods[run_settings.method].kind
        seconds += step[run_settings.network]["qat"] * METHODS[kind].STEP_COST * settings.qat.steps
    print(f"  {len(settings.runs)} runs of {settings.qat.steps} steps each")
    where = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{cpu_name()}, {settings.threads} thread(s) a job"
    )
    print(
        f"about {_duration(seconds)} of training one job after another on {where}; less as far as jobs run side by side"
    )


def _count(name: str, settings: Settings) -> str:
    if name in settings.images.folders:
        return f"your folder {settings.images.folders[name]}"
    entry = CATALOGUE[name]
    return f"{len(entry.images) if isinstance(entry, Packaged) else entry.count} images"


def _seconds_a_step(network: nn.Module, batch: int, patch: int, device: torch.device) -> float:
    low = torch.rand(batch, 3, patch, patch, device=device).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        network.zero_grad()
        network(low).abs().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    step()  # the first one sets up kernels
    return min(_timed(step) for _ in range(3))


def _timed(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"

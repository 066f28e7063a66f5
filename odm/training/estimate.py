"""What jobs take of a machine, time and memory, and which a CPU is not started on."""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from odm.errors import OdmError
from odm.images.area import area, count
from odm.networks.backbone import Backbone
from odm.settings.suite import Settings
from odm.settings.training import Training

# Passes of a training step in units of the forward one: forward, and backward to inputs and to weights.
PASSES = 3
# 10^9 multiply-accumulates a second of a whole float step, by thread. Measured on one thread of an AVX2 server: 16 to
# 30 over all networks of the suites.
CPU_THREAD = 25.0
# The same of whole cards. None was at hand. The first follows from a time published for EDSR x4 at 4 bits, about 2.4
# hours for the paper's 60,000 steps, taken to be on the paper's RTX 2080 Ti with a step of fake quantization at 1.2 of
# a float one; the others from it by memory bandwidth (616, 1555 and 3350 GB/s), which a step of small convolutions
# and element-wise quantizers is presumed to be bound by.
CARDS = {"NVIDIA RTX 2080 Ti": 910.0, "NVIDIA A100 40 GB": 2300.0, "NVIDIA H100 SXM": 4900.0}
# Hours of a job up to which a CPU needs no permission.
LONGEST_ON_A_CPU = 12
# Least side of the image that multiplications are counted on.
PROBE = 16
# Bytes of a process that has read nothing yet: with torch and its optimizers as measured; with a card as presumed.
PROCESS, PROCESS_ON_A_CARD = 4e8, 4e9
# Most that a step holds on a CPU, gradients of activations among it, over what a float one keeps for its backward pass.
# Measured on EDSR: 1.9 for a float step, 4.6 for a quantized one of the greediest method.
HELD, HELD_IN_QAT = 2, 5
# Seconds of one thread by high-resolution pixel: to read it or shrink it to one scale; to score it, beside bicubic.
# Measured: 0.3 of a millionth, and less than one.
SHRUNK, SCORED = 1e-6, 2e-6
# Bytes by high-resolution pixel of the one image at hand, for filtered copies of it in float64.
AN_IMAGE = 300
# The largest image of a set over the mean one.
LARGEST = 2
# Seconds by network and run that figures and the page show.
SHOWN = 5


class Footprint(NamedTuple):
    """What a network takes; all but its parameters by low-resolution pixel."""

    parameters: int
    macs: float
    """Multiply-accumulates of a float training step."""
    kept: float
    """Bytes that a float step keeps for its backward pass."""
    live: float
    """Bytes that the widest of its modules takes and gives."""


class Need(NamedTuple):
    """What a job takes, to within a factor of two or so."""

    seconds: float
    """On a machine that does nothing else."""
    memory: float
    """Bytes, of the host's memory and not of the card's."""


def footprint(network: nn.Module) -> Footprint:
    """Counted on a small image that is really run; nothing in the network changes."""
    low = _probe(network)
    kept: dict[int, int] = {}
    live = 0

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def compare(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        nonlocal live
        live = max(live, sum(each.nbytes for each in (*inputs, output) if isinstance(each, Tensor)))

    hooks = [each.register_forward_hook(compare) for each in network.modules() if not list(each.children())]
    training = network.training
    network.eval()
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = network(low)  # until it goes, no two of what is kept lie in one place
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    del output
    pixels = low.shape[2] * low.shape[3]
    parameters = sum(each.numel() for each in network.parameters())
    return Footprint(parameters, macs_a_pixel(network), sum(kept.values()) / pixels, live / pixels)


def trainings(settings: Settings) -> Iterator[tuple[str, str, str, float]]:
    """Of each job that trains: its name, its network, the settings it is trained by, and its length in float steps."""
    for name in settings.pretrained:
        yield name, name, "pretraining", settings.pretraining.steps
    for name, run in settings.runs.items():
        yield name, settings.base_of(run.network), "qat", settings.methods[run.method].step_cost * settings.qat.steps


def work(settings: Settings, footprints: Mapping[str, Footprint]) -> dict[str, float]:
    """Multiply-accumulates of each job that trains, what its method adds among them."""
    return {
        name: footprints[network].macs * _pixels(getattr(settings, kind)) * steps
        for name, network, kind, steps in trainings(settings)
    }


def needs(settings: Settings, footprints: Mapping[str, Footprint]) -> dict[tuple[str, str], Need]:
    """What each job of a suite takes, by step and name: with a card, the time of the slowest of `CARDS`."""
    has_card = settings.device.startswith("cuda") or (settings.device == "auto" and torch.cuda.is_available())
    speed = 1e9 * (min(CARDS.values()) if has_card else CPU_THREAD * settings.threads)
    process = PROCESS_ON_A_CARD if has_card else PROCESS
    pixels, image, stored = {}, {}, {}  # by split: of all images, of the largest, and bytes as they are read
    for split in ("train", "test"):
        sets = [(area(name, settings.images), count(name, settings.images)) for name in getattr(settings.images, split)]
        pixels[split] = sum(each for each, _ in sets)
        image[split] = LARGEST * max(each / max(number, 1) for each, number in sets)
        stored[split] = 3 * pixels[split] * (1 + sum(1 / scale**2 for scale in settings.images.scales))

    found: dict[tuple[str, str], Need] = {}
    macs_of = work(settings, footprints)
    for split in ("train", "test"):
        seconds = SHRUNK * pixels[split] * (1 + len(settings.images.scales))
        found["data", split] = Need(seconds, PROCESS + AN_IMAGE * image[split])
    for name in settings.networks:
        found["pretrain", name] = Need(0, process + stored["train"])  # of one that is not trained
    for name, network, kind, _ in trainings(settings):
        held = footprints[network].kept * _pixels(getattr(settings, kind)) * (HELD_IN_QAT if kind == "qat" else HELD)
        # Weights, their gradients, Adam's moments and a checkpoint being written.
        held = 0 if has_card else held + 20 * footprints[network].parameters
        step = "train" if kind == "qat" else "pretrain"
        found[step, name] = Need(macs_of[name] / speed, process + stored["train"] + held)
    for name in settings.dials:
        found["dial", name] = Need(0, PROCESS)
    for name in settings.floats:
        _, macs, kept, _ = footprints[settings.base_of(name)]
        batch = _pixels(settings.qat)
        seconds = settings.mismatch.batches * batch * macs / PASSES / speed
        found["mismatch", name] = Need(seconds, process + stored["train"] + (0 if has_card else HELD * kept * batch))
    for name in [*settings.floats, *settings.runs]:
        run = settings.runs.get(name)
        network = settings.base_of(run.network if run else name)
        area_of_low = 1 / settings.networks[network].scale ** 2
        forward = footprints[network].macs / PASSES * pixels["test"] * area_of_low
        forward *= settings.methods[run.method].step_cost if run else 1
        live = 0 if has_card else 2 * footprints[network].live * area_of_low
        found["evaluate", name] = Need(
            forward / speed + SCORED * pixels["test"], process + stored["test"] + (AN_IMAGE + live) * image["test"]
        )
    found["tables", ""] = Need(0, PROCESS)
    shown = max(need.memory for (step, _), need in found.items() if step == "evaluate")
    for step in ("figures", "report"):
        found[step, ""] = Need(SHOWN * (len(settings.floats) + len(settings.runs)), PROCESS + shown)
    return found


def _pixels(training: Training) -> int:
    """Low-resolution pixels of a step."""
    return training.batch * training.patch**2


def _probe(network: nn.Module) -> Tensor:
    """A small image that the network takes, (1, 3, H, W)."""
    multiple = network.multiple if isinstance(network, Backbone) else 1
    side = math.ceil(PROBE / multiple) * multiple
    return next(network.parameters()).new_zeros(1, 3, side, side)


def macs_a_pixel(network: nn.Module) -> float:
    """Multiply-accumulates of a training step by low-resolution pixel, counted on a small image that is really run;
    nothing in the network changes."""
    low = _probe(network)
    training = network.training
    network.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(low)
    finally:
        network.train(training)
    return PASSES * counter.get_total_flops() / 2 / (low.shape[2] * low.shape[3])


def allow(settings: Settings, name: str, network: nn.Module, training: Training, cost: float = 1.0) -> None:
    """OdmError if the network is on a CPU that would train for longer than the settings allow.

    Args:
        name: of the job.
        cost: time of its step over that of a float one.
    """
    if settings.allow_cpu or next(network.parameters()).device.type != "cpu":
        return
    pixels = training.steps * _pixels(training)
    refuse(settings, name, macs_a_pixel(network) * pixels * cost / (CPU_THREAD * 1e9 * settings.threads))


def refuse(settings: Settings, name: str, seconds: float) -> None:
    """OdmError if a job of so many seconds is too long for a CPU."""
    if not settings.allow_cpu and seconds > LONGEST_ON_A_CPU * 3600:
        raise OdmError(
            f"device: a CPU would train '{name}' for about {duration(seconds)}; use a GPU, or say `allow_cpu: true` to "
            "have it done all the same"
        )


def duration(seconds: float) -> str:
    """To two digits or so, in the unit that suits."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    days = seconds / 86400
    return f"{days:.1f} days" if days < 10 else f"{days:,.0f} days"

"""How long a training job will take, and which a CPU is not started on."""

import math

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from odm.errors import OdmError
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


def macs_a_pixel(network: nn.Module) -> float:
    """Multiply-accumulates of a training step by low-resolution pixel, counted on a small image that is really run;
    nothing in the network changes."""
    multiple = network.multiple if isinstance(network, Backbone) else 1
    side = math.ceil(PROBE / multiple) * multiple
    low = next(network.parameters()).new_zeros(1, 3, side, side)
    training = network.training
    network.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(low)
    finally:
        network.train(training)
    return PASSES * counter.get_total_flops() / 2 / side**2


def allow(settings: Settings, name: str, network: nn.Module, training: Training, cost: float = 1.0) -> None:
    """OdmError if the network is on a CPU that would train for longer than the settings allow.

    Args:
        name: of the job.
        cost: time of its step over that of a float one.
    """
    if settings.allow_cpu or next(network.parameters()).device.type != "cpu":
        return
    pixels = training.steps * training.batch * training.patch**2
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

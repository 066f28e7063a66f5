"""The one loop: pretraining and quantization-aware training."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from odm.settings.training import Training
from odm.training import checkpoint
from odm.training.breakdown import Watch
from odm.training.objective import Objective
from odm.training.progress import Progress

# (low resolution, high resolution) of a step, each (N, 3, H, W) in 0-255.
Batches = Callable[[int], tuple[Tensor, Tensor]]


def rate_at(step: int, settings: Training) -> float:
    """Share of the first learning rate that a step is taken with."""
    warm = warmth_at(step, settings)
    if settings.schedule == "cosine":
        return warm * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return warm * 0.5 ** (step // settings.halve_every)


def warmth_at(step: int, settings: Training) -> float:
    """The part of it that is warm-up's, which rates that follow no schedule have too. Of the first step it is not 0,
    or that step would be none."""
    return min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0


def fit(
    network: nn.Module,
    batches: Batches,
    groups: Sequence[dict[str, Any]],
    settings: Training,
    objective: Objective,
    saved: Path,
    identity: str,
) -> list[checkpoint.Row]:
    """Train in place, going on from the checkpoint `saved` if it is of the same `identity`; returns the history.

    OdmError at the first loss or gradient that is not finite; the last checkpoint stays.

    Args:
        groups: parameter groups for Adam, each with its first `lr`, which one that is `constant` keeps.
        identity: digest of all that the result depends on.
    """
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-8)
    first_rates = [group["lr"] for group in optimizer.param_groups]
    start, history = checkpoint.load(saved, identity, network, optimizer)
    network.train()
    forward: Callable[[Tensor], Tensor] = network
    if settings.compile:
        # A second gradient (odm/training/cooperation.py) goes through the graph again, whose buffers must last.
        torch._functorch.config.donated_buffer = False
        forward = torch.compile(network)
    watch = Watch([each for group in optimizer.param_groups for each in group["params"]], settings, objective, saved)
    with Progress(start, settings.steps) as progress:
        for step in range(start, settings.steps):
            for group, first in zip(optimizer.param_groups, first_rates, strict=True):
                group["lr"] = first * (warmth_at if group.get("constant") else rate_at)(step, settings)
            low, high = batches(step)
            objective.begin(step, fresh=step % settings.log_every == 0)
            optimizer.zero_grad()
            with torch.autocast(low.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
                output = forward(low)
            loss = (output - high).abs().mean()
            objective.backward(loss)
            watch.step(step, loss, history)
            optimizer.step()
            objective.settle()

            done = step + 1
            if done % settings.log_every == 0 or done == settings.steps:
                row = {"step": done, "rate": first_rates[0] * rate_at(step, settings), "loss": loss.item()}
                row |= watch.row(step, history)
                history.append(row | objective.measure())
                checkpoint.save(saved, identity, done, network, optimizer, history)
                progress.row(history[-1])
            progress.advance()
    return history

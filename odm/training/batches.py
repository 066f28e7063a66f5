"""Batches where the network is."""

import torch
from torch import Tensor

from odm.training.loop import Batches


def on_device(batches: Batches, device: torch.device) -> Batches:
    """The same batches on a device, channels last: the layout that convolutions and quantizers are fastest in."""

    def batch(step: int) -> tuple[Tensor, Tensor]:
        low, high = batches(step)
        return tuple(each.to(device).contiguous(memory_format=torch.channels_last) for each in (low, high))  # type: ignore[return-value]

    return batch

"""What quantization adds to a network, and what that costs at test time."""

from typing import Any

import torch
from torch import Tensor, nn


def single(x: Tensor) -> Tensor:
    """Values of bfloat16 in float32, all others as they are."""
    return x.float() if x.dtype == torch.bfloat16 else x


class Part(nn.Module):
    """A range, a correction: whatever inference must keep beside the network's own weights."""

    def storage(self) -> float:
        """Numbers of 32 bits that inference must keep."""
        return sum(each.numel() for each in self.parameters())


class ActivationQuantizer(Part):
    """What quantizes an activation; the methods differ in it."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def __call__(self, x: Tensor) -> Any:
        """In float32 where layers multiply in bfloat16: that has hardly more levels than a quantizer."""
        with torch.autocast(x.device.type, enabled=False):
            return super().__call__(single(x))

    def observe(self, x: Tensor) -> Tensor:
        """What calibration keeps of a batch of the float network's activations; nothing here."""
        return x.new_empty(0)

    def start(self, seen: Tensor) -> None:
        """Take the first state from what was kept, one row a batch."""

    def settle(self) -> None:
        """Restore what must hold after an optimizer step."""

    def at_floor(self) -> bool:
        """Whether `settle` holds a range open."""
        return False

    def operations(self) -> int:
        """Float operations an element that inference makes to find its levels; none where they are fixed."""
        return 0

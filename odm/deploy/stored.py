"""Values between layers as they are stored in 8 bits: where a network's own code makes one, it is rounded and clipped.

Values are in units of the one scale of what they are added to, so that stored ones are whole numbers.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from odm.deploy.flow import Calls, leaves, tensors
from odm.deploy.integer import codes
from odm.networks.backbone import Backbone

PARTS = 2001
"""Of which slopes are whole numbers: it is odd, so that no multiple of one ends in a half."""


class Stored(nn.Module):
    """clip(round(x), least, most): codes of 8 bits."""

    def __init__(self, least: int, most: int) -> None:
        super().__init__()
        self.least, self.most = least, most
        self.origin: Tensor
        self.step: Tensor
        self.register_buffer("origin", torch.zeros(()), persistent=False)
        self.register_buffer("step", torch.ones(()), persistent=False)

    @property
    def zero_point(self) -> int:
        """What is added to codes so that they are stored without a sign."""
        return max(0, -self.least)

    def forward(self, x: Tensor) -> Tensor:
        return codes(x, self.origin, self.step, self.least, self.most, 1)

    def extra_repr(self) -> str:
        return f"codes {self.least} to {self.most}"


class _Storing(Calls):
    def __init__(self, network: nn.Module, sites: Mapping[str, nn.Module], passed: Mapping[str, int]) -> None:
        super().__init__(leaves(network))
        self.sites, self.passed = sites, passed

    def _kept(self, value: Tensor) -> Tensor:
        site = str(self.place)
        return self.sites[site](value) if site in self.sites else value

    def left(self, name: str, output: Tensor) -> Tensor:
        return self._kept(output)

    def called(self, name: str, args: Any, kwargs: Any, result: Any) -> Any:
        if (which := self.passed.get(str(self.place))) is not None:
            result = list(tensors([*args, *kwargs.values()]))[which]
        return self._kept(result) if isinstance(result, Tensor) else result


def storing(network: Backbone, sites: Mapping[str, tuple[int, int]], passed: Mapping[str, int]) -> Backbone:
    """The network, in place, with values stored on their way; its own code and the names of its layers stay. Slopes of
    its activations are rounded.

    Args:
        sites: by the place of a call, as `Calls` counts them, least and largest code.
        passed: the places of calls that give one of their inputs, and which: what they did has been done before.
    """
    kind: Any = type(network)

    class Storing(kind):
        def forward(self, x: Tensor) -> Tensor:
            with _Storing(self, self.stored, self.passed):
                return super().forward(x)

    for module in network.modules():
        if isinstance(module, nn.PReLU):
            module.weight.data = (module.weight.data.double() * PARTS).round().div(PARTS).float()
        elif isinstance(module, nn.LeakyReLU):
            module.negative_slope = round(module.negative_slope * PARTS) / PARTS
    network.stored = nn.ModuleDict({place: Stored(*bounds) for place, bounds in sites.items()})
    network.passed = dict(passed)  # type: ignore[assignment]
    network.__class__ = Storing
    return network

"""What every network here is to the rest of the code."""

from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True)
class Placement:
    """Where a coverage quantizes, by the names of modules, in the order of the network."""

    layers: list[str]
    """Convolutions and linear layers whose weights and inputs are quantized."""
    weights_only: list[str] = field(default_factory=list)
    """Those whose weights alone are."""
    sites: list[str] = field(default_factory=list)
    """`nn.Identity` modules whose value is quantized: shortcuts and outputs of blocks."""


class Backbone(nn.Module):
    """Images of shape (N, 3, H, W) in 0-255 to (N, 3, scale H, scale W).

    `features`, an `nn.Identity`, passes on what enters the upsampler: the rivals' distillation looks at it.
    """

    scale: int
    features: nn.Identity

    def placement(self, coverage: str) -> Placement:
        """Where a coverage of the settings quantizes."""
        raise NotImplementedError

"""What every network here is to the rest of the code."""

from torch import nn


class Backbone(nn.Module):
    """Images of shape (N, 3, H, W) in 0-255 to (N, 3, scale H, scale W)."""

    scale: int

    def quantizable(self, coverage: str) -> list[str]:
        """Names of the convolutions that a coverage of the settings quantizes, in the order of the network."""
        raise NotImplementedError

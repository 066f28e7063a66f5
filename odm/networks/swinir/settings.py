"""What SwinIR may be told."""

from typing import ClassVar, Literal

from pydantic import model_validator

from odm.networks.settings import NetworkSettings
from odm.settings.fields import Size


class Swinir(NetworkSettings):
    """SwinIR; the light one by the defaults."""

    coverages: ClassVar[tuple[str, ...]] = ("blocks", "body", "dense")

    backbone: Literal["swinir"]
    channels: Size = 60
    """Feature channels, a multiple of `heads`."""
    blocks: Size = 4
    """Residual blocks (RSTB)."""
    layers: Size = 6
    """Layers of a block; every other one shifts its windows."""
    heads: Size = 6
    """Heads of attention."""
    window: Size = 8
    """Side of the windows in low-resolution pixels; images are padded to a multiple of it inside."""
    ratio: Size = 2
    """Inner channels of a layer's two last linear layers, as a multiple of `channels`."""

    @model_validator(mode="after")
    def _heads_share_channels(self) -> "Swinir":
        if self.channels % self.heads:
            raise ValueError(f"channels: {self.channels} is no multiple of heads ({self.heads}); change one of them")
        return self

"""What RDN may be told."""

from typing import Literal

from odm.networks.settings import NetworkSettings
from odm.settings.fields import Size


class Rdn(NetworkSettings):
    """RDN; RDN-B by the defaults."""

    backbone: Literal["rdn"]
    channels: Size = 64
    """Feature channels (G0)."""
    growth: Size = 64
    """Channels that each dense layer adds (G)."""
    blocks: Size = 16
    """Dense blocks (D)."""
    layers: Size = 8
    """Dense layers of a block (C)."""

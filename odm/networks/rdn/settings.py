"""What RDN may be told."""

from typing import Literal

from odm.networks.settings import NetworkSettings
from odm.settings.fields import Positive


class Rdn(NetworkSettings):
    """RDN; RDN-B by the defaults."""

    backbone: Literal["rdn"]
    channels: Positive = 64
    """Feature channels (G0)."""
    growth: Positive = 64
    """Channels that each dense layer adds (G)."""
    blocks: Positive = 16
    """Dense blocks (D)."""
    layers: Positive = 8
    """Dense layers of a block (C)."""

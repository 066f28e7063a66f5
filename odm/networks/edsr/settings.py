"""What EDSR may be told."""

from typing import Literal

from odm.networks.settings import NetworkSettings
from odm.settings.fields import Size


class Edsr(NetworkSettings):
    """EDSR without residual scaling."""

    backbone: Literal["edsr"]
    channels: Size
    """Feature channels; 64 in EDSR-baseline."""
    blocks: Size
    """Residual blocks; 16 in EDSR-baseline."""

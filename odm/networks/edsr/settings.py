"""What EDSR may be told."""

from typing import Literal

from odm.networks.settings import NetworkSettings
from odm.settings.fields import Positive


class Edsr(NetworkSettings):
    """EDSR without residual scaling."""

    backbone: Literal["edsr"]
    channels: Positive
    """Feature channels; 64 in EDSR-baseline."""
    blocks: Positive
    """Residual blocks; 16 in EDSR-baseline."""

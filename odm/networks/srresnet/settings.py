"""What SRResNet may be told."""

from typing import Literal

from odm.networks.settings import NetworkSettings
from odm.settings.fields import Size


class Srresnet(NetworkSettings):
    """SRResNet, with batch normalization or without."""

    backbone: Literal["srresnet"]
    channels: Size = 64
    """Feature channels."""
    blocks: Size = 16
    """Residual blocks."""
    batch_norm: bool = True
    """Whether batch normalization, which stays float, follows the convolutions of the body."""

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
    upsampler: Literal["pixelshuffledirect"] | None = None
    """`pixelshuffledirect`: one convolution to the colours and the pixel shuffle, no tail and no mean colour, as
    networks for phones have it. Absent or null: a convolution and a shuffle for each factor of 2 (or 3), then the tail.
    """

"""How far away a pixel can be and still count."""

from torch import nn

from odm.networks.backbone import Backbone
from odm.quantization.part import ActivationQuantizer


def reach(network: Backbone) -> int | None:
    """Low-resolution pixels to each side beyond which nothing counts for a pixel's output.

    None where all of the image may count: in attention, or where levels are found for each image. Else the sum over
    all convolutions, as if each followed the others at low resolution: never too little.
    """
    modules = list(network.modules())
    if not network.convolutional or any(
        isinstance(each, ActivationQuantizer) and each.operations() > 0 for each in modules
    ):
        return None
    return sum(
        max(step * (side - 1) // 2 for side, step in zip(each.kernel_size, each.dilation, strict=True))
        for each in modules
        if isinstance(each, nn.Conv2d)
    )

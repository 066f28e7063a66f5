"""What enlarges: pixels to pixels, whatever makes them so, and how large a piece it wants."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from odm import inference
from odm.errors import OdmError
from odm.networks.backbone import Backbone
from odm.networks.device import placed
from odm.networks.reach import reach

Values = NDArray[np.float32]


class Enlarger(Protocol):
    """A function of images that a photograph goes through piece by piece."""

    @property
    def scale(self) -> int: ...

    @property
    def halo(self) -> int | None:
        """Pixels to each side, before enlarging, beyond which nothing counts; None where all of the image may."""

    @property
    def multiple(self) -> int:
        """Pieces begin at multiples of this, counted from the image's first row and column."""

    def __call__(self, pixels: Values) -> Values:
        """(H, W, 3) in 0-255 to (scale H, scale W, 3), neither rounded nor clipped. OdmError if it cannot."""


class OfNetwork:
    """A network of ours as an Enlarger; `name` begins what is said of it, `halo` its reach if that is known better."""

    def __init__(self, network: Backbone, name: str, halo: int | None = None) -> None:
        self.device = next(network.parameters()).device
        # Weights laid out as images are: else torch chooses kernels by size, and pieces end in other last bits.
        self.network, self.name = placed(network, self.device), name
        self.scale, self.halo, self.multiple = network.scale, halo or reach(network), network.multiple
        inference.keep_memory()  # half of the time: pieces are all alike

    @torch.inference_mode()
    def __call__(self, pixels: Values) -> Values:
        x = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device).permute(2, 0, 1)[None]
        y = self.network(x.contiguous(memory_format=torch.channels_last))
        if not y.isfinite().all():
            raise OdmError(
                f"{self.name}: the output is not finite: the weights are broken; train it again, at a lower rate"
            )
        return y[0].permute(1, 2, 0).cpu().numpy()

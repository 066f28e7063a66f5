"""What every network here is to the rest of the code, and the parts that several share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from odm.errors import OdmError
from odm.networks import tflite
from odm.networks.given import fit, read

# Mean colour of DIV2K, in 0-255.
MEAN = (114.444, 111.4605, 103.02)


@dataclass(frozen=True)
class Placement:
    """Where a coverage quantizes, by the names of modules, in the order of the network."""

    layers: list[str]
    """Convolutions and linear layers whose weights and inputs are quantized."""
    weights_only: list[str] = field(default_factory=list)
    """Those whose weights alone are."""
    sites: list[str] = field(default_factory=list)
    """`nn.Identity` modules whose value is quantized: shortcuts and outputs of blocks."""
    carried: list[str] = field(default_factory=list)
    """Those of `layers` whose quantized input takes the place of the input beside them too."""


@dataclass(frozen=True)
class Pair:
    """Two layers with nothing but a positively homogeneous function between: scaling a channel of the one and dividing
    the weights that the other has for it changes no output. For the mismatch dial."""

    first: str
    """Convolution, linear layer or normalization; nothing but the seconds of its pairs takes its output."""
    second: str
    """Convolution or linear layer, of one group."""
    start: int = 0
    """Where among its input channels those of the first begin."""
    shifts: bool = False
    """Whether constants pass too: nothing at all lies between, and the second, which has a bias, pads nothing."""


class Backbone(nn.Module):
    """Images of shape (N, 3, H, W) in 0-255 to (N, 3, scale H, scale W).

    `features`, an `nn.Identity`, passes on what enters the upsampler: the rivals' distillation looks at it.
    """

    scale: int
    features: nn.Identity
    blocks: nn.ModuleList
    # Images are padded inside until both sides are multiples of this.
    multiple = 1
    # Whether nothing but convolutions, none of them strided, brings pixels of different places together.
    convolutional = False

    def placement(self, coverage: str) -> Placement:
        """Where a coverage of the settings quantizes."""
        raise NotImplementedError

    def pairs(self) -> list[Pair]:
        """Where the mismatch dial acts; none if not said otherwise."""
        return []

    def take(self, file: Path) -> None:
        """Load weights that were trained elsewhere. OdmError if they are not this network's."""
        given = tflite.read(file) if file.suffix == ".tflite" else read(file)
        fit(self, file, given, type(self).__name__, "look at the network's settings", self.named)

    def named(self, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights by the names of this network's tensors, whichever published names they came by."""
        return given

    def without_body(self) -> None:
        """Take out, in place, the blocks that every coverage quantizes: the shallow features go on past them."""
        if not hasattr(self, "blocks"):
            raise OdmError(f"no_body: {type(self).__name__} names no blocks to leave out; write its `without_body`")
        self.blocks = nn.ModuleList()


def carried(layer: nn.Module, x: Tensor) -> Tensor:
    """What goes on beside a layer that has just run on x: x, or what its quantizer made of it."""
    quantized = getattr(layer, "carried", None)
    return x if quantized is None else quantized


class Product(nn.Module):
    """The matrix product of two activations: a module, so that costs count it. It is not quantized."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b


def upsampler_direct(channels: int, scale: int) -> nn.Sequential:
    """One convolution to all colours of the larger image, and the pixel shuffle; (N, C, H, W) to (N, 3, sH, sW)."""
    return nn.Sequential(nn.Conv2d(channels, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))


def stages(scale: int) -> list[int]:
    """The factors by which an upsampler enlarges, one after another."""
    return {2: [2], 3: [3], 4: [2, 2]}[scale]


def upsampler(channels: int, scale: int) -> nn.Sequential:
    """A convolution and a pixel shuffle for each stage; (N, C, H, W) to (N, C, scale H, scale W)."""
    return nn.Sequential(
        *(
            layer
            for factor in stages(scale)
            for layer in (nn.Conv2d(channels, channels * factor**2, 3, padding=1), nn.PixelShuffle(factor))
        )
    )


def reflected(x: Tensor, multiple: int) -> Tensor:
    """Images of shape (N, C, H, W) continued at the lower right by reflection, as often as it takes."""
    for dim in (2, 3):
        size = x.shape[dim]
        if size % multiple:
            period = max(1, 2 * (size - 1))
            index = torch.arange(size + -size % multiple, device=x.device) % period
            x = x.index_select(dim, torch.minimum(index, period - index))
    return x

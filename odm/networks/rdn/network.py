"""RDN (Zhang et al. 2018): RDN-B is 16 blocks of 8 dense layers, 64 channels and a growth of 64."""

import torch
from torch import Tensor, nn

from odm.networks.backbone import MEAN, Backbone, Pair, Placement, carried, upsampler


class Block(nn.Module):
    """Each dense layer sees the block's input and all outputs before its own; `fusion` (LFF) joins them."""

    def __init__(self, channels: int, growth: int, layers: int) -> None:
        super().__init__()
        self.input = nn.Identity()
        self.dense = nn.ModuleList(
            nn.Conv2d(channels + index * growth, growth, 3, padding=1) for index in range(layers)
        )
        self.fusion = nn.Conv2d(channels + layers * growth, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.input(x)
        seen = x
        for conv in self.dense:
            grown = torch.relu(conv(seen))
            seen = torch.cat([carried(conv, seen), grown], dim=1)
        return x + self.fusion(seen)


class Rdn(Backbone):
    """Two convolutions, dense blocks whose outputs `fusion` (GFF) joins, a long skip, upsampler and tail."""

    convolutional = True

    def __init__(self, channels: int, growth: int, blocks: int, layers: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.blocks = nn.ModuleList(Block(channels, growth, layers) for _ in range(blocks))
        self.fusion = nn.Sequential(
            nn.Conv2d(blocks * channels, channels, 1), nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.features = nn.Identity()
        self.upsampler = upsampler(channels, scale)
        self.tail = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.head(x - self.mean)
        deep = self.second(shallow)
        outputs = []
        for block in self.blocks:
            deep = block(deep)
            outputs.append(deep)
        deep = shallow + self.fusion(torch.cat(outputs or [deep], dim=1))
        return self.tail(self.upsampler(self.features(deep))) + self.mean

    def without_body(self) -> None:
        """Also the fusion after the blocks, which is quantized like them and has nothing left to join."""
        super().without_body()
        self.fusion = nn.Sequential()

    def placement(self, coverage: str) -> Placement:
        """`blocks`, `body`: dense layers and both kinds of fusion (the paper's coverage as read).

        `dense`: the dense layers alone, as DAQ has it. `shortcuts`: as PAMS and DDTB have it, a block's input instead
        of that of its first dense layer; what a layer's quantizer makes of its input goes on through the block, and is
        quantized again in each later layer; the last convolution of the fusion after the blocks has only its weights
        quantized.
        """
        dense: list[str] = []
        first: list[str] = []
        layers: list[str] = []
        for index, block in enumerate(self.blocks):
            names = [f"blocks.{index}.dense.{each}" for each in range(len(block.dense))]  # type: ignore[arg-type]
            first.append(names[0])
            dense += names
            layers += [*names, f"blocks.{index}.fusion"]
        layers += ["fusion.0", "fusion.1"]
        if coverage == "dense":
            return Placement(dense)
        if coverage == "shortcuts":
            weights_only = [*first, "fusion.1"]
            return Placement(
                layers=[name for name in layers if name not in weights_only],
                weights_only=weights_only,
                sites=[f"blocks.{index}.input" for index in range(len(self.blocks))],
                carried=[name for name in dense if name not in weights_only],
            )
        return Placement(layers)

    def pairs(self) -> list[Pair]:
        """Each dense layer, a ReLU, and all that see its output: the dense layers after it and the block's fusion."""
        found = []
        for index, block in enumerate(self.blocks):
            dense: nn.ModuleList = block.dense  # type: ignore[assignment]
            names = [f"blocks.{index}.dense.{each}" for each in range(len(dense))]
            for place, name in enumerate(names):
                start: int = dense[place].in_channels  # type: ignore[assignment]
                found += [Pair(name, later, start) for later in (*names[place + 1 :], f"blocks.{index}.fusion")]
        return found

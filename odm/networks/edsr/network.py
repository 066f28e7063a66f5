"""EDSR (Lim et al. 2017) without residual scaling: EDSR-baseline is 64 channels x 16 blocks."""

import torch
from torch import Tensor, nn

from odm.networks.backbone import MEAN, Backbone, Pair, Placement, upsampler


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Identity()
        self.output = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.output(self.conv2(torch.relu(self.conv1(x))))


class Edsr(Backbone):
    """Head, residual blocks with one long skip, upsampler, tail; the mean colour is taken off and added again."""

    convolutional = True

    def __init__(self, channels: int, blocks: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.ModuleList(Block(channels) for _ in range(blocks))
        self.last = nn.Conv2d(channels, channels, 3, padding=1)
        self.features = nn.Identity()
        self.upsampler = upsampler(channels, scale)
        self.tail = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.head(x - self.mean)
        deep = shallow
        for block in self.blocks:
            deep = block(deep)
        return self.tail(self.upsampler(self.features(shallow + self.last(deep)))) + self.mean

    def placement(self, coverage: str) -> Placement:
        """`blocks`: both convolutions of each (the paper's coverage as read); `body`: and the last one after them.

        `dense` says something of RDN alone and is `blocks` here.
        `shortcuts`: as PAMS and DDTB have it, shortcuts and outputs of blocks instead of the first convolution's input.
        """
        blocks = [f"blocks.{index}" for index in range(len(self.blocks))]
        if coverage == "shortcuts":
            return Placement(
                layers=[f"{block}.conv2" for block in blocks],
                weights_only=[f"{block}.conv1" for block in blocks],
                sites=[f"{block}.{site}" for block in blocks for site in ("shortcut", "output")],
            )
        layers = [f"{block}.{conv}" for block in blocks for conv in ("conv1", "conv2")]
        return Placement([*layers, "last"] if coverage == "body" else layers)

    def pairs(self) -> list[Pair]:
        """The two convolutions of each block, a ReLU between them."""
        return [Pair(f"blocks.{index}.conv1", f"blocks.{index}.conv2") for index in range(len(self.blocks))]

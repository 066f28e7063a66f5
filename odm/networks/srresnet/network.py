"""SRResNet (Ledig et al. 2017), 64 channels x 16 blocks, with batch normalization or without.

Convolutions have no biases and all PReLUs share one slope: of the usual variants, only one with at most two slopes and
no bias has the parameter counts that the costs in the literature follow from, 1,542.53K (x4) and 1,395.07K (x2).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from odm.networks.backbone import MEAN, Backbone, Pair, Placement, stages


def _convolution(inputs: int, outputs: int, side: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False)


def _norm(channels: int, batch_norm: bool) -> nn.Module:
    return nn.BatchNorm2d(channels) if batch_norm else nn.Identity()


class Block(nn.Module):
    def __init__(self, channels: int, batch_norm: bool) -> None:
        super().__init__()
        self.conv1 = _convolution(channels, channels, 3)
        self.norm1 = _norm(channels, batch_norm)
        self.conv2 = _convolution(channels, channels, 3)
        self.norm2 = _norm(channels, batch_norm)

    def forward(self, x: Tensor, activation: nn.Module) -> Tensor:
        return x + self.norm2(self.conv2(activation(self.norm1(self.conv1(x)))))


class Srresnet(Backbone):
    """Wide head, residual blocks with one long skip, upsampler with a PReLU after each stage, wide tail."""

    convolutional = True

    def __init__(self, channels: int, blocks: int, batch_norm: bool, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.batch_norm = batch_norm
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.activation = nn.PReLU()
        self.head = _convolution(3, channels, 9)
        self.blocks = nn.ModuleList(Block(channels, batch_norm) for _ in range(blocks))
        self.last = _convolution(channels, channels, 3)
        self.norm = _norm(channels, batch_norm)
        self.features = nn.Identity()
        self.upsampler = nn.ModuleList(_convolution(channels, channels * factor**2, 3) for factor in stages(scale))
        self.tail = _convolution(channels, 3, 9)

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.activation(self.head(x - self.mean))
        deep = shallow
        for block in self.blocks:
            deep = block(deep, self.activation)
        deep = self.features(shallow + self.norm(self.last(deep)))
        for conv, factor in zip(self.upsampler, stages(self.scale), strict=True):
            deep = self.activation(functional.pixel_shuffle(conv(deep), factor))
        return self.tail(deep) + self.mean

    def placement(self, coverage: str) -> Placement:
        """`blocks`: both convolutions of each (the paper's coverage as read); `body`: and the last one after them.

        `shortcuts` is `blocks` too: DDTB quantizes both convolutions' inputs here and leaves shortcuts float. So is
        `dense`, which says something of RDN alone.
        """
        layers = [f"blocks.{index}.{conv}" for index in range(len(self.blocks)) for conv in ("conv1", "conv2")]
        return Placement([*layers, "last"] if coverage == "body" else layers)

    def pairs(self) -> list[Pair]:
        """Of each block the first convolution, or its normalization, and the second; a PReLU lies between."""
        first = "norm1" if self.batch_norm else "conv1"
        return [Pair(f"blocks.{index}.{first}", f"blocks.{index}.conv2") for index in range(len(self.blocks))]

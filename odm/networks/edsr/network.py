"""EDSR (Lim et al. 2017) without residual scaling: EDSR-baseline is 64 channels x 16 blocks."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from odm.networks.backbone import MEAN, Backbone, Pair, Placement, upsampler_direct
from odm.networks.backbone import upsampler as upsampler_in_stages

OTHER_NAMES = (
    # of EDSR's authors
    (r"head\.0\.", "head."),
    (r"body\.(\d+)\.body\.0\.", r"blocks.\1.conv1."),
    (r"body\.(\d+)\.body\.2\.", r"blocks.\1.conv2."),
    (r"body\.\d+\.(?=weight|bias)", "last."),
    (r"tail\.0\.(\d)\.", r"upsampler.\1."),
    (r"tail\.1\.", "tail."),
    # of BasicSR
    (r"conv_first\.", "head."),
    (r"body\.(\d+)\.conv", r"blocks.\1.conv"),
    (r"conv_after_body\.", "last."),
    (r"upsample\.(\d)\.", r"upsampler.\1."),
    (r"conv_last\.", "tail."),
)
"""How others begin the names of an EDSR's tensors, as patterns, and what they are here."""
MEAN_LAYERS = ("sub_mean.", "add_mean.")
"""EDSR's authors keep the mean colour in convolutions, with the values of MEAN."""


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

    def __init__(self, channels: int, blocks: int, scale: int, upsampler: str | None = None) -> None:
        super().__init__()
        self.scale = scale
        direct = upsampler == "pixelshuffledirect"
        self.mean: Tensor
        mean = torch.zeros(3) if direct else torch.tensor(MEAN)
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.ModuleList(Block(channels) for _ in range(blocks))
        self.last = nn.Conv2d(channels, channels, 3, padding=1)
        self.features = nn.Identity()
        self.upsampler = (upsampler_direct if direct else upsampler_in_stages)(channels, scale)
        self.tail = nn.Identity() if direct else nn.Conv2d(channels, 3, 3, padding=1)

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

    def named(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """From the names of EDSR's authors or of BasicSR, or convolutions in their order."""
        own = [name for name, module in self.named_modules() if isinstance(module, nn.Conv2d)]
        in_order = {f"convolutions.{index}.": f"{name}." for index, name in enumerate(own)}
        found = {}
        for key, value in given.items():
            name, dot, kind = key.rpartition(".")
            renamed = in_order.get(name + dot, name + dot) + kind
            for pattern, ours in OTHER_NAMES:
                renamed, changed = re.subn(f"^{pattern}", ours, renamed)
                if changed:
                    break
            if not renamed.startswith(MEAN_LAYERS):
                found[renamed] = value
        return found

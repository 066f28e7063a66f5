"""SwinIR (Liang et al. 2021) in its light form: 4 blocks of 6 layers, 60 channels, 6 heads, windows of 8 x 8.

The relative position biases are counted as parameters; the 878K (x2) and 897K (x4) of the literature leave them out.
Maps are (N, H, W, C) inside the blocks, so that a linear layer's input still says which image and place a value is of.
"""

import torch
from torch import Tensor, nn

from odm.errors import OdmError
from odm.networks.backbone import MEAN, Backbone, Pair, Placement, Product, reflected


class Layer(nn.Module):
    """Self-attention within windows, shifted by half a window in every other layer, then two linear layers."""

    def __init__(self, channels: int, heads: int, window: int, ratio: int, shift: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.shift = shift
        self.norm1 = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.similarity = Product()
        self.softmax = nn.Softmax(-1)
        self.weighting = Product()
        self.norm2 = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, ratio * channels)
        self.gelu = nn.GELU()
        self.fc2 = nn.Linear(ratio * channels, channels)
        # One bias a head for each displacement within a window, and which of them each pair of places takes.
        self.bias = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        places = torch.cartesian_prod(torch.arange(window), torch.arange(window))
        apart = places[:, None] - places[None] + window - 1
        self.displacement: Tensor
        self.register_buffer("displacement", apart[..., 0] * (2 * window - 1) + apart[..., 1], persistent=False)
        nn.init.trunc_normal_(self.bias, std=0.02)
        for linear in (self.qkv, self.proj, self.fc1, self.fc2):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def attend(self, x: Tensor) -> Tensor:
        """Attention over maps of shape (N, H, W, C), H and W multiples of the window."""
        batch, height, width, channels = x.shape
        # Linear layers act on each place by itself, so they may as well stand outside of the windows.
        x = self.qkv(x)
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        x = windows(x, self.window)
        query, key, value = x.unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5).unbind()
        scores = self.similarity(query * query.shape[-1] ** -0.5, key.transpose(-1, -2))
        scores = scores + self.bias[self.displacement].permute(2, 0, 1)
        if self.shift:
            scores = scores.masked_fill(self.strangers(height, width)[:, None], -torch.inf)
        x = self.weighting(self.softmax(scores), value).transpose(2, 3).flatten(3)
        x = x.unflatten(1, (height // self.window, width // self.window)).unflatten(3, (self.window, self.window))
        x = x.transpose(2, 3).reshape(batch, height, width, channels)
        if self.shift:
            x = x.roll((self.shift, self.shift), dims=(1, 2))
        return self.proj(x)

    def strangers(self, height: int, width: int) -> Tensor:
        """Pairs that share a window only because shifting wraps around: bool of shape (windows, places, places)."""
        device = self.displacement.device
        below = torch.arange(height, device=device) >= height - self.shift
        right = torch.arange(width, device=device) >= width - self.shift
        part = windows((2 * below[:, None] + right)[None, :, :, None], self.window)[0, :, :, 0]
        return part[:, :, None] != part[:, None]

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.norm1(x))
        return x + self.fc2(self.gelu(self.fc1(self.norm2(x))))


def windows(x: Tensor, side: int) -> Tensor:
    """Maps of shape (N, H, W, C) cut into (N, windows, side * side, C)."""
    x = x.unflatten(2, (-1, side)).unflatten(1, (-1, side))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


class Block(nn.Module):
    """Layers and a convolution behind a shortcut (RSTB), on maps of shape (N, H, W, C)."""

    def __init__(self, channels: int, layers: int, heads: int, window: int, ratio: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Layer(channels, heads, window, ratio, shift=window // 2 if index % 2 else 0) for index in range(layers)
        )
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        deep = x
        for layer in self.layers:
            deep = layer(deep)
        return x + self.conv(deep.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Swinir(Backbone):
    """One convolution, blocks of windowed attention with one long skip, and a pixel shuffle straight to the image."""

    # Of pixels less the mean colour.
    divisor = 255

    def __init__(
        self, channels: int, blocks: int, layers: int, heads: int, window: int, ratio: int, scale: int
    ) -> None:
        super().__init__()
        self.scale = scale
        self.multiple = window
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.norm1 = nn.LayerNorm(channels)
        self.blocks = nn.ModuleList(Block(channels, layers, heads, window, ratio) for _ in range(blocks))
        self.norm2 = nn.LayerNorm(channels)
        self.last = nn.Conv2d(channels, channels, 3, padding=1)
        self.features = nn.Identity()
        self.tail = nn.Sequential(nn.Conv2d(channels, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        height, width = (self.scale * side for side in x.shape[2:])
        shallow = self.head((reflected(x, self.multiple) - self.mean) / self.divisor)
        deep = self.norm1(shallow.permute(0, 2, 3, 1))
        for block in self.blocks:
            deep = block(deep)
        deep = shallow + self.last(self.norm2(deep).permute(0, 3, 1, 2))
        return (self.tail(self.features(deep)) * self.divisor + self.mean)[:, :, :height, :width]

    def placement(self, coverage: str) -> Placement:
        """`blocks`: the linear layers; `body`: and the convolutions after each block's and after all of them.

        The products of attention stay float. `dense` says something of RDN alone and is `blocks` here. `shortcuts` is
        not defined: PAMS and DDTB never met this network.
        """
        if coverage == "shortcuts":
            raise OdmError("coverage: swinir has no 'shortcuts'; use 'blocks' or 'body'")
        layers = []
        for index, block in enumerate(self.blocks):
            for each in range(len(block.layers)):  # type: ignore[arg-type]
                layers += [f"blocks.{index}.layers.{each}.{linear}" for linear in ("qkv", "proj", "fc1", "fc2")]
            if coverage == "body":
                layers.append(f"blocks.{index}.conv")
        return Placement([*layers, "last"] if coverage == "body" else layers)

    def pairs(self) -> list[Pair]:
        """Each normalization and the linear layer on it: nothing lies between and nothing is padded."""
        layers = [name for name, module in self.named_modules() if isinstance(module, Layer)]
        joined = (("norm1", "qkv"), ("norm2", "fc1"))
        return [
            Pair(f"{layer}.{first}", f"{layer}.{second}", shifts=True) for layer in layers for first, second in joined
        ]

"""A network that is none of ours, for suites/deploy.yaml: grouped and dilated convolutions, PReLU, values in 0-1."""

from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(width, width, 3, padding=2, dilation=2, groups=4)
        self.act = nn.PReLU()
        self.mix = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(self.act(self.spread(x)))


def network(width: int, blocks: int) -> nn.Sequential:
    """Twice as high and wide an image, of (N, 3, H, W)."""
    head, tail = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 12, 3, padding=1)
    return nn.Sequential(head, *(Block(width) for _ in range(blocks)), tail, nn.PixelShuffle(2))

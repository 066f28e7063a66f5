"""DDTB: two learned bounds, moved by a small gate for each image where activations vary most."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from odm.methods.ddtb.aligned import TINY, AlignedWeights, aligned
from odm.quantization.quantizer import LearnedRange
from odm.quantization.statistics import range_of
from odm.quantization.straight import straight_through


class Gate(nn.Module):
    """Channel means of an image, shape (N, C), to what moves its upper and lower bound, shape (N, 2).

    Two layers (1x1 convolutions of a pooled map) with batch normalization and a ReLU between them; weights and inputs
    at 2 bits, inputs between the least and largest value that the image has there. As `released` it takes both inputs
    without gradient, so that its first layer and normalization stay what they were, and weights have the levels -m, 0
    and m, the largest |W|.
    """

    WIDTH = 32
    BITS = 2

    def __init__(self, channels: int, weight_percentile: float, released: bool = True) -> None:
        super().__init__()
        self.released = released
        self.reduce = nn.Parameter(torch.empty(self.WIDTH, channels))
        self.expand = nn.Parameter(torch.empty(2, self.WIDTH))
        self.norm = nn.BatchNorm1d(self.WIDTH)
        self.weight = AlignedWeights(self.BITS, weight_percentile)
        # 1 from the step on at which bounds follow the gate.
        self.register_buffer("used", torch.tensor(0.0))
        self.used: Tensor
        for weight in (self.reduce, self.expand):
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))

    def forward(self, means: Tensor) -> Tensor:
        hidden = functional.linear(self._inputs(means), self._weight(self.reduce))
        norm = self.norm
        if self.training and len(hidden) > 1:
            hidden = norm(hidden)
        else:  # a single image has no statistics to train with
            hidden = functional.batch_norm(hidden, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        return functional.linear(self._inputs(torch.relu(hidden)), self._weight(self.expand))

    def _inputs(self, x: Tensor) -> Tensor:
        lower, upper = torch.aminmax(x.detach(), dim=1, keepdim=True)
        return aligned(x.detach() if self.released else x, lower, upper, self.BITS)

    def _weight(self, weight: Tensor) -> Tensor:
        if not self.released:
            return self.weight(weight)
        fixed = weight.detach()
        largest = fixed.abs().amax().clamp(min=TINY)
        return straight_through(weight, (fixed / largest).round_().mul_(largest))

    def storage(self) -> float:
        """Weights alone, as published: the normalization's 2 x 32 numbers are left out."""
        return (self.reduce.numel() + self.expand.numel()) * self.BITS / 32


class DualBounds(LearnedRange):
    """[lower, upper] on a grid with zero. Where there is a `gate`, bounds are 2 sigmoid(g) times the learned ones.

    Example: g = 0 leaves a bound as it is; beyond +-3 it is nearly doubled or nearly 0.
    """

    def __init__(self, bits: int, percentile: float, constant: float | None) -> None:
        """Starts from [-constant, constant], or if that is None from percentiles."""
        super().__init__(bits, percentile=percentile)
        self.constant = constant
        self.gate: Gate | None = None
        # What calibration saw: variance over batches of the largest and of the least value, added; channels.
        self.variation = 0.0
        self.channels = 0
        # The gate's last answer, for the loss that holds it at 0.
        self.answer: Tensor | None = None

    def observe(self, x: Tensor) -> Tensor:
        """Least and largest value, the percentile's mirror and the percentile."""
        self.channels = x.shape[1]
        return torch.tensor([x.amin().item(), x.amax().item(), *range_of(x, self.percentile)])

    def start(self, seen: Tensor) -> None:
        self.variation = seen[:, :2].double().var(dim=0, correction=0).sum().item()
        if self.constant is None:
            super().start(seen[:, 2:])
        else:
            self.set_range(-self.constant, self.constant)

    def operations(self) -> int:
        """The mean that the gate looks at."""
        return 0 if self.gate is None else 1

    def storage(self) -> float:
        return 2 + (0 if self.gate is None else self.gate.storage())

    @property
    def zero_point(self) -> Tensor:
        """Level index at which zero lies, whole; with a gate that of an image that it leaves alone."""
        return -(self.lower / self.scale + 0.5).floor()

    def bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper for x of shape (N, C, H, W): shape (), or (N, 1, 1, 1) with a gate."""
        if self.gate is None:
            return self.lower, self.upper
        self.answer = self.gate(x.detach().mean(dim=(2, 3)))
        factors = 2 * torch.sigmoid(self.gate.used * self.answer)[..., None, None, None]
        lower = self.lower * factors[:, 1]
        return lower, torch.maximum(self.upper * factors[:, 0], lower + self.least)

    def forward(self, x: Tensor) -> Tensor:
        return aligned(x, *self.bounds(x), self.bits)

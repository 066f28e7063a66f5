"""Layer normalization, GELU, softmax and products of activations in fixed point: the same bits in every runtime.

- Sums are of whole numbers below 2^24, which float32 adds up exactly in any order.
- GELU and exp are tables.
- All else is one operation after another that IEEE 754 rounds in one way. Two that a runtime would make one of, with
  one rounding or another, have a rounding to a power of two between: a root and a division by it, a product and a sum.
  Division by a tensor is a product by a reciprocal, which is what OpenVINO makes of it.
"""

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor, library, nn
from torch.nn import functional

from odm.deploy.fixed import DIGIT, HEADROOM, SUM_BITS, exponent_above, snapped
from odm.errors import OdmError
from odm.networks.backbone import Product

NORM_BITS = 14
"""Of what is normalized, without its sign: squares of its two digits add up exactly over MOST_CHANNELS."""
MOST_CHANNELS = 256
ROOT_GRID = 2.0**-8
LEAST_ROOM = 2.0**-14
"""Under the root, so that it stays a whole multiple of its grid."""
RECIPROCAL = 2.0**31
"""Of a root is rounded to multiples of one over this."""
GELU_ENTRIES = 2**12
GELU_REACH = 3
"""2^3: from there on GELU is 0 or x to the last bit that counts."""
SCORE_GRID = 2.0**-9
"""Of what softmax takes."""
SHARE_BITS = 13
"""Of what it gives."""
EXP_BITS = 14
"""Of the exponential function's table: sums of 2^10 entries are exact."""
EXP_ENTRIES = 5325
"""Where it has come to 0."""
TOTAL_BITS = SUM_BITS + EXP_BITS
"""Of the reciprocal of such a sum: it keeps at least as many bits as the table has."""


@library.custom_op("odm::root", mutates_args=())
def root(x: Tensor) -> Tensor:
    """The square root as IEEE 754 rounds it; that of torch may be off by a last bit."""
    return x.double().sqrt().float()


@root.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Function(nn.Module):
    """A module's counterpart in fixed point, whose outputs are multiples of `grid`, a power of two."""

    NUMBERS: ClassVar[tuple[str, ...]] = ()
    """Attributes, all that it has beside the values of the module."""
    grid = 1.0

    def chosen(self, largest: float, second: float, inner: int, is_shares: bool) -> dict[str, float]:
        """NUMBERS less the grid, by what was measured.

        Args:
            largest, second: of its inputs the largest |x|.
            inner: last side of the first.
            is_shares: whether that comes from a softmax.
        """
        return {}

    def settle(self, numbers: Mapping[str, float]) -> None:
        """Take NUMBERS, and make what follows from them."""
        for name in self.NUMBERS:
            setattr(self, name, numbers[name])

    def numbers(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in self.NUMBERS}

    def constants(self) -> Iterator[tuple[str, Tensor | float]]:
        """What a file of it must have, with what it is called."""
        yield from self.named_buffers()

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.numbers().items())


class FixedNorm(Function):
    """Layer normalization over the last axis, C."""

    NUMBERS = ("input_grid", "grid")

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        (channels,) = norm.normalized_shape
        self.channels, self.eps = channels, norm.eps
        self.input_grid = 1.0
        self.weight: Tensor
        self.bias: Tensor
        self.reciprocal: Tensor
        weight: Tensor = torch.ones(channels) if norm.weight is None else norm.weight.detach()
        bias: Tensor = torch.zeros(channels) if norm.bias is None else norm.bias.detach()
        # Over the root of the sum of squares; the standard deviation has that of their mean.
        self.register_buffer("weight", (weight.double() * math.sqrt(channels)).float())
        self.register_buffer("bias", bias.clone())
        self.register_buffer("reciprocal", torch.tensor(RECIPROCAL), persistent=False)

    def chosen(self, largest: float, second: float, inner: int, is_shares: bool) -> dict[str, float]:
        return {"input_grid": 2.0 ** (exponent_above(largest) + HEADROOM - NORM_BITS)}

    def settle(self, numbers: Mapping[str, float]) -> None:
        super().settle(numbers)
        self.bias.copy_(snapped(self.bias, self.grid))

    @property
    def room(self) -> float:
        """Epsilon, in units of the sum of squares."""
        return max(self.eps * self.channels / self.input_grid**2, LEAST_ROOM)

    def constants(self) -> Iterator[tuple[str, Tensor | float]]:
        yield from super().constants()
        yield "input grid", 1 / self.input_grid
        yield "room under the root", torch.tensor(self.room)

    def forward(self, x: Tensor) -> Tensor:
        most = 2.0**NORM_BITS
        whole = torch.round(x * (1 / self.input_grid)).clamp(-most, most)
        centred = torch.round((whole * self.channels - whole.sum(-1, keepdim=True)) * (1 / self.channels))
        high = torch.round(centred * (1 / DIGIT))
        low = centred - high * DIGIT
        squares = (high * high).sum(-1, keepdim=True) * DIGIT**2 + (high * low).sum(-1, keepdim=True) * (2 * DIGIT)
        squares = squares + (low * low).sum(-1, keepdim=True) + self.room
        inverse = torch.round(self.reciprocal / snapped(root(squares), ROOT_GRID)) * (1 / RECIPROCAL)
        return snapped(centred * inverse * self.weight, self.grid) + self.bias


class FixedGelu(Function):
    """GELU: a ReLU, less a table of what that is too much by, which is the same for x and -x."""

    NUMBERS = ("input_grid", "grid")

    def __init__(self, module: nn.GELU) -> None:
        super().__init__()
        self.approximate = module.approximate
        self.input_grid = 1.0
        self.table: Tensor
        self.register_buffer("table", torch.zeros(GELU_ENTRIES + 1), persistent=False)

    def chosen(self, largest: float, second: float, inner: int, is_shares: bool) -> dict[str, float]:
        return {"input_grid": 2.0 ** min(exponent_above(largest) + HEADROOM, GELU_REACH) / GELU_ENTRIES}

    def settle(self, numbers: Mapping[str, float]) -> None:
        super().settle(numbers)
        x = torch.arange(GELU_ENTRIES + 1, dtype=torch.float64) * self.input_grid
        self.table.copy_(snapped(x - functional.gelu(x, approximate=self.approximate), self.grid))

    def constants(self) -> Iterator[tuple[str, Tensor | float]]:
        yield from super().constants()
        yield "input grid", 1 / self.input_grid

    def forward(self, x: Tensor) -> Tensor:
        index = torch.round(x.abs() * (1 / self.input_grid)).clamp(max=GELU_ENTRIES)
        return functional.relu(x) - self.table[index.long()]


class FixedSoftmax(Function):
    """Softmax over the last axis: a table of exp over the sum of what it gives. Minus infinity gives 0."""

    def __init__(self, module: nn.Softmax) -> None:
        super().__init__()
        self.table: Tensor
        self.one: Tensor
        self.register_buffer("table", torch.zeros(EXP_ENTRIES), persistent=False)
        self.register_buffer("one", torch.tensor(2.0**TOTAL_BITS), persistent=False)
        below = torch.arange(EXP_ENTRIES, dtype=torch.float64) * SCORE_GRID
        self.table.copy_(torch.round(torch.exp(-below) * 2.0**EXP_BITS))

    def forward(self, x: Tensor) -> Tensor:
        whole = torch.round(x * (1 / SCORE_GRID))
        below = (whole.amax(-1, keepdim=True) - whole).clamp(max=EXP_ENTRIES - 1)
        exp = self.table[below.long()]
        inverse = torch.round(self.one / exp.sum(-1, keepdim=True))
        return torch.round(exp * inverse * 2.0 ** (SHARE_BITS - TOTAL_BITS)) * 2.0**-SHARE_BITS


class FixedProduct(Function):
    """The matrix product of two activations, each rounded to a grid of its own and clipped, so that sums are exact
    whatever the image."""

    NUMBERS = ("first_grid", "second_grid", "most_first", "most_second", "grid")

    def __init__(self, module: Product) -> None:
        super().__init__()
        self.first_grid = self.second_grid = 1.0
        self.most_first = self.most_second = 1.0

    def chosen(self, largest: float, second: float, inner: int, is_shares: bool) -> dict[str, float]:
        exact = 2**SUM_BITS
        if is_shares:
            most_first = 2**SHARE_BITS
            first_grid = 1 / most_first
            total = most_first + inner // 2  # of shares, each rounded
        else:
            most_first = math.isqrt(exact // inner)
            first_grid = _grid(largest, most_first)
            total = most_first * inner
        most_second = exact // total
        return {
            "first_grid": first_grid,
            "second_grid": _grid(second, most_second),
            "most_first": float(most_first),
            "most_second": float(most_second),
        }

    def constants(self) -> Iterator[tuple[str, Tensor | float]]:
        yield "grids", 1 / self.first_grid
        yield "grids", 1 / self.second_grid
        yield "bounds", self.most_first
        yield "bounds", self.most_second

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        a = torch.round(a * (1 / self.first_grid)).clamp(-self.most_first, self.most_first)
        b = torch.round(b * (1 / self.second_grid)).clamp(-self.most_second, self.most_second)
        return snapped((a @ b) * (self.first_grid * self.second_grid), self.grid)


def _grid(largest: float, most: int) -> float:
    """The finest with which twice the largest value is at most so many of it."""
    return 2.0 ** math.ceil(math.log2((largest or 1.0) * 2**HEADROOM / most))


COUNTERPARTS: dict[type[nn.Module], type[Function]] = {
    nn.LayerNorm: FixedNorm,
    nn.GELU: FixedGelu,
    nn.Softmax: FixedSoftmax,
    Product: FixedProduct,
}
FUNCTIONS = tuple(COUNTERPARTS)


def counterpart(module: nn.Module, name: str) -> Function:
    """That of a module of FUNCTIONS, not settled yet. OdmError, which begins with `name`, where it has none."""
    if isinstance(module, nn.LayerNorm):
        shape = module.normalized_shape
        if len(shape) > 1 or shape[0] > MOST_CHANNELS:
            raise OdmError(
                f"{name}: normalizes over {' x '.join(map(str, shape))} values; normalize the last axis alone, of at "
                f"most {MOST_CHANNELS} channels"
            )
    if isinstance(module, nn.Softmax) and module.dim != -1:
        raise OdmError(f"{name}: a softmax over axis {module.dim}; move what it is over to the last axis, and say -1")
    kind = next(made for of, made in COUNTERPARTS.items() if isinstance(module, of))
    return kind(module)

"""Functions in fixed point: what they are near to, and that nothing in them depends on the order of adding up."""

import math

import pytest
import torch
from torch import Tensor, nn

from odm.deploy.fixed import SUM_BITS
from odm.deploy.nonlinear import (
    EXP_BITS,
    EXP_ENTRIES,
    GELU_ENTRIES,
    SCORE_GRID,
    FixedGelu,
    FixedNorm,
    FixedProduct,
    FixedSoftmax,
    Function,
    counterpart,
)
from odm.errors import OdmError
from odm.networks.backbone import Product

GRID = 2.0**-16


def settled(module: nn.Module, *inputs: Tensor, is_shares: bool = False) -> Function:
    made = counterpart(module, "it")
    largest = [x.masked_fill(x == -torch.inf, 0).abs().amax().item() for x in inputs]
    numbers = made.chosen(largest[0], largest[-1], inputs[0].shape[-1], is_shares)
    made.settle(numbers | {"grid": GRID})
    return made


def values(*shape: int, spread: float = 1.0) -> Tensor:
    """On the grid."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(3)) * spread
    return torch.round(drawn / GRID) * GRID


def norm(channels: int) -> nn.LayerNorm:
    made = nn.LayerNorm(channels)
    made.weight.data = torch.linspace(0.5, 2.0, channels)
    made.bias.data = torch.linspace(-1.0, 0.5, channels)
    return made.requires_grad_(False)


def is_whole(x: Tensor, grid: float) -> bool:
    return bool((x / grid == (x / grid).round()).all())


@pytest.mark.parametrize("channels", [3, 12, 60, 256])
@pytest.mark.parametrize("spread", [0.01, 1.0, 300.0])
def test_norm(channels: int, spread: float) -> None:
    module, x = norm(channels), values(50, channels, spread=spread)
    made = settled(module, x)
    found = made(x)
    assert is_whole(found, GRID)
    assert (found - module(x)).abs().max() < 0.01
    order = torch.randperm(channels, generator=torch.Generator().manual_seed(1))
    moved = settled(module, x)
    moved.weight, moved.bias = moved.weight[order], moved.bias[order]
    assert torch.equal(moved(x[:, order]), found[:, order])


def test_norm_of_one_value_and_of_values_far_beyond_what_was_measured() -> None:
    module = norm(12)
    made = settled(module, values(50, 12))
    flat = torch.full((1, 12), 0.25)
    torch.testing.assert_close(made(flat), module(flat), atol=GRID, rtol=0)
    far = values(50, 12, spread=1e4)
    assert made(far).isfinite().all() and is_whole(made(far), GRID)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("largest", [0.05, 1.0, 40.0])
def test_gelu(approximate: str, largest: float) -> None:
    module = nn.GELU(approximate)
    x = torch.round(torch.linspace(-largest, largest, 10001) / GRID) * GRID
    made = settled(module, x)
    assert is_whole(made(x), GRID)
    assert isinstance(made, FixedGelu)
    assert (made(x) - module(x)).abs().max() < made.input_grid / 3 + GRID
    assert torch.equal(made(2 * x.clamp(min=9)), 2 * x.clamp(min=9)) or largest < 9


def test_softmax() -> None:
    module, scores = nn.Softmax(-1), values(20, 64, spread=3.0)
    scores[:, 5:9] = -torch.inf
    made = settled(module, scores)
    found = made(scores)
    assert (found - module(scores)).abs().max() < 0.003 * module(scores).max()
    assert found[:, 5:9].eq(0).all() and is_whole(found, 2.0**-13)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(made(scores[:, order]), found[:, order])
    torch.testing.assert_close(made(torch.zeros(1, 3)), torch.full((1, 3), 1 / 3), atol=2.0**-13, rtol=0)


def test_no_entry_of_a_table_is_near_a_half() -> None:
    """So that it is the same wherever it is computed, to the last bit of float64 or not."""
    exp = torch.exp(-torch.arange(EXP_ENTRIES, dtype=torch.float64) * SCORE_GRID) * 2.0**EXP_BITS
    assert ((exp - exp.floor() - 0.5).abs() > 1e-6).all()
    table = FixedSoftmax(nn.Softmax(-1)).table
    assert table[0] == 2**EXP_BITS and table[-1] == 0 and table[-2] == 1
    for exponent in (-6, -3, 0, 3):
        x = torch.arange(GELU_ENTRIES + 1, dtype=torch.float64) * 2.0**exponent / GELU_ENTRIES
        for grid in (2.0**-14, 2.0**-18, 2.0**-20):
            units = (x - nn.functional.gelu(x)) / grid
            assert ((units - units.floor() - 0.5).abs() > 1e-9).all()


@pytest.mark.parametrize("inner", [6, 30, 64])
def test_product(inner: int) -> None:
    a, b = values(20, inner), values(inner, 20)
    made = settled(Product(), a, b)
    exact = a.double() @ b.double()
    assert (made(a, b) - exact).abs().max() < 0.03 * exact.std()
    order = torch.randperm(inner, generator=torch.Generator().manual_seed(1))
    assert torch.equal(made(a[:, order], b[order]), made(a, b))


def test_a_product_is_exact_whatever_comes() -> None:
    """Clipped values reach 2^24 at most; float64 gives the same sums."""
    shares = torch.full((4, 64), 1 / 64)
    for made, a in (
        (settled(Product(), values(4, 64), values(64, 4)), torch.full((4, 64), 1e6)),
        (settled(Product(), shares, values(64, 4), is_shares=True), shares),
    ):
        assert isinstance(made, FixedProduct)
        b = torch.full((64, 4), 1e6)
        rows = 2**13 + 32 if a is shares else 64 * made.most_first
        assert rows * made.most_second <= 2**SUM_BITS
        found = made(a, b)
        assert torch.equal(found.double(), made(a.double(), b.double()))


def test_refused_in_one_line() -> None:
    for module, says in (
        (nn.LayerNorm((4, 4)), "it: normalizes over 4 x 4 values"),
        (nn.LayerNorm(300), "it: normalizes over 300 values; .* at most 256 channels"),
        (nn.Softmax(1), "it: a softmax over axis 1"),
    ):
        with pytest.raises(OdmError, match=says) as caught:
            counterpart(module, "it")
        assert "\n" not in str(caught.value)


def test_epsilon_counts_where_values_hardly_differ() -> None:
    x = values(20, 12, spread=0.002)
    module = nn.LayerNorm(12).requires_grad_(False)
    made = settled(module, x)
    assert isinstance(made, FixedNorm) and math.isclose(made.room, 1e-5 * 12 / made.input_grid**2)
    assert (made(x) - module(x)).abs().max() < 0.01


def test_a_form_says_its_numbers() -> None:
    made = settled(nn.GELU(), torch.ones(1))
    assert isinstance(made, FixedGelu)
    assert made.numbers() == {"input_grid": 2.0**2 / GELU_ENTRIES, "grid": GRID}
    assert str(made) == f"FixedGelu(input_grid={2.0**2 / GELU_ENTRIES}, grid={GRID})"

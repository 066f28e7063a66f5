"""The mismatch dial: channels of a float network are set further apart, in place, and its function stays the same."""

import torch
from torch import Tensor, nn

from odm import seeds
from odm.errors import OdmError
from odm.networks.backbone import Backbone, Pair
from odm.networks.settings import Dial


@torch.no_grad()
def turn(network: Backbone, dial: Dial) -> list[str]:
    """Scale or shift the channels between the pairs of a network by what `dial` says; the names of the first layers.

    With z_c standard normal, channel c of a first layer is multiplied by exp(strength z_c), or strength z_c r is added
    to it, r being the root mean square of that layer's weights: of a normalization about the deviation of its output.
    The layers that take it are divided, or have as much taken off their biases.
    """
    pairs = [pair for pair in network.pairs() if pair.shifts or dial.kind == "scale"]
    if not pairs:
        raise OdmError(
            f"dials: {type(network).__name__} has no two layers between which a {dial.kind} of channels changes "
            "nothing; take another kind or network"
        )
    first: dict[str, list[Pair]] = {}
    for pair in pairs:
        first.setdefault(pair.first, []).append(pair)
    for name, seconds in first.items():
        layer = network.get_submodule(name)
        generator = torch.Generator().manual_seed(seeds.named(dial.seed, f"dial.{name}"))
        z = torch.randn(len(_of(layer, "weight")), generator=generator, dtype=torch.float64)
        if dial.kind == "scale":
            _scale(network, layer, seconds, torch.exp(dial.strength * z))
        else:
            _shift(network, layer, seconds, dial.strength * z)
    return list(first)


def _scale(network: nn.Module, layer: nn.Module, pairs: list[Pair], factors: Tensor) -> None:
    """Multiply the layer's channels and divide those who take them, shape (C,), in float64."""
    for key in ("weight", "bias"):
        if getattr(layer, key) is not None:
            values = _of(layer, key)
            values.copy_(values.double() * _along(factors, 0, values))
    for pair in pairs:
        taken = _taken(network, pair, len(factors))
        taken.copy_(taken.double() / _along(factors, 1, taken))


def _shift(network: nn.Module, layer: nn.Module, pairs: list[Pair], units: Tensor) -> None:
    """Add to the layer's channels and take what becomes of it off the biases behind, shape (C,), in float64."""
    shifts = units * _of(layer, "weight").double().square().mean().sqrt()
    bias = _of(layer, "bias")
    bias.copy_(bias.double() + shifts)
    for pair in pairs:
        bias = _of(network.get_submodule(pair.second), "bias")
        weights = _taken(network, pair, len(shifts)).double()
        bias.copy_(bias.double() - weights.reshape(len(weights), len(shifts), -1).sum(2) @ shifts)


def _of(layer: nn.Module, key: str) -> Tensor:
    values = getattr(layer, key)
    assert isinstance(values, Tensor)
    return values


def _taken(network: nn.Module, pair: Pair, count: int) -> Tensor:
    """The weights, shape (C', C, ...), that the second layer has for the first one's channels."""
    return _of(network.get_submodule(pair.second), "weight")[:, pair.start : pair.start + count]


def _along(values: Tensor, dim: int, other: Tensor) -> Tensor:
    """A vector as it multiplies dimension `dim` of another tensor."""
    shape = [1] * other.ndim
    shape[dim] = -1
    return values.view(shape)

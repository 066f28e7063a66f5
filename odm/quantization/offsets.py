"""Selective distribution offsets: channel-wise shift or scale in front of the activation quantizer."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from odm.quantization.part import Part
from odm.quantization.quantizer import quantize
from odm.quantization.straight import straight_through

# Scales start, and stay, within this factor of 1.
LARGEST_SCALE = 8.0
POWER_BITS = 3
"""Of a power of two within these bounds, 1/8 to 8."""
OCTAVES = 6
"""Between them."""


def choose(layers: Mapping[str, Mapping[str, Any]], share: float) -> dict[str, list[str]]:
    """The layers that get an offset: two independent lists, a layer may be on both (`docs/deviations.md`, v1.7).

    Args:
        layers: measurements by layer, as the mismatch step writes them.
        share: in (0, 1]; rounded to whole layers, at least one.

    Returns:
        `shift`: the layers whose channel means differ most; `scale`: those whose channel deviations do.
    """
    count = max(1, round(share * len(layers)))

    def most(key: str) -> list[str]:
        ranked = sorted(layers, key=lambda name: -layers[name][key])[:count]
        return [name for name in layers if name in ranked]  # in the order of the network

    return {"shift": most("mean_mismatch"), "scale": most("deviation_mismatch")}


def octaves_in(weight_bits: int) -> int:
    """How far apart scales of a layer may be, so that weights in which they are undone are codes up to 127: those of b
    bits reach 2^b - 1, and from 8 bits on pass it without any."""
    room = 127 // (2**weight_bits - 1)
    return min(OCTAVES, room.bit_length() - 1) if room else OCTAVES


class Offset(Part):
    """x* = x S_sigma + S_mu by channel, both learned, stored at a low bit width, static at test time.

    Either part may be absent. Stored values lie on a grid of 2^bits levels between the smallest and the largest of the
    layer's channels, scales on request on the powers of two; gradients pass straight through.
    """

    def __init__(
        self, shift: Tensor | None, scale: Tensor | None, bits: int, undone: bool, octaves: int | None = None
    ) -> None:
        """
        Args:
            octaves: makes scales powers of two, none more than 2^octaves times the layer's smallest.
        """
        super().__init__()
        self.bits = bits
        self.undone = undone
        self.octaves = octaves
        self.shift = None if shift is None else nn.Parameter(shift.clone())
        self.scale = None if scale is None else nn.Parameter(scale.clone())

    def stored(self, values: Tensor) -> Tensor:
        """Channel values, shape (C,), as they are stored."""
        lower, upper = torch.aminmax(values.detach())
        if lower == upper:
            return values
        return quantize(values, lower, upper, self.bits)

    def stored_parts(self) -> tuple[Tensor | None, Tensor | None]:
        """Scale and shift as they are stored, shape (C,)."""
        scale: Tensor | None = self.scale
        if scale is not None:
            scale = self.stored(scale) if self.octaves is None else straight_through(scale, self._powers(scale))
        return scale, None if self.shift is None else self.stored(self.shift)

    def _powers(self, scale: Tensor) -> Tensor:
        powers = scale.detach().log2().round()
        assert self.octaves is not None
        return powers.minimum(powers.amin() + self.octaves).exp2()  # what is cut are scales of the quietest channels

    def _parts(self) -> tuple[Tensor | None, Tensor | None]:
        scale, shift = (None if each is None else each.view(-1, 1, 1) for each in self.stored_parts())
        return scale, shift

    def forward(self, x: Tensor) -> Tensor:
        """Correct x, shape (N, C, H, W)."""
        scale, shift = self._parts()
        if scale is not None:
            x = x * scale
        return x if shift is None else x + shift

    def undo(self, x: Tensor) -> Tensor:
        """Take the correction back after the quantizer."""
        scale, shift = self._parts()
        if shift is not None:
            x = x - shift
        return x if scale is None else x / scale

    @torch.no_grad()
    def settle(self) -> None:
        """Hold scales within their bounds after an optimizer step: `undo` divides by them."""
        if self.scale is not None:
            self.scale.clamp_(1 / LARGEST_SCALE, LARGEST_SCALE)

    def storage(self) -> float:
        """Numbers of 32 bits that inference must keep."""
        widths = {"scale": self.bits if self.octaves is None else POWER_BITS, "shift": self.bits}
        return sum(each.numel() * widths[name] for name, each in self.named_parameters()) / 32

    def parts(self) -> list[str]:
        return [name for name in ("shift", "scale") if getattr(self, name) is not None]

    def extra_repr(self) -> str:
        return f"{' + '.join(self.parts())}, bits={self.bits}{', undone' if self.undone else ''}"


def measured_scale(deviations: Tensor, deviation: float) -> Tensor:
    """S_sigma = deviation / deviation_c, which evens deviations out; a silent channel gets no endless scale."""
    return (deviation / deviations.clamp(min=1e-12)).clamp(1 / LARGEST_SCALE, LARGEST_SCALE)


def measured_shift(means: Tensor, mean: float, scale: Tensor | None) -> Tensor:
    """S_mu = mean - S_sigma mean_c, which evens the means out that the layer's scale, if it has one, leaves."""
    return mean - (means if scale is None else scale * means)

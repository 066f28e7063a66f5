"""The even grid that a quantizer has, and the whole numbers that quantized weights are, as both show in what they do.

A quantizer is asked with values and answers with levels, so that any method whose grid is even and the same for every
image can be deployed, and one whose is not is told from it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from odm.errors import OdmError
from odm.quantization.part import ActivationQuantizer

FAR = 1e30
"""A value that every range clips."""
MOST_CODE = 127
"""Largest weight code of eight bits with a sign."""
MOST_LEVELS = 256
FAINT = 2.0**-10
"""Of a channel's weights over the layer's largest: less is none, for in a unit as small no bias could be written."""
PROBES = 1 << 14


@dataclass(frozen=True)
class Levels:
    """Levels `code * step + rest` for whole codes from `least` to `most`: that of code 0 is the nearest to zero."""

    step: float
    least: int
    most: int
    rest: float
    """At most half a step in size."""


@torch.no_grad()
def levels_of(quantizer: ActivationQuantizer, channels: int, name: str) -> Levels:
    """The grid of an activation quantizer. OdmError, which begins with `name`, if it has none that is fixed and even.

    Args:
        channels: of what it quantizes.
    """
    if quantizer.operations():
        raise OdmError(
            f"{name}: its levels are found anew for each image ({type(quantizer).__name__}), so that no fixed integers "
            "stand for them; export a method with fixed ranges"
        )

    def ask(x: Tensor) -> Tensor:
        """Levels of values in float64, shape (n,)."""
        answer = quantizer(x.float().view(1, 1, 1, -1).expand(1, channels, 1, -1).contiguous())[0, :, 0].double()
        if (answer != answer[0]).any():
            raise OdmError(
                f"{name}: a range for each channel (per_channel) has no integer convolution: its sum runs over "
                "channels; export a method with one range a layer"
            )
        return answer[0]

    lower, upper = ask(torch.tensor([-FAR, FAR])).tolist()
    grid = torch.linspace(lower, upper, PROBES, dtype=torch.float64)
    values = ask(grid)
    count = int((values.diff() > (upper - lower) / (4 * MOST_LEVELS)).sum()) + 1
    step = (upper - lower) / max(1, count - 1)
    rounding = 4 * torch.finfo(torch.float32).eps * max(abs(lower), abs(upper))  # of what it is asked with
    is_even = (values - grid).abs().amax() < step * (0.5 + 0.01) + rounding
    if not step > 0 or count > MOST_LEVELS or not is_even:
        raise OdmError(f"{name}: its levels are not evenly spaced over one range; export a method whose are")
    least = round(lower / step)
    return Levels(step, least, least + count - 1, lower - least * step)


def codes_of(weight: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Quantized weights as whole numbers, int8, and the units that they are multiples of, float64 of shape (O,).

    One unit for the layer if there is one, else one for each output channel. OdmError, which begins with `name`, if
    they are multiples of none, or of so small a one that codes pass 127.
    """
    values = weight.detach().double().flatten(1)
    largest = values.abs().amax()
    if not largest:
        return torch.zeros_like(weight, dtype=torch.int8), torch.ones_like(values[:, 0])
    for rows in (values.view(1, -1), values):
        sizes = rows.abs().amax(1)
        rows = rows.masked_fill((sizes < FAINT * largest)[:, None], 0)
        sizes = sizes.clamp(min=FAINT * largest)
        most = _largest_codes(rows, sizes)
        if most.all():
            break
    else:
        raise OdmError(f"{name}: its weights lie on no even grid: float weights; quantize them to 7 bits or fewer")
    if most.amax() > MOST_CODE:
        raise OdmError(
            f"{name}: its weights need codes up to {most.amax():.0f}, and 8 bits with a sign end at {MOST_CODE}: "
            "levels without a zero are odd numbers; train with 7 bits or fewer"
        )
    units = sizes / most
    codes = (rows / units[:, None]).round().to(torch.int8)
    return codes.view(weight.shape), units.expand(len(values)).contiguous()


def _largest_codes(rows: Tensor, sizes: Tensor) -> Tensor:
    """Into how many units the size of each row falls, at least, so that its values are whole; 0 where none will do.

    Args:
        rows: shape (R, n).
        sizes: of the largest value of each, shape (R,).
    """
    found = torch.zeros_like(sizes)
    for most in range(1, 2 * MOST_LEVELS):
        units = (sizes / most)[:, None]
        # Levels were computed in float32; a wrong unit is off by a good part of itself.
        fits = (((rows / units).round() * units - rows).abs() < 1e-3 * units).all(1)
        found[fits & (found == 0)] = most
        if found.all():
            break
    return found

"""Quantizers that read multiples of a grid: each threshold half way between two of them, in every runtime."""

import torch
from torch import Tensor

LEAST_SHIFT = 0.003
"""In steps. Where codes have no zero point OpenVINO leaves an origin out that is less than 0.00255 of them, which is a
hundred-thousandth of 255 (`updateOptimizedFormula` of its FakeQuantize)."""
LEAST_SPREAD = 0.0001
"""In steps. Where the origins of all channels are within half of it of the first one's, OpenVINO takes that for all."""


def half_way(step: Tensor, origin: Tensor, grid: float, zero_point: int) -> tuple[Tensor, Tensor]:
    """The nearest step and origin, float64, with thresholds (k + 1/2) step + origin on odd multiples of half the grid.

    So steps are odd multiples of the grid and origins whole ones. An origin that OpenVINO would change is 0, or where
    channels differ another in the first.

    Args:
        step, origin: float64 of shape () or (C,).
        zero_point: what is added to codes so that they have no sign.
    """
    step = (2 * ((step / grid - 1) / 2).round().clamp(min=0) + 1) * grid
    origin = (origin / grid).round() * grid
    shift = origin / step
    if not step.ndim:
        return step, origin if zero_point or shift.abs() >= LEAST_SHIFT else torch.zeros_like(origin)
    if 0 < (shift - shift[0]).abs().amax() < LEAST_SPREAD:
        origin[0] += (2 * LEAST_SPREAD * step[0] / grid).ceil() * grid
    return step, origin

"""How far what a quantizer can see lies from its thresholds, where one layer alone writes it."""

import torch
from torch import Tensor

from odm.deploy.levels import Levels

LEAST = 2e-5
"""In steps; what runtimes make of a value in float32 differs by less."""
BY_LEVEL = 2.0**-20
"""The same for each level that a value is away from zero: eight times float32's rounding."""
NUDGE = 2e-6
NUDGES = 400


def apart(unit: Tensor, step: float, levels: Levels, rectified: bool) -> Tensor | None:
    """Units, float32 of shape (O,), whose multiples all keep away from all thresholds; None if there are none nearby.

    Args:
        unit: float64 of shape (O,); by channel, all whole multiples may come up.
        step: of the quantizer.
        rectified: whether a ReLU lies between, below which nothing comes up.
    """
    least = max(0, levels.least) if rectified else levels.least
    thresholds = torch.arange(least, levels.most, dtype=torch.float64) + 0.5
    needed = max(LEAST, BY_LEVEL * max(abs(least), abs(levels.most)))
    step = torch.tensor(step).float().double().item()
    made = torch.empty_like(unit, dtype=torch.float32)
    for channel, start in enumerate(unit.tolist()):
        nudged = torch.tensor([start * (1 + NUDGE * each) for each in range(NUDGES)]).float()
        ratio = step / nudged.double()  # of step to unit
        places = thresholds * ratio[:, None]
        margins = ((places - places.round()).abs() / ratio[:, None]).amin(1)
        good = (margins >= needed).nonzero()
        if not len(good):
            return None
        made[channel] = nudged[good[0, 0]]
    return made


def margin(unit: Tensor, step: float, least: int, most: int) -> float:
    """Least distance, in steps, of a whole multiple of one of the units from a threshold."""
    thresholds = torch.arange(least, most, dtype=torch.float64) + 0.5
    ratio = step / unit.double()
    places = thresholds * ratio[:, None]
    return ((places - places.round()).abs() / ratio[:, None]).amin().item()

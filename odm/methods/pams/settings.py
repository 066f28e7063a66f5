"""What `pams` may be told."""

from typing import Annotated, Literal

from pydantic import Field

from odm.methods.settings import Distilled


class Pams(Distilled):
    """PAMS: a symmetric learned clip."""

    kind: Literal["pams"]
    calibration_steps: Annotated[int, Field(ge=0)] = 1000
    """First steps, in which the clip is the mean over the batch of each image's largest absolute value and nothing is
    clipped; it learns from then on. PAMS's first epoch."""

    @property
    def least_bits(self) -> int:
        return 2

    @property
    def step_cost(self) -> float:
        return 1.5

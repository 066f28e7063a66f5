"""What `odm` may be told."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from odm.methods.settings import Cooperating
from odm.settings.fields import Bits, Strict, unsaid_at


class Offsets(Strict):
    """Channel-wise corrections in front of the activation quantizer, on the layers that need them most."""

    kind: Literal["none", "shift", "scale", "both"] = "both"
    share: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of layers, by measured mismatch of means (shift) and of deviations (scale)."""
    initial: Literal["measured", "neutral"] = "measured"
    """`measured` evens the channels out as calibration saw them; `neutral` starts from 0 and 1."""
    undone: bool = False
    """Whether the correction is taken back after the quantizer (foldable into the convolution)."""
    bits: Bits = 4
    """Bit width the offsets are stored at."""
    powers_of_two: Annotated[bool, unsaid_at(False)] = False
    """Whether scales are stored as powers of two, so that undone ones can go into whole weights."""


class Odm(Cooperating):
    """ODM, v1 (July 2023)."""

    regularized_step: ClassVar[float] = 1.75

    kind: Literal["odm"]
    regularizer: Literal["none", "variance"] = "variance"
    strength: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the regularizer beside an L1 loss on values in 0-255. The paper's is not known; this one makes the term
    a fifth to a quarter of the loss at the first step of the ready suites, which is what v2's printed weight does on
    its own network."""
    offsets: Offsets = Offsets()

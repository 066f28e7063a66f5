"""What `daq` may be told."""

from typing import Annotated, Literal

from pydantic import Field

from odm.methods.settings import MethodSettings


class Daq(MethodSettings):
    """DAQ: grids from the distribution of each image's channels at test time."""

    kind: Literal["daq"]
    coverage: Literal["blocks", "body", "shortcuts", "dense"] = "dense"
    """As for every method; the default is that of its paper."""
    steps: Literal["published", "optimal"] = "published"
    """Step over deviation. `published`: DAQ's table (1.596 at 2 bits, 0.996 at 3, 0.586 at 4), in which each width
    has the best step for a Gaussian of the width below; `optimal`: the best one of its own (0.996 at 2 bits)."""
    deviation_bits: Annotated[int, Field(ge=2, le=8)] = 4
    """Bits that the deviations of an image's channels are quantized to; 8 for the full EDSR."""
    positive_levels: Literal["bounded", "unbounded"] = "bounded"
    """Whether the output of a ReLU takes 2^b levels, or as many as it spans, as in the released code."""

    @property
    def least_bits(self) -> int:
        return 2 if self.steps == "published" else 1

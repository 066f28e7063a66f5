"""What `ddtb` may be told."""

from typing import Annotated, Literal

from pydantic import Field

from odm.methods.settings import Distilled
from odm.settings.fields import Percentile


class Ddtb(Distilled):
    """DDTB: two learned bounds, moved by gates at test time where activations vary most."""

    kind: Literal["ddtb"]
    dynamic_share: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of activation quantizers that get a gate, rounded down; 0.1 for SRResNet, 0.5 for RDN."""
    gate_steps: Annotated[int, Field(ge=0)] = 4000
    """First steps, in which the gates are held at 0 and not used. DDTB's second to fifth epoch."""
    gate: Literal["released", "learned"] = "released"
    """`released`, as the code has it: both layers of a gate are given values without gradient, so that its first layer
    and its normalization never learn, and weights have 3 symmetric levels. `learned`, as the text can be read: all of
    it learns, with weights on the grid of other weights."""
    gate_strength: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the mean squares that hold the gates at 0, beside an L1 loss on values in 0-255."""
    gate_penalty: Literal["mean", "sum"] = "mean"
    """Whether that is their mean over gates, as in the released code, or their sum."""
    initial: Literal["percentile", "constant", "by_bits"] = "by_bits"
    """First bounds: `percentile`, or `initial_bound` and its negative; `by_bits`: the former up to 2 bits, else the
    latter, as the released code."""
    initial_bound: Annotated[float, Field(gt=0)] = 10.0
    percentile: Percentile = 99.0
    """This percentile and its mirror as first bounds; 95 for RDN."""
    weight_percentile: Percentile = 99.0
    """Weights are clipped to this percentile and its mirror; 100, the least and largest weight, for RDN."""

    @property
    def step_cost(self) -> float:
        return 2.0

"""What `odm_eccv` may be told."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from odm.methods.settings import Cooperating
from odm.settings.training import Cooperation


class CosineCooperation(Cooperation):
    """As above, from v2's rule on."""

    rule: Literal["always", "sign", "cosine"] = "cosine"
    scope: Literal["element", "layer", "network"] = "network"


class OdmEccv(Cooperating):
    """ODM, v2 (ECCV 2024)."""

    regularized_step: ClassVar[float] = 1.85

    kind: Literal["odm_eccv"]
    regularizer: Literal["none", "mismatch"] = "mismatch"
    strength: Annotated[float, Field(ge=0)] = 0.00001
    """Weight of the regularizer (lambda_M). Printed for batch 8 and EDSR; the norm `l2` grows with the root of batch
    times patch area and with the number of layers, so that other sizes need another."""
    cooperation: CosineCooperation = CosineCooperation()
    norm: Literal["l2", "rms", "squared", "mean_square"] = "l2"
    """Of x - q(x), over all of a layer's input: its length, that over the root of the number of elements, or the
    square of either."""
    mismatch_gradient: Literal["detached", "straight_through"] = "detached"
    """What x learns from its mismatch. `detached`: q(x) is a constant, so that each value is drawn to its level;
    `straight_through`: q(x) moves with x inside the range, so that only values outside it are drawn in."""
    theta: Literal["weights", "ranges", "gammas"] = "weights"
    """Whose gradients are compared and joined: the network's own parameters, those and the activation ranges, or
    those and the gammas of the weight ranges too."""
    regularized_ranges: Literal["no", "indirect", "direct"] = "no"
    """Whether activation ranges follow the regularizer beside the reconstruction: not; only so far as they move the
    inputs of later layers; or also by their own layer's mismatch."""
    weight_range: Literal["max", "percentile", "signed_percentile", "mse"] = "percentile"
    correction: bool = True
    """Weight clipping correction: the weight range is f(W) gamma, with one learned gamma a layer."""
    gamma_rate: Literal["ranges", "weights"] = "ranges"
    """Whether gamma learns at the rate of the ranges or at that of the weights."""

    @model_validator(mode="after")
    def _theta_moves(self) -> "OdmEccv":
        if self.theta != "weights" and self.regularized_ranges == "no":
            raise ValueError(
                f"theta '{self.theta}' has ranges that follow the regularizer: regularized_ranges 'no' "
                "contradicts it; say 'indirect' or 'direct'"
            )
        return self

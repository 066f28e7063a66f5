"""What `no_body` may be told."""

from typing import ClassVar, Literal

from odm.methods.settings import MethodSettings


class NoBody(MethodSettings):
    """A control: the network without what `blocks` quantizes, in float, what a quantized body has to beat."""

    quantizes: ClassVar[bool] = False

    kind: Literal["no_body"]

    @property
    def step_cost(self) -> float:
        return 0.6

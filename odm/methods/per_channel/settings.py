"""What `per_channel` may be told."""

from typing import ClassVar, Literal

from odm.methods.settings import Quantization


class PerChannel(Quantization):
    """A control: a learned range for each channel of each activation. A reference, no bound."""

    is_reference: ClassVar[bool] = True

    kind: Literal["per_channel"]

    @property
    def step_cost(self) -> float:
        return 1.4

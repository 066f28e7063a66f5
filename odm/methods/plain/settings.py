"""What `plain` may be told."""

from typing import Literal

from odm.methods.settings import Quantization


class Plain(Quantization):
    """Learned ranges and the reconstruction loss alone: the baseline of the ablations."""

    kind: Literal["plain"]

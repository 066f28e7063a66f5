"""What the settings of every float network share, and the dial that is turned on one."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from odm.settings.fields import Name, Strict


class NetworkSettings(Strict):
    """What every float network has: it is built, then pretrained."""

    coverages: ClassVar[tuple[str, ...]] = ("blocks", "body", "shortcuts", "dense")

    backbone: str
    scale: Literal[2, 3, 4]
    seed: int = 1

    def check_files(self, key: str) -> None:
        """OdmError if a file that the settings name is not the one they mean; `key` is where they stand."""


class Dial(Strict):
    """The mismatch dial: a float network with the function of another and channels further apart."""

    network: Name
    """The pretrained network that it is made from."""
    strength: Annotated[float, Field(ge=0, le=5)]
    """How far apart: the standard deviation of the logarithm of a channel's factor, or of what is added to it in
    units of the layer. 0 changes nothing."""
    kind: Literal["scale", "shift"] = "scale"
    """`scale` multiplies channels between two layers, `shift` adds to them where that is exact: of the backbones here
    only in swinir."""
    seed: int = 1
    """Of the factors; those of one seed are the same at all strengths but for the strength."""

"""What the settings of every float network share, and the dial that is turned on one."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from odm.networks.catalogue import READY
from odm.settings.fields import Name, Strict


class NetworkSettings(Strict):
    """What every float network has: it is built, then pretrained."""

    coverages: ClassVar[tuple[str, ...]] = ("blocks", "body", "shortcuts", "dense")

    backbone: str
    scale: Literal[2, 3, 4]
    seed: int = 1
    weights: str | None = None
    """Weights that were trained elsewhere, which `odm pretrain` takes over instead of training: one of the catalogue
    by its name (`edsr_f32b5_x2`), or a file: safetensors, a checkpoint of torch with nothing but weights, or a .tflite
    of convolutions; for a file, from the project's folder. Absent or null, the network is trained."""

    @model_validator(mode="after")
    def _is_the_published_network(self) -> "NetworkSettings":
        entry = READY.get(self.weights or "")
        for key, value in (entry.network if entry else {}).items():
            if getattr(self, key, None) != value:
                raise ValueError(f"{key}: '{self.weights}' is of a network with {key} {value}; write that here")
        return self

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

"""The base of all classes of settings, and the types of value that several share."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

NAME_PATTERN = "[a-z0-9_]+"
DEVICE_PATTERN = r"(auto|cpu|cuda(:\d+)?)"


Name = Annotated[str, StringConstraints(pattern=f"^{NAME_PATTERN}$")]
Bits = Annotated[int, Field(ge=1, le=8)]
RunBits = Literal[1, 2, 3, 4, 5, 6, 7, 8, 32]
# Bounds that no sound value comes near: beyond them it is a slip of the pen, which would end in no memory or no time.
Positive = Annotated[int, Field(ge=1, le=1_000_000_000)]
Size = Annotated[int, Field(ge=1, le=1024)]
"""Of a network or a batch: its channels, blocks, images."""
Rate = Annotated[float, Field(gt=0, le=1)]
Percentile = Annotated[float, Field(gt=50, le=100)]


def unsaid_at(default: Any) -> Any:
    """For a key that came later than others: at its default it stands on no card, so that nothing is due by it."""
    return Field(exclude_if=lambda value: value == default)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

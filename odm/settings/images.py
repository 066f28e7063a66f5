"""Which photographs a suite is trained and tested on."""

from typing import Literal

from pydantic import Field

from odm.settings.fields import Name, Strict


class Images(Strict):
    """Which photographs are trained on and tested on."""

    train: list[Name] = Field(min_length=1)
    """Sets of the catalogue, or of `folders`, that patches are drawn from."""
    test: list[Name] = Field(min_length=1)
    """Sets that every network is scored on; none of their images may be trained on."""
    scales: list[Literal[2, 3, 4]] = Field(min_length=1)
    """Factors to prepare low-resolution images for; every network's scale must be among them."""
    root: str | None = None
    """A folder that holds benchmark sets in a common layout, looked at before any download."""
    folders: dict[Name, str] = Field(default={})
    """A set's name, of your own or of the catalogue, and the folder its images lie in."""

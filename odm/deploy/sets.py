"""Which images a certificate is over."""

from collections.abc import Sequence
from dataclasses import dataclass

from odm.errors import OdmError, nearest
from odm.images.catalogue import CATALOGUE
from odm.rescoring import is_here
from odm.settings.images import Images
from odm.settings.suite import Settings

USUAL = ("skimage_test", "set5")
"""Small ones, the first of which comes with an installed package."""
NOWHERE = Images(train=[USUAL[0]], test=[USUAL[0]], scales=[2])


@dataclass(frozen=True)
class Sets:
    names: list[str]
    images: Images
    """Where they lie."""


def chosen(names: Sequence[str], settings: Settings | None) -> Sets:
    """Sets by name, or those of USUAL that are here. OdmError if one is not known."""
    images = NOWHERE if settings is None else settings.images
    known = {*CATALOGUE, *images.folders}
    for name in names:
        if name not in known:
            raise OdmError(f"'{name}' is no set of images{nearest(name, known)}")
    return Sets(list(names) or [each for each in USUAL if is_here(each, images)], images)

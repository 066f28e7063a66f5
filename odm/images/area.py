"""How many pixels the images of a set have, before they are read."""

from contextlib import suppress

from PIL import Image

from odm.images.catalogue import CATALOGUE, Packaged
from odm.images.folders import files_of_a_users
from odm.settings.images import Images


def area(name: str, images: Images) -> int:
    """Pixels of a set; of a user's own as the headers of its files have it."""
    if name not in images.folders:
        return CATALOGUE[name].area
    found = 0
    for file in files_of_a_users(name, images) or []:
        with suppress(OSError, ValueError, SyntaxError, Image.DecompressionBombError), Image.open(file) as image:
            found += image.width * image.height  # what cannot be read `odm data` refuses, and says why
    return found


def count(name: str, images: Images) -> int:
    """How many images a set has."""
    if name in images.folders:
        return len(files_of_a_users(name, images) or [])
    entry = CATALOGUE[name]
    return len(entry.images) if isinstance(entry, Packaged) else entry.count

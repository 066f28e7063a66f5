"""A network's scores taken anew, on the test images that lie on this machine."""

from fractions import Fraction

import numpy as np

from odm.errors import OdmError
from odm.images.catalogue import CATALOGUE, Packaged
from odm.images.folders import files_of_a_users, place
from odm.images.imresize import imresize
from odm.images.metrics import score
from odm.images.prepared import crop
from odm.images.reading import read_set
from odm.inference import upscale
from odm.networks.backbone import Backbone
from odm.settings.images import Images

Scores = dict[str, float]


def is_here(name: str, images: Images) -> bool:
    """Whether a test set can be read without a download."""
    try:
        at_home = files_of_a_users(name, images) is not None
    except OdmError:
        return False
    return at_home or isinstance(CATALOGUE.get(name), Packaged) or place(name).is_dir()


def rescored(network: Backbone, name: str, images: Images) -> Scores:
    """`psnr` (dB) and `ssim`, means over the images of a set, as the evaluation of a suite has them."""
    found = []
    for image, pixels in read_set(name, images):
        high = crop(pixels, network.scale)
        output = upscale(network, imresize(high, Fraction(1, network.scale)), f"'{image}' of '{name}'")
        found.append(score(output, high, network.scale))
    return {key: float(np.mean([each[key] for each in found])) for key in ("psnr", "ssim")}

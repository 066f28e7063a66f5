"""From settings to a float network; a new one is a file beside this and a line here."""

from collections.abc import Callable

import torch

from odm import seeds
from odm.networks.backbone import Backbone
from odm.networks.custom import Custom
from odm.networks.edsr import Edsr
from odm.networks.rdn import Rdn
from odm.networks.srresnet import Srresnet
from odm.networks.swinir import Swinir
from odm.settings import Network

# Each takes its settings by name, less the seed.
BACKBONES: dict[str, Callable[..., Backbone]] = {
    "edsr": Edsr,
    "rdn": Rdn,
    "srresnet": Srresnet,
    "swinir": Swinir,
    "custom": Custom,
}


def build(settings: Network) -> Backbone:
    """A freshly initialised network; the same seed gives the same weights whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.named(settings.seed, "weights"))
        return BACKBONES[settings.backbone](**settings.model_dump(exclude={"backbone", "seed"}))

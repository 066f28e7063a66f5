"""From settings to a float network."""

import torch

from odm import seeds
from odm.networks.backbone import Backbone
from odm.networks.edsr import Edsr
from odm.settings import Network


def build(settings: Network) -> Backbone:
    """A freshly initialised network; the same seed gives the same weights whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.named(settings.seed, "weights"))
        return Edsr(settings.channels, settings.blocks, settings.scale)

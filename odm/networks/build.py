"""From settings to a float network: the class in its backbone's folder."""

import torch

from odm import kinds, seeds
from odm.networks.backbone import Backbone
from odm.networks.settings import NetworkSettings


def backbone_class(backbone: str) -> type[Backbone]:
    """What `odm/networks/<backbone>/network.py` holds; it takes its settings by name, less seed and weights."""
    return kinds.implementation(f"odm.networks.{backbone}.network", Backbone)


def build(settings: NetworkSettings) -> Backbone:
    """A freshly initialised network; the same seed gives the same weights whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.named(settings.seed, "weights"))
        return backbone_class(settings.backbone)(**settings.model_dump(exclude={"backbone", "seed", "weights"}))

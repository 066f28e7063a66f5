"""`odm dial <name>`: a float network of equal function whose channels lie further apart."""

from odm.card import origin
from odm.networks import weights
from odm.networks.build import build
from odm.networks.device import set_vectors
from odm.networks.dial import turn
from odm.settings.suite import Settings


def run(settings: Settings, name: str) -> None:
    set_vectors(settings.vectors)
    dial = settings.dials[name]
    networks = settings.results / "networks"
    network = build(settings.network_of(name))
    weights.put(networks / dial.network / "weights.safetensors", origin(settings, dial.network), network)
    layers = turn(network, dial)
    path = networks / name / "weights.safetensors"
    weights.save(path, network, origin(settings, name))
    print(f"{path}: {dial.kind} of strength {dial.strength:g} behind {len(layers)} layers of {dial.network}")

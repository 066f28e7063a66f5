"""`odm mismatch <network or dial>`: measure, on the float network, how much channels differ in each layer."""

from odm import inference, seeds
from odm.card import origin
from odm.networks.device import device_of
from odm.quantization.statistics import measured
from odm.sealed import write_sealed_json
from odm.settings.suite import Settings
from odm.training.patches import Patches


def run(settings: Settings, name: str) -> None:
    device = device_of(settings)
    network = inference.load(settings, name, device)
    seed = seeds.named(settings.network_of(name).seed, "mismatch")
    batches = Patches.of(settings, name, settings.qat, seed, device)
    lows = (batches(step)[0] for step in range(settings.mismatch.batches))
    # The widest coverage, so that methods with any coverage find their layers here.
    names = network.placement("body").layers
    layers = measured(network, names, lows, settings.mismatch.percentile)
    out = settings.results / "networks" / name / "mismatch.json"
    write_sealed_json(out, {"network": name, "settings": origin(settings, name, "mismatch"), "layers": layers})
    most = max(layers, key=lambda layer: layers[layer]["mean_mismatch"])
    print(f"{out}: {len(layers)} layers; channel means differ most in {most}")

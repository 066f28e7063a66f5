"""`odm mismatch <network or dial>`: measure, on the float network, how much channels differ in each layer."""

from typing import Any

from odm import inference, seeds
from odm.files import write_json
from odm.images.prepared import Prepared
from odm.networks.device import device_of
from odm.quantization.statistics import average, observe, of_activation
from odm.settings import Settings, digest
from odm.training.patches import Patches


def run(settings: Settings, name: str) -> None:
    network_settings = settings.network_of(name)
    device = device_of(settings)
    network = inference.load(settings, name, device)
    batches = Patches(
        Prepared(settings.results / "data" / "train.safetensors"),
        network_settings.scale,
        settings.qat.batch,
        settings.qat.patch,
        seeds.named(network_settings.seed, "mismatch"),
        device,
    )
    lows = (batches(step)[0] for step in range(settings.mismatch.batches))
    # The widest coverage, so that methods with any coverage find their layers here.
    names = network.placement("body").layers
    percentile = settings.mismatch.percentile
    found = observe(network, names, lows, lambda _name, x: of_activation(x, percentile))

    layers: dict[str, dict[str, Any]] = {}
    for layer, batches_of_layer in found.items():
        mean = average(batches_of_layer)
        layers[layer] = {
            "mean_mismatch": mean.mean_mismatch,
            "deviation_mismatch": mean.deviation_mismatch,
            "mean": mean.mean,
            "deviation": mean.deviation,
            "lower": mean.lower,
            "upper": mean.upper,
            "channel_means": mean.channel_means.tolist(),
            "channel_deviations": mean.channel_deviations.tolist(),
        }
    out = settings.results / "networks" / name / "mismatch.json"
    measured_under = digest(settings.digest_of(name), settings.mismatch, settings.qat)
    write_json(out, {"network": name, "settings": measured_under, "layers": layers})
    most = max(layers, key=lambda layer: layers[layer]["mean_mismatch"])
    print(f"{out}: {len(layers)} layers; channel means differ most in {most}")

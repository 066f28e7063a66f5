"""`odm mismatch <network or dial>`: measure, on the float network, how much channels differ in each layer."""

from odm import inference, seeds
from odm.card import origin
from odm.networks.device import device_of
from odm.quantization.statistics import measured
from odm.quantization.weight_ranges import BITS, RULES, psnr_by_range
from odm.sealed import write_sealed_json
from odm.settings.suite import Settings
from odm.training.patches import Patches

# Batches that the ranges of weights are tried on; what is told is rounded to what so few can tell.
TRIED = 2


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
    # Told and not written: a training depends on the file, and on none of this.
    found = psnr_by_range(network, network.placement("blocks").layers, (batches(step) for step in range(TRIED)))
    print(f"PSNR on training patches with the weights of `blocks` quantized alone, untrained (float {_db(found)}):")
    for rule in RULES:
        print(f"  weight_range {rule}: {', '.join(f'{_db(found, rule, bits)} at {bits} bits' for bits in BITS)}")


def _db(found: dict[tuple[str, int], float], rule: str = "float", bits: int = 32) -> str:
    return f"{found[rule, bits]:.1f} dB"

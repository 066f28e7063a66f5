"""`odm train <run>`: quantization-aware training of one run."""

import shutil
from pathlib import Path

from odm import inference, seeds
from odm.card import card, origin
from odm.errors import OdmError
from odm.files import digest_of_file
from odm.methods.build import build
from odm.networks import weights
from odm.networks.device import device_of
from odm.sealed import read_sealed_json
from odm.settings.suite import Settings
from odm.training import checkpoint, estimate, history
from odm.training.loop import fit
from odm.training.patches import Patches


def run(settings: Settings, name: str) -> None:
    run_settings = settings.runs[name]
    rate = settings.methods[run_settings.method].rate
    training = settings.qat.model_copy(update={"rate": rate} if rate else {})
    device = device_of(settings, training.precision)
    float_network = settings.results / "networks" / run_settings.network
    out = settings.results / "runs" / name
    checkpoints = Path("checkpoints") / settings.suite / "runs" / name

    seed = seeds.named(run_settings.seed, "training")
    batches = Patches.of(settings, run_settings.network, training, seed, device)
    network = inference.load(settings, run_settings.network, device)
    method = build(settings, run_settings, network)
    estimate.allow(settings, name, network, training, method.settings.step_cost)
    inputs = [float_network / "weights.safetensors"]
    measured = {}
    if method.needs_mismatch:
        inputs.append(float_network / "mismatch.json")
        again = f"run `odm mismatch {run_settings.network}` again"
        found = read_sealed_json(inputs[-1], again)
        measured = found.get("layers", {})
        if not set(method.names) <= measured.keys():
            raise OdmError(f"{inputs[-1]}: not of this network; {again}")
        if found.get("settings") != origin(settings, run_settings.network, "mismatch"):
            raise OdmError(f"{inputs[-1]}: measured under other settings than those in force; {again}")
    # Batches after those that training will see: calibration and training share no patch by step.
    later = range(training.steps, training.steps + training.calibration_batches)
    method.prepare(measured, (batches(step)[0] for step in later))
    network.to(device)
    method.watch()
    print(f"{name}: {len(method.layers)} layers quantized: {', '.join(method.layers)}", flush=True)

    rows = fit(
        network,
        batches,
        method.parameter_groups(training),
        training,
        method,
        checkpoints / "last.safetensors",
        checkpoint.identity(
            card(settings, "train", name).digest,
            device,
            batches.digest,
            *map(digest_of_file, inputs),
        ),
    )
    weights.save(out / "weights.safetensors", network, origin(settings, name), history=history.digest(rows))
    history.write(out / "history.csv", rows)
    shutil.rmtree(checkpoints)
    print(f"{out}/weights.safetensors: loss {rows[-1]['loss']:.3f} after {training.steps} steps")

"""`odm pretrain <network>`: train a float network."""

import shutil
from pathlib import Path

from odm import fingerprint, seeds, weights
from odm.device import device_of, placed
from odm.images.patches import Patches
from odm.images.prepared import Prepared
from odm.networks.build import build
from odm.settings import Settings
from odm.training import history
from odm.training.batches import on_device
from odm.training.loop import fit
from odm.training.objective import Objective


def run(settings: Settings, name: str) -> None:
    network_settings, training = settings.networks[name], settings.pretraining
    device = device_of(settings)
    data = settings.results / "data" / "train.safetensors"
    out = settings.results / "networks" / name
    checkpoints = Path("checkpoints") / settings.suite / "networks" / name

    network = placed(build(network_settings), device)
    patches = Patches(
        Prepared(data),
        network_settings.scale,
        training.batch,
        training.patch,
        seeds.named(network_settings.seed, "patches"),
    )
    rows = fit(
        network,
        on_device(patches, device),
        [{"params": list(network.parameters()), "lr": training.rate}],
        training,
        Objective(),
        checkpoints / "last.safetensors",
        fingerprint.identity(device, settings.threads, settings.digest_of(name), fingerprint.of_header(data)),
    )
    weights.save(out / "weights.safetensors", network, settings.digest_of(name))
    history.write(out / "history.csv", rows)
    shutil.rmtree(checkpoints)
    print(f"{out}/weights.safetensors: loss {rows[-1]['loss']:.3f} after {training.steps} steps")

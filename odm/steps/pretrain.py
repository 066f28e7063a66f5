"""`odm pretrain <network>`: train a float network, or take over one that was trained elsewhere."""

import math
import shutil
from pathlib import Path

import torch

from odm import seeds
from odm.card import card, origin
from odm.errors import OdmError
from odm.networks import weights
from odm.networks.build import build
from odm.networks.catalogue import READY
from odm.networks.device import device_of, placed
from odm.networks.ready import file_of
from odm.settings.suite import Settings
from odm.training import checkpoint, estimate, history
from odm.training.loop import fit
from odm.training.objective import Objective
from odm.training.patches import Patches


def run(settings: Settings, name: str) -> None:
    network_settings, training = settings.networks[name], settings.pretraining
    device = device_of(settings, training.precision)
    out = settings.results / "networks" / name
    checkpoints = Path("checkpoints") / settings.suite / "networks" / name

    network = build(network_settings)
    given = network_settings.weights
    if given is not None:
        network.take(file_of(given))
    network = placed(network, device)
    if given is None:
        estimate.allow(settings, name, network, training)
    batches = Patches.of(settings, name, training, seeds.named(network_settings.seed, "pretraining"), device)
    if given is not None:
        low, high = batches(0)
        with torch.no_grad():
            loss = (network.eval()(low) - high).abs().mean().item()
        if not math.isfinite(loss):
            raise OdmError(f"{given}: loss {loss:g} on a batch; look at `value_range` and at what it was trained for")
        rows = [{"step": 0, "rate": 0.0, "loss": loss}]
        weights.save(out / "weights.safetensors", network, origin(settings, name), history=history.digest(rows))
        history.write(out / "history.csv", rows)
        known = READY.get(given)
        whose = f" ({known.trained_by}; {known.terms}; {known.score})" if known else ""
        print(f"{out}/weights.safetensors: those of {given}{whose}; loss {loss:.3f} on a batch")
        return
    rows = fit(
        network,
        batches,
        [{"params": [each for each in network.parameters() if each.requires_grad], "lr": training.rate}],
        training,
        Objective(),
        checkpoints / "last.safetensors",
        checkpoint.identity(card(settings, "pretrain", name).digest, device, batches.digest),
    )
    weights.save(out / "weights.safetensors", network, origin(settings, name), history=history.digest(rows))
    history.write(out / "history.csv", rows)
    shutil.rmtree(checkpoints)
    print(f"{out}/weights.safetensors: loss {rows[-1]['loss']:.3f} after {training.steps} steps")

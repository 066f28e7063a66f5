"""What several test files try things on: a small EDSR, quantized and trained a little, and images of their own."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from odm.methods.build import method_class
from odm.methods.method import Method
from odm.methods.odm.settings import Odm, Offsets
from odm.methods.plain.settings import Plain
from odm.methods.settings import MethodSettings
from odm.networks.build import build
from odm.networks.edsr.settings import Edsr
from odm.settings.training import Qat, Run
from odm.training.checkpoint import Row
from odm.training.loop import Batches, fit

NETWORK = Edsr(backbone="edsr", channels=8, blocks=2, scale=2)
QAT = Qat(steps=12, batch=2, patch=12, rate=0.001, schedule="cosine", log_every=4, calibration_batches=4)
PLAIN = Plain(kind="plain")
ODM = Odm(kind="odm", strength=0.01, offsets=Offsets(share=0.5))

State = Mapping[str, Tensor]


def moments(few: int) -> int:
    """At how many a test of kills kills: as many as the environment says, or few."""
    return int(os.environ.get("ODM_KILLS", few))


def photographs(folder: Path, sides: tuple[int, int], side: int = 1) -> None:
    """Two images each in `mine` and `held`: so many squares, of a side in pixels, of colours drawn by one seed."""
    random = np.random.default_rng(1)
    for split in ("mine", "held"):
        (folder / split).mkdir(parents=True)
        for name in ("1", "2"):
            pixels = random.integers(0, 256, (*sides, 3), np.uint8).repeat(side, 0).repeat(side, 1)
            Image.fromarray(pixels).save(folder / split / f"{name}.png")


def quantized(
    settings: MethodSettings,
    float_state: State,
    layers: Mapping[str, Mapping[str, Any]],
    batches: Batches,
    bits: int = 2,
    **widths: int,
) -> Method:
    """As `odm train` has it before the first step."""
    network = build(NETWORK).to(memory_format=torch.channels_last)
    network.load_state_dict(float_state)
    run = Run(**{"network": "n", "method": "m", "weight_bits": bits, "activation_bits": bits} | widths)
    method = method_class(settings.kind)(network, settings, run)
    method.prepare(layers, [batches(2000 + step)[0] for step in range(QAT.calibration_batches)])
    method.watch()
    return method


def trained(method: Method, batches: Batches, saved: Path, **changes: Any) -> list[Row]:
    training = QAT.model_copy(update=changes)
    return fit(method.network, batches, method.parameter_groups(training), training, method, saved, "id")


def state(method: Method) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in method.network.state_dict().items()}


def equal(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def killed_and_resumed(make: Callable[[], Method], batches: Batches, folder: Path) -> tuple[Method, list[Row]]:
    """What is trained undisturbed, once it is seen to equal what is killed in steps of every phase and goes on."""
    whole = make()
    history = trained(whole, batches, folder / "whole")

    class Killed(Exception):  # noqa: N818
        pass

    def until(last: int) -> Batches:
        def batch(step: int) -> tuple[Tensor, Tensor]:
            if step == last:
                raise Killed
            return batches(step)

        return batch

    for last in (2, 5, 11):  # before the first checkpoint, between two, before the last step
        with pytest.raises(Killed):
            trained(make(), until(last), folder / "cut")
    resumed = make()
    assert trained(resumed, batches, folder / "cut") == history
    assert equal(state(resumed), state(whole))
    return whole, history

"""What several test files share."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from skimage import data
from torch import Tensor
from trial import NETWORK, QAT

from odm.images.prepare import write
from odm.images.prepared import Prepared
from odm.networks.build import build
from odm.networks.device import set_vectors
from odm.quantization.statistics import measured
from odm.settings.training import Training
from odm.training.loop import fit
from odm.training.objective import Objective
from odm.training.patches import Patches

set_vectors("avx2")  # as in all steps, before anything is computed


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Which tests a process has run before must not change what one draws, nor its fixtures of wider scope."""
    torch.manual_seed(int(os.environ.get("ODM_TEST_SEED", "0")))


@pytest.fixture(scope="session")
def odm_images() -> Path:
    """The folder of benchmark sets that the environment names; tests that need real ones are skipped without it."""
    folder = os.environ.get("ODM_IMAGES")
    if not folder:
        pytest.skip("ODM_IMAGES names no folder of benchmark sets")
    return Path(folder)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Last bits depend on the number of threads, and tests run side by side."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Patches:
    path = tmp_path_factory.mktemp("data") / "train.safetensors"
    write(path, {"photographs": [("chelsea", data.chelsea())]}, [2])
    return Patches(Prepared(path), 2, QAT.batch, QAT.patch, seed=3)


@pytest.fixture(scope="module")
def float_state(batches: Patches, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Of a float network that has learned a little."""
    network = build(NETWORK).to(memory_format=torch.channels_last)
    training = Training(steps=150, batch=2, patch=12, rate=0.003, schedule="cosine", log_every=150)
    groups = [{"params": list(network.parameters()), "lr": training.rate}]
    fit(network, batches, groups, training, Objective(), tmp_path_factory.mktemp("float") / "last", "float")
    return network.state_dict()


@pytest.fixture(scope="module")
def layers(batches: Patches, float_state: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
    """What the mismatch step would write of it."""
    network = build(NETWORK)
    network.load_state_dict(float_state)
    lows = [batches(1000 + step)[0] for step in range(4)]
    return measured(network, network.placement("body").layers, lows, percentile=99)

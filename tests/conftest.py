"""What several test files share."""

import os
from pathlib import Path

import pytest
import torch

from odm.networks.device import narrow_vectors

narrow_vectors()  # as in all steps, before anything is computed


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

"""`odm doctor`: what this machine has, for a report or a bug."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

from odm import __version__
from odm.networks.device import cpu_line, set_vectors

PACKAGES = ("torch", "numpy", "scikit-image", "safetensors", "snakemake", "dvc", "pydantic", "pandas", "matplotlib")


def run() -> None:
    print(f"odm {__version__}, Python {platform.python_version()} ({sys.executable}), {platform.platform()}")
    for package in PACKAGES:
        try:
            print(f"  {package} {version(package)}")
        except PackageNotFoundError:
            print(f"  {package} is missing: pip install {package}")
    set_vectors("avx2")  # the default of a suite
    print(f"CPU: {cpu_line()}")
    print(f"threads: torch takes {torch.get_num_threads()} unless the settings say otherwise")
    print(f"  OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}")
    count = torch.cuda.device_count()
    for index in range(count):
        properties = torch.cuda.get_device_properties(index)
        print(f"GPU cuda:{index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    if not count:
        print("GPU: none that torch can use")

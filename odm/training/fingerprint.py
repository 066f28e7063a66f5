"""What a training run depends on, as one digest: a checkpoint is gone on with only where it is the same."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from odm.errors import OdmError
from odm.settings import digest


def of_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise OdmError(
            f"{path}: no such file; run the step that writes it (`snakemake --cores 2 all` runs all)"
        ) from None


def of_header(path: Path) -> str:
    """Digest of a safetensors header: for prepared images it holds the digest of each, and is short."""
    try:
        with path.open("rb") as file:
            return hashlib.sha256(file.read(int.from_bytes(file.read(8), "little"))).hexdigest()
    except FileNotFoundError:
        raise OdmError(f"{path}: no such file; run `odm data {path.stem}`") from None


def identity(device: torch.device, threads: int, *parts: Any) -> str:
    """Digest of settings and files' digests, with the device, threads and torch that last bits depend on."""
    return digest(device.type, threads, torch.__version__, *parts)

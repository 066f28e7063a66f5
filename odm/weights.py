"""Stored weights: written contiguous, read back with one clear line when they are missing or damaged."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from odm.errors import OdmError
from odm.files import write_tensors


def save(path: Path, network: nn.Module) -> None:
    write_tensors(path, {key: value.cpu().contiguous() for key, value in network.state_dict().items()})


def load(path: Path) -> dict[str, Tensor]:
    """State of a network as `save` wrote it."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise OdmError(
            f"{path}: no such file; train it first (`snakemake --cores 2 all` runs what is missing)"
        ) from None
    except SafetensorError:
        raise OdmError(f"{path}: damaged; remove it and train again") from None
    except OSError as error:
        raise OdmError(f"{path}: cannot be read: {error.strerror or error}") from None


def load_into(network: nn.Module, path: Path) -> None:
    """Load weights that must fit the network key by key and shape by shape."""
    try:
        network.load_state_dict(load(path))
    except RuntimeError:
        raise OdmError(f"{path}: does not fit the network in the settings; remove it and train again") from None

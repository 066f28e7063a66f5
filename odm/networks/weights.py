"""Stored weights, with the digest of the settings they were trained under; one clear line when they will not do."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from odm.errors import OdmError
from odm.files import write_tensors


def save(path: Path, network: nn.Module, settings: str) -> None:
    """Write a network's state; `settings` is the digest that `load` will ask for."""
    state = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
    write_tensors(path, state, {"settings": settings})


def load(path: Path, settings: str) -> dict[str, Tensor]:
    """State of a network as `save` wrote it. OdmError if it is missing, damaged or of other settings."""
    try:
        with safe_open(path, framework="pt") as file:
            trained_under = (file.metadata() or {}).get("settings")
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise OdmError(
            f"{path}: no such file; train it first (`snakemake --cores 2 all` runs what is missing)"
        ) from None
    except SafetensorError:
        raise OdmError(f"{path}: damaged; remove it and train again") from None
    except OSError as error:
        raise OdmError(f"{path}: cannot be read: {error.strerror or error}") from None
    if trained_under != settings:
        raise OdmError(f"{path}: trained under other settings than those in force; train it again")
    return state

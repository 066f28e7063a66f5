"""Stored weights, with the digest of the settings they were trained under; one clear line when they will not do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn

from odm.errors import OdmError
from odm.files import unreadable
from odm.sealed import DamagedError, read_tensors, write_tensors


def save(path: Path, network: nn.Module, settings: str, **notes: str) -> None:
    """Write a network's state; `settings` is the digest that `load` will ask for, `notes` go into the header too."""
    state = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
    write_tensors(path, state, {"settings": settings, **notes})


def load(path: Path, settings: str) -> dict[str, Tensor]:
    """State of a network as `save` wrote it. OdmError if it is missing, damaged or of other settings."""
    try:
        metadata, state = read_tensors(path)
    except FileNotFoundError:
        raise OdmError(
            f"{path}: no such file; train it first (`snakemake --cores 2 all` runs what is missing)"
        ) from None
    except DamagedError:
        raise OdmError(f"{path}: damaged; remove it and train again") from None
    except OSError as error:
        raise unreadable(path, error) from None
    if metadata.get("settings") != settings:
        raise OdmError(f"{path}: trained under other settings than those in force; train it again")
    return state


def put(path: Path, settings: str, network: nn.Module) -> None:
    """Load them into the network that they are of."""
    with fitting(path):
        network.load_state_dict(load(path, settings))


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Turns what torch says of a state that is not the network's, names or shapes, into an OdmError of one line."""
    try:
        yield
    except RuntimeError as error:
        first = next((line.strip() for line in str(error).splitlines()[1:]), str(error))
        raise OdmError(f"{path}: does not fit the network: {first.rstrip('. ')}; remove it and train again") from None

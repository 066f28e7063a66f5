"""Trained networks that stand alone: one file with all that building one takes, what it scores and on which terms.

Those in the package's folder `shipped` come with it.
"""

from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError

from odm.errors import OdmError
from odm.files import unreadable
from odm.methods.build import method_class
from odm.networks.backbone import Backbone
from odm.networks.build import build
from odm.networks.device import placed
from odm.networks.weights import fitting
from odm.sealed import DamagedError, read_metadata, read_tensors, write_tensors
from odm.settings.suite import Method, Network
from odm.settings.training import Qat, Run

SHIPPED = Path(__file__).parent / "shipped"
DEFAULT = "edsr_f32b5_x2_w4a4_odm"
"""Of those that are shipped, the one for photographs of which nothing else is said."""
KEY = "model"


class Model(BaseModel):
    """What a file says of its network."""

    name: str
    network: Network
    method: Method | None
    """None for a float network, which has no run either."""
    run: Run | None
    starts_from: str = ""
    """Whose float network it was before any of ours, and on which terms; empty for one that we trained."""
    training: Qat | None = None
    """None where that is not known, and for a float network."""
    trained_on: list[str]
    """Sets of images, of the quantization-aware training; a network that was taken over has been trained before."""
    scores: dict[str, dict[str, float]]
    """`psnr` (dB) and `ssim` by test set, means over its images."""
    settings: str
    """Digest of the settings that it was trained under."""
    licence: str


def shipped() -> dict[str, Path]:
    """The networks that come with the package, by name."""
    return {file.stem: file for file in sorted(SHIPPED.glob("*.safetensors"))}


def write(path: Path, model: Model, network: Backbone) -> None:
    """Write a network with what is to be said of it; equal ones give equal bytes."""
    state = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
    write_tensors(path, state, {KEY: model.model_dump_json()})


def about(path: Path) -> Model:
    """What a file says of itself, once all of it has been compared with its digest. OdmError as `load`."""
    return _parsed(path, _opened(path, read_metadata))


def load(path: Path, device: torch.device) -> Backbone:
    """The network of a file, ready for `inference.upscale`. OdmError if the file is missing, damaged or another's."""
    metadata, state = _opened(path, read_tensors)
    model = _parsed(path, metadata)
    network = build(model.network)
    with fitting(path):
        if model.method and model.run:
            method_class(model.method.kind)(network, model.method, model.run).restore(state)
        else:
            network.load_state_dict(state)
    return placed(network, device).eval()


def _opened(path: Path, how: Any) -> Any:
    try:
        return how(path)
    except FileNotFoundError:
        raise OdmError(f"{path}: no such file; `odm ship <run>` writes one") from None
    except DamagedError:
        raise OdmError(f"{path}: damaged, or none of `odm ship`; take it anew from where it came") from None
    except OSError as error:
        raise unreadable(path, error) from None


def _parsed(path: Path, metadata: dict[str, str]) -> Model:
    try:
        return Model.model_validate_json(metadata[KEY])
    except (KeyError, ValidationError):
        raise OdmError(f"{path}: does not say what network it is; `odm ship <run>` writes files that do") from None

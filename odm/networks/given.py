"""Weights that were trained elsewhere: read whatever they are kept in, and fitted to a network or refused."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from odm.errors import OdmError

# Where checkpoints of other trainers keep the weights, the averaged ones first.
NESTS = ("params_ema", "params", "state_dict", "model_state_dict", "model")
# How many of them are opened, one in the other.
DEEPEST = 4
# What wrappers of torch put before each key: DataParallel, and torch.compile, which wraps inner modules too.
WRAPPER, COMPILED = "module.", "_orig_mod."


def read(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a checkpoint of torch, in which nothing but weights is unpickled.

    OdmError if it is neither, damaged, or holds anything else.
    """
    try:
        content = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except FileNotFoundError:
        raise OdmError(f"{file}: no such file; correct `weights`") from None
    except SafetensorError:
        raise OdmError(f"{file}: damaged, or no safetensors file") from None
    except Exception:  # whatever unpickling meets
        raise OdmError(
            f"{file}: damaged, or no checkpoint of weights alone (nothing else is unpickled); "
            "save `network.state_dict()` anew"
        ) from None
    for _ in range(DEEPEST):
        inner = [content[nest] for nest in NESTS if nest in content] if isinstance(content, Mapping) else []
        content = next((each for each in inner if isinstance(each, Mapping) and each), content)
    if not isinstance(content, Mapping) or not content:
        raise OdmError(f"{file}: holds no weights by name; save `network.state_dict()`")
    for key, value in content.items():
        if not isinstance(key, str):
            raise OdmError(f"{file}: {key!r} is no name of a tensor; save `network.state_dict()`")
        if not isinstance(value, Tensor):
            raise OdmError(f"{file}: '{key}' is no tensor but {type(value).__name__}; save `network.state_dict()`")
    return dict(content)


def _unwrapped(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by the network's own keys, whatever it was wrapped in as they were saved."""
    if not any(COMPILED in key for key in own):
        given = {key.replace(COMPILED, ""): value for key, value in given.items()}
    if all(key.startswith(WRAPPER) for key in given) and not all(key.startswith(WRAPPER) for key in own):
        given = {key.removeprefix(WRAPPER): value for key, value in given.items()}
    return dict(given)


def _unfit(value: Tensor, place: Tensor) -> str | None:
    """Why a stored tensor, of the right shape, cannot be what the network computes with."""
    if value.is_meta:
        return "has a shape but no values (a meta tensor)"
    if value.layout != torch.strided or value.is_nested:
        return f"is not dense ({value.layout})"
    # Of floats the eight-bit ones and their like are codes that need a scale from elsewhere.
    if value.is_quantized or (value.is_floating_point() and value.dtype.itemsize < 2):
        return f"is quantized already ({value.dtype})"
    if value.is_floating_point() != place.is_floating_point() or value.is_complex() != place.is_complex():
        return f"is of {value.dtype}, not {place.dtype}"
    return None


def _first(keys: list[str]) -> str:
    return f"'{keys[0]}'" + (f" (and {len(keys) - 1} more)" if len(keys) > 1 else "")


def fit(
    network: nn.Module,
    file: Path,
    given: Mapping[str, Tensor],
    name: str,
    advice: str,
    named: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict,
) -> None:
    """Load what a file gave, once it is `named` as the network has it. OdmError, in which `name` calls the network,
    unless each tensor has its place and each place its tensor, of plain finite floats."""
    own = network.state_dict()
    given = named(_unwrapped(given, own))
    missing = [key for key in own if key not in given]
    unknown = [key for key in given if key not in own]
    complaints = []
    if missing:
        complaints.append(f"it lacks {_first(missing)}")
    if unknown:
        complaints.append(f"has an unknown {_first(unknown)}")
    if not complaints:
        complaints = [
            f"'{key}' is of shape {tuple(value.shape)}, not {tuple(own[key].shape)}"
            for key, value in given.items()
            if value.shape != own[key].shape
        ][:1]
    if complaints:
        raise OdmError(f"{file}: does not fit {name}: {' and '.join(complaints)}; {advice}")
    for key, value in given.items():
        if why := _unfit(value, own[key]):
            raise OdmError(f"{file}: '{key}' {why}; save plain, dense tensors, such as `value.float()`")
        if not value.isfinite().all():
            raise OdmError(f"{file}: '{key}' holds values that are not finite")
    network.load_state_dict(given)

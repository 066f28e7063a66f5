"""Checkpoints: one safetensors file a job, whole or not there, never pickle."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from odm.files import unreadable
from odm.sealed import DamagedError, read_tensors, write_tensors

Row = dict[str, float]


def identity(card: str, device: torch.device, *inputs: str) -> str:
    """All that a training's steps depend on: a checkpoint is gone on with only where it is the same.

    Args:
        card: digest of the job's card.
        inputs: digests of the files that it reads.
    """
    return " ".join([card, device.type, torch.__version__, *inputs])  # last bits differ between versions of torch


def save(
    path: Path, identity: str, step: int, network: nn.Module, optimizer: torch.optim.Optimizer, history: list[Row]
) -> None:
    """Write everything that the next `step` steps depend on; draws need no state, they are functions of the step."""
    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    write_tensors(path, tensors, {"identity": identity, "step": str(step), "history": json.dumps(history)})


def load(path: Path, identity: str, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, list[Row]]:
    """Put a checkpoint back; returns the step to go on with and the history so far.

    One that is absent, damaged or of other settings (`identity`) is not used: the answer is then (0, []).
    """
    try:
        metadata, tensors = read_tensors(path)
    except FileNotFoundError:
        return 0, []
    except DamagedError:
        print(f"{path}: damaged; starting anew", flush=True)
        return 0, []
    except OSError as error:
        raise unreadable(path, error) from None
    if metadata.get("identity") != identity:
        print(f"{path}: of other settings or inputs; starting anew", flush=True)
        return 0, []
    # Channels last as the network has them: another layout may take other code paths, and those other last bits.
    tensors = {
        key: value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
        for key, value in tensors.items()
    }
    state = {key.removeprefix("network."): t for key, t in tensors.items() if key.startswith("network.")}
    own = network.state_dict()
    if {key: t.shape for key, t in state.items()} != {key: t.shape for key, t in own.items()}:
        # Before anything is put: a part of it would stay in what starts anew.
        print(f"{path}: of another network; starting anew", flush=True)
        return 0, []
    network.load_state_dict(state)
    states: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            states.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(metadata["step"]), json.loads(metadata["history"])

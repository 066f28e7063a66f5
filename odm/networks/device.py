"""Where a job computes: the device of the settings, the one thread a job, and vectors of one width."""

import os
import platform
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from odm.errors import OdmError
from odm.settings.suite import Settings

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def device_of(settings: Settings, precision: str = "float32") -> torch.device:
    """The device a job runs on; also sets what results depend on in the last bits: the width of vectors, the number of
    CPU threads, and on a GPU the precision and that kernels add up in one order. To be asked before all computing."""
    set_vectors(settings.vectors)
    torch.set_num_threads(settings.threads)
    name = settings.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise OdmError(
            f"device: {name} is asked for but {torch.cuda.device_count()} GPUs are visible; see `odm doctor`"
        )
    if device.type == "cpu" and precision == "tf32":
        raise OdmError(f"precision: {precision} is for GPUs, and the device is a CPU; say `precision: float32`")
    if precision == "bfloat16":
        _refuse_emulation(device, settings.vectors)
    if device.type == "cpu" and vectors() == "avx512" and (settings.pretraining.compile or settings.qat.compile):
        raise OdmError("compile: with vectors of AVX-512 torch's compiled steps corrupt memory; say `compile: false`")
    # torch's own default is TF32 in convolutions.
    torch.backends.fp32_precision = "tf32" if precision == "tf32" else "ieee"  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = True
    return device


def set_vectors(width: str) -> None:
    """Have a CPU with AVX-512 add up in the order of one with AVX2 (`avx2`), so that both come to the same last bits,
    or with all it has (`native`), whatever the environment says: a job's card names the width.

    A process heeds it until its first computation; OdmError after one of another width.
    """
    if not torch.cpu._is_avx512_supported():
        return
    for key, narrow in (("ATEN_CPU_CAPABILITY", "avx2"), ("ONEDNN_MAX_CPU_ISA", "AVX2")):
        os.environ.pop(key, None)
        if width == "avx2":
            os.environ[key] = narrow
    if vectors() != ("avx2" if width == "avx2" else "avx512"):
        raise OdmError(f"vectors: {width} is asked for in a process that has computed with {vectors()} already")


def vectors() -> str:
    """The vectors that torch computes with, which this fixes for the process."""
    return torch.backends.cpu.get_cpu_capability().lower()


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies numbers of bfloat16 itself."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _refuse_emulation(device: torch.device, width: str) -> None:
    """OdmError where bfloat16 would be emulated, which is slower than float32."""
    if not has_bfloat16(device):
        raise OdmError(f"precision: bfloat16 would be emulated on this {device.type}; say `precision: float32`")
    if device.type == "cpu" and width != "native":
        raise OdmError("precision: bfloat16 wants vectors of AVX-512 on a CPU; say `vectors: native`, or float32")


def placed(network: AnyModule, device: torch.device) -> AnyModule:
    """The network on the device, channels last: the layout that convolutions and the quantizer are fastest in."""
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def usable_cores() -> int:
    """How many cores this process may compute on; not every system limits them, or tells."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def cpu_line() -> str:
    """The processor, as jobs here use it."""
    return f"{cpu_name()}; {usable_cores()} of {os.cpu_count()} cores usable"


def cpu_name() -> str:
    """The processor's own name and the widest vector instructions that torch uses on it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"

"""A trained network by the name it has in the settings, and images through it."""

import ctypes
import os
import platform
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from odm.card import origin
from odm.errors import OdmError
from odm.methods.build import build as build_method
from odm.networks import weights
from odm.networks.backbone import Backbone
from odm.networks.build import build as build_network
from odm.networks.device import placed
from odm.networks.reach import reach
from odm.settings.suite import Settings

Image = NDArray[np.uint8]
WINDOW = 512
"""Side, in low-resolution pixels, from which images go in parts: about a gigabyte for 64 channels."""
# Of malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def load(settings: Settings, name: str, device: torch.device) -> Backbone:
    """A float network or a quantized run of the suite, ready for `upscale`."""
    if name in settings.floats:
        network = build_network(settings.network_of(name))
        path = settings.results / "networks" / name / "weights.safetensors"
        weights.put(path, origin(settings, name), network)
    else:
        run = settings.runs[name]
        path = settings.results / "runs" / name / "weights.safetensors"
        network = build_network(settings.network_of(run.network))
        state = weights.load(path, origin(settings, name))
        with weights.fitting(path):
            build_method(settings, run, network).restore(state)
    return placed(network, device).eval()


@torch.inference_mode()
def upscale(network: Backbone, image: Image, what: str = "the network", window: int = WINDOW) -> Image:
    """A low-resolution image, uint8 of shape (H, W, 3) or (H, W), through a network; rounded to uint8.

    Grey images go through as three equal channels and come back as (H, W, 3). Larger ones than `window` go in parts,
    with as much around them as counts (`reach`), where that is known: to the same bytes, in the memory of a part.
    OdmError, which begins with `what`, if a value of the output is not finite: rounded it would be one like any other.
    """
    keep_memory()
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    (height, width), scale, known = image.shape[:2], network.scale, reach(network)
    device = next(network.parameters()).device
    around = known or 0
    output = np.empty((height * scale, width * scale, 3), np.uint8)
    rows, columns = [(0, height)], [(0, width)]
    if known is not None:
        # By area: torch takes other kernels for what is very small, and those may come to other last bits.
        rows, columns = (
            _parts(side, window**2 // min(window, other)) for side, other in ((height, width), (width, height))
        )
    for top, bottom in rows:
        for left, right in columns:
            above, before = max(0, top - around), max(0, left - around)
            part = image[above : bottom + around, before : right + around]
            x = torch.tensor(part, dtype=torch.float32, device=device).permute(2, 0, 1)[None]
            y = network(x.contiguous(memory_format=torch.channels_last))
            if not y.isfinite().all():
                raise OdmError(
                    f"{what}: the output is not finite: the weights are broken; train it again, at a lower rate"
                )
            y = y[0].permute(1, 2, 0)[(top - above) * scale :, (left - before) * scale :]
            y = y[: (bottom - top) * scale, : (right - left) * scale]
            output[top * scale : bottom * scale, left * scale : right * scale] = (
                y.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
            )
    return output


@cache
def keep_memory() -> None:
    """Have the C library give memory that is free again to the next layer instead of back to the system, which clears
    every page anew: a quarter of the time that large images take. What the environment says of it is left as it is."""
    told = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"} & os.environ.keys()
    if platform.libc_ver()[0] == "glibc" and not told:
        library = ctypes.CDLL(None)
        for threshold in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            library.mallopt(threshold, 2**31 - 1)


def _parts(side: int, most: int) -> list[tuple[int, int]]:
    """A side in as few parts of at most so many pixels as there can be, about equal: first and end of each."""
    count = -(-side // most)
    ends = [side * part // count for part in range(count + 1)]
    return list(pairwise(ends))

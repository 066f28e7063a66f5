"""A trained network by the name it has in the settings, and images through it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from odm.card import origin
from odm.errors import OdmError
from odm.methods.build import build as build_method
from odm.networks import weights
from odm.networks.backbone import Backbone
from odm.networks.build import build as build_network
from odm.networks.device import placed
from odm.settings.suite import Settings

Image = NDArray[np.uint8]


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
def upscale(network: nn.Module, image: Image, what: str = "the network") -> Image:
    """A low-resolution image, uint8 of shape (H, W, 3) or (H, W), through a network; rounded to uint8.

    Grey images go through as three equal channels and come back as (H, W, 3). OdmError, which begins with `what`, if a
    value of the output is not finite: rounded it would be one like any other.
    """
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    device = next(network.parameters()).device
    x = torch.tensor(image, dtype=torch.float32, device=device).permute(2, 0, 1)[None]
    y = network(x.contiguous(memory_format=torch.channels_last))
    if not y.isfinite().all():
        raise OdmError(f"{what}: the output is not finite: the weights are broken; train it again, at a lower rate")
    return y[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).cpu().numpy()

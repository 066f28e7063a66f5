"""What each range of the weights costs a network before any training: the choice of f(W), seen in seconds."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from odm.quantization.quantizer import WeightQuantizer

# Those without a gradient of their own that are worth choosing between; the percentile is the settings' default.
RULES = ("max", "percentile", "mse")
BITS = (4, 2)


@torch.no_grad()
def psnr_by_range(
    network: nn.Module, names: Sequence[str], pairs: Iterable[tuple[Tensor, Tensor]]
) -> dict[tuple[str, int], float]:
    """PSNR in dB, by rule and bits, of a float network whose named layers have their weights quantized and nothing
    else; under ("float", 32) that of the network as it is. Over all values of all channels, clipped to 0-255: not that
    of the tables, which is of luma. The network stays as it is.

    Args:
        names: of convolutions and linear layers.
        pairs: (low, high) of shapes (N, 3, H, W) and (N, 3, scale H, scale W), in 0-255.
    """
    quantized: dict[tuple[str, int], dict[str, Tensor]] = {("float", 32): {}}
    for rule in RULES:
        for bits in BITS:
            quantizer = WeightQuantizer(bits, rule)
            quantized[rule, bits] = {
                f"{name}.weight": quantizer(network.get_submodule(name).get_parameter("weight")) for name in names
            }
    training = network.training
    network.eval()
    errors: dict[tuple[str, int], list[Tensor]] = {key: [] for key in quantized}
    try:
        for low, high in pairs:
            for key, weights in quantized.items():
                output = torch.func.functional_call(network, weights, (low,))
                errors[key].append((output.clamp(0, 255) - high).square().mean())
    finally:
        network.train(training)
    means = {key: torch.stack(each).mean().item() for key, each in errors.items()}
    return {key: 10 * math.log10(255**2 / error) if error else math.inf for key, error in means.items()}

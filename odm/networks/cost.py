"""What a network costs, computed from its graph: parameters, storage, multiplications and bit operations."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from odm.networks.backbone import Backbone, Product
from odm.quantization.layer import FLOAT_BITS, QuantizedLayer
from odm.quantization.part import ActivationQuantizer, Part

# The output that operations are counted for, as the literature does: 1280 x 720.
REFERENCE_PIXELS = 1280 * 720
# Least side of the image that is really run; padding makes counts proportional to the area.
PROBE = 24


@dataclass(frozen=True)
class Cost:
    """Of one network.

    parameters: learned numbers of the float network.
    storage_k: thousands of 32-bit equivalents; a quantized weight counts as bits / 32, all else as 1.
    extra_storage_k: the same unit, for what quantization adds: bounds, gammas and ranges of channels as 1,
        offsets as their bits / 32.
    gmac: 10^9 multiply-accumulates of convolutions, linear layers and products of attention for a 1280x720 output.
    bitops_t: 10^12 bit operations for it: a multiply-accumulate counts as weight bits x activation bits,
        those of attention, which stays float, as 32 x 32.
    extra_bitops_t: the same unit, for the float operations in which some quantizers find their levels at test time.
    """

    parameters: int
    storage_k: float
    extra_storage_k: float
    gmac: float
    bitops_t: float
    extra_bitops_t: float


def cost(network: Backbone) -> Cost:
    """Count a float or quantized network of `scale`; nothing is learned or changed."""
    layers = [module for module in network.modules() if isinstance(module, QuantizedLayer)]
    wrapped = {layer.layer for layer in layers}
    extras = [module for module in network.modules() if isinstance(module, Part)]
    extra_parameters = {parameter for part in extras for parameter in part.parameters()}
    parameters = sum(each.numel() for each in network.parameters() if each not in extra_parameters)
    saved = sum(layer.layer.weight.numel() * (1 - layer.bits[0] / FLOAT_BITS) for layer in layers)

    macs: dict[nn.Module, int] = {}

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, Product):
            each = inputs[0].shape[-1]
        elif isinstance(module, nn.ConvTranspose2d):  # each value of its input meets all its weights
            macs[module] = macs.get(module, 0) + inputs[0].numel() * module.weight[0].numel()
            return
        else:
            layer = module.layer if isinstance(module, QuantizedLayer) else module
            each = layer.weight[0].numel()  # type: ignore[index]
        macs[module] = macs.get(module, 0) + output.numel() * each

    extra_operations = 0

    def count_extra(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal extra_operations
        assert isinstance(module, ActivationQuantizer)
        extra_operations += output.numel() * module.operations()

    kinds = QuantizedLayer | nn.Conv2d | nn.ConvTranspose2d | nn.Linear | Product
    counted = [each for each in network.modules() if isinstance(each, kinds) and each not in wrapped]
    side = math.ceil(PROBE / network.multiple) * network.multiple  # as windows fill a large image
    training = network.training
    network.eval()
    handles = [module.register_forward_hook(count) for module in counted]
    handles += [
        module.register_forward_hook(count_extra) for module in extras if isinstance(module, ActivationQuantizer)
    ]
    try:
        with torch.inference_mode():
            network(next(network.parameters()).new_zeros(1, 3, side, side))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    extra = sum(each.storage() for each in extras)  # some is known once it has run
    to_reference = REFERENCE_PIXELS / (side * network.scale) ** 2

    def bits(module: nn.Module) -> int:
        return math.prod(module.bits) if isinstance(module, QuantizedLayer) else FLOAT_BITS**2

    return Cost(
        parameters=parameters,
        storage_k=(parameters - saved) / 1e3,
        extra_storage_k=extra / 1e3,
        gmac=sum(macs.values()) * to_reference / 1e9,
        bitops_t=sum(each * bits(module) for module, each in macs.items()) * to_reference / 1e12,
        extra_bitops_t=extra_operations * FLOAT_BITS**2 * to_reference / 1e12,
    )

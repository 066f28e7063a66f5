"""What `odm mismatch` would write of a network's layers, for tests that start from a network and not from files."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from odm.networks.backbone import Backbone
from odm.quantization.statistics import average, observe, of_activation

KEYS = ("mean_mismatch", "deviation_mismatch", "mean", "deviation")


def measured(network: Backbone, lows: Iterable[Tensor]) -> dict[str, dict[str, Any]]:
    """By layer, over low-resolution batches (N, 3, H, W)."""
    found = observe(network, network.placement("body").layers, lows, lambda _, x: of_activation(x, 99))
    means = {name: average(each) for name, each in found.items()}
    return {
        name: {key: getattr(mean, key) for key in KEYS}
        | {"channel_means": mean.channel_means.tolist(), "channel_deviations": mean.channel_deviations.tolist()}
        for name, mean in means.items()
    }

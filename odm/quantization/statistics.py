"""What calibration and the mismatch measurement learn of a float network's activations."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


@dataclass
class Statistics:
    """One layer's input, of a batch or averaged over batches; vectors have shape (C,), all in units of the feature."""

    channel_means: Tensor
    channel_deviations: Tensor
    mean: float
    deviation: float
    lower: float
    upper: float

    @property
    def mean_mismatch(self) -> float:
        """Spread over channels of the channel means."""
        return self.channel_means.std(correction=0).item()

    @property
    def deviation_mismatch(self) -> float:
        """Spread over channels of the channel deviations."""
        return self.channel_deviations.std(correction=0).item()

    def record(self) -> dict[str, Any]:
        """As mismatch.json has it."""
        return {
            "mean_mismatch": self.mean_mismatch,
            "deviation_mismatch": self.deviation_mismatch,
            "mean": self.mean,
            "deviation": self.deviation,
            "lower": self.lower,
            "upper": self.upper,
            "channel_means": self.channel_means.tolist(),
            "channel_deviations": self.channel_deviations.tolist(),
        }


def channels_first(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer's input with its channels on axis 1, as everything that looks at activations has them.

    That of a linear layer, shape (N, ..., C), comes as (N, C, places, 1); any other as it is.
    """
    return x.reshape(len(x), -1, x.shape[-1]).transpose(1, 2)[..., None] if isinstance(layer, nn.Linear) else x


def of_activation(x: Tensor, percentile: float) -> Statistics:
    """Statistics of one batch, shape (N, C, H, W); `percentile` and its mirror bound the range."""
    channel_deviations, channel_means = torch.std_mean(x, dim=(0, 2, 3), correction=0)
    deviation, mean = torch.std_mean(x, correction=0)
    lower, upper = range_of(x, percentile)
    return Statistics(channel_means, channel_deviations, mean.item(), deviation.item(), lower, upper)


def percentile_of(x: Tensor, percentile: float) -> Tensor:
    """Along the last axis, interpolated between the two nearest ranks, as NumPy and `torch.quantile` do, of which the
    latter takes no more than 16 million values. It has a gradient, to the values of both ranks."""
    place = percentile / 100 * (x.shape[-1] - 1)
    below = int(place)
    lower = x.kthvalue(below + 1).values
    if below == place:
        return lower
    return torch.lerp(lower, x.kthvalue(below + 2).values, place - below)


def range_of(x: Tensor, percentile: float) -> tuple[float, float]:
    """The given percentile's mirror and the percentile itself, over all elements of x."""
    lower, upper = (percentile_of(x.flatten(), each).item() for each in (100 - percentile, percentile))
    return lower, upper


def ranges_of(x: Tensor, percentile: float) -> Tensor:
    """The same for each channel of x, shape (N, C, H, W); shape (2, C)."""
    flat = x.transpose(0, 1).flatten(1)
    return torch.stack([percentile_of(flat, each) for each in (100 - percentile, percentile)])


@torch.no_grad()
def observe(
    network: nn.Module, names: Iterable[str], batches: Iterable[Tensor], measure: Callable[[str, Tensor], T]
) -> dict[str, list[T]]:
    """Run batches through a float network and measure the input of each named layer: a list, one entry a batch.

    Inputs come as of `channels_first`. The network is in evaluation mode meanwhile, so that it stays as it is.
    """
    training = network.training
    network.eval()
    found: dict[str, list[T]] = {name: [] for name in names}
    handles = [
        network.get_submodule(name).register_forward_pre_hook(
            lambda module, inputs, name=name: found[name].append(measure(name, channels_first(module, inputs[0])))
        )
        for name in found
    ]
    try:
        for batch in batches:
            network(batch)
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return found


def average(batches: list[Statistics]) -> Statistics:
    """Plain means over batches."""

    def mean(key: str) -> float:
        return sum(getattr(one, key) for one in batches) / len(batches)

    return Statistics(
        torch.stack([one.channel_means for one in batches]).mean(0),
        torch.stack([one.channel_deviations for one in batches]).mean(0),
        mean("mean"),
        mean("deviation"),
        mean("lower"),
        mean("upper"),
    )


def measured(
    network: nn.Module, names: Iterable[str], batches: Iterable[Tensor], percentile: float
) -> dict[str, dict[str, Any]]:
    """The record of each named layer of a float network, over low-resolution batches (N, 3, H, W)."""
    found = observe(network, names, batches, lambda _name, x: of_activation(x, percentile))
    return {name: average(of_batches).record() for name, of_batches in found.items()}

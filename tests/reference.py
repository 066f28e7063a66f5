"""The quantizers' formulas in float64 NumPy, written apart from the package, and tensors that are hard on them.

Sums, deviations and percentiles are those of a whole population; percentiles are interpolated.
"""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
TINY = 1e-8


def tensors() -> dict[str, Array]:
    """By name, each of shape (2, 4, 6, 6)."""
    random = np.random.default_rng(7)
    mixed = random.normal(0.3, 2.0, (2, 4, 6, 6)) * np.array([0.2, 1, 3, 1]).reshape(1, 4, 1, 1)
    rectified = np.maximum(mixed, 0)
    outlier = mixed.copy()
    outlier[1, 2, 3, 3] = 500
    empty = mixed.copy()
    empty[:, 1] = 0
    empty_rectified = rectified.copy()
    empty_rectified[:, 1] = 0
    alone = empty_rectified.copy()
    alone[0, 1, 2, 2] = 3
    return {
        "random": mixed,
        "rectified": rectified,
        "constant": np.full_like(mixed, 0.75),
        "zero": np.zeros_like(mixed),
        "all negative": -np.abs(mixed) - 0.1,
        "one outlier": outlier,
        "empty channel": empty,
        "empty channel, rectified": empty_rectified,
        "one positive value in a channel": alone,
    }


def percentile(x: Array, share: float) -> tuple[float, float]:
    """The percentile's mirror and the percentile."""
    lower, upper = np.percentile(x, [100 - share, share])
    return lower, upper


def uniform(x: Array, lower: float, upper: float, bits: int) -> Array:
    """Eq. 1."""
    step = (upper - lower) / (2**bits - 1)
    return np.round((np.clip(x, lower, upper) - lower) / step) * step + lower


def pams(x: Array, alpha: float, bits: int) -> Array:
    n = 2 ** (bits - 1) - 1
    return np.round(np.maximum(np.minimum(x, alpha), -alpha) * n / alpha) * alpha / n


def pams_weights(weight: Array, bits: int) -> Array:
    n = 2 ** (bits - 1) - 1
    m = np.abs(weight).max() + TINY
    return np.round(weight * n / m) * m / n


def pams_gradients(x: Array, alpha: float, bits: int) -> tuple[Array, Array]:
    """Of the value, to x and to alpha."""
    n = 2 ** (bits - 1) - 1
    inside = np.abs(x) <= alpha
    v = x * n / alpha
    return inside.astype(float), np.where(inside, (np.round(v) - v) / n, np.sign(x))


def mid_rise(x: Array, step: float | Array, bits: int) -> Array:
    most = (2 ** (bits - 1) - 0.5) * step
    return np.clip((np.round(x / step + 0.5) - 0.5) * step, -most, most)


def daq_weights(weight: Array, bits: int, k: float) -> Array:
    return mid_rise(weight, max(k * weight.std(), TINY), bits)


def daq(x: Array, bits: int, deviation_bits: int, k: float, deviation_k: float, bounded: bool) -> Array:
    """Image by image and channel by channel."""
    rectified = x.min() == 0
    found = np.empty_like(x)
    for image in range(x.shape[0]):
        channels = range(x.shape[1])
        seen = [x[image, c][x[image, c] > 0] if rectified else x[image, c] for c in channels]
        deviations = np.array([each.std() if each.size else 0.0 for each in seen])
        centre = deviations.mean()
        coarse = mid_rise(deviations - centre, max(deviation_k * deviations.std(), TINY), deviation_bits)
        for c in channels:
            step = max(k * abs(centre + coarse[c]), TINY)
            if rectified:
                level = np.round(x[image, c] / step)
                found[image, c] = step * (np.clip(level, 0, 2**bits - 1) if bounded else level)
            else:
                mean = x[image, c].mean()
                found[image, c] = mean + mid_rise(x[image, c] - mean, step, bits)
    return found


def ddtb(x: Array, lower: float, upper: float, bits: int) -> Array:
    """Halves are rounded up; no more than 2^b levels, from that of the lower bound on."""
    n = 2**bits - 1
    factor = n / max(upper - lower, TINY)
    lowest = math.floor(factor * lower + 0.5)
    level = np.floor(factor * np.clip(x, lower, upper) + 0.5)
    return np.clip(level, lowest, lowest + n) / factor


def ddtb_weights(weight: Array, bits: int, share: float) -> Array:
    return ddtb(weight, *percentile(weight, share), bits)


def ddtb_gradients(x: Array, lower: float, upper: float, bits: int) -> tuple[Array, Array, Array]:
    """Of the value, to x, to the lower and to the upper bound."""
    below, above = x < lower, x > upper
    apart = (ddtb(x, lower, upper, bits) - np.clip(x, lower, upper)) / (upper - lower)
    return (~(below | above)).astype(float), below - apart, above + apart


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def attention(features: Array) -> Array:
    """Shape (N, H W)."""
    maps = (features**2).mean(1).reshape(len(features), -1)
    return maps / np.sqrt((maps**2).sum(1, keepdims=True))

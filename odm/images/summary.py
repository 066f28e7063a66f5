"""summary.json: what `dvc metrics show` has room for."""

from collections.abc import Mapping
from statistics import mean
from typing import Any


def of(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The means over each set, and costs, of what a metrics.json holds. It follows from that one, and so has no digest
    of its own, which would stand among DVC's metrics."""
    scores = metrics["scores"]
    means = {
        key: {each: round(mean(image[key] for image in images.values()), 4) for each, images in scores.items()}
        for key in ("psnr", "ssim")
    }
    return means | {key: metrics[key] for key in ("storage_k", "bitops_t")}

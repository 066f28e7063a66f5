"""The two uncertainties of a score, kept apart: between seeds, and between images."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import bootstrap

CONFIDENCE = 0.95
RESAMPLES = 9999
FEW = 30
"""Below so many images an interval over images is rough."""


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def spread(values: Sequence[float]) -> float | None:
    """Sample standard deviation (ddof 1); None for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """95% interval of the mean of paired differences, one an image: percentile bootstrap over images, seeded.

    None where there is nothing to resample: a single image, or a difference that is no number (infinite PSNR).
    """
    if len(differences) < 2 or not np.isfinite(differences).all():
        return None
    found = bootstrap(
        (np.asarray(differences),),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",  # BCa is undefined where all differences are equal
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)

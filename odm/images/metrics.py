"""PSNR and SSIM as the super-resolution literature computes them."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from odm.images.colour import grey, luma


def psnr(output: NDArray[Any], reference: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio in dB of images in 0-255 (peak 255); infinity where they are equal."""
    _same_shape(output, reference)
    error = float(np.mean((np.asarray(output, np.float64) - np.asarray(reference, np.float64)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def ssim(output: NDArray[Any], reference: NDArray[Any]) -> float:
    """Structural similarity (at most 1) of two (H, W) images in 0-255, at least 11 pixels a side.

    Wang et al. 2004 with the constants of their MATLAB code: 11x11 Gaussian window of deviation 1.5, K = 0.01 and
    0.03, population covariances, mean over the windows that lie inside the image.
    """
    _same_shape(output, reference)
    value = structural_similarity(
        np.asarray(output, np.float64),
        np.asarray(reference, np.float64),
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(value)


def score(output: NDArray[np.uint8], hr: NDArray[np.uint8], border: int) -> dict[str, float]:
    """PSNR and SSIM on luma, with `border` pixels cut off each side.

    A grey reference, (H, W) or (H, W, 1), is scored as grey (0-255), against an output of one or three channels:
    turned into RGB and then into luma, Set14's `bridge` alone would raise that set's mean by 0.09 dB.
    """
    if output.shape[:2] != hr.shape[:2]:
        raise ValueError(f"output is {output.shape}, reference {hr.shape}")
    is_grey = hr.ndim == 2 or hr.shape[2] == 1
    ours, theirs = (_plane(image, is_grey) for image in (output, hr))
    inside = np.s_[border : hr.shape[0] - border, border : hr.shape[1] - border]
    return {"psnr": psnr(ours[inside], theirs[inside]), "ssim": ssim(ours[inside], theirs[inside])}


def _plane(image: NDArray[np.uint8], is_grey: bool) -> NDArray[np.float64]:
    if not is_grey:
        return luma(image)
    if image.ndim == 3 and image.shape[2] == 3:
        return grey(image)
    return image.reshape(image.shape[:2]).astype(np.float64)


def _same_shape(output: NDArray[Any], reference: NDArray[Any]) -> None:
    if output.shape != reference.shape:
        raise ValueError(f"output is {output.shape}, reference {reference.shape}")

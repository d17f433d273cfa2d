"""Which colors speak for an object and which for what is around it.

Histograms of an annotated picture in CIELAB; their ratio says of each pixel of another picture
which of the two it is like. Source: Bai et al., "Video SnapCut", SIGGRAPH 2009, without its local
windows. NumPy, SciPy and scikit-image: no torch, no model, no file.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from napari_samic.core.types import BoolArray, FloatArray, Image

BINS = 16
"""Of each of the three axes."""
RING_FRAC = 0.09
"""What is around an object, of the longer side; what is farther counts 0.3."""
MOST = 3.0
"""A pixel's color alone never makes it more than e^3 times as likely."""


def counts(image: Image, mask: ArrayLike) -> FloatArray:
    """Smoothed shares of the colors inside and outside of a mask.

    Parameters
    ----------
    image : (H, W, 3) uint8
    mask : (H, W) bool or int
        Anything but 0 is inside.

    Returns
    -------
    (2, 16, 16, 16) float32
        Inside, outside; each adds up to 1, or is 0 if there is no such pixel.
    """
    inside = np.asarray(mask) > 0
    at = np.minimum(_places(image), BINS - 1).astype(int)  # (3, H, W)
    reach_px = RING_FRAC * max(inside.shape)
    near = ndimage.distance_transform_edt(~inside) <= reach_px if inside.any() else inside
    around = _shares(at, near & ~inside) + 0.3 * _shares(at, ~inside)
    both = np.stack([_shares(at, inside), around])
    smooth = np.stack([ndimage.gaussian_filter(side, 1.0) for side in both])
    total = smooth.sum((1, 2, 3), keepdims=True)
    return np.asarray(smooth / np.where(total > 0, total, 1.0), np.float32)


def _shares(at: NDArray[np.int_], where: BoolArray) -> NDArray[np.float64]:
    flat = np.ravel_multi_index(tuple(at[:, where]), (BINS, BINS, BINS))
    table = np.bincount(flat, minlength=BINS**3).reshape(BINS, BINS, BINS)
    return table / max(1, len(flat))


def _places(image: Image) -> NDArray[np.float64]:
    """Bin of each pixel, not rounded, (3, H, W) in [0, 16]."""
    from skimage.color import rgb2lab

    lab = rgb2lab(image)
    unit = np.stack([lab[..., 0] / 100, (lab[..., 1] + 60) / 120, (lab[..., 2] + 60) / 120])
    return np.asarray(np.clip(unit, 0, 1) * BINS, np.float64)


def color_log_odds(image: Image, histograms: FloatArray) -> FloatArray:
    """How much each pixel's color speaks for the inside.

    Parameters
    ----------
    image : (H, W, 3) uint8
    histograms : (2, 16, 16, 16) float32
        As `counts` answers, or a weighted sum of those of several pictures.

    Returns
    -------
    (H, W) float32
        Natural logarithm of the ratio, in [-3, 3], smoothed over a few pixels; 0 where either
        side was never seen.
    """
    inside, outside = histograms
    if not (inside.any() and outside.any()):
        return np.zeros(image.shape[:2], np.float32)
    ratio = np.log(inside / inside.sum() + 1e-5) - np.log(outside / outside.sum() + 1e-5)
    each = ndimage.map_coordinates(ratio, _places(image) - 0.5, order=1, mode="nearest")
    sigma_px = 1.5 * max(image.shape[:2]) / 448
    clipped = np.clip(each, -MOST, MOST)
    return np.asarray(ndimage.gaussian_filter(clipped, sigma_px), np.float32)

"""Clicks to saliency heat map; the way back is in `peaks`.

Source: SAMIC, sections 3.2 (Gaussians) and 3.3 (mean of K maps).
Pure NumPy: no torch, no SAM, no napari. Frame: (row, column), pixel centers at whole
numbers; a pixel of the original image and one of the square network input meet at their centers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_samic.core.errors import InputError, PromptError, SettingsError
from napari_samic.core.settings import HeatMapSettings
from napari_samic.core.types import HeatMap, Prompts

Values: TypeAlias = NDArray[np.float64]
Points: TypeAlias = Values
_THINNEST_PX = 0.02  # of sigma: below it the nearest pixel's value would underflow


def from_points(
    points_rc: ArrayLike, shape: tuple[int, int], *, sigma_frac: float = 0.02, combine: str = "sum"
) -> HeatMap:
    """Draw one Gaussian per point; divide their sum by its maximum.

    Parameters
    ----------
    points_rc : (N, 2) float
        Row and column in pixels of a map of `shape`; pixel centers are whole numbers.
    shape : (H, W)
    sigma_frac : float
        Width as a fraction of each axis: `sigma_frac * H` pixels along rows, `* W` along columns.
    combine : {"sum", "max"}
        "sum" is the paper; "max" keeps a lone click as strong as a cluster.

    Returns
    -------
    HeatMap
        (H, W) float32 in [0, 1], with a maximum of exactly 1.

    Raises
    ------
    PromptError
        No point, a point outside the map, or one that is not finite.
    InputError, SettingsError
        A shape without pixels; `sigma_frac` not above 0; an unknown `combine`.

    References
    ----------
    SAMIC, section 3.2.

    Examples
    --------
    >>> heat_map = from_points([(10, 30)], (50, 100))
    >>> [int(i) for i in np.unravel_index(heat_map.values.argmax(), (50, 100))]
    [10, 30]
    """
    points = _checked_points(points_rc, shape)
    if not 0 < sigma_frac < np.inf:
        raise SettingsError(f"sigma_frac is {sigma_frac!r}, expected a number above 0.")
    rows, columns = (_bells(points[:, i], shape[i], sigma_frac) for i in (0, 1))  # (N, H or W)
    values = _joined(rows, columns, combine)  # (H, W)
    return HeatMap((values / values.max()).astype(np.float32))


def _checked_points(points_rc: ArrayLike, shape: tuple[int, int]) -> Points:
    if min(shape) < 1:
        raise InputError(f"a map of shape {tuple(shape)} has no pixels. Expected (rows, columns).")
    points = np.asarray(points_rc, dtype=np.float64)
    if points.size == 0:
        raise PromptError("no point to draw. Click on at least one object.")
    if points.ndim != 2 or points.shape[1] != 2:
        raise PromptError(f"points of shape {points.shape}, expected (N, 2): row and column.")
    Prompts(points, np.ones(len(points), dtype=bool)).check_inside(shape, "heat map")
    return points


def _bells(centers: Values, length: int, sigma_frac: float) -> Values:
    sigma = max(sigma_frac * length, _THINNEST_PX)
    away = (np.arange(length) - centers[:, None]) / sigma  # (N, length)
    return np.asarray(np.exp(-0.5 * away**2))


def _joined(rows: Values, columns: Values, combine: str) -> Values:
    if combine == "sum":
        return np.asarray(rows.T @ columns)
    if combine == "max":
        values = np.zeros((rows.shape[1], columns.shape[1]))
        for row, column in zip(rows, columns, strict=True):
            np.maximum(values, np.outer(row, column), out=values)
        return values
    raise SettingsError(f"combine is {combine!r}, expected 'sum' or 'max'.")


def from_prompts(
    objects: Sequence[Prompts],
    shape_original: tuple[int, int],
    side_px: int,
    settings: HeatMapSettings,
) -> HeatMap:
    """Heat map of the positive points of all objects, on the square grid of the network.

    An object without a positive point gives the center of its box; negative points and objects
    with neither are left out.

    Parameters
    ----------
    objects : sequence of Prompts
    shape_original : (H, W)
        Of the image that the prompts were made on.
    side_px : int
        Side of the square map; `y' = (y + 0.5) * side_px / H - 0.5`, the same along columns.
    settings : HeatMapSettings

    Returns
    -------
    HeatMap
        (side_px, side_px) float32 in [0, 1].

    Raises
    ------
    PromptError
        No object with a positive point or a box, or a prompt outside the image.

    References
    ----------
    SAMIC, section 3.2.
    """
    for prompts in objects:
        prompts.check_inside(shape_original)
    points = np.concatenate([np.zeros((0, 2)), *(_anchors(prompts) for prompts in objects)])
    if not len(points):
        raise PromptError("no positive point and no box in this image. Click on an object.")
    square = (side_px, side_px)
    inside = np.clip(moved(points, shape_original, square), -0.5, side_px - 0.5)  # rounding
    return from_points(inside, square, **settings.to_dict())


def _anchors(prompts: Prompts) -> Points:
    if prompts.is_foreground.any() or prompts.box_rc is None:
        return prompts.points_rc[prompts.is_foreground]
    return np.asarray(prompts.box_rc.reshape(2, 2).mean(axis=0, keepdims=True))


def moved(points_rc: Points, source: tuple[int, int], target: tuple[int, int]) -> Points:
    """Points of a grid of shape `source` on a grid of shape `target`, by pixel centers."""
    return np.asarray((points_rc + 0.5) * np.divide(target, source) - 0.5)


def finite(heat_map: HeatMap) -> Values:
    """Values of a map as (H, W) float64; InputError if one is not finite."""
    values = heat_map.values.astype(np.float64)
    bad = int((~np.isfinite(values)).sum())
    if values.ndim != 2 or bad:
        msg = f"heat map of {values.shape} with {bad} values not finite, expected (H, W) finite."
        raise InputError(f"{msg} Train the prompter again, with a lower learning rate.")
    return values


def agreement(maps: ArrayLike) -> float:
    """How alike several maps of one image are: mean correlation of each with the mean of the rest.

    Parameters
    ----------
    maps : (K, H, W) float
        K at least 2.

    Returns
    -------
    float
        1 for equal ones; 0 for maps that have nothing in common, or are blank.

    Examples
    --------
    >>> one, other = np.eye(8), np.eye(8)[::-1]
    >>> agreement([one, one]), agreement([one, other])
    (1.0, 0.0)
    """
    stack = np.asarray(maps, np.float64)
    flat = stack.reshape(len(stack), -1)
    rest = (flat.sum(0) - flat) / (len(flat) - 1)
    own, others = (v - v.mean(1, keepdims=True) for v in (flat, rest))
    length = np.linalg.norm(own, axis=1) * np.linalg.norm(others, axis=1)
    cosine = (own * others).sum(1) / np.where(length > 0, length, 1.0)
    return float(np.clip(np.round(cosine.mean(), 12), 0.0, 1.0))

"""Masks to better-shaped masks: smoothed, filled, cut where two objects touch.

Arrays in, arrays out. Must not know a segmenter.

Source: opening, closing and the watershed of the distance transform after Soille, "Morphological
image analysis", 2003; that a cut needs a neck and plausible parts is ours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_samic.core.types import BoolArray
from napari_samic.ops.heatmaps import Points
from napari_samic.ops.shape import window_of, without_holes
from napari_samic.refine.shape_prior import ShapePrior

NECK = 0.75
"""Two parts touch at a neck if the outline is there nearer than this share of the thinner one's."""
_EIGHT = np.ones((3, 3), bool)


def smooth(mask: BoolArray, radius_px: int) -> BoolArray:
    """Take off what is thinner than a disc, then close what is narrower.

    Parameters
    ----------
    mask : (H, W) bool
    radius_px : int
        0 changes nothing.

    Returns
    -------
    (H, W) bool
        As it was if nothing would be left. At the image's edge an object is taken to go on.
    """
    if radius_px < 1 or not mask.any():
        return mask.copy()
    window, pad = window_of(mask, radius_px + 1), radius_px + 1
    disc = np.hypot(*np.ogrid[-radius_px : radius_px + 1, -radius_px : radius_px + 1]) <= radius_px
    inside = np.pad(mask[window], pad, mode="edge")
    inside = ndimage.binary_erosion(inside, disc, border_value=1)
    inside = ndimage.binary_dilation(inside, disc)
    inside = ndimage.binary_dilation(inside, disc)
    inside = ndimage.binary_erosion(inside, disc, border_value=1)[pad:-pad, pad:-pad]
    if not inside.any():
        return mask.copy()
    out = np.zeros_like(mask)
    out[window] = inside
    return out


def fill_holes(mask: BoolArray, hole_px: int) -> BoolArray:
    """Fill the holes of at most `hole_px` pixels.

    Parameters
    ----------
    mask : (H, W) bool
    hole_px : int

    Returns
    -------
    (H, W) bool
    """
    out, window = mask.copy(), window_of(mask)
    holes, count = ndimage.label(without_holes(mask[window]) & ~mask[window])
    small = np.bincount(holes.ravel(), minlength=count + 1) <= hole_px
    small[0] = False
    out[window] |= small[holes]
    return out


def split(mask: BoolArray, points_rc: Points, limits: ShapePrior | None = None) -> list[BoolArray]:
    """Cut a mask between points where it has a neck.

    Parameters
    ----------
    mask : (H, W) bool
    points_rc : (N, 2) float
        One for each object that is thought to be in it; those off the mask are left out.
    limits : ShapePrior, optional

    Returns
    -------
    list of (H, W) bool
        One for each point, in their order, empty for points off the mask. Points without a neck
        between them have the same part; all have the whole mask if a part is not plausible.
    """
    from skimage.segmentation import watershed  # slow to import

    at = np.rint(np.reshape(points_rc, (-1, 2))).astype(int)
    inside: BoolArray = np.all((at >= 0) & (at < mask.shape), axis=1)
    inside[inside] = mask[tuple(at[inside].T)]
    whole = [mask.copy() if on else np.zeros_like(mask) for on in inside]
    seeds = np.zeros(mask.shape, np.int32)
    for place in np.flatnonzero(inside)[::-1]:
        seeds[tuple(at[place])] = place + 1
    if np.count_nonzero(seeds) < 2:
        return whole
    depth = _depth(mask)
    basins = _spread_out(watershed(-depth, seeds, _EIGHT, mask=mask), mask)
    groups = _without_necks(basins, depth, len(at))  # (N,)
    groups[inside] = groups[seeds[tuple(at[inside].T)] - 1]  # points on the same pixel
    parts = [np.isin(basins, 1 + np.flatnonzero(groups == group)) for group in groups]
    parts = [part if on else np.zeros_like(mask) for part, on in zip(parts, inside, strict=True)]
    if limits and not all(limits.allow(p) for p, on in zip(parts, inside, strict=True) if on):
        return whole
    return parts


def _depth(mask: BoolArray) -> NDArray[np.float64]:
    """Distance of each pixel to the outline, (H, W); the image's edge is none."""
    out = np.zeros(mask.shape)
    window = window_of(mask, 1)
    if mask[window].all():  # nothing around it
        return np.ones(mask.shape)
    out[window] = ndimage.distance_transform_edt(mask[window])
    return out


def _spread_out(basins: NDArray[np.int32], mask: BoolArray) -> NDArray[np.int32]:
    """Basins with the pieces of the mask that have no point, each pixel to the nearest basin."""
    if (basins > 0)[mask].all():
        return basins
    nearest = ndimage.distance_transform_edt(
        basins == 0, return_distances=False, return_indices=True
    )
    return np.where(mask, basins[tuple(nearest)], 0)


def _without_necks(
    basins: NDArray[np.int32], depth: NDArray[np.float64], count: int
) -> NDArray[np.int64]:
    """Number of the group of each of `count` basins; those of a group have no neck between."""
    groups = np.arange(count)
    tops = ndimage.maximum(depth, basins, np.arange(1, count + 1))
    for (a, b), saddle in _saddles(basins, depth).items():
        if saddle > NECK * min(tops[a - 1], tops[b - 1]):
            groups[groups == groups[b - 1]] = groups[a - 1]
    return groups


def _saddles(basins: NDArray[np.int32], depth: NDArray[np.float64]) -> dict[tuple[int, int], float]:
    """Greatest depth at which two neighboring basins meet."""
    out: dict[tuple[int, int], float] = {}
    last = basins.shape[1]
    for rows, left, right in ((0, 0, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0)):  # the four directions
        width = last - max(left, right)
        height = basins.shape[0] - rows
        first = (slice(0, height), slice(left, left + width))
        other = (slice(rows, rows + height), slice(right, right + width))
        a, b = basins[first], basins[other]
        meet = (a != b) & (a > 0) & (b > 0)
        both = np.sort(np.stack([a[meet], b[meet]], 1), axis=1)  # (P, 2)
        for pair, at in zip(both, np.minimum(depth[first], depth[other])[meet], strict=True):
            key = (int(pair[0]), int(pair[1]))
            out[key] = max(out.get(key, 0.0), float(at))
    return out

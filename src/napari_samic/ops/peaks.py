"""Heat map back to points: cut, regions, centroids.

Source: SAMIC, section 3.4. Pure NumPy and SciPy: no torch, no SAM, no napari.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_samic.core.settings import PeakSettings
from napari_samic.core.types import BoolArray, HeatMap
from napari_samic.ops.heatmaps import Points, Values, finite, moved
from napari_samic.ops.shape import without_holes

Numbers: TypeAlias = NDArray[np.integer[Any]]
_EIGHT = np.ones((3, 3), dtype=bool)
_CUTS = 8
"""Higher cuts that are tried when a region is split."""


def to_points(
    heat_map: HeatMap,
    *,
    threshold: float = 0.5,
    normalise: bool = False,
    subtract_background: bool = False,
    split_peaks: bool = False,
    snap_to_peak: bool = False,
    min_area_px: float = 0.0,
) -> Points:
    """Cut the map into regions; one point for each. The defaults are the paper to the letter.

    A region is what an outer contour of the cut map encloses: holes are filled, what lies in a
    hole belongs to the region around it, and pixels that touch at a corner are joined. Its
    centroid is the mean of its pixels.

    Parameters
    ----------
    heat_map : HeatMap
    threshold : float
        Pixels above it, not at it, are inside.
    normalise : bool
        Divide the map by its maximum first.
    subtract_background : bool
        Subtract the map's median before all else, and cut off what is below 0.
    split_peaks : bool
        A region that falls apart at a higher cut gives a point for each of its parts.
    snap_to_peak : bool
        Move a centroid that falls on a pixel not above the threshold to the region's maximum.
    min_area_px : float
        Regions of fewer pixels are left out.

    Returns
    -------
    (N, 2) float64
        Row and column in the map's pixels, strongest maximum first. None for a constant map.

    Raises
    ------
    InputError
        A value that is not finite.

    References
    ----------
    SAMIC, section 3.4. Hu, "Visual pattern recognition by moment invariants", 1962.
    """
    values = finite(heat_map)
    if subtract_background:
        values = np.maximum(values - np.median(values), 0.0)
    peak = values.max(initial=0.0)
    if peak <= 0 or peak == values.min():
        return np.zeros((0, 2))
    cut = threshold * peak if normalise else threshold
    regions, kept = regions_above(values, cut, min_area_px)
    if split_peaks:
        regions, kept = parts_above(values, regions, kept, cut, peak)
    if not len(kept):
        return np.zeros((0, 2))
    strongest = np.argsort(-ndimage.maximum(values, regions, kept), kind="stable")
    points = np.reshape(ndimage.center_of_mass(regions > 0, regions, kept), (-1, 2))
    if snap_to_peak:
        summits = np.reshape(ndimage.maximum_position(values, regions, kept), (-1, 2))
        at = tuple(np.rint(points).astype(int).T)
        is_home = (values[at] > cut) & (regions[at] == kept)
        points = np.where(is_home[:, None], points, summits)
    return np.asarray(points[strongest], dtype=np.float64)


def regions_above(values: Values, cut: float, min_area_px: float) -> tuple[Numbers, Numbers]:
    """Numbered regions above the cut, holes filled, and the numbers of those large enough.

    Parameters
    ----------
    values : (H, W) float
    cut, min_area_px : float

    Returns
    -------
    (H, W) int, (N,) int
    """
    regions, count = ndimage.label(without_holes(values > cut), structure=_EIGHT)
    areas = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    return regions, 1 + np.flatnonzero(areas >= min_area_px)


def parts_above(
    values: Values, regions: Numbers, kept: Numbers, cut: float, peak: float
) -> tuple[Numbers, Numbers]:
    """Regions that fall apart at a higher cut, replaced by their parts above that cut.

    Parameters
    ----------
    values, regions : (H, W) float, (H, W) int
    kept : (N,) int
        Numbers of the regions that count, as `regions_above` returns them.
    cut, peak : float
        Cuts between the two are tried.

    Returns
    -------
    (H, W) int, (M,) int
    """
    parts = np.zeros_like(regions)
    numbers: list[int] = []
    boxes = ndimage.find_objects(regions)
    for number in kept:
        box = boxes[number - 1]
        for part in _leaves(values[box], regions[box] == number, cut, peak):
            numbers.append(len(numbers) + 1)
            parts[box][part] = numbers[-1]
    return parts, np.asarray(numbers, int)


def _leaves(values: Values, region: BoolArray, cut: float, peak: float) -> list[BoolArray]:
    for level in np.linspace(cut, peak, _CUTS + 2)[1:-1]:
        parts, count = ndimage.label(region & (values > level), structure=_EIGHT)
        if count > 1:
            each = [parts == k for k in range(1, count + 1)]
            return [leaf for part in each for leaf in _leaves(values, part, level, peak)]
    return [region]


def peaks(
    heat_map: HeatMap, shape_original: tuple[int, int], settings: PeakSettings, sigma_frac: float
) -> Points:
    """Peaks of a predicted heat map, in pixels of the original image.

    Parameters
    ----------
    heat_map : HeatMap
        (h, w), the network's answer.
    shape_original : (H, W)
        `row = (y + 0.5) * H / h - 0.5`, the same along columns.
    settings : PeakSettings
        `min_area_frac` is a share of a click's disc, pi sigma^2, on the map.
    sigma_frac : float
        Width of the Gaussians that the network was trained on, as a fraction of each axis.

    Returns
    -------
    (N, 2) float64
        Row and column, strongest maximum first.

    Raises
    ------
    InputError
        A value that is not finite.

    References
    ----------
    SAMIC, section 3.4.
    """
    height, width = heat_map.values.shape
    disc_px = np.pi * (sigma_frac * height) * (sigma_frac * width)
    options = settings.to_dict()
    min_area_px = options.pop("min_area_frac") * disc_px
    points = to_points(heat_map, min_area_px=min_area_px, **options)
    return moved(points, (height, width), shape_original)

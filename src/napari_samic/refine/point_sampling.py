"""Where to put points and boxes on a region.

Regions in, points out, always whole pixels of the region but for `centroid`. Sources stand at each
function. Pure NumPy and SciPy: must not know a map's meaning or a segmenter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from napari_samic.core.types import BoolArray, FloatArray
from napari_samic.ops.heatmaps import Points
from napari_samic.ops.shape import window_of, without_holes
from napari_samic.ops.simulated_annotator import inner_maximum

SAMPLE = 512
"""Of a larger region so many pixels take part in the search for medoids."""
_ROUNDS = 20


def centroid(region: BoolArray) -> Points:
    """Mean of the pixels that the outline of a region encloses, (1, 2); may lie outside of it.

    Source: SAMIC, section 3.4.
    """
    rows, columns = window_of(region)  # whole images are slow
    pixels = np.argwhere(without_holes(region[rows, columns]))
    corner = np.array([[rows.start, columns.start]])
    return np.asarray(pixels.mean(axis=0, keepdims=True) + corner)


def snapped(region: BoolArray, saliency: FloatArray) -> Points:
    """The centroid where it is on the region, else the region's highest pixel, (1, 2).

    Source: SAMIC, section 3.4; that it is moved is ours.
    """
    center = centroid(region)
    row, column = np.rint(center[0]).astype(int)
    if region[row, column]:
        return center
    pixels = np.argwhere(region)
    return pixels[[int(saliency[region].argmax())]].astype(np.float64)


def interior_point(region: BoolArray) -> Points:
    """Pixel farthest from the outline, (1, 2).

    Source: the distance-guided points of SAMRefiner (Lin et al., ICLR 2025), and RITM's clicks.
    """
    return inner_maximum(region)[None]


def medoids(region: BoolArray, count: int) -> Points:
    """Pixels that lie in the middle of as many parts of a region, (N, 2), N at most `count`.

    Source: the k-medoids points of SAM-PT (Rajic et al., 2023). First ones: the inner maximum,
    then whichever pixel is farthest from those taken, so that there is no chance in it.
    """
    pixels = np.argwhere(region)
    pixels = pixels[np.linspace(0, len(pixels) - 1, min(SAMPLE, len(pixels))).astype(int)]
    away = cdist(pixels, pixels)  # (P, P)
    chosen = _spread(pixels, away, interior_point(region)[0], count)
    for _ in range(_ROUNDS):
        nearest = away[:, chosen].argmin(axis=1)  # (P,)
        better = [_middle(away, np.flatnonzero(nearest == k)) for k in range(len(chosen))]
        if better == chosen:
            break
        chosen = better
    return np.asarray(pixels[chosen], np.float64)


def _spread(
    pixels: NDArray[np.int64], away: NDArray[np.float64], start: Points, count: int
) -> list[int]:
    chosen = [int(np.hypot(*(pixels - start).T).argmin())]
    while len(chosen) < min(count, len(pixels)):
        chosen.append(int(away[:, chosen].min(axis=1).argmax()))
    return chosen


def _middle(away: NDArray[np.float64], members: NDArray[np.int64]) -> int:
    return int(members[away[np.ix_(members, members)].sum(axis=1).argmin()])


def along_rays(region: BoolArray, count: int) -> Points:
    """The inner maximum, and pixels half way from it to the outline, (N, 2), N at most `count`.

    Rays leave the inner maximum at even angles, the first along the row, and end where they leave
    the region for the first time. Source: ours, after the evenly spread points of SAMAug (Dai et
    al., 2023).
    """
    start = interior_point(region)[0]
    points = [tuple(start)]
    for angle in 2 * np.pi * np.arange(count - 1) / max(1, count - 1):
        halfway = _halfway(region, start, np.array([np.sin(angle), np.cos(angle)]))
        if halfway not in points:
            points.append(halfway)
    return np.array(points, np.float64)


def _halfway(region: BoolArray, start: Points, direction: Points) -> tuple[float, ...]:
    steps = np.arange(int(np.hypot(*region.shape)) + 1)
    path = np.rint(start + steps[:, None] * direction).astype(int)  # (S, 2)
    seen = ((path >= 0) & (path < region.shape)).all(axis=1)
    path = path[: len(path) if seen.all() else int(seen.argmin())]
    inside = region[tuple(path.T)]
    length = len(path) if inside.all() else int(inside.argmin())
    return tuple(path[(length - 1) // 2].astype(float))

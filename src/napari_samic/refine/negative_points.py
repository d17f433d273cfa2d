"""Negative points: where an object surely is not.

Source: points between neighbors as in PromptNucSeg (Shui et al., ECCV 2024), points on sure
background as in PerSAM (Zhang et al., ICLR 2024). That they come from valleys of the map, and never
from another object's point, is ours. Must not know a segmenter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.types import BoolArray, FloatArray, Prompts
from napari_samic.ops.heatmaps import Points
from napari_samic.ops.shape import box_of
from napari_samic.ops.simulated_annotator import inner_maximum
from napari_samic.refine.point_sampling import interior_point
from napari_samic.refine.regions import RegionProposal, ThresholdParams

FAINT = 0.5
"""Share of the cut below which a pixel is surely background."""
CLOSE = 2.0
"""Neighbors are nearer than this many of the two objects' radii together."""
AROUND = 0.5
"""Of the box at each side: how far from an object its background is looked for."""
LEAST_PX = 8.0
"""It is looked for at least so far."""


def with_negatives(
    proposals: Sequence[RegionProposal], saliency: FloatArray, count: int, cut: ThresholdParams
) -> list[RegionProposal]:
    """Tell each object where it is not.

    Half of the points, rounded up, lie between it and its neighbors, the rest on background.

    Parameters
    ----------
    proposals : sequence of RegionProposal
        Of all classes: none gets a negative point on a positive one of any.
    saliency : (H, W) float32
    count : int
        Negative points an object at most.
    cut : ThresholdParams

    Returns
    -------
    list of RegionProposal
        In the order of `proposals`; earlier questions stay as they are.
    """
    anywhere = np.zeros(saliency.shape, bool)
    for proposal in proposals:
        anywhere |= proposal.region
    positives = [g.prompts.points_rc[g.prompts.is_foreground] for g in proposals]
    taken = {tuple(p) for p in np.rint(np.concatenate([np.zeros((0, 2)), *positives])).astype(int)}
    anchors = [_anchor(proposal) for proposal in proposals]
    clear = (saliency <= FAINT * cut.threshold) & ~anywhere
    out = []
    for i, proposal in enumerate(proposals):
        between = _between(i, proposals, anchors, saliency, anywhere)
        points = [p for p in between if p not in taken][: (count + 1) // 2]
        points += _background(proposal.region, clear, points, count - len(points), taken)
        out.append(replace(proposal, prompts=add_points(proposal.prompts, points, positive=False)))
    return out


def add_points(prompts: Prompts, points: Sequence[tuple[int, ...]], *, positive: bool) -> Prompts:
    """Prompts with more points behind their own, (row, column) each."""
    more = np.reshape(np.array(points, np.float64), (-1, 2))
    signs = np.concatenate([prompts.is_foreground, np.full(len(more), positive)])
    return replace(
        prompts, points_rc=np.concatenate([prompts.points_rc, more]), is_foreground=signs
    )


def _anchor(proposal: RegionProposal) -> Points:
    positives = proposal.prompts.points_rc[proposal.prompts.is_foreground]
    return np.asarray(positives[0] if len(positives) else interior_point(proposal.region)[0])


def _between(
    own: int,
    proposals: Sequence[RegionProposal],
    anchors: Sequence[Points],
    saliency: FloatArray,
    anywhere: BoolArray,
) -> list[tuple[int, ...]]:
    """The valley on the way to each neighbor, the nearest neighbor first."""
    start, region = anchors[own], proposals[own].region
    away = np.hypot(*(np.array(anchors) - start).T)
    points: list[tuple[int, ...]] = []
    for k in np.argsort(away, kind="stable"):
        reach = CLOSE * (_radius(region) + _radius(proposals[k].region))
        if k == own or away[k] > reach:
            continue
        point = _valley(start, anchors[k], region, saliency, anywhere)
        if point is not None and point not in points:
            points.append(point)
    return points


def _radius(region: BoolArray) -> float:
    return float(np.sqrt(np.count_nonzero(region) / np.pi))


def _valley(
    start: Points, end: Points, region: BoolArray, saliency: FloatArray, anywhere: BoolArray
) -> tuple[int, ...] | None:
    """Lowest pixel between two objects; the first one off the region if they touch."""
    count = int(np.abs(end - start).max()) + 1
    path = np.rint(np.linspace(start, end, count + 1)).astype(int)[1:-1]  # (S, 2)
    path = path[~region[tuple(path.T)]]
    if not len(path):
        return None
    free = path[~anywhere[tuple(path.T)]]
    lowest = free[int(saliency[tuple(free.T)].argmin())] if len(free) else path[0]
    return tuple(int(v) for v in lowest)


def _background(
    region: BoolArray,
    clear: BoolArray,
    have: Sequence[tuple[int, ...]],
    count: int,
    taken: set[tuple[int, ...]],
) -> list[tuple[int, ...]]:
    """Points in the middle of what is clear around a region, apart from each other."""
    corners = box_of(region)
    reach = np.maximum(AROUND * (corners[2:] - corners[:2]), LEAST_PX)
    top, left = np.maximum(corners[:2] - reach, 0).astype(int)
    bottom, right = np.ceil(corners[2:] + reach).astype(int)
    window = (slice(int(top), int(bottom) + 1), slice(int(left), int(right) + 1))
    free = clear[window].copy()
    apart = max(free.shape) / 4
    points: list[tuple[int, ...]] = []
    for point in have:
        free &= _off(free, np.array(point) - (top, left), apart)
    while len(points) < count and free.any():
        row, column = inner_maximum(free)
        point = (int(row + top), int(column + left))
        if point not in taken:
            points.append(point)
        free &= _off(free, np.array([row, column]), apart)
    return points


def _off(free: BoolArray, point: NDArray[np.floating], apart: float) -> BoolArray:
    rows, columns = np.ogrid[: free.shape[0], : free.shape[1]]
    return np.asarray(np.hypot(rows - point[0], columns - point[1]) > apart)

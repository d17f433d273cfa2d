"""From map to prompts: the ways to ask a segmenter for what a map shows.

Each strategy takes a normalized map, a class and how to cut, and gives a proposal for each region;
its source stands in its docstring. Must not know a segmenter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.settings import StrategySettings
from napari_samic.core.types import BoolArray, FloatArray, Prompts
from napari_samic.ops.heatmaps import Points
from napari_samic.ops.shape import box_of
from napari_samic.refine import point_sampling
from napari_samic.refine.negative_points import with_negatives
from napari_samic.refine.regions import RegionProposal, ThresholdParams, regions

Strategy: TypeAlias = Callable[[FloatArray, int, ThresholdParams], list[RegionProposal]]
NEGATIVES = 2
"""Negative points an object at most."""
POINTS = 3
"""Points an object of kmedoids, rays and curriculum."""
MARGIN_FRAC = 0.2
"""Of wide_box, at each side, as a fraction of the box."""
_SPAN = 4.0


def propose(
    maps: Mapping[int, FloatArray], settings: StrategySettings, cut: ThresholdParams | None = None
) -> list[RegionProposal]:
    """Region proposals of all classes.

    Parameters
    ----------
    maps : dict of int to (H, W) float32
        By class; at the size of the image, as `regions.normalized` makes them.
    settings : StrategySettings
    cut : ThresholdParams, optional

    Returns
    -------
    list of RegionProposal
        Class by class, the strongest region first; empty for maps that show nothing.

    Raises
    ------
    InputError
        A value that is not finite.
    """
    where = cut or ThresholdParams()
    is_negative = settings.strategy == "negatives"
    strategy = peaks if is_negative else STRATEGIES[settings.strategy]
    proposals = [g for label, values in maps.items() for g in strategy(values, label, where)]
    if not is_negative or not proposals:
        return proposals
    return with_negatives(proposals, np.max(list(maps.values()), axis=0), NEGATIVES, where)


def centroids(saliency: FloatArray, label: int, cut: ThresholdParams) -> list[RegionProposal]:
    """One point a region, at its centroid, also where that is outside. Source: SAMIC, 3.4."""
    return [_at(point_sampling.centroid(r), r, label) for r in regions(saliency, cut)]


def peaks(saliency: FloatArray, label: int, cut: ThresholdParams) -> list[RegionProposal]:
    """One point a region, at its centroid, moved into it. Source: SAMIC, 3.4; moving is ours."""
    return [_at(point_sampling.snapped(r, saliency), r, label) for r in regions(saliency, cut)]


def box(saliency: FloatArray, label: int, cut: ThresholdParams) -> list[RegionProposal]:
    """One box a region. Source: Kirillov et al., Segment Anything, ICCV 2023."""
    return [_boxed(r, label, 0.0) for r in regions(saliency, cut)]


def wide_box(saliency: FloatArray, label: int, cut: ThresholdParams) -> list[RegionProposal]:
    """One box a region with some of what is around.

    Source: the context-aware elastic box of SAMRefiner (Lin et al., ICLR 2025), here with a fixed
    margin: how far each side gives way depends on features there.
    """
    return [_boxed(r, label, MARGIN_FRAC) for r in regions(saliency, cut)]


def mask(saliency: FloatArray, label: int, cut: ThresholdParams) -> list[RegionProposal]:
    """The point of `peaks`, and the map as a mask prompt.

    Source: the Gaussian-style mask of SAMRefiner (Lin et al., ICLR 2025): sure in the middle of
    the region, less so towards its outline; what the map says outside of it is ours.
    """
    return [
        _at(point_sampling.snapped(r, saliency), r, label, mask_prompt=soft_mask(r, saliency, cut))
        for r in regions(saliency, cut)
    ]


def distance(saliency: FloatArray, label: int, cut: ThresholdParams) -> list[RegionProposal]:
    """One point a region, farthest from its outline. Source: SAMRefiner, ICLR 2025."""
    return [_at(point_sampling.interior_point(r), r, label) for r in regions(saliency, cut)]


def kmedoids(saliency: FloatArray, label: int, cut: ThresholdParams) -> list[RegionProposal]:
    """Several points a region, by k-medoids. Source: SAM-PT (Rajic et al., 2023)."""
    return [_at(point_sampling.medoids(r, POINTS), r, label) for r in regions(saliency, cut)]


def rays(saliency: FloatArray, label: int, cut: ThresholdParams) -> list[RegionProposal]:
    """Several points a region, on rays from its middle. Source: ours, see `along_rays`."""
    return [_at(point_sampling.along_rays(r, POINTS), r, label) for r in regions(saliency, cut)]


def negatives(saliency: FloatArray, label: int, cut: ThresholdParams) -> list[RegionProposal]:
    """The points of `peaks`, and negative ones. Sources: see `negative_points`."""
    proposals = peaks(saliency, label, cut)
    return with_negatives(proposals, saliency, NEGATIVES, cut)


def curriculum(saliency: FloatArray, label: int, cut: ThresholdParams) -> list[RegionProposal]:
    """The box, then points with its logits, then box and points with theirs: coarse to fine.

    Source: Zheng et al., "Curriculum prompting foundation models for medical image segmentation",
    MICCAI 2024; there a network finds the points.
    """
    out = []
    for region in regions(saliency, cut):
        first = _boxed(region, label, 0.0).prompts
        points = point_sampling.medoids(region, POINTS)
        second, third = _prompts(points, label), _prompts(points, label, first.box_rc)
        out.append(RegionProposal(third, region, earlier=(first, second)))
    return out


STRATEGIES: dict[str, Strategy] = {
    f.__name__: f
    for f in (
        peaks,
        centroids,
        box,
        wide_box,
        mask,
        distance,
        kmedoids,
        rays,
        negatives,
        curriculum,
    )
}
STRATEGIES["auto"] = peaks


def soft_mask(region: BoolArray, saliency: FloatArray, cut: ThresholdParams) -> FloatArray:
    """A region as a mask prompt.

    Parameters
    ----------
    region : (H, W) bool
    saliency : (H, W) float32
    cut : ThresholdParams

    Returns
    -------
    (H, W) float32
        0.5 to 1 in the region, by a Gaussian as wide as the region; below it 0 to 0.5, by the map,
        and 0 on other regions.
    """
    center = point_sampling.interior_point(region)[0]
    wide = _SPAN * np.count_nonzero(region)
    rows, columns = (
        np.exp(-((np.arange(n) - at) ** 2) / wide)
        for n, at in zip(region.shape, center, strict=True)
    )
    bell = np.outer(rows, columns)
    below = np.where(saliency > cut.threshold, 0.0, saliency / max(cut.threshold, 1e-6))
    return np.where(region, 0.5 + 0.5 * bell, 0.5 * below).astype(np.float32)


def _at(
    points: Points, region: BoolArray, label: int, mask_prompt: FloatArray | None = None
) -> RegionProposal:
    return RegionProposal(_prompts(points, label), region, mask_prompt)


def _boxed(region: BoolArray, label: int, margin_frac: float) -> RegionProposal:
    corners = box_of(region, margin_frac)
    return RegionProposal(_prompts(np.zeros((0, 2)), label, corners), region)


def _prompts(points: Points, label: int, corners: NDArray[np.float64] | None = None) -> Prompts:
    return Prompts(points, np.ones(len(points), bool), corners, label)

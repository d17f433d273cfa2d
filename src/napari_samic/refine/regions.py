"""What a map says of its objects: the region of each, and the prompts to ask for.

A map of clicks is cut where it is high, and its regions part along the valleys. What a network saw
of a class gives one proposal an object, also of those that touch: where the probability of being
inside is above the cut there are objects; tops of the depth are their middles, and valleys of the
depth part them.

Source: SAMIC, section 3.4 (regions above a cut), that touching regions part is ours; the marked
watershed on a learned distance map of Naylor et al., IEEE TMI 2019; box, inner point and map as one
question after SAMRefiner (Lin et al., ICLR 2025). Must not know a segmenter or a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from scipy import ndimage

from napari_samic.core.settings import PeakSettings
from napari_samic.core.types import BoolArray, FloatArray, HeatMap, IntArray, Prompts
from napari_samic.ops.heatmaps import finite
from napari_samic.ops.peaks import parts_above, regions_above
from napari_samic.ops.shape import box_of, without_holes
from napari_samic.refine.point_sampling import interior_point

TOP = 0.3
"""A middle rises by this over the valley to a higher one."""
CALM = 0.03
"""Width of the blur before tops are looked for, as a share of the typical object's size."""
SOFT_PX = 512
"""Longest side of a mask prompt; segmenters take 256 or less."""
_EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True, eq=False)
class RegionProposal:
    """A region proposal: one object that a map shows, before the segmenter is asked.

    Attributes
    ----------
    prompts : Prompts
        The last question; its first positive point, if any, says where the object is.
    region : (H, W) bool
        Its part of the map above the cut.
    mask_prompt : (h, w) float32 or None
        Mask prompt, over the whole image at any resolution: 1 is surely the object, 0 surely not,
        0.5 says nothing.
    earlier : tuple of Prompts
        Questions before the last one, in their order; each takes the logits of the one before.
    """

    prompts: Prompts
    region: BoolArray
    mask_prompt: FloatArray | None = None
    earlier: tuple[Prompts, ...] = ()


@dataclass(frozen=True)
class ThresholdParams:
    """Where a normalized map is cut into regions.

    Attributes
    ----------
    threshold : float
        Pixels above it are inside.
    split : bool
        Whether a region that falls apart at a higher cut is several.
    min_area_px : float
        Smaller regions are left out.
    """

    threshold: float = 0.3
    split: bool = True
    min_area_px: float = 1.0

    @classmethod
    def of(
        cls, settings: PeakSettings, shape: tuple[int, int], sigma_frac: float
    ) -> ThresholdParams:
        """As `peaks.peaks` cuts a map of `shape` whose clicks are `sigma_frac` of a side wide."""
        disc_px = np.pi * (sigma_frac * shape[0]) * (sigma_frac * shape[1])
        area = max(1.0, settings.min_area_frac * disc_px)
        return cls(settings.threshold, settings.split_peaks, area)


def normalized(values: FloatArray, settings: PeakSettings) -> FloatArray:
    """A map as strategies take it: without its background, and with a maximum of 1.

    Parameters
    ----------
    values : (H, W) float
    settings : PeakSettings
        `subtract_background` and `normalise` are looked at.

    Returns
    -------
    (H, W) float32
        In [0, 1]; all 0 if the map is constant.

    Raises
    ------
    InputError
        A value that is not finite.
    """
    out = finite(HeatMap(values))
    if settings.subtract_background:
        out = np.maximum(out - np.median(out), 0.0)
    peak = out.max(initial=0.0)
    if peak <= 0 or peak == out.min():
        return np.zeros(out.shape, np.float32)
    return np.clip(out / peak if settings.normalise else out, 0.0, 1.0).astype(np.float32)


def regions(saliency: FloatArray, cut: ThresholdParams) -> list[BoolArray]:
    """Cut a map into objects.

    Parameters
    ----------
    saliency : (H, W) float32
        In [0, 1], as `normalized` makes it.
    cut : ThresholdParams

    Returns
    -------
    list of (H, W) bool
        Without common pixels, all above the cut, the one of the highest maximum first.

    Raises
    ------
    InputError
        A value that is not finite.
    """
    from skimage.segmentation import watershed  # slow to import

    values = finite(HeatMap(saliency))
    peak = values.max(initial=0.0)
    if peak <= 0 or peak == values.min():
        return []
    numbers, kept = regions_above(values, cut.threshold, cut.min_area_px)
    if cut.split and len(kept):
        seeds, parts = parts_above(values, numbers, kept, cut.threshold, peak)
        if len(parts) > len(kept):
            inside, around = np.isin(numbers, kept), np.ones((3, 3), bool)
            numbers, kept = watershed(-values, seeds, around, mask=inside), parts
    if not len(kept):
        return []
    highest = ndimage.maximum(values, numbers, kept)
    above = values > cut.threshold
    return [(numbers == kept[i]) & above for i in np.argsort(-highest, kind="stable")]


def propose_regions(
    inside: FloatArray,
    depth: FloatArray,
    *,
    label: int = 1,
    cut: float = 0.5,
    core: float = 0.0,
    min_area_px: float = 1.0,
    split: bool = True,
    keep_surest: bool = True,
) -> list[RegionProposal]:
    """One region proposal for each object, the surest first.

    Parameters
    ----------
    inside : (H, W) float32
        Probability of being in an object.
    depth : (H, W) float32
        0 at the outline, 1 in the middle of an object.
    label : int
        Their class.
    cut : float
        Above it, a pixel is inside.
    core : float
        An object without a pixel of at least this is left out: the two thresholds of Canny, IEEE
        PAMI 1986.
    min_area_px : float
        Smaller ones are left out.
    split : bool
        Whether objects that touch are parted.
    keep_surest : bool
        Whether the surest object stays in any case.

    Returns
    -------
    list of RegionProposal
        Each asks by its box, its inner point and its part of the map; without common pixels. The
        mask prompts of an image beyond 512 pixels are smaller than it.
    """
    numbers = objects(inside, depth, cut=cut, split=split)
    count = int(numbers.max(initial=0))
    areas = np.bincount(numbers.ravel(), minlength=count + 1)
    large = [k for k in range(1, count + 1) if areas[k] >= max(1.0, min_area_px)]
    if not large:
        return []
    means = dict(zip(large, ndimage.mean(inside, numbers, large), strict=True))
    peaks = _highest(inside, numbers, count)
    enough = min(core, max(peaks[k] for k in large)) if keep_surest else core
    kept = [k for k in large if peaks[k] >= enough]
    order = sorted(kept, key=lambda k: (-means[k], k))
    return [_proposal(numbers, k, inside, label) for k in order]


def objects(inside: FloatArray, depth: FloatArray, *, cut: float, split: bool) -> IntArray:
    """Numbered objects, (H, W) int32, holes filled; parameters as of `propose_regions`."""
    mask = without_holes(inside > cut)
    numbers, count = ndimage.label(mask, structure=_EIGHT)
    if not split or not count:
        return np.asarray(numbers, np.int32)
    from skimage.segmentation import watershed  # slow to import

    size = np.sqrt(np.median(np.bincount(numbers.ravel())[1:]))
    calm = ndimage.gaussian_filter(np.where(mask, depth, 0).astype(np.float64), CALM * size + 0.5)
    tops = extended_maxima(calm, TOP)
    seeds, seed_count = ndimage.label(tops & mask, structure=_EIGHT)
    low = np.setdiff1d(np.arange(1, count + 1), np.unique(numbers[seeds > 0]))  # without a top
    without = np.isin(numbers, low)
    seeds[without] = seed_count + numbers[without]
    parted = watershed(-calm, seeds, _EIGHT, mask=mask)
    is_there = np.bincount(parted.ravel()) > 0
    is_there[0] = True
    return np.asarray((np.cumsum(is_there) - 1)[parted], np.int32)


def extended_maxima(values: NDArray[np.float64], height: float) -> BoolArray:
    """Pixels of all tops that rise by more than a height over the valley to a higher one.

    The regional maxima of the h-maxima transform, Soille, "Morphological Image Analysis", 2003,
    as its reconstruction gives them; by merging basins that have a high pass between them, which
    takes a third of the time.

    Parameters
    ----------
    values : (H, W) float64
        Of at least 0, the ground.
    height : float

    Returns
    -------
    (H, W) bool
        Each down to `height` below its top.
    """
    from skimage.morphology import local_maxima  # slow to import
    from skimage.segmentation import watershed

    peaks, count = ndimage.label(local_maxima(values, connectivity=2), structure=_EIGHT)
    tops = _highest(values, peaks, count)
    if not (tops > height).any():
        return np.zeros(values.shape, bool)
    high = values > tops[tops > height].min() - height  # nothing below it decides anything
    peaks = np.where(high, peaks, 0)
    basins = watershed(-values, peaks, _EIGHT, mask=high)
    higher, parents = np.arange(count + 1), list(range(count + 1))
    for low, other, level in _passes(values, basins):
        ends = sorted((_root(parents, low), _root(parents, other)), key=tops.__getitem__)
        parents[ends[0]] = ends[1]
        if tops[ends[0]] - level <= height:
            higher[ends[0]] = ends[1]
    while (higher != higher[higher]).any():
        higher = higher[higher]
    stays = (higher == np.arange(count + 1)) & (tops > height)
    levels = np.where(stays, tops - height, np.inf)[higher]
    regions, count = ndimage.label(values >= levels[basins], structure=_EIGHT)
    kept = np.zeros(count + 1, bool)
    kept[regions[stays[peaks]]] = True
    return np.asarray(kept[regions])


def _highest(values: NDArray[Any], numbers: NDArray[Any], count: int) -> NDArray[Any]:
    """Maximum in each numbered object; 0 of the ground. `ndimage.maximum` would sort all pixels."""
    out = np.zeros(count + 1, values.dtype)
    at = np.flatnonzero(numbers)
    np.maximum.at(out, numbers.ravel()[at], values.ravel()[at])
    return out


def _root(parents: list[int], number: int) -> int:
    while parents[number] != number:
        number = parents[number]
    return number


def _passes(values: NDArray[np.float64], basins: NDArray[np.int32]) -> list[tuple[int, int, float]]:
    """Highest pass between each two basins that touch, the highest first."""
    height, width = values.shape
    most = int(basins.max()) + 1
    pairs, levels = [], []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here = (slice(0, height - down), slice(max(0, -right), width - max(0, right)))
        there = (slice(down, None), slice(max(0, right), width + min(0, right)))
        at = np.flatnonzero((basins[here] != basins[there]) & (basins[here] > 0))
        a, b = basins[here].ravel()[at], basins[there].ravel()[at]
        pairs.append(np.minimum(a, b).astype(np.int64) * most + np.maximum(a, b))
        levels.append(np.minimum(values[here].ravel()[at], values[there].ravel()[at]))
    codes, passes = np.concatenate(pairs), np.concatenate(levels)
    codes, passes = codes[codes >= most], passes[codes >= most]  # not with the ground
    order = np.argsort(-passes, kind="stable")
    _, first = np.unique(codes[order], return_index=True)
    return [(*divmod(int(codes[i]), most), float(passes[i])) for i in order[np.sort(first)]]


def _proposal(numbers: IntArray, number: int, inside: FloatArray, label: int) -> RegionProposal:
    region = numbers == number
    own = _coarse(np.where((numbers == 0) | region, inside, 0).astype(np.float32))
    prompts = Prompts(interior_point(region), np.array([True]), box_of(region), label)
    return RegionProposal(prompts, region, own)


def _coarse(values: FloatArray) -> FloatArray:
    """Means of areas, at most `SOFT_PX` on a side: mask prompts of a large image fit in memory."""
    scale = SOFT_PX / max(values.shape)
    if scale >= 1:
        return values
    rows, columns = (max(1, round(n * scale)) for n in values.shape)
    picture = PIL.Image.fromarray(values)
    return np.asarray(picture.resize((columns, rows), PIL.Image.Resampling.BOX), np.float32)

"""What a map says of one object: its region, and the prompts to ask for.

Source: SAMIC, section 3.4 (regions above a cut); that touching regions part along the valleys of
the map is ours. Pure NumPy, SciPy and scikit-image: must not know a segmenter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_samic.contracts import BoolArray, FloatArray, HeatMap, Prompts
from napari_samic.heatmaps import finite
from napari_samic.peaks import parts_above, regions_above
from napari_samic.settings import PeakSettings


@dataclass(frozen=True, eq=False)
class Guess:
    """One object that a map shows.

    Attributes
    ----------
    prompts : Prompts
        The last question; its first positive point, if any, says where the object is.
    region : (H, W) bool
        Its part of the map above the cut.
    soft : (h, w) float32 or None
        Mask prompt, over the whole image at any resolution: 1 is surely the object, 0 surely not,
        0.5 says nothing.
    earlier : tuple of Prompts
        Questions before the last one, in their order; each takes the logits of the one before.
    """

    prompts: Prompts
    region: BoolArray
    soft: FloatArray | None = None
    earlier: tuple[Prompts, ...] = ()


@dataclass(frozen=True)
class Cut:
    """Where a normalised map is cut into regions.

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
    def of(cls, settings: PeakSettings, shape: tuple[int, int], sigma_frac: float) -> Cut:
        """As `peaks.peaks` cuts a map of `shape` whose clicks are `sigma_frac` of a side wide."""
        disc_px = np.pi * (sigma_frac * shape[0]) * (sigma_frac * shape[1])
        area = max(1.0, settings.min_area_frac * disc_px)
        return cls(settings.threshold, settings.split_peaks, area)


def normalised(values: FloatArray, settings: PeakSettings) -> FloatArray:
    """A map as strategies take it: without its background, and with a maximum of 1.

    Parameters
    ----------
    values : (H, W) float
    settings : PeakSettings
        `subtract_background`, `normalise` and `floor` are looked at.

    Returns
    -------
    (H, W) float32
        In [0, 1]; all 0 if the map is constant or below the floor.

    Raises
    ------
    InputError
        A value that is not finite.
    """
    out = finite(HeatMap(values))
    if settings.subtract_background:
        out = np.maximum(out - np.median(out), 0.0)
    peak = out.max(initial=0.0)
    if peak <= 0 or peak == out.min() or (settings.normalise and peak < settings.floor):
        return np.zeros(out.shape, np.float32)
    return np.clip(out / peak if settings.normalise else out, 0.0, 1.0).astype(np.float32)


def regions(saliency: FloatArray, cut: Cut) -> list[BoolArray]:
    """Cut a map into objects.

    Parameters
    ----------
    saliency : (H, W) float32
        In [0, 1], as `normalised` makes it.
    cut : Cut

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

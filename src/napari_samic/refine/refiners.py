"""Refinement of a finished segmentation, as `contracts.Refiner`.

`MapRefiner` does all that `improve` can; `ShapeRefiner` needs neither a segmenter nor a map. Both
take numbered objects only: a union of a class does not say which pixel is whose.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from napari_samic.contracts import FloatArray, Image, Segmentation, Segmenter
from napari_samic.errors import InputError
from napari_samic.join import join
from napari_samic.refine.agreement import Salience
from napari_samic.refine.asking import Found
from napari_samic.refine.guesses import Cut, Guess, normalised, regions
from napari_samic.refine.improve import Back, improved
from napari_samic.refine.limits import Limits
from napari_samic.refine.shaping import filled, smoothed
from napari_samic.settings import PeakSettings, RefineSettings


class MapRefiner:
    """Better masks by what the map says, with a segmenter to ask.

    Parameters
    ----------
    segmenter : Segmenter
    settings : RefineSettings
    limits : Limits, optional
        Of the references.
    back : callable, optional
        For `min_consistency`; see `improve.Back`.
    """

    name = "map"

    def __init__(
        self,
        segmenter: Segmenter,
        settings: RefineSettings,
        *,
        limits: Limits | None = None,
        back: Back | None = None,
    ) -> None:
        self._segmenter, self._settings = segmenter, settings
        self._limits, self._back = limits, back

    def refine(self, image: Image, segmentation: Segmentation) -> Segmentation:
        """A better segmentation; without a map nothing is clicked.

        Parameters
        ----------
        image : (H, W, 3) uint8
        segmentation : Segmentation
            Of numbered objects. A mask shows no logits, so stability is not looked at.

        Raises
        ------
        InputError
            Labels that are not the numbers of its objects, or a map of another size.
        """
        heat = _heat(segmentation)
        blind = replace(self._settings, clicks=0)
        out = improved(
            self._segmenter,
            image,
            found_of(segmentation, heat),
            heat,
            self._settings if heat.any() else blind,
            limits=self._limits,
            back=self._back,
        )
        return _joined(out, segmentation)


class ShapeRefiner:
    """Smoother masks without small holes; drops shapes that no reference has.

    Parameters
    ----------
    settings : RefineSettings
        `smooth_px`, `fill_px` and `limits` are looked at.
    limits : Limits, optional
        Of the references.
    """

    name = "shape"

    def __init__(self, settings: RefineSettings, limits: Limits | None = None) -> None:
        self._settings = settings
        self._limits = limits if settings.limits else None

    def refine(self, image: Image, segmentation: Segmentation) -> Segmentation:
        """A better segmentation of numbered objects; the image is not looked at."""
        del image
        chosen = self._settings
        out = []
        for one in found_of(segmentation, _heat(segmentation)):
            mask = filled(smoothed(one.mask, chosen.smooth_px), chosen.fill_px)
            if self._limits is None or self._limits.allow(mask):
                out.append(replace(one, mask=mask))
        return _joined(out, segmentation)


def found_of(segmentation: Segmentation, heat: FloatArray) -> list[Found]:
    """Objects of a segmentation as `asking.ask` would have found them.

    Parameters
    ----------
    segmentation : Segmentation
        Object k is where the labels are k.
    heat : (H, W) float32
        Normalised; the region of an object is its mask with the region of the map it lies on most.

    Raises
    ------
    InputError
        Labels that are not the numbers of the objects.
    """
    labels, count = segmentation.labels, len(segmentation.objects)
    if count != len(segmentation.scores) or not np.isin(labels, np.arange(count + 1)).all():
        msg = f"labels up to {labels.max()} for {count} objects. Segment with `instances` on."
        raise InputError(msg)
    masks = [labels == k + 1 for k in range(count)]
    shown = regions(heat, Cut())
    grounds = []
    for mask in masks:
        most = max(shown, key=lambda region: np.count_nonzero(region & mask), default=mask)
        grounds.append((most & (labels == 0)) | mask if (most & mask).any() else mask)
    salience = Salience.of(heat, grounds)
    parts = zip(segmentation.objects, grounds, masks, segmentation.scores, strict=True)
    return [
        Found(Guess(o, ground), mask, float(score), salience.agreement(i, mask), None, o)
        for i, (o, ground, mask, score) in enumerate(parts)
    ]


def _heat(segmentation: Segmentation) -> FloatArray:
    shape = segmentation.labels.shape
    if segmentation.heat_map is None:
        return np.zeros(shape, np.float32)
    values = segmentation.heat_map.values
    if values.shape != shape:
        raise InputError(f"map of {values.shape} for labels of {shape}. Resize the map first.")
    return normalised(values, PeakSettings())


def _joined(found: list[Found], before: Segmentation) -> Segmentation:
    """Joined again; the map and the references' agreement are those of before."""
    after = join(
        [f.mask for f in found],
        [f.score for f in found],
        [f.guess.prompts for f in found],
        shape=(before.labels.shape[0], before.labels.shape[1]),
        heat_map=before.heat_map,
    )
    return replace(after, agreement=before.agreement)

"""From mask to better mask: clicks where mask and map differ, better shapes, and what is dropped.

What `prompting.query_segmenter` chose goes in, the same objects with better masks, or fewer of
them, come out.
Knows a segmenter only as a protocol, and a reference only through a function that is passed in.

Source: clicks after RITM (Sofiiuk et al., ICIP 2022), with the map in place of the truth;
stability after Kirillov et al., Segment Anything, ICCV 2023; consistency after the reverse
segmentation of reverse classification accuracy (Valindria et al., 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from napari_samic.core.settings import RefineSettings
from napari_samic.core.types import BoolArray, FloatArray, Image, Prompts, Segmenter
from napari_samic.ops.simulated_annotator import inner_maximum, next_click
from napari_samic.refine.negative_points import FAINT, add_points
from napari_samic.refine.postprocess import fill_holes, smooth, split
from napari_samic.refine.prompting import LogitFrame, MapAgreement, SelectedMask
from napari_samic.refine.shape_prior import ShapePrior
from napari_samic.refine.uncertainty import ensemble

Back = Callable[[BoolArray], float]
"""How well the reference's object is found back from a mask, (H, W) bool: its IoU, in [0, 1]."""
THRESHOLD = 0.3
"""Of a map: what is above it and not in the mask was missed."""


def refine_masks(
    segmenter: Segmenter,
    image: Image,
    selection: Sequence[SelectedMask],
    heat: FloatArray,
    settings: RefineSettings,
    *,
    limits: ShapePrior | None = None,
    back: Back | None = None,
) -> list[SelectedMask]:
    """All that the settings switch on: split, click, smooth, fill, and then drop.

    Parameters
    ----------
    segmenter : Segmenter
    image : (H, W, 3) uint8
    selection : sequence of SelectedMask
        As `prompting.query_segmenter` returns them.
    heat : (H, W) float32
        The map that they were asked from.
    settings : RefineSettings
    limits : ShapePrior, optional
        Of the references. They hold parts of a split mask plausible also where `settings.limits`,
        which drops objects, is off.
    back : callable, optional
        For `min_consistency`.

    Returns
    -------
    list of SelectedMask
        In the order of `selection`. With the default settings the same ones.
    """
    map_agreement = MapAgreement.of(heat, [f.proposal.region for f in selection])
    out = split_touching(selection, map_agreement, limits) if settings.split else list(selection)
    if settings.clicks:
        out = [
            iterative_clicks(segmenter, image, selected, map_agreement, i, rounds=settings.clicks)
            for i, selected in enumerate(out)
        ]
    if settings.smooth_px or settings.fill_px:
        out = [
            smooth_and_fill(selected, map_agreement, i, settings) for i, selected in enumerate(out)
        ]
    keep = _Keep(segmenter, image, settings, limits, back)
    return [selected for selected in out if keep(selected)]


def iterative_clicks(
    segmenter: Segmenter,
    image: Image,
    selected: SelectedMask,
    map_agreement: MapAgreement,
    place: int,
    *,
    rounds: int,
    threshold: float = THRESHOLD,
) -> SelectedMask:
    """Click where mask and map differ most, as long as they agree more afterwards.

    Parameters
    ----------
    segmenter : Segmenter
    image : (H, W, 3) uint8
    selected : SelectedMask
    map_agreement : MapAgreement
    place : int
        Of the object in it, from 0.
    rounds : int
        Clicks at most.
    threshold : float
        The map above it is missed where the mask is not; below half of it the mask leaked.

    Returns
    -------
    SelectedMask
        With the clicks in `prompts`. Its agreement is never below that of `selected`.
    """
    current = selected
    for _ in range(rounds):
        click = _error(current.mask, map_agreement, place, threshold)
        if click is None or (current.prompts.points_rc == click[0]).all(axis=1).any():
            break
        prompts = _with_click(current.prompts, *click, current.mask)
        candidates = segmenter.candidates(
            image, [prompts], multimask=False, logits=[current.logits]
        )[0]
        mask = candidates.masks[candidates.best].copy()
        agreement = map_agreement.agreement(place, mask)
        if agreement <= current.agreement:
            break
        score, logits = (
            float(candidates.scores[candidates.best]),
            candidates.logits[candidates.best].copy(),
        )
        current = replace(
            current, mask=mask, score=score, agreement=agreement, logits=logits, prompts=prompts
        )
    return current


def _error(
    mask: BoolArray, map_agreement: MapAgreement, place: int, threshold: float
) -> tuple[FloatArray, bool] | None:
    window, own = map_agreement.around(place, mask)
    inside = mask[window]
    wanted = (inside & (own >= FAINT * threshold)) | (own > threshold)
    click = next_click(inside, wanted)
    if click is None:
        return None
    corner = np.array([window[0].start, window[1].start])
    return (click[0] + corner).astype(np.float32), click[1]


def _with_click(prompts: Prompts, at: FloatArray, positive: bool, mask: BoolArray) -> Prompts:
    """Prompts with a click; of a bare mask, its inner maximum comes first."""
    if prompts.is_empty and mask.any():
        middle = inner_maximum(mask)
        prompts = add_points(prompts, [(int(middle[0]), int(middle[1]))], positive=True)
    return add_points(prompts, [(int(at[0]), int(at[1]))], positive=positive)


def smooth_and_fill(
    selected: SelectedMask, map_agreement: MapAgreement, place: int, settings: RefineSettings
) -> SelectedMask:
    """One object smoothed and filled; its agreement is measured anew, and may fall a little."""
    mask = fill_holes(smooth(selected.mask, settings.smooth_px), settings.fill_px)
    return replace(selected, mask=mask, agreement=map_agreement.agreement(place, mask))


def split_touching(
    selection: Sequence[SelectedMask], map_agreement: MapAgreement, limits: ShapePrior | None = None
) -> list[SelectedMask]:
    """Cut each mask that took in another object's point, if there is a neck between the two.

    Parameters
    ----------
    selection : sequence of SelectedMask
    map_agreement : MapAgreement
    limits : ShapePrior, optional
        Each part must be plausible.

    Returns
    -------
    list of SelectedMask
        In their order; each keeps the part with its own point, and its score.
    """
    points = np.array([_anchor(selected) for selected in selection]).reshape(-1, 2)
    out = []
    for i, selected in enumerate(selection):
        order = [i, *(k for k in range(len(selection)) if k != i)]
        mask = split(selected.mask, points[order], limits)[0]
        if mask.any() and (mask != selected.mask).any():
            selected = replace(selected, mask=mask, agreement=map_agreement.agreement(i, mask))
        out.append(selected)
    return out


def _anchor(selected: SelectedMask) -> FloatArray:
    prompts = selected.proposal.prompts
    if prompts.is_foreground.any():
        return np.asarray(prompts.points_rc[prompts.is_foreground][0], np.float32)
    return inner_maximum(selected.proposal.region).astype(np.float32)


def stability(logits: FloatArray, offset: float = 1.0) -> float:
    """IoU of the masks that logits give at a threshold `offset` above and below 0.

    Parameters
    ----------
    logits : (h, w) float32
        Without padding, which may be positive.
    offset : float

    Returns
    -------
    float
        In [0, 1]; 0 if the wider one is empty.

    Examples
    --------
    >>> stability(np.array([[-3.0, 0.5, 3.0, 3.0]], np.float32))
    0.6666666666666666
    """
    wide = np.count_nonzero(logits > -offset)
    return float(np.count_nonzero(logits > offset) / wide) if wide else 0.0


class _Keep:
    """Whether an object stays; cheap questions first."""

    def __init__(
        self,
        segmenter: Segmenter,
        image: Image,
        settings: RefineSettings,
        limits: ShapePrior | None,
        back: Back | None,
    ) -> None:
        self._segmenter, self._image = segmenter, image
        self._settings, self._limits, self._back = settings, limits, back

    def __call__(self, selected: SelectedMask) -> bool:
        return (
            self._is_plausible(selected)
            and self._is_stable(selected)
            and self._is_consistent(selected)
            and self._is_sure(selected)
        )

    def _is_plausible(self, selected: SelectedMask) -> bool:
        return (
            not self._settings.limits or self._limits is None or self._limits.allow(selected.mask)
        )

    def _is_stable(self, selected: SelectedMask) -> bool:
        least = self._settings.min_stability
        if not least or selected.logits is None:
            return True
        return (
            stability(LogitFrame.under(selected.mask, selected.logits).unpadded(selected.logits))
            >= least
        )

    def _is_consistent(self, selected: SelectedMask) -> bool:
        least = self._settings.min_consistency
        return not least or self._back is None or self._back(selected.mask) >= least

    def _is_sure(self, selected: SelectedMask) -> bool:
        chosen = self._settings
        if not chosen.min_quality:
            return True
        votes = ensemble(self._segmenter, self._image, selected.prompts)
        return votes.quality >= chosen.min_quality

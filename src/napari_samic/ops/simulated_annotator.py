"""SAMBOX without a window: a simulated annotator that clicks as a user would.

From a ground-truth mask it clicks the inner maximum of the largest error, looks at the segmenter's
mask and confidence, and stops when the confidence is steady, the mask is good, or the clicks are
used up. Objects are prompted one by one. Also turns masks into plain prompts without a segmenter.
Knows the segmenter only as a protocol.

Source: SAMIC, section 3.1; click placement as in interactive-segmentation benchmarks (RITM, 2021).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from napari_samic.core.errors import PromptError
from napari_samic.core.settings import AnnotateSettings
from napari_samic.core.types import BoolArray, Image, IntArray, Prompts, Segmenter
from napari_samic.evaluation.matching import as_instances
from napari_samic.evaluation.metrics import iou
from napari_samic.ops.shape import window_of

SATURATION = 0.01
"""Clicks that change the confidence by less than this change little."""
SPECK = 4
"""The area of a mask's largest object, in those of the smallest object that is no speck; one of
`min_object_px` is none in any mask."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """One object after its clicks.

    Attributes
    ----------
    prompts : Prompts
    mask : (H, W) bool
    scores, ious : tuple of float
        The segmenter's confidence and the true IoU after each click.
    kept : int
        Clicks that were not undone; `prompts` and `mask` are those after the last of them.
    """

    prompts: Prompts
    mask: BoolArray
    scores: tuple[float, ...]
    ious: tuple[float, ...]
    kept: int


def objects_of(truth: ArrayLike, min_object_px: int = 1) -> Iterator[BoolArray]:
    """Each object of a mask as (H, W) bool.

    Instance ids give one object an id; a mask of one value gives one an 8-connected component.
    """
    labels = as_instances(truth)
    values = np.unique(labels[labels > 0])
    for value in values:
        mask = labels == value
        if mask.sum() >= min_object_px:
            yield mask


def inner_maximum(region: ArrayLike) -> NDArray[np.float64]:
    """Pixel of a region that is farthest from its outline, (2,) row and column."""
    inside = np.asarray(region, bool)
    if not inside.any():
        raise PromptError("an empty region has no inside to click on.")
    box = window_of(inside)  # what is outside can't matter, and large images are slow
    depth = ndimage.distance_transform_edt(np.pad(inside[box], 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return np.array([row + box[0].start, column + box[1].start], np.float64)


def prompts_of(
    truth: ArrayLike, settings: AnnotateSettings | None = None, *, by_class: bool = False
) -> tuple[Prompts, ...]:
    """One positive point an object, at its inner maximum; needs no segmenter.

    Parameters
    ----------
    truth : (H, W) int
        Instance ids, or one value.
    settings : AnnotateSettings, optional
        Whose `min_object_px` an object must have. Default: as many pixels as usual, but a quarter
        of the mask's largest object is enough, so that specks go and small spots stay.
    by_class : bool
        Values are classes: each falls into its objects, which get its number as `label`.
    """
    if by_class:
        values = np.asarray(truth)
        classes = [
            (int(k), prompts_of(values == k, settings)) for k in np.unique(values[values > 0])
        ]
        return tuple(replace(prompts, label=k) for k, objects in classes for prompts in objects)
    labels = as_instances(truth)
    least = (settings or AnnotateSettings()).min_object_px
    if settings is None:
        areas = np.unique(labels[labels > 0], return_counts=True)[1]
        least = min(least, int(areas.max(initial=0)) // SPECK)
    return tuple(
        Prompts(inner_maximum(mask)[None], np.array([True])) for mask in objects_of(labels, least)
    )


def next_click(mask: BoolArray, truth: BoolArray) -> tuple[NDArray[np.float64], bool] | None:
    """Where a user would click now: (row, column) and whether it is positive; None if all is right.

    The largest 8-connected error is clicked at its inner maximum.
    """
    box = window_of(mask | truth)
    mask, truth = mask[box], truth[box]
    best: BoolArray | None = None
    positive = True
    for error, sign in ((truth & ~mask, True), (mask & ~truth, False)):
        parts, count = ndimage.label(error, structure=np.ones((3, 3)))
        if count == 0:
            continue
        largest = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
        if best is None or largest.sum() > best.sum():
            best, positive = largest, sign
    if best is None:
        return None
    corner = np.array([box[0].start, box[1].start])
    return inner_maximum(best) + corner, positive


def annotate_object(
    segmenter: Segmenter, image: Image, truth: BoolArray, settings: AnnotateSettings
) -> Annotation:
    """Simulated annotator: click one object until it is good or its confidence is steady.

    It ends at the latest when the clicks are used up. Steady, at whatever height: two clicks in a
    row changed the confidence by less than `SATURATION`. In the end the clicks after the best mask
    are undone, as a user undoes what made it worse.

    Parameters
    ----------
    segmenter : Segmenter
    image : (H, W, 3) uint8
    truth : (H, W) bool
    settings : AnnotateSettings
    """
    points, signs = [inner_maximum(truth)], [True]
    scores: list[float] = []
    ious: list[float] = []
    masks: list[BoolArray] = []
    logits = None
    while True:
        prompts = Prompts(np.array(points), np.array(signs))
        answer = segmenter.candidates(image, [prompts], multimask=False, logits=[logits])[0]
        masks.append(answer.masks[answer.best])
        logits = answer.logits[answer.best]
        scores.append(float(answer.scores[answer.best]))
        ious.append(iou(masks[-1], truth))
        click = next_click(masks[-1], truth)
        if click is None or _is_enough(scores, ious[-1], settings):
            break
        points.append(click[0])
        signs.append(click[1])
    kept = max(range(1, len(ious) + 1), key=lambda n: (ious[n - 1], n))
    prompts = Prompts(np.array(points[:kept]), np.array(signs[:kept]))
    return Annotation(prompts, masks[kept - 1], tuple(scores), tuple(ious), kept)


def is_steady(scores: Sequence[float]) -> bool:
    """Two clicks in a row changed the confidence by less than `SATURATION`.

    >>> is_steady([0.5, 0.801, 0.8, 0.803]), is_steady([0.8, 0.8])
    (True, False)
    """
    return len(scores) > 2 and bool(np.abs(np.diff(scores[-3:])).max() < SATURATION)


def _is_enough(scores: list[float], now: float, settings: AnnotateSettings) -> bool:
    steady = is_steady(scores)
    return steady or now >= settings.target_iou or len(scores) >= settings.max_clicks


def annotate_image(
    segmenter: Segmenter, image: Image, truth: IntArray, settings: AnnotateSettings | None = None
) -> list[Annotation]:
    """Click every object of an image.

    Raises
    ------
    PromptError
        The mask shows no object of at least `min_object_px` pixels.
    """
    chosen = settings or AnnotateSettings()
    done = [
        annotate_object(segmenter, image, mask, chosen)
        for mask in objects_of(truth, chosen.min_object_px)
    ]
    if not done:
        raise PromptError(f"mask without an object of at least {chosen.min_object_px} pixels.")
    return done

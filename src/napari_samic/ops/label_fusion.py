"""Label fusion: masks of single objects to one label image.

Pure NumPy: no torch, no model, no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from napari_samic.core.errors import InputError
from napari_samic.core.types import BoolArray, FloatArray, HeatMap, Prompts, Segmentation
from napari_samic.ops.shape import Window, bounds

RIVALS = 3
"""Clicks of other objects that an object is told to leave out, at most."""
APART_PX = 3.0
"""Clicks that are nearer than this mean the same object."""


def join(
    masks: Sequence[BoolArray] | BoolArray,
    scores: Sequence[float] | FloatArray,
    objects: Sequence[Prompts],
    *,
    shape: tuple[int, int] | None = None,
    instances: bool = True,
    min_score: float = 0.0,
    duplicate_iou: float | None = None,
    drop_covered: bool = False,
    heat_map: HeatMap | None = None,
) -> Segmentation:
    """Label fusion: one mask an object to one label image; the higher score wins an overlap.

    Parameters
    ----------
    masks : (N, H, W) bool, or N of (H, W)
    scores : (N,) float
        Of equal ones the earlier object wins.
    objects : sequence of Prompts
    shape : (int, int), optional
        Rows and columns; only needed if there may be no mask at all.
    instances : bool
        Number the objects 1..N in their order; else every pixel gets its object's class.
    min_score : float
        Objects below this are dropped, in [0, 1].
    duplicate_iou : float, optional
        Of two masks with a larger IoU only the higher score is kept; None keeps both.
    drop_covered : bool
        Drop an object whose clicks all lie in the mask of one of higher score.
    heat_map : HeatMap, optional
        Passed on.

    Returns
    -------
    Segmentation
        An object that owns no pixel (empty, or hidden by others) is dropped from labels, scores and
        objects alike, and the numbers stay consecutive.

    Raises
    ------
    InputError
        Unequal numbers of masks, scores and objects, or masks of another shape.
    """
    arrays, values = _checked(masks, scores, objects, shape)
    kept = [i for i in range(len(arrays)) if values[i] >= min_score]
    if duplicate_iou is not None:
        kept = without_duplicates(arrays, values, kept, duplicate_iou)
    if drop_covered:
        kept = without_covered(arrays, values, objects, kept)
    owner = np.zeros(shape or arrays[0].shape, np.int32)  # 0: nobody, i + 1: object i
    for i in sorted(kept, key=lambda i: (values[i], -i)):
        owner[arrays[i]] = i + 1
    visible = [int(i) for i in np.unique(owner) if i > 0]
    table = np.zeros(len(arrays) + 1, np.int32)
    table[visible] = (
        range(1, len(visible) + 1) if instances else [objects[i - 1].label for i in visible]
    )
    winners = tuple(objects[i - 1] for i in visible)
    return Segmentation(table[owner], values[[i - 1 for i in visible]], winners, heat_map)


def rejoined(
    segmentation: Segmentation, *, instances: bool = True, min_score: float = 0.0
) -> Segmentation:
    """A result with a number for each object, joined by other settings.

    Parameters
    ----------
    segmentation : Segmentation
        Its labels number its objects.
    instances : bool
        As of `join`.
    min_score : float
        As of `join`.

    Returns
    -------
    Segmentation
        What is dropped leaves background; it covered nobody.

    Raises
    ------
    InputError
        Labels that don't number the objects, or another number of scores.
    """
    count = len(segmentation.objects)
    low, high = int(segmentation.labels.min(initial=0)), int(segmentation.labels.max(initial=0))
    if low < 0 or high > count or len(segmentation.scores) != count:
        msg = (
            f"labels {low} to {high} and {len(segmentation.scores)} scores for {count} objects. "
            "The method's labels must number its objects from 1, with a score for each."
        )
        raise InputError(msg)
    is_present = np.bincount(segmentation.labels.ravel(), minlength=count + 1)[1:] > 0
    kept = [
        i for i, score in enumerate(segmentation.scores) if is_present[i] and score >= min_score
    ]
    table = np.zeros(count + 1, np.int32)
    for number, i in enumerate(kept, start=1):
        table[i + 1] = number if instances else segmentation.objects[i].label
    objects = tuple(segmentation.objects[i] for i in kept)
    return replace(
        segmentation,
        labels=table[segmentation.labels],
        scores=segmentation.scores[kept],
        objects=objects,
    )


def _checked(
    masks: Sequence[BoolArray] | BoolArray,
    scores: Sequence[float] | FloatArray,
    objects: Sequence[Prompts],
    shape: tuple[int, int] | None,
) -> tuple[list[BoolArray], FloatArray]:
    arrays = [np.asarray(m, dtype=bool) for m in masks]
    values = np.asarray(scores, dtype=np.float32).reshape(-1)
    if not len(arrays) == len(values) == len(objects):
        msg = (
            f"{len(arrays)} masks, {len(values)} scores, {len(objects)} objects: expected as many."
        )
        raise InputError(msg)
    if not arrays and shape is None:
        raise InputError("no masks and no shape: say how large the label image is.")
    expected = shape or arrays[0].shape
    for i, array in enumerate(arrays):
        if array.shape != tuple(expected) or array.ndim != 2:
            raise InputError(f"mask {i + 1} has shape {array.shape}, expected {tuple(expected)}.")
    return arrays, values


def without_duplicates(
    masks: Sequence[BoolArray], scores: FloatArray, among: Sequence[int], iou: float
) -> list[int]:
    """Indices of `among`, in order, that do not repeat a mask of higher score.

    Parameters
    ----------
    masks : N of (H, W) bool
    scores : (N,) float
    among : sequence of int
        Which masks take part.
    iou : float
        Masks that overlap more than this are the same object.
    """
    boxes = {i: bounds(masks[i]) for i in among}
    areas = {i: int(masks[i][box].sum()) if box else 0 for i, box in boxes.items()}
    kept: list[int] = []
    for i in sorted(among, key=lambda i: (-scores[i], i)):
        if all(
            _iou(_common(masks[i], masks[k], boxes[i], boxes[k]), areas[i], areas[k]) <= iou
            for k in kept
        ):
            kept.append(i)
    return sorted(kept)


def without_covered(
    masks: Sequence[BoolArray],
    scores: FloatArray,
    objects: Sequence[Prompts],
    among: Sequence[int],
) -> list[int]:
    """Indices of `among`, in order, without those that were clicked inside a surer object.

    Parameters
    ----------
    masks : N of (H, W) bool
    scores : (N,) float
    objects : N Prompts
        An object without a positive click is never dropped.
    among : sequence of int
        Which masks take part.
    """
    kept: list[int] = []
    for i in sorted(among, key=lambda i: (-scores[i], i)):
        clicks = objects[i].points_rc[objects[i].is_foreground]
        at = tuple(np.clip(np.rint(clicks).astype(int), 0, np.array(masks[i].shape) - 1).T)
        if not len(clicks) or not any(masks[k][at].all() for k in kept):
            kept.append(i)
    return sorted(kept)


def add_rival_clicks(masks: Sequence[BoolArray], objects: Sequence[Prompts]) -> dict[int, Prompts]:
    """Objects whose mask takes in another one's click, with the nearest such clicks as negative.

    Parameters
    ----------
    masks : N of (H, W) bool
    objects : N Prompts

    Returns
    -------
    dict of int to Prompts
        By index; objects whose masks keep to themselves are left out.
    """
    clicks = [o.points_rc[o.is_foreground] for o in objects]
    firsts = np.array([c[0] if len(c) else (np.nan, np.nan) for c in clicks])
    out = {}
    for i, prompts in enumerate(objects):
        if not len(clicks[i]):
            continue
        away = np.min([np.hypot(*(firsts - own).T) for own in clicks[i]], axis=0)
        at = np.clip(np.rint(np.nan_to_num(firsts)).astype(int), 0, np.array(masks[i].shape) - 1)
        inside = masks[i][tuple(at.T)] & (away > APART_PX)
        rivals = [k for k in np.argsort(away, kind="stable") if inside[k]][:RIVALS]
        if rivals:
            points = np.concatenate([prompts.points_rc, firsts[rivals]])
            signs = np.concatenate([prompts.is_foreground, np.zeros(len(rivals), bool)])
            out[i] = replace(prompts, points_rc=points, is_foreground=signs)
    return out


def _common(a: BoolArray, b: BoolArray, box_a: Window | None, box_b: Window | None) -> int:
    """Pixels that two masks share."""
    if box_a is None or box_b is None:
        return 0
    rows, columns = (
        slice(max(s.start, t.start), min(s.stop, t.stop)) for s, t in zip(box_a, box_b, strict=True)
    )
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return 0
    return int((a[rows, columns] & b[rows, columns]).sum())


def _iou(common: int, area: int, other: int) -> float:
    return common / (area + other - common) if common else 0.0

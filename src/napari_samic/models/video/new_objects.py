"""Objects that were not there in the frame before: at peaks of the map, and like those known.

A peak in the ground would make all the ground an object and be followed from then on; so a
newcomer must be about as large as the known ones of its class, and its look must speak for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_samic.core.settings import SegmentSettings
from napari_samic.core.types import BoolArray, FloatArray, Image, IntArray, Prompts, Segmenter
from napari_samic.ops.label_fusion import APART_PX

SIZES = 4.0
"""A newcomer is at most so many times larger or smaller than the known ones of its class."""
LEAST_FREE = 0.5
"""Share of a newcomer's mask that no known object may have."""


@dataclass(frozen=True, eq=False)
class NewObject:
    """Its free part, (H, W) bool, its class and the segmenter's confidence."""

    mask: BoolArray
    label: int
    score: float


def find_new_objects(
    segmenter: Segmenter,
    image: Image,
    objects: Sequence[Prompts],
    labels: IntArray,
    classes: Mapping[int, int],
    evidence: Mapping[int, FloatArray],
    settings: SegmentSettings,
) -> list[NewObject]:
    """New objects of a frame.

    Parameters
    ----------
    segmenter : Segmenter
    image : (H, W, 3) uint8
    objects : sequence of Prompts
        One for each peak of the map.
    labels : (H, W) int32
        The known objects of this frame.
    classes : dict of int to int
        Class of each of their numbers.
    evidence : dict of int to (H, W) float32
        Log odds of each class.
    settings : SegmentSettings
    """
    free = [p for p in objects if _is_away(p, labels)]
    if not free:
        return []
    result = segmenter.segment(image, free, settings=replace(settings, instances=True))
    out = []
    for k, (prompts, score) in enumerate(zip(result.objects, result.scores, strict=True), 1):
        whole = result.labels == k
        part = whole & (labels == 0)
        is_free = part.sum() > LEAST_FREE * whole.sum()
        if is_free and _is_alike(part, prompts.label, labels, classes, evidence):
            out.append(NewObject(part, prompts.label, float(score)))
    return out


def _is_away(prompts: Prompts, labels: IntArray) -> bool:
    """Whether the click lies more than a few pixels from all known objects."""
    row, column = np.rint(prompts.points_rc[0]).astype(int)
    far = int(APART_PX)
    near = labels[max(0, row - far) : row + far + 1, max(0, column - far) : column + far + 1]
    return not near.any()


def _is_alike(
    part: BoolArray,
    label: int,
    labels: IntArray,
    classes: Mapping[int, int],
    evidence: Mapping[int, FloatArray],
) -> bool:
    sizes = np.bincount(labels.ravel(), minlength=max(classes, default=0) + 1)
    peer_sizes_px = [sizes[n] for n, kind in classes.items() if kind == label and sizes[n]]
    size_px = float(part.sum())
    middle = float(np.median(peer_sizes_px)) if peer_sizes_px else size_px
    is_fitting = middle / SIZES <= size_px <= middle * SIZES
    return bool(is_fitting and (label not in evidence or evidence[label][part].mean() > 0))

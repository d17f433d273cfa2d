"""J&F of videos: the scores of DAVIS over frames, objects and sequences.

J is `metrics.iou` and F is `metrics.boundary_f`; here is only what is averaged, in which order.
Sources: Perazzi et al., CVPR 2016; Pont-Tuset et al., arXiv 1704.00675. The first frame is given
and never counts. Knows no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from napari_samic.core.errors import InputError
from napari_samic.evaluation.matching import checked_pair
from napari_samic.evaluation.metrics import boundary_f, iou

Frame = tuple[ArrayLike, ArrayLike]
"""Prediction and truth, (H, W) int each."""


@dataclass(frozen=True)
class VideoScore:
    """Mean J and F."""

    j: float
    f: float


def object_scores(frames: Sequence[Frame]) -> dict[int, VideoScore]:
    """Mean J and F of each object of one sequence over its frames, without the first.

    Parameters
    ----------
    frames : sequence of (prediction, truth)
        In the order of time; (H, W) int. Objects are the numbers in the first truth. Where it has
        one object, all that is not 0 in a prediction is meant as that object.

    Returns
    -------
    dict of int to VideoScore

    Raises
    ------
    InputError
        Too few frames, no object in the first, or two shapes.
    """
    if len(frames) < 2:
        msg = f"a sequence of {len(frames)} frames, expected 2: the first does not count."
        raise InputError(msg)
    pairs = [checked_pair(*frame) for frame in frames]
    numbers = [int(n) for n in np.unique(pairs[0][1]) if n]
    if not numbers:
        raise InputError("no object in the first frame. Give its truth, which names the objects.")
    if len(numbers) == 1:
        return {numbers[0]: _mean(_score(a != 0, b != 0) for a, b in pairs[1:])}
    return {n: _mean(_score(a == n, b == n) for a, b in pairs[1:]) for n in numbers}


def _score(prediction: ArrayLike, truth: ArrayLike) -> VideoScore:
    return VideoScore(iou(prediction, truth), boundary_f(prediction, truth))


def _mean(scores: Iterable[VideoScore]) -> VideoScore:
    kept = list(scores)
    return VideoScore(sum(s.j for s in kept) / len(kept), sum(s.f for s in kept) / len(kept))

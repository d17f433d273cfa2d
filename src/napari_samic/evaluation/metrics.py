"""How good a mask is: regions, boundaries, objects and clicks.

Sources: intersection over union as in HSNet and PerSAM; boundary F as in DAVIS (Perazzi et
al., CVPR 2016); objects as in StarDist (`matching.py`); number of clicks as in RITM.
Two empty masks agree (1); an empty and a non-empty one don't (0). NumPy and SciPy only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from napari_samic.core.errors import InputError
from napari_samic.evaluation.matching import Matches, checked_pair, match_objects, without_void


def iou(prediction: ArrayLike, truth: ArrayLike) -> float:
    """Intersection over union (Jaccard) of two foregrounds.

    Parameters
    ----------
    prediction, truth : (...) bool or int
        Of one shape, (N, H, W) for a whole data set; anything but 0 is foreground.

    Returns
    -------
    float
        In [0, 1]; 1 if both are empty.

    Raises
    ------
    InputError
        Two shapes, or arrays that are neither bool nor integer.
    """
    a, b = _masks(prediction, truth)
    return _ratio(float((a & b).sum()), float((a | b).sum()))


def dice(prediction: ArrayLike, truth: ArrayLike) -> float:
    """Twice the intersection over the sum of the areas. Arguments and faults as in `iou`."""
    a, b = _masks(prediction, truth)
    return _ratio(2.0 * float((a & b).sum()), float(a.sum()) + float(b.sum()))


def fb_iou(prediction: ArrayLike, truth: ArrayLike) -> float:
    """Mean of the IoU of the foreground and that of the background. As in `iou`."""
    a, b = _masks(prediction, truth)
    return (iou(a, b) + iou(~a, ~b)) / 2


def boundary_f(prediction: ArrayLike, truth: ArrayLike, *, tolerance_frac: float = 0.008) -> float:
    """F score of the boundary pixels that lie near the other boundary.

    Parameters
    ----------
    prediction, truth : (H, W) bool or int
        Anything but 0 is foreground.
    tolerance_frac : float
        What is near, as a fraction of the image diagonal, rounded up to whole pixels.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    InputError
        Two shapes, not (H, W), or arrays that are neither bool nor integer.

    Notes
    -----
    A distance transform stands for the dilation by a disc in DAVIS: the same pixels. A full
    against an empty mask gives 0 here (1 in DAVIS, as neither has a boundary).

    References
    ----------
    Perazzi et al., "A benchmark dataset and evaluation methodology for video object
    segmentation", CVPR 2016.
    """
    a, b = _masks(prediction, truth)
    if a.ndim != 2:
        raise InputError(f"masks of shape {a.shape}, expected (H, W). Score one plane at a time.")
    edge_a, edge_b = _boundary(a), _boundary(b)
    if not (edge_a.any() and edge_b.any()):  # each is empty or full, or only one has a boundary
        return float(np.array_equal(a, b))
    near_px = np.ceil(tolerance_frac * np.hypot(*a.shape))
    precision = float((ndimage.distance_transform_edt(~edge_b)[edge_a] <= near_px).mean())
    recall = float((ndimage.distance_transform_edt(~edge_a)[edge_b] <= near_px).mean())
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def _boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels that differ from their right, lower or lower-right neighbor."""
    wide = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return np.asarray((mask ^ wide[:-1, 1:]) | (mask ^ wide[1:, :-1]) | (mask ^ wide[1:, 1:]))


def clicks_to(iou_curve: ArrayLike, target: float, *, cap: int = 20) -> int:
    """Clicks until the IoU is at least `target`; `cap` if it never is.

    Parameters
    ----------
    iou_curve : (N,) float
        IoU after the first, second, ... click.
    target : float
        Usually 0.85 or 0.90.
    cap : int
        What an object costs that gets there later or never.

    Returns
    -------
    int

    Raises
    ------
    InputError
        A curve that is not (N,) finite numbers, or a cap below 1.

    References
    ----------
    Sofiiuk et al., "Reviving iterative training with mask guidance", ICIP 2022.

    Examples
    --------
    >>> clicks_to([0.6, 0.8, 0.91], 0.85), clicks_to([0.6, 0.8], 0.85)
    (3, 20)
    """
    curve = np.asarray(iou_curve, dtype=np.float64)
    if curve.ndim != 1 or not np.isfinite(curve).all() or cap < 1:
        raise InputError(f"curve {curve.shape}, cap {cap}: expected (N,) finite numbers, from 1.")
    reached = np.flatnonzero(curve[:cap] >= target)
    return int(reached[0]) + 1 if len(reached) else cap


def image_scores(
    prediction: ArrayLike, truth: ArrayLike, *, void: ArrayLike | None = None
) -> dict[str, float]:
    """Every score of one image: IoU, Dice, boundary F and those of its objects.

    Parameters
    ----------
    prediction, truth : (H, W) int
        Number of the object at each pixel; 0 is background.
    void : (H, W) bool, optional
        Pixels that nothing counts; see `matching.without_void`.

    Returns
    -------
    dict of str to float
        `iou`, `dice`, `boundary_f`, `fb_iou` of the foreground; `object_precision`,
        `object_recall`, `object_f1` at IoU 0.5 and `matched_iou`, the mean of the pairs;
        `n_predicted`, `n_true`, `n_matched` objects.

    Raises
    ------
    InputError
        Two shapes, not (H, W), negative labels, or arrays that are neither bool nor integer.
    """
    a, b = checked_pair(prediction, truth)
    counted = np.ones(a.shape, bool)
    if void is not None:
        counted = ~np.asarray(void, bool)
        a, b = without_void(a, b, void)
    return {
        "iou": iou(a, b),
        "dice": dice(a, b),
        "boundary_f": boundary_f(a, b),
        "fb_iou": fb_iou(a[counted], b[counted]),
        **_object_scores(match_objects(a, b)),
    }


def _object_scores(matches: Matches) -> dict[str, float]:
    return {
        "object_precision": matches.precision,
        "object_recall": matches.recall,
        "object_f1": matches.f1,
        "matched_iou": matches.mean_iou,
        "n_predicted": float(matches.n_predicted),
        "n_true": float(matches.n_true),
        "n_matched": float(matches.n_matched),
    }


def summarize(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Scores of a data set from those of its images.

    Parameters
    ----------
    rows : sequence of dict
        As `image_scores` returns them; further keys are averaged, too.

    Returns
    -------
    dict of str to float
        `miou` (mean of `iou`), `dice`, `n` images; means of the others, but object precision,
        recall, F1 and matched IoU are pooled over all objects, and their counts added up.

    Raises
    ------
    InputError
        No row.
    """
    if not rows:
        raise InputError("no image to score. Give at least one prediction with its truth.")
    keys = dict.fromkeys(key for row in rows for key in row)
    means = {k: _mean(row[k] for row in rows if k in row) for k in keys}
    head = {"miou": means.pop("iou"), "dice": means.pop("dice"), "n": float(len(rows))}
    return {**head, **means, **_object_scores(Matches.pooled([_matches(row) for row in rows]))}


def _matches(row: Mapping[str, float]) -> Matches:
    predicted, true, matched = (int(row[k]) for k in ("n_predicted", "n_true", "n_matched"))
    return Matches(predicted, true, matched, row["matched_iou"])


def _masks(prediction: ArrayLike, truth: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    a, b = checked_pair(prediction, truth)
    return a != 0, b != 0


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 1.0


def _mean(values: Iterable[float]) -> float:
    kept = list(values)
    return sum(kept) / len(kept) if kept else 1.0


def auc(score: ArrayLike, truth: ArrayLike) -> float:
    """Chance that an object's cell scores above one of the background; ties count half.

    Parameters
    ----------
    score : (...) float
    truth : (...) bool or int
        Of the same shape; anything but 0 is an object.

    Returns
    -------
    float
        In [0, 1]; NaN if one of the two is missing.
    """
    from sklearn.metrics import roc_auc_score  # half a second that no shell command needs

    inside = np.asarray(truth, bool).ravel()
    if inside.all() or not inside.any():
        return float("nan")
    return float(roc_auc_score(inside, np.asarray(score).ravel()))

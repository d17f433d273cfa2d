"""Predicted and true objects of a label image, paired one to one.

Source: object scores as in StarDist (Schmidt et al., "Cell detection with star-convex polygons",
MICCAI 2018). NumPy and SciPy only; knows no file and no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from napari_samic.core.errors import InputError


@dataclass(frozen=True)
class Matches:
    """Counts of objects and pairs, of one image or of many.

    Attributes
    ----------
    n_predicted, n_true, n_matched : int
    mean_iou : float
        Over the pairs; 1 where there is no object at all, 0 where there is no pair.
    """

    n_predicted: int
    n_true: int
    n_matched: int
    mean_iou: float

    @property
    def precision(self) -> float:
        """Share of the predicted objects that have a partner; 0 if only the truth has objects."""
        return self._share(self.n_predicted)

    @property
    def recall(self) -> float:
        """Share of the true objects that have a partner; 0 if only the prediction has objects."""
        return self._share(self.n_true)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        both = self.n_predicted + self.n_true
        return 2 * self.n_matched / both if both else 1.0

    def _share(self, n: int) -> float:
        return self.n_matched / n if n else float(self.n_predicted == self.n_true)

    @staticmethod
    def pooled(parts: list[Matches]) -> Matches:
        """Counts added up; the mean IoU is that of all pairs."""
        predicted = sum(m.n_predicted for m in parts)
        true = sum(m.n_true for m in parts)
        matched = sum(m.n_matched for m in parts)
        total = sum(m.mean_iou * m.n_matched for m in parts)
        return Matches(predicted, true, matched, _mean_iou(predicted + true, matched, total))


def _mean_iou(n_objects: int, n_matched: int, total: float) -> float:
    return total / n_matched if n_matched else float(n_objects == 0)


def match_objects(
    prediction: ArrayLike, truth: ArrayLike, *, iou_threshold: float = 0.5
) -> Matches:
    """Matching of objects, one to one: as many pairs as can be, then the highest sum of IoUs.

    Parameters
    ----------
    prediction, truth : (H, W) int
        Number of the object at each pixel; 0 is background.
    iou_threshold : float
        The least IoU of a pair.

    Returns
    -------
    Matches

    Raises
    ------
    InputError
        Two shapes, negative labels, or arrays that are neither bool nor integer.

    References
    ----------
    Schmidt et al., "Cell detection with star-convex polygons", MICCAI 2018.
    """
    ious = object_ious(prediction, truth)  # (P, T)
    fits = (ious >= iou_threshold) & (ious > 0)
    worth = fits * (1 + ious / (2 * max(*ious.shape, 1)))  # one more pair beats any sum of IoUs
    at = linear_sum_assignment(worth, maximize=True)
    pairs = ious[at][fits[at]]
    predicted, true = ious.shape
    mean_iou = _mean_iou(predicted + true, len(pairs), float(pairs.sum()))
    return Matches(predicted, true, len(pairs), mean_iou)


def object_ious(prediction: ArrayLike, truth: ArrayLike) -> NDArray[np.float64]:
    """IoU of every predicted with every true object.

    Parameters
    ----------
    prediction, truth : (H, W) int
        Number of the object at each pixel; 0 is background.

    Returns
    -------
    (P, T) float64
        In the order of the numbers.

    Raises
    ------
    InputError
        Two shapes, negative labels, or arrays that are neither bool nor integer.
    """
    a, b = checked_pair(prediction, truth)
    ids_a, at_a = np.unique(a, return_inverse=True)
    ids_b, at_b = np.unique(b, return_inverse=True)
    size = (len(ids_a), len(ids_b))
    at = np.ravel_multi_index((at_a.ravel(), at_b.ravel()), size) if a.size else at_a.ravel()
    table = np.bincount(at, minlength=size[0] * size[1]).reshape(size)  # with background
    both = table[ids_a != 0][:, ids_b != 0]  # (P, T)
    area_a = table.sum(axis=1)[ids_a != 0]
    area_b = table.sum(axis=0)[ids_b != 0]
    return np.asarray(both / (area_a[:, None] + area_b[None, :] - both))


def without_void(
    prediction: ArrayLike, truth: ArrayLike, void: ArrayLike
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both with 0 where nothing counts.

    Parameters
    ----------
    prediction, truth : (H, W) int
    void : (H, W) bool
        A predicted object that lies mostly here and meets no true one is gone altogether.

    Raises
    ------
    InputError
        As in `checked_pair`.
    """
    a, b = checked_pair(prediction, truth)
    ignored = np.asarray(void, bool)
    values, places = np.unique(a, return_inverse=True)
    places = places.ravel()
    area, hidden, met = (
        np.bincount(places, part.ravel(), len(values))
        for part in (np.ones(a.shape), ignored, (b != 0) & ~ignored)
    )
    gone = np.isin(a, values[(2 * hidden > area) & (met == 0)])
    return np.where(ignored | gone, 0, a), np.where(ignored, 0, b)


def checked_pair(prediction: ArrayLike, truth: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both as arrays of one shape, bool or integers from 0.

    Raises
    ------
    InputError
        Two shapes, negative labels, or arrays that are neither bool nor integer.
    """
    a, b = np.asarray(prediction), np.asarray(truth)
    if a.shape != b.shape:
        msg = f"prediction of {a.shape} against a truth of {b.shape}. Export both at one size."
        raise InputError(msg)
    for name, array in (("prediction", a), ("truth", b)):
        if array.dtype.kind not in "bui":
            raise InputError(f"{name} is {array.dtype}, expected bool or integers. Threshold it.")
        if array.dtype.kind == "i" and array.min(initial=0) < 0:
            msg = f"{name} has label {array.min()}: objects count from 1, 0 is background."
            raise InputError(f"{msg} Renumber it.")
    return a, b


def as_instances(labels: ArrayLike) -> NDArray[np.int32]:
    """Numbers of objects from a mask: one of a single value falls into 8-connected components.

    Parameters
    ----------
    labels : (H, W) int
        Instance ids are returned as they are.
    """
    given = np.asarray(labels)
    if len(np.unique(given[given > 0])) != 1:
        return np.asarray(given, np.int32)
    return np.asarray(ndimage.label(given > 0, structure=np.ones((3, 3)))[0], np.int32)

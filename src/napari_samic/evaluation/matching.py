"""Predicted and true objects of a label image, paired one to one.

Source: object scores as in StarDist (Schmidt et al., "Cell detection with star-convex polygons",
MICCAI 2018). NumPy and SciPy only; knows no file and no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from napari_samic.core.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import coo_array


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
    overlaps = sparse_object_ious(prediction, truth)
    predicted, true = overlaps.shape
    pairs = best_pairs(overlaps, iou_threshold=iou_threshold)
    mean_iou = _mean_iou(predicted + true, len(pairs), sum(iou for *_, iou in pairs))
    return Matches(predicted, true, len(pairs), mean_iou)


def best_pairs(
    overlaps: coo_array, *, iou_threshold: float, most: bool = True
) -> list[tuple[int, int, float]]:
    """Row, column and IoU of each pair: the one-to-one pairs with the highest sum of IoUs.

    Parameters
    ----------
    overlaps : (P, T) coo_array
        As `sparse_object_ious` gives them.
    iou_threshold : float
        The least IoU of a pair.
    most : bool
        As many pairs as can be come first.
    """
    from scipy.sparse import coo_array  # slow to import
    from scipy.sparse.csgraph import connected_components

    n_rows, n_columns = overlaps.shape
    fits = overlaps.data >= iou_threshold
    rows, columns, ious = overlaps.row[fits], overlaps.col[fits], overlaps.data[fits]
    graph = coo_array((ious, (rows, n_rows + columns)), shape=(n_rows + n_columns,) * 2)
    groups = connected_components(graph, directed=False)[1][rows]
    pairs: list[tuple[int, int, float]] = []
    for at in np.split(order := np.argsort(groups), np.flatnonzero(np.diff(groups[order])) + 1):
        chosen = at if len(at) < 2 else at[_chosen(rows[at], columns[at], ious[at], most)]
        pairs += zip(
            rows[chosen].tolist(), columns[chosen].tolist(), ious[chosen].tolist(), strict=True
        )
    return pairs


def _chosen(
    rows: NDArray[np.int32], columns: NDArray[np.int32], ious: NDArray[np.float64], most: bool
) -> NDArray[np.intp]:
    """Places of the best one-to-one pairs among some that compete."""
    from scipy.optimize import linear_sum_assignment  # slow to import

    (ids_a, at_a), (ids_b, at_b) = (np.unique(ids, return_inverse=True) for ids in (rows, columns))
    table = np.zeros((len(ids_a), len(ids_b)))
    table[at_a, at_b] = ious
    worth = table
    if most:  # one more pair beats any sum
        worth = (table > 0) * (1 + table / (2 * max(table.shape)))
    picked = np.zeros(table.shape, bool)
    picked[linear_sum_assignment(worth, maximize=True)] = True
    return np.flatnonzero(picked[at_a, at_b])


def sparse_object_ious(prediction: ArrayLike, truth: ArrayLike) -> coo_array:
    """IoU of each two objects that overlap; there may be 100,000.

    Parameters
    ----------
    prediction, truth : (H, W) int
        Number of the object at each pixel; 0 is background.

    Returns
    -------
    (P, T) coo_array of float64
        In the order of the numbers; what is not there is 0.

    Raises
    ------
    InputError
        Two shapes, negative labels, or arrays that are neither bool nor integer.
    """
    from scipy.sparse import coo_array  # slow to import

    a, b = checked_pair(prediction, truth)
    (ids_a, area_a), (ids_b, area_b) = (_areas(labels) for labels in (a, b))
    common = (a > 0) & (b > 0)
    codes = np.searchsorted(ids_a, a[common]) * max(1, len(ids_b))
    pairs, shared = np.unique(codes + np.searchsorted(ids_b, b[common]), return_counts=True)
    rows, columns = np.divmod(pairs, max(1, len(ids_b)))
    ious = shared / (area_a[rows] + area_b[columns] - shared)
    return coo_array((ious, (rows, columns)), shape=(len(ids_a), len(ids_b)))


def _areas(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Numbers of the objects, in order, and their pixels."""
    ids, areas = np.unique(labels[labels > 0], return_counts=True)
    return ids, areas


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

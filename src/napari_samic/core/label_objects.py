"""Label images, checked, and what is known of their objects, as all formats of export take it.

Numbers may lie far apart: nothing here costs by the largest. Knows no file and no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_samic.core.errors import InputError
from napari_samic.core.types import BoolArray, IntArray


@dataclass(frozen=True)
class ObjectRecord:
    """One object: its class from 1, and the segmenter's confidence (None: not known)."""

    label: int = 1
    score: float | None = None


@dataclass(frozen=True, eq=False)
class LabelObjects:
    """One label image.

    Attributes
    ----------
    name : str
        As `ImagePlane.label`.
    labels : (H, W) int32
    file_name : str
        Of the image that was segmented; "" if not known.
    about : dict of int to ObjectRecord
        By the value in `labels`; values without an entry are of class 1.
    classes : dict of int to str
        Names of the classes.
    numbered : bool
        Values count objects; else they are classes, and one value may be many objects.

    Raises
    ------
    InputError
        Labels that `checked_labels` refuses.
    """

    name: str
    labels: IntArray
    file_name: str = ""
    about: Mapping[int, ObjectRecord] = field(default_factory=dict)
    classes: Mapping[int, str] = field(default_factory=dict)
    numbered: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", checked_labels(self.labels, self.name))

    def of(self, value: int) -> ObjectRecord:
        """What is known of a value."""
        usual = ObjectRecord() if self.numbered else ObjectRecord(value)
        return self.about.get(value, usual)

    def class_name(self, label: int) -> str:
        """Name of a class; "class 2" if it has none."""
        return self.classes.get(label, f"class {label}")

    def cutouts(self) -> Iterator[CroppedObject]:
        """Every object that is there, by its value."""
        return cutouts(self.labels)


@dataclass(frozen=True, eq=False)
class CroppedObject:
    """An object's mask within its box, and where the box begins: (row, column)."""

    value: int
    corner_rc: tuple[int, int]
    inside: BoolArray

    def full(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """The mask in an image of `shape`."""
        out = np.zeros(shape, bool)
        (row, column), (height, width) = self.corner_rc, self.inside.shape
        out[row : row + height, column : column + width] = self.inside
        return out


def cutouts(labels: IntArray) -> Iterator[CroppedObject]:
    """Every object of a label image, by its value."""
    values, ranks = ranked(labels)
    for value, place in zip(values, ndimage.find_objects(ranks), strict=True):
        corner = (int(place[0].start), int(place[1].start))
        yield CroppedObject(value, corner, np.asarray(labels[place] == value))


def ranked(labels: IntArray) -> tuple[list[int], IntArray]:
    """Values that are there, in order, and the image with 1, 2, 3, ... in their place.

    >>> ranked(np.array([[0, 7], [7, 9]], np.int32))[0]
    [7, 9]
    """
    values, places = np.unique(labels, return_inverse=True)
    first = int(values[0] != 0)  # no ground
    ranks = np.asarray(places.reshape(labels.shape) + first, np.int32)
    return [int(v) for v in values if v], ranks


def checked_labels(labels: NDArray[Any], where: str) -> IntArray:
    """Labels as (..., H, W) int32.

    Raises
    ------
    InputError
        Fractions, no rows and columns, no pixel, or numbers outside 0 to 2**31 - 1.
    """
    if labels.ndim < 2 or labels.size == 0 or labels.dtype.kind not in "bui":
        msg = f"{where}: {labels.dtype} {labels.shape}, expected whole numbers (..., H, W)."
        raise InputError(msg)
    low, high = labels.min(), labels.max()
    if low < 0 or high > np.iinfo(np.int32).max:
        msg = f"{where}: labels from {low} to {high}, expected 0 to 2**31-1. Renumber them."
        raise InputError(msg)
    return np.asarray(labels, dtype=np.int32)

"""What is known of the objects of one label image, as all formats of export take it.

Knows no file and no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_samic.contracts import BoolArray, IntArray


@dataclass(frozen=True)
class About:
    """One object: its class from 1, and the segmenter's confidence (None: not known)."""

    label: int = 1
    score: float | None = None


@dataclass(frozen=True, eq=False)
class Labelled:
    """One label image.

    Attributes
    ----------
    name : str
        As `Plane.label`.
    labels : (H, W) int32
    file_name : str
        Of the image that was segmented; "" if not known.
    about : dict of int to About
        By the value in `labels`; values without an entry are of class 1.
    classes : dict of int to str
        Names of the classes.
    numbered : bool
        Values count objects; else they are classes, and one value may be many objects.
    """

    name: str
    labels: IntArray
    file_name: str = ""
    about: Mapping[int, About] = field(default_factory=dict)
    classes: Mapping[int, str] = field(default_factory=dict)
    numbered: bool = True

    def of(self, value: int) -> About:
        """What is known of a value."""
        usual = About() if self.numbered else About(value)
        return self.about.get(value, usual)

    def class_name(self, label: int) -> str:
        """Name of a class; "class 2" if it has none."""
        return self.classes.get(label, f"class {label}")

    def cutouts(self) -> Iterator[Cutout]:
        """Every object that is there, by its value."""
        return cutouts(self.labels)


@dataclass(frozen=True, eq=False)
class Cutout:
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


def cutouts(labels: IntArray) -> Iterator[Cutout]:
    """Every object of a label image, by its value."""
    for value, place in enumerate(ndimage.find_objects(labels), start=1):
        if place is not None:
            corner = (int(place[0].start), int(place[1].start))
            yield Cutout(value, corner, np.asarray(labels[place] == value))

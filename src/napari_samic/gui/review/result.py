"""One result while it is reviewed: its labels, and the points that each object was found by.

Frozen: a change makes another object. Plain Python and NumPy: knows no Qt, no napari, no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import InputError
from napari_samic.core.label_objects import ObjectRecord, cutouts
from napari_samic.core.types import CroppedMask, IntArray, Prompts
from napari_samic.gui.review.verdicts import Placed
from napari_samic.gui.state.annotator import AnnotationModel
from napari_samic.gui.state.image_annotation import ImageAnnotation
from napari_samic.gui.state.objects import AnnotatedObject, Box, MaskCandidates, Point, is_inside
from napari_samic.ops.simulated_annotator import inner_maximum

TOO_LARGE = (
    "an image this large can be looked at, accepted and rejected here, but not changed. Change its "
    "label file in another program."
)
NEW = 0
"""Number of a point that belongs to no object yet."""


@dataclass(frozen=True, eq=False)
class ReviewedResult:
    """See the module.

    Attributes
    ----------
    name : str
        Of the image.
    labels : (H, W) int32
    about : dict of int to ObjectRecord
        By the value in `labels`.
    points : tuple of Placed
    boxes : dict of int to Box
    numbered : bool
        Values count objects; else they are classes, and points can't be moved.
    first_new : int
        The least number that a new object may have.
    levels : list or None
        Labels of a large image as napari shows them: they are not changed here, and `boxes` says
        where each object is.
    """

    name: str
    labels: IntArray
    about: Mapping[int, ObjectRecord] = field(default_factory=dict)
    points: tuple[Placed, ...] = ()
    boxes: Mapping[int, Box] = field(default_factory=dict)
    numbered: bool = True
    first_new: int = 1
    levels: list[Any] | None = None

    def check_changeable(self) -> None:
        """Raise InputError for labels of a large image."""
        if self.levels is not None:
            raise InputError(f"{self.name}: {TOO_LARGE}")

    @property
    def values(self) -> list[int]:
        """Values that are there."""
        return [int(v) for v in np.unique(self.labels) if v]

    @property
    def next_number(self) -> int:
        """A value that no object of this result has, or had."""
        return max([self.first_new, *(1 + n for n in (*self.about, *self.values))])

    def points_of(self, number: int) -> tuple[Point, ...]:
        """Points of an object."""
        return tuple(point for n, point in self.points if n == number)

    def prompts(self, number: int) -> Prompts:
        """What the model is asked for an object."""
        points = self.points_of(number)
        box = self.boxes.get(number)
        return Prompts(
            np.array([p[:2] for p in points], np.float64).reshape(-1, 2),
            np.array([p[2] for p in points], bool),
            None if box is None else np.array(box, np.float64),
            self.about.get(number, ObjectRecord()).label,
        )

    def is_askable(self, number: int) -> bool:
        """A positive point or a box says where it is."""
        return number in self.boxes or any(sign for *_, sign in self.points_of(number))

    def records(self) -> dict[int, ObjectRecord]:
        """Class and confidence of the values that are there."""
        return {value: self.about.get(value, ObjectRecord()) for value in self.values}


def moved(
    reviewed: ReviewedResult, listed: Sequence[Placed], label: int = 1
) -> tuple[ReviewedResult, list[int]]:
    """Take all points as the layer has them.

    A point of no object belongs to the object whose mask it is in, else to a new one; a negative
    one outside all masks to the nearest object. The box that an object was found by is not on the
    screen: it goes with the last positive point, and where a point leaves it.

    Parameters
    ----------
    label : int
        Class of new objects.

    Returns
    -------
    ReviewedResult, list of int
        The numbers are of the objects whose points changed. Those that no point or box is left of
        have lost their mask.
    """
    height, width = reviewed.labels.shape
    inside = [
        (n, p) for n, p in listed if -0.5 <= p[0] <= height - 0.5 and -0.5 <= p[1] <= width - 0.5
    ]
    placed: list[Placed] = []
    for number, point in inside:
        placed.append((number or _owner(reviewed, point, placed), point))
    fresh = {n: ObjectRecord(label) for n, _ in placed if n not in reviewed.about}
    out = replace(reviewed, points=tuple(placed), about={**reviewed.about, **fresh})
    numbers = {n for n, _ in (*placed, *reviewed.points)}
    changed = sorted(n for n in numbers if out.points_of(n) != reviewed.points_of(n))
    stale = {n for n in changed if _is_stale(reviewed, out.points_of(n), n)}
    out = replace(out, boxes={n: box for n, box in out.boxes.items() if n not in stale})
    return without(out, [n for n in changed if not out.is_askable(n)]), changed


def _is_stale(reviewed: ReviewedResult, points: Sequence[Point], number: int) -> bool:
    """Whether the box of an object says no longer where it is, with these points."""
    box = reviewed.boxes.get(number)
    if box is None:
        return False
    clicks = [(row, column) for row, column, sign in points if sign]
    if not clicks:
        return any(sign for *_, sign in reviewed.points_of(number))
    return not all(is_inside(box, *click) for click in clicks)


def _owner(reviewed: ReviewedResult, point: Point, placed: Sequence[Placed]) -> int:
    row, column, sign = point
    height, width = reviewed.labels.shape
    pixel = min(round(max(row, 0)), height - 1), min(round(max(column, 0)), width - 1)
    if here := int(reviewed.labels[pixel]):
        return here
    if not sign and placed:
        return min(
            placed, key=lambda candidate: np.hypot(candidate[1][0] - row, candidate[1][1] - column)
        )[0]
    return max([reviewed.next_number, *(1 + n for n, _ in placed)])


def without(reviewed: ReviewedResult, numbers: Sequence[int]) -> ReviewedResult:
    """Without the masks of some objects."""
    if not len(numbers):
        return reviewed
    labels = np.where(np.isin(reviewed.labels, numbers), 0, reviewed.labels)
    return replace(reviewed, labels=np.asarray(labels, np.int32))


def answered(
    reviewed: ReviewedResult, number: int, mask: NDArray[Any], score: float
) -> ReviewedResult:
    """With another mask of an object; where it meets others, the surer one has the pixels."""
    labels = reviewed.labels.copy()
    labels[labels == number] = 0
    flat, inside = labels.reshape(-1), np.flatnonzero(mask)
    below = flat[inside]  # what is there now
    for value in map(int, np.unique(below)):
        rival = reviewed.about.get(value, ObjectRecord()).score
        if value == 0 or (rival is not None and rival < score):
            flat[inside[below == value]] = number
    label = reviewed.about.get(number, ObjectRecord()).label
    about = {**reviewed.about, number: ObjectRecord(label, round(float(score), 4))}
    return replace(reviewed, labels=labels, about=about)


def painted(reviewed: ReviewedResult, labels: NDArray[Any], label: int = 1) -> ReviewedResult:
    """With labels that the user painted; new values are objects of class `label`.

    The confidence of what was painted over is no longer known.
    """
    new_labels = np.array(labels, np.int32)
    about = dict(reviewed.about)
    where = new_labels != reviewed.labels
    for value in map(int, np.union1d(new_labels[where], reviewed.labels[where])):
        if value in about:
            about[value] = ObjectRecord(about[value].label)
        elif value:
            about[value] = ObjectRecord(label if reviewed.numbered else value)
    return replace(reviewed, labels=new_labels, about=about)


def with_points(reviewed: ReviewedResult) -> ReviewedResult:
    """With a point in the middle of every object that has none: for a reference."""
    more = []
    for cut in cutouts(reviewed.labels):
        if not reviewed.is_askable(cut.value):
            row, column = inner_maximum(cut.inside) + cut.corner_rc
            more.append((cut.value, (float(row), float(column), True)))
    return replace(reviewed, points=(*reviewed.points, *more))


def take_reviewed(state: AnnotationModel, reviewed: ReviewedResult, file: str) -> None:
    """Make a reviewed result a reference: its points and its masks; undo brings back what was.

    Objects without a point get one in their middle. The masks count as the model's answers, so
    that what was painted stays.

    Raises
    ------
    InputError
        The image is known in another size.
    """
    full = with_points(reviewed)
    shape = (reviewed.labels.shape[0], reviewed.labels.shape[1])
    annotation = state.annotations.get(reviewed.name) or ImageAnnotation(reviewed.name, shape, file)
    if annotation.shape != shape:
        raise InputError(
            f"{reviewed.name}: {annotation.shape} pixels here, its labels have {shape}."
        )
    state.annotations[reviewed.name] = annotation
    items = [
        _reviewed(
            full, CroppedMask(shape, cut.corner_rc, cut.inside), cut.value, number, state.model
        )
        for number, cut in enumerate(cutouts(reviewed.labels), start=annotation.next_number)
    ]
    state.classes.take({}, {item.label for item in items})
    annotation.commit(items, items[0].number if items else annotation.next_number)
    state.mark_more([reviewed.name])
    state.refresh()
    state.events.prompts.emit()


def _reviewed(
    reviewed: ReviewedResult, mask: CroppedMask, value: int, number: int, model: str
) -> AnnotatedObject:
    about = reviewed.about.get(value, ObjectRecord())
    answer = MaskCandidates((mask,), (about.score or 1.0,), model)
    return AnnotatedObject(
        number, about.label, reviewed.points_of(value), reviewed.boxes.get(value), answer
    )

"""What a reference shows: the mask of each of its objects, given or asked of the segmenter once.

Ways without training compare under the references' masks. A reference may hold clicks alone; then
the segmenter answers them, as it did while the user clicked. Must not know how masks are compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from napari_samic.core.errors import PromptError
from napari_samic.core.settings import SegmentSettings
from napari_samic.core.types import IntArray, Prompts, Reference, Segmenter, frozen
from napari_samic.evaluation.matching import as_instances
from napari_samic.io.text_files import pixels_sha256

AS_CLICKED = SegmentSettings(duplicate_iou=1.0, drop_covered=False)
"""Whatever a user clicked stays."""
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class InstanceMasks:
    """Masks of one reference.

    Attributes
    ----------
    numbers : (H, W) int32
        0 is background, k is the object of class `classes[k - 1]`.
    classes : tuple of int
    """

    numbers: IntArray
    classes: tuple[int, ...]

    @cached_property
    def by_class(self) -> IntArray:
        """Class of each pixel, (H, W) int32."""
        table = np.array([0, *self.classes], np.int32)
        return frozen(table[self.numbers], np.int32)


def mask_of(reference: Reference, segmenter: Segmenter | None = None) -> InstanceMasks:
    """Masks of the objects of a reference.

    Parameters
    ----------
    reference : Reference
        Objects of its mask are instance ids, or the parts of a mask of one value. Each has the
        class of the prompts that lie in it; one without prompts has the only class there is (1 if
        there is no prompt at all), and is left out where there are several.
    segmenter : Segmenter, optional
        Asked for the objects if there is no mask.

    Returns
    -------
    InstanceMasks

    Raises
    ------
    PromptError
        Neither a mask nor a prompt, or no segmenter to ask.
    """
    if reference.mask is not None:
        return _from_mask(reference)
    objects = [p for p in reference.objects if not p.is_empty]
    if not objects:
        msg = f"{reference.name}: neither a mask nor a click. Annotate it, or leave it out."
        raise PromptError(msg)
    if segmenter is None:
        msg = f"{reference.name}: clicks but no mask, and no segmenter to ask. Give one of both."
        raise PromptError(msg)
    segmentation = segmenter.segment(reference.image, objects, settings=AS_CLICKED)
    return InstanceMasks(segmentation.labels, tuple(p.label for p in segmentation.objects))


def _from_mask(reference: Reference) -> InstanceMasks:
    ids = np.asarray(as_instances(reference.mask), np.int32)  # type: ignore[arg-type]
    votes: dict[int, Counter[int]] = {}
    for prompts in reference.objects:
        for row, column in _inside(prompts, ids.shape):
            votes.setdefault(int(ids[row, column]), Counter())[prompts.label] += 1
    labels = {p.label for p in reference.objects} or {1}
    alone = min(labels) if len(labels) == 1 else 0
    numbers, classes = np.zeros(ids.shape, np.int32), []
    for value in (int(v) for v in np.unique(ids) if v > 0):
        label = votes[value].most_common(1)[0][0] if value in votes else alone
        if label:
            classes.append(label)
            numbers[ids == value] = len(classes)
    return InstanceMasks(frozen(numbers, np.int32), tuple(classes))


def _inside(prompts: Prompts, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Pixels that say where an object is: its positive points, else the middle of its box."""
    points = prompts.points_rc[prompts.is_foreground]
    if not len(points) and prompts.box_rc is not None:
        points = prompts.box_rc.reshape(2, 2).mean(0, keepdims=True)
    limits = np.array(shape[:2]) - 1
    return [(int(r), int(c)) for r, c in np.clip(np.rint(points), 0, limits)]


class ReferenceMaskCache:
    """`mask_of`, remembered for each reference as long as that lives."""

    def __init__(self, segmenter: Segmenter | None = None) -> None:
        self._segmenter = segmenter
        self._masks: WeakKeyDictionary[Reference, InstanceMasks] = WeakKeyDictionary()

    def of(self, reference: Reference) -> InstanceMasks:
        """As `mask_of`."""
        if reference not in self._masks:
            self._masks[reference] = mask_of(reference, self._segmenter)
        return self._masks[reference]


def in_order(references: Sequence[Reference]) -> tuple[Reference, ...]:
    """References by name and content, so that no answer depends on the order they came in."""

    def place(reference: Reference) -> tuple[str, str]:
        return reference.name, pixels_sha256(reference.image)

    return tuple(sorted(references, key=place))


class FewShotCache(Generic[T]):
    """References to what a method made of them, remembered for the last ones.

    Parameters
    ----------
    make : callable
        References, in order, to what is learned from them.
    references : sequence of Reference
        Used when none are given.
    """

    def __init__(
        self, make: Callable[[tuple[Reference, ...]], T], references: Sequence[Reference] = ()
    ) -> None:
        self.references = tuple(references)
        self._make = make
        self._last: tuple[frozenset[Reference], T] | None = None

    def of(self, references: Sequence[Reference] = ()) -> T:
        """What was made of these references, or of the default ones.

        Raises
        ------
        PromptError
            No reference at all.
        """
        chosen = frozenset(references or self.references)
        if not chosen:
            raise PromptError("no reference. Annotate an image first, or give some references.")
        if self._last is None or self._last[0] != chosen:
            self._last = chosen, self._make(in_order(tuple(chosen)))
        return self._last[1]


def classes_of(masks: Sequence[InstanceMasks]) -> list[int]:
    """All classes that these masks have a pixel of, ascending.

    Raises
    ------
    PromptError
        None.
    """
    classes: set[Any] = set()
    for instances in masks:
        classes |= set(np.unique(instances.by_class).tolist())
    if not classes - {0}:
        msg = "no reference shows an object: all their masks are empty. Annotate one that does."
        raise PromptError(msg)
    return sorted(classes - {0})

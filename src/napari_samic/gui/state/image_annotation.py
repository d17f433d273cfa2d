"""One image while it is being annotated: its objects, which is current, and undo.

Plain Python: knows no Qt, no napari, no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from napari_samic.core.types import BoolArray, CroppedMask, IntArray
from napari_samic.gui.state.objects import AnnotatedObject, AnnotationCost, Box, Point

LEVELS = 200
"""Steps of undo that are kept for an image."""
Snapshot: TypeAlias = tuple[tuple[AnnotatedObject, ...], int]
PromptsOf: TypeAlias = Mapping[int, tuple[tuple[Point, ...], Box | None]]
"""Points and box by the object's number."""


@dataclass(eq=False)
class ImageAnnotation:
    """See the module.

    Attributes
    ----------
    name : str
        As `ImagePlane.label`.
    shape : (H, W)
    file : str
        "" if it has none.
    items : tuple of AnnotatedObject
        In the order of their numbers.
    current : int
        Number of the object that the next click belongs to; it may have no item yet.
    costs : dict of int to AnnotationCost
        By number; 0 holds what a loaded file says of the whole image.
    is_reference : bool
    sha256 : str
        Of its RGB pixels, once they were read.
    normalization : dict or None
        How the pixels became RGB, once known.
    """

    name: str
    shape: tuple[int, int]
    file: str = ""
    items: tuple[AnnotatedObject, ...] = ()
    current: int = 1
    costs: dict[int, AnnotationCost] = field(default_factory=dict)
    is_reference: bool = False
    sha256: str = ""
    normalization: dict[str, Any] | None = None
    past: list[Snapshot] = field(default_factory=list)
    future: list[Snapshot] = field(default_factory=list)

    def item(self, number: int | None = None) -> AnnotatedObject | None:
        """The object of that number (None: the current one), if it has prompts."""
        wanted = self.current if number is None else number
        return next((item for item in self.items if item.number == wanted), None)

    @property
    def next_number(self) -> int:
        """A number that no object of this image ever had."""
        return 1 + max([0, *self.costs, *(item.number for item in self.items)])

    def commit(self, items: Sequence[AnnotatedObject], current: int) -> None:
        """Change the objects so that it can be undone; blank ones fall away."""
        self.past.append((self.items, self.current))
        del self.past[:-LEVELS]
        self.future.clear()
        kept = (item for item in items if not item.is_blank)
        self.items = tuple(sorted(kept, key=lambda item: item.number))
        self.current = current

    def prompts_of(self, number: int) -> tuple[tuple[Point, ...], Box | None]:
        """Points and box of an object; none if it has none yet."""
        item = self.item(number)
        return ((), None) if item is None else (item.points, item.box)

    def prompt(self, prompts: PromptsOf, label: int) -> list[AnnotatedObject]:
        """Give objects other prompts in one step of undo; new objects get the class `label`.

        Returns
        -------
        list of AnnotatedObject
            Those whose prompts changed; one of them is current then.
        """
        changed = []
        for number, (points, box) in sorted(prompts.items()):
            item = self.item(number) or AnnotatedObject(number, label)
            if (item.points, item.box) != (points, box):
                changed.append(item.prompted(points, box))
        if changed:
            numbers = [item.number for item in changed]
            current = self.current if self.current in numbers else numbers[-1]
            self.commit([*(i for i in self.items if i.number not in numbers), *changed], current)
        return changed

    def paint(self, number: int, where: BoolArray, label: int) -> list[int]:
        """Give pixels to one object and take them from all others, in one step of undo.

        Parameters
        ----------
        number : int
            0: to none. One that is not there is a new object of the class `label`.
        where : (H, W) bool

        Returns
        -------
        list of int
            Objects whose masks changed; one that keeps no pixel is gone.
        """
        window = CroppedMask.of(where)
        items, changed = list(self.items), []
        if number and self.item(number) is None:
            items.append(AnnotatedObject(number, label))
        for i, item in enumerate(items):
            if item.number != number and not (item.mask and item.mask.touches(window)):
                continue
            before = np.zeros(self.shape, bool) if item.mask is None else item.mask.full()
            after = before | where if item.number == number else before & ~where
            if np.array_equal(before, after):
                continue
            changed.append(item.number)
            blank = AnnotatedObject(item.number)
            items[i] = item.redrawn(CroppedMask.of(after)) if after.any() else blank
        if changed:
            self.commit(items, number or self.current)
        return changed

    def undo(self) -> bool:
        """Go one step back; False if there is none."""
        return self._step(self.past, self.future)

    def redo(self) -> bool:
        """Take one undo back; False if there is none."""
        return self._step(self.future, self.past)

    def _step(self, source: list[Snapshot], target: list[Snapshot]) -> bool:
        if not source:
            return False
        target.append((self.items, self.current))
        self.items, self.current = source.pop()
        return True

    def amend(self, item: AnnotatedObject) -> None:
        """Replace an object without a step of undo: for what was not done by the user."""
        self.items = tuple(item if i.number == item.number else i for i in self.items)

    def spend(self, number: int, clicks: int, seconds: float) -> None:
        """Add to what an object cost."""
        self.costs[number] = self.costs.get(number, AnnotationCost()).plus(clicks, seconds)

    def cost(self, number: int | None = None) -> AnnotationCost:
        """What an object cost, or the whole image."""
        if number is not None:
            return self.costs.get(number, AnnotationCost())
        total = AnnotationCost()
        for cost in self.costs.values():
            total = total.plus(cost.clicks, cost.seconds)
        return total

    def relabel(self, label: int) -> None:
        """Give the current object another class."""
        item = self.item()
        if item is not None and item.label != label:
            changed = replace(item, label=label)
            self.commit([changed if i is item else i for i in self.items], self.current)

    def holds(self, row: float, column: float) -> bool:
        """Whether a place is inside the image."""
        height, width = self.shape
        return -0.5 <= row <= height - 0.5 and -0.5 <= column <= width - 0.5

    def clipped(self, box: Box) -> Box | None:
        """The part of a box inside the image; None if it is thinner than a pixel."""
        height, width = self.shape
        rows = sorted(min(max(v, -0.5), height - 0.5) for v in (box[0], box[2]))
        columns = sorted(min(max(v, -0.5), width - 0.5) for v in (box[1], box[3]))
        if rows[1] - rows[0] < 1 or columns[1] - columns[0] < 1:
            return None
        return rows[0], columns[0], rows[1], columns[1]

    def painted(self) -> list[tuple[int, CroppedMask]]:
        """Numbers and masks in the order they are painted: the surer one later, so on top."""
        items = sorted(self.items, key=lambda i: (i.rank, -i.number))
        return [(item.number, item.mask) for item in items if item.mask is not None]

    def labels(self) -> IntArray:
        """Masks as (H, W) int32 of the objects' numbers; where they overlap the surer one wins."""
        out = np.zeros(self.shape, np.int32)
        for number, mask in self.painted():
            mask.paint(out, number)
        return out

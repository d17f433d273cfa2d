"""One object while it is being annotated: prompts, answers and their story, all frozen.

Frozen, so that a step of undo is a reference to what was. Plain Python and NumPy: knows no Qt, no
napari, no model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.types import Candidates, CroppedMask, Prompts
from napari_samic.ops.simulated_annotator import inner_maximum, is_steady

Point: TypeAlias = tuple[float, float, bool]
"""Row, column, and whether it is positive."""
Box: TypeAlias = tuple[float, float, float, float]
"""First row, first column, last row, last column."""


def is_inside(box: Box, row: float, column: float) -> bool:
    """Whether a box holds a place; its rim belongs to it.

    >>> is_inside((2, 2, 5, 5), 5, 3), is_inside((2, 2, 5, 5), 6, 3)
    (True, False)
    """
    return box[0] <= row <= box[2] and box[1] <= column <= box[3]


@dataclass(frozen=True, eq=False)
class MaskCandidates:
    """What a model said to one object's prompts.

    Attributes
    ----------
    masks : tuple of CroppedMask
        The single answer first; then the other candidates for an ambiguous prompt, once known.
    scores : tuple of float
    model : str
    """

    masks: tuple[CroppedMask, ...]
    scores: tuple[float, ...]
    model: str

    @classmethod
    def of(cls, candidates: Candidates, model: str) -> Self:
        """From a segmenter's candidates, in their order."""
        masks = tuple(CroppedMask.of(mask) for mask in candidates.masks)
        return cls(masks, tuple(float(score) for score in candidates.scores), model)

    def plus(self, candidates: Candidates) -> MaskCandidates:
        """With further masks."""
        more = MaskCandidates.of(candidates, self.model)
        return MaskCandidates(self.masks + more.masks, self.scores + more.scores, self.model)


@dataclass(frozen=True, eq=False)
class AnnotatedObject:
    """One object.

    Attributes
    ----------
    number : int
        From 1; its value in the labels layer. Never given again within an image.
    label : int
        Class, from 1.
    points : tuple of Point
    box : Box or None
    answer : MaskCandidates or None
        None until the model answered these very prompts.
    choice : int
        Which of the answer's masks is shown.
    history : tuple of float
        Confidence after each earlier prompt.
    before : CroppedMask or None
        Mask of the earlier prompts, shown until the answer comes.
    drawn : CroppedMask or None
        Mask that the user drew or loaded: no model is asked while it stands.
    """

    number: int
    label: int = 1
    points: tuple[Point, ...] = ()
    box: Box | None = None
    answer: MaskCandidates | None = None
    choice: int = 0
    history: tuple[float, ...] = ()
    before: CroppedMask | None = None
    drawn: CroppedMask | None = None

    @property
    def is_blank(self) -> bool:
        """No prompt at all."""
        return not self.points and self.box is None

    @property
    def is_askable(self) -> bool:
        """A positive point or a box says where it is."""
        return self.box is not None or any(positive for _, _, positive in self.points)

    def may_fill(self, box: Box) -> bool:
        """Whether a box can be of this object: a positive click is inside, or there is none."""
        clicks = [(row, column) for row, column, positive in self.points if positive]
        return any(is_inside(box, *click) for click in clicks) or not clicks

    @property
    def clicks(self) -> int:
        """Points, and the box as one more."""
        return len(self.points) + (self.box is not None)

    @property
    def score(self) -> float | None:
        """Confidence in the shown mask; None while there is none, or if it was drawn."""
        return None if self.answer is None else self.answer.scores[self.choice]

    @property
    def mask(self) -> CroppedMask | None:
        """The shown mask."""
        if self.drawn is not None:
            return self.drawn
        return self.before if self.answer is None else self.answer.masks[self.choice]

    @property
    def scores(self) -> tuple[float, ...]:
        """Confidence after each prompt, this one included."""
        return self.history if self.answer is None else (*self.history, self.answer.scores[0])

    @property
    def rank(self) -> float:
        """Which of two masks that overlap is on top; the same until another answer comes."""
        if self.drawn is not None:
            return math.inf
        return (self.scores or (0.0,))[-1] if self.score is None else self.score

    def is_steady(self) -> bool:
        """Further clicks change little."""
        return is_steady(self.scores)

    def prompts(self) -> Prompts:
        """As the models take them."""
        return self._prompts

    @cached_property
    def _prompts(self) -> Prompts:
        """Made once: all are saved again with each click, thousands where labels were loaded."""
        points = np.array([(r, c) for r, c, _ in self.points], np.float64).reshape(-1, 2)
        signs = np.array([positive for _, _, positive in self.points], bool)
        box = None if self.box is None else np.array(self.box, np.float64)
        return Prompts(points, signs, box, self.label)

    def prompted(self, points: tuple[Point, ...], box: Box | None) -> AnnotatedObject:
        """With other prompts, not answered yet; the confidence so far goes into the history."""
        fresh = AnnotatedObject(self.number, self.label, points, box)
        return replace(fresh, history=self.scores, before=self.mask)

    def redrawn(self, mask: CroppedMask) -> AnnotatedObject:
        """With a mask of the user's; prompts that it belies go, and one inside is left."""
        points = tuple(p for p in self.points if mask.holds(p[0], p[1]) == p[2])
        if not any(positive for _, _, positive in points):
            row, column = inner_maximum(mask.inside) + np.array(mask.corner)
            points = (*points, (float(row), float(column), True))
        box = None if self.box is None else mask.box
        return AnnotatedObject(
            self.number, self.label, points, box, history=self.scores, drawn=mask
        )


@dataclass(frozen=True)
class AnnotationCost:
    """What an object cost; undo does not give it back."""

    clicks: int = 0
    seconds: float = 0.0

    def plus(self, clicks: int, seconds: float) -> AnnotationCost:
        """With more of both."""
        return AnnotationCost(self.clicks + clicks, self.seconds + seconds)


@dataclass(frozen=True, eq=False)
class Hint:
    """The overlay, (H, W, 3) uint8, and where a next click would tell most."""

    picture: NDArray[np.uint8]
    point_rc: tuple[float, float] | None

"""What is remembered of a stack or a video: its last frames, as further references.

The user's own references always count in full; frames count less the older and the less sure they
are, and those that are unsure or not where they were expected are never taken. Knows no model and
no file, and not how a frame was segmented.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_samic.core.settings import AnnotateSettings, MemorySettings
from napari_samic.core.types import Image, IntArray, Prompts, Reference
from napari_samic.evaluation.matching import as_instances
from napari_samic.ops import simulated_annotator

DECAY = 0.7
"""Weight of a frame against the one after it; the user's own references count 1."""
SCORE = 0.5
"""Frames of lower confidence are not remembered."""
AGREEMENT = 0.6
"""Nor those that overlap less (IoU) with what was carried over from the frame before."""


@dataclass(frozen=True, eq=False)
class _Frame:
    """An accepted frame; `number` counts all that were offered."""

    reference: Reference
    confidence: float
    number: int


class FrameMemory:
    """Last accepted frames of one sequence.

    Parameters
    ----------
    settings : MemorySettings, optional

    Attributes
    ----------
    first : Reference or None
        What `begin` was given: a frame of this sequence that the user annotated.
    """

    def __init__(self, settings: MemorySettings | None = None) -> None:
        self.settings = settings or MemorySettings()
        self.first: Reference | None = None
        self._frames: deque[_Frame] = deque(maxlen=self.settings.memory_frames)
        self._offered = 0

    def forget(self) -> None:
        """Start anew: another sequence begins."""
        self.first = None
        self._frames.clear()
        self._offered = 0

    def begin(self, reference: Reference) -> None:
        """Forget all, and start from an annotated frame, which counts in full from then on."""
        self.forget()
        self.first = reference

    def offer(
        self,
        image: Image,
        labels: IntArray,
        *,
        confidence: float,
        agreement: float,
        classes: Mapping[int, int] | None = None,
    ) -> bool:
        """Take a segmented frame, if it is sure enough; to be called for every frame.

        Parameters
        ----------
        image : (H, W, 3) uint8
        labels : (H, W) int32
            Numbers of its objects.
        confidence : float
            Of the frame, in [0, 1].
        agreement : float
            IoU with what was carried over from the frame before, in [0, 1]; 1 if none was.
        classes : dict of int to int, optional
            Class of each number; default 1.

        Returns
        -------
        bool
            Whether it was taken. One that shows no object never is.
        """
        self._offered += 1
        if confidence < SCORE or agreement < AGREEMENT:
            return False
        objects = prompts_of(labels, classes or {})
        if not objects or not self.settings.memory_frames:
            return False
        taken = Reference(f"frame {self._offered}", image, objects, labels)
        self._frames.append(_Frame(taken, float(np.clip(confidence, 0, 1)), self._offered))
        return True

    def references(
        self, own: Sequence[Reference] = ()
    ) -> tuple[tuple[Reference, ...], tuple[float, ...]]:
        """All references with their weights.

        Parameters
        ----------
        own : sequence of Reference
            The user's; they come first and count 1.

        Returns
        -------
        references : (K,) tuple of Reference
        weights : (K,) tuple of float
            Of a frame its confidence times `DECAY` to the power of its age; the last one is 1 old.
        """
        lasting = tuple(own)
        if self.first is not None and all(r is not self.first for r in lasting):
            lasting += (self.first,)
        ages = [self._offered - f.number + 1 for f in self._frames]
        weights = [f.confidence * DECAY**age for f, age in zip(self._frames, ages, strict=True)]
        frames = tuple(f.reference for f in self._frames)
        return (*lasting, *frames), (*([1.0] * len(lasting)), *weights)


def prompts_of(labels: IntArray, classes: Mapping[int, int]) -> tuple[Prompts, ...]:
    """One click in each object, under its class.

    Parameters
    ----------
    labels : (H, W) int32
    classes : dict of int to int
        Class of each number; default 1.
    """
    table = class_table(classes, labels)
    objects: list[Prompts] = []
    for label in np.unique(table[labels[labels > 0]]).tolist():
        members = np.where(table[labels] == label, labels, 0)
        objects += [
            replace(p, label=label)
            for p in simulated_annotator.prompts_of(members, AnnotateSettings())
        ]
    return tuple(objects)


def class_table(classes: Mapping[int, int], labels: IntArray) -> IntArray:
    """Class of each number up to the highest of `labels`: 0 of 0, 1 where none is known."""
    table = np.ones(max([0, *classes, int(labels.max(initial=0))]) + 1, np.int32)
    table[0] = 0
    table[list(classes)] = list(classes.values())
    return table


def numbered(
    reference: Reference, mask: IntArray, *, instances: bool
) -> tuple[IntArray, dict[int, int]]:
    """Objects of a reference, and the class of each.

    Parameters
    ----------
    reference : Reference
        An object has the class of the first positive click in it, else 1.
    mask : (H, W) int32
        The reference's.
    instances : bool
        A mask of one value falls into its parts; else objects of one class are one.

    Returns
    -------
    labels : (H, W) int32
    classes : dict of int to int
    """
    labels = as_instances(mask)
    classes = dict.fromkeys(np.unique(labels[labels > 0]).tolist(), 1)
    for prompts in reversed(reference.objects):
        clicks = np.rint(prompts.points_rc[prompts.is_foreground]).astype(int)
        for row, column in np.clip(clicks, 0, np.array(labels.shape) - 1)[::-1]:
            if number := int(labels[row, column]):
                classes[number] = prompts.label
    if instances:
        return labels, classes
    return class_table(classes, labels)[labels], {c: c for c in set(classes.values())}

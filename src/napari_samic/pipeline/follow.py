"""One frame after another: what the frames before say about the next.

Beside `segment.Worker`, and callable by the loop as that one is: planes of a stack follow each
other, files of a folder only if the settings say so. Without a frame before, and with `order`
never, it is the same as the worker. Knows no file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage

from napari_samic import colours, tracking
from napari_samic.contracts import (
    FloatArray,
    Image,
    IntArray,
    Plane,
    Prompts,
    Proposal,
    Reference,
    Segmentation,
)
from napari_samic.errors import InputError
from napari_samic.join import APART_PX
from napari_samic.matching import as_instances
from napari_samic.metrics import iou
from napari_samic.models import carrying
from napari_samic.models.memory import Memory
from napari_samic.models.samic import SamicPrompter
from napari_samic.normalise import Normalisation
from napari_samic.pipeline.loop import Answer
from napari_samic.pipeline.segment import Worker
from napari_samic.sambox import inner_maximum
from napari_samic.settings import MemorySettings, SegmentSettings

MAP_ODDS = 1.0
"""Log odds that the map gives at its peak, and takes where it is 0."""
COLOUR_ODDS = 1.0
"""How much the odds of a pixel's colour count."""


@dataclass(frozen=True, eq=False)
class Track:
    """The last frame with numbers that objects keep over the whole sequence.

    Attributes
    ----------
    image : (H, W, 3) uint8
    labels : (H, W) int32
    classes : dict of int to int
        Class of each number that the sequence ever had.
    first_new : int
        The number that the next newcomer gets.
    """

    image: Image
    labels: IntArray
    classes: dict[int, int]
    first_new: int


class Follower:
    """Segments frames in their order.

    Parameters
    ----------
    prompter : SamicPrompter
    segmenter : Segmenter
    settings : MemorySettings, optional
    segmenting : SegmentSettings, optional

    Attributes
    ----------
    memory : Memory
    track : Track or None
        None before the first frame, and after `forget`.
    """

    def __init__(
        self,
        prompter: SamicPrompter,
        segmenter: Any,
        settings: MemorySettings | None = None,
        segmenting: SegmentSettings | None = None,
    ) -> None:
        self.worker = Worker(prompter, segmenter, segmenting or SegmentSettings())
        self.settings = settings or MemorySettings()
        self.memory = Memory(self.settings)
        self.track: Track | None = None
        self._place: tuple[Any, ...] | None = None
        self._seen: dict[int, tuple[Reference, dict[int, FloatArray]]] = {}
        self._side: int | None = None
        self._numbers: tuple[int, ...] = ()

    @property
    def normalisation(self) -> Normalisation:
        """Of the pixels that the prompter was trained on."""
        return self.worker.normalisation

    def forget(self) -> None:
        """Start anew: the next image follows no other."""
        self.memory.forget()
        self.track, self._place = None, None
        self._seen = {}

    def begin(self, reference: Reference) -> None:
        """Start a sequence from an annotated frame; the next image follows it.

        Parameters
        ----------
        reference : Reference
            With its mask: the objects that are followed. Where instances are asked for, a mask of
            one value is one object for each of its parts, else one for each class.

        Raises
        ------
        InputError
            No mask.
        """
        if reference.mask is None:
            msg = f"{reference.name}: no mask, expected one to follow. Annotate it as objects."
            raise InputError(msg)
        self.forget()
        self.memory.begin(reference)
        labels, classes = numbered(reference, instances=self.worker.settings.instances)
        first_new = int(labels.max(initial=0)) + 1
        self.track = Track(reference.image, labels, classes, first_new)

    def __call__(self, plane: Plane, image: Image) -> Answer:
        """Result of one plane, for the loop; the lasting numbers are in the scores' `identity`."""
        follows, place = self._placed(plane)
        if not follows:
            self.forget()
        answer = self.worker(plane, image) if place is None else self._answer(image)
        self._place = place
        return answer

    def _placed(self, plane: Plane) -> tuple[bool, tuple[Any, ...] | None]:
        """Whether a plane follows the one before, and its sequence with its place there.

        Axes of a stack but the last are sequences of their own.
        """
        order, was = self.settings.order, self._place
        if order == "never" or (order == "auto" and not plane.stack_shape):
            return was is None and self.track is None, None
        if not plane.stack_shape:
            return was is None or was[0] == "folder", ("folder", 0)
        place = (plane.path, plane.name, plane.stack_shape, plane.index[:-1], plane.index[-1])
        started = was is None and self.track is not None
        return started or was == (*place[:-1], place[-1] - 1), place

    def _answer(self, image: Image) -> Answer:
        result = self.segment(image)
        known = {label: round(value, 4) for label, value in result.agreement.items()}
        extra: dict[int, dict[str, Any]] = {
            id(p): {"identity": number}
            | ({"agreement": known[p.label]} if p.label in known else {})
            for p, number in zip(result.objects, self.numbers, strict=True)
        }
        count = len(result.scores)
        caption = f"{count} object{'s' if count != 1 else ''}, score {result.score:.2f}"
        return Answer(result, caption, extra=extra, numbered=self.worker.settings.instances)

    def segment(self, image: Image) -> Segmentation:
        """Segment the next frame, (H, W, 3) uint8.

        Parameters
        ----------
        image : (H, W, 3) uint8
            Of another size than the frame before: it follows no other.

        Returns
        -------
        Segmentation
            Numbered as ever; `track.labels` has the numbers that last.
        """
        if self.settings.order == "never":
            return self.worker.segment(image)
        if self.track is not None and self.track.image.shape != image.shape:
            self.forget()
        if self.track is None or not self.track.labels.any():
            return self._first(image)
        return self._next(image, self.track)

    def _first(self, image: Image) -> Segmentation:
        """As the worker does, with the numbers of a sequence that goes on, if one does."""
        result = self.worker.segment(image)
        start = 1 if self.track is None else self.track.first_new
        classes = {} if self.track is None else self.track.classes
        labels, first_new = tracking.same_objects(
            np.zeros_like(result.labels), result.labels, first_new=start
        )
        values = np.unique(result.labels[result.labels > 0]).tolist()
        new = np.unique(labels[labels > 0]).tolist()
        instances = self.worker.settings.instances
        kinds = [result.objects[v - 1].label if instances else v for v in values]
        classes = {**classes, **dict(zip(new, kinds, strict=True))}
        self.track, self._numbers = Track(image, labels, classes, first_new), tuple(new)
        self.memory.offer(image, labels, confidence=result.score, agreement=1.0, classes=classes)
        return result

    @property
    def numbers(self) -> tuple[int, ...]:
        """Lasting number of each object of the last result."""
        return self._numbers

    def _next(self, image: Image, last: Track) -> Segmentation:
        here = tracking.carried(last.labels, tracking.flow(last.image, image))
        proposal, maps = self._proposed(image, here, last.classes)
        expected = list(carrying.hunches(here, last.classes, self._evidence(image, maps)))
        if expected and self._side is None:
            prompts = carrying.asked(expected[0], here.shape)[0]
            self._side = carrying.logits_side(self.worker.segmenter, image, prompts)
        fits = carrying.fitted(self.worker.segmenter, image, expected, self._side)
        labels = carrying.settled(fits, here.shape)
        scores = {f.hunch.number: f.score for f in fits}
        classes = dict(last.classes)
        first_new = self._add_new(image, proposal, labels, scores, classes, last.first_new)
        self.track = Track(image, labels, classes, first_new)
        result = self._result(labels, scores, classes, proposal)
        agreement = iou(labels > 0, here > 0)
        self.memory.offer(
            image, labels, confidence=result.score, agreement=agreement, classes=classes
        )
        return result

    def _proposed(
        self, image: Image, here: IntArray, classes: dict[int, int]
    ) -> tuple[Proposal, dict[int, FloatArray]]:
        """Motion-consistent peaks, and the maps that they are of."""
        prompter = self.worker.prompter
        references, weights = self.memory.references(prompter.references)
        maps, agreement = prompter.maps_and_agreement(references, image, weights)
        table = class_table(classes, here)
        floor = self.settings.floor
        for label, values in maps.items():
            mine = table[here] == label
            if mine.any():
                expected = tracking.prior(mine)
                maps[label] = tracking.motion_consistent(values, expected, floor=floor)
        return replace(prompter.proposal(maps, image.shape), agreement=agreement), maps

    def _evidence(self, image: Image, maps: dict[int, FloatArray]) -> dict[int, FloatArray]:
        """Log odds of each class, (H, W), from colours and map."""
        references, weights = self.memory.references(self.worker.prompter.references)
        out = {}
        for label, values in maps.items():
            seen = [
                weight * counts
                for reference, weight in zip(references, weights, strict=True)
                if (counts := self._colours(reference, label)) is not None
            ]
            out[label] = tracking.resized(values / max(float(values.max()), 1e-6), image.shape[:2])
            out[label] = MAP_ODDS * (2 * out[label] - 1)
            if seen:
                out[label] = out[label] + COLOUR_ODDS * colours.odds(image, np.sum(seen, axis=0))
        return out

    def _colours(self, reference: Reference, label: int) -> FloatArray | None:
        """Colours of a class in a reference with a mask; counted once."""
        if reference.mask is None:
            return None
        if id(reference) not in self._seen:
            labels, classes = numbered(reference, instances=True)
            table = class_table(classes, labels)
            self._seen[id(reference)] = (reference, {
                kind: colours.counts(reference.image, table[labels] == kind)
                for kind in set(classes.values())
            })  # fmt: skip
        return self._seen[id(reference)][1].get(label)

    def _add_new(
        self,
        image: Image,
        proposal: Proposal,
        labels: IntArray,
        scores: dict[int, float],
        classes: dict[int, int],
        first_new: int,
    ) -> int:
        """Objects at peaks away from all that are known; into `labels`, `scores`, `classes`."""
        away = ndimage.distance_transform_edt(labels == 0)
        limit = np.array(labels.shape) - 1
        free = [
            p
            for p in proposal.objects
            if away[tuple(np.clip(np.rint(p.points_rc[0]), 0, limit).astype(int))] > APART_PX
        ]
        settings = replace(self.worker.settings, instances=True)
        found = self.worker.segmenter.segment(image, free, settings=settings)
        known = first_new
        named, first_new = tracking.same_objects(labels, found.labels, first_new=first_new)
        for k, (prompts, score) in enumerate(zip(found.objects, found.scores, strict=True), 1):
            number = int(named[found.labels == k][0])
            part = (found.labels == k) & (labels == 0)
            if number >= known and part.sum() > 0.5 * (found.labels == k).sum():
                labels[part] = number
                scores[number], classes[number] = float(score), prompts.label
        return first_new

    def _result(
        self,
        labels: IntArray,
        scores: dict[int, float],
        classes: dict[int, int],
        proposal: Proposal,
    ) -> Segmentation:
        """With consecutive numbers, or classes, as a Segmentation has them."""
        shown = np.unique(labels[labels > 0]).tolist()
        self._numbers = tuple(shown)
        table = np.zeros(max(shown, default=0) + 1, np.int32)
        instances = self.worker.settings.instances
        table[shown] = range(1, len(shown) + 1) if instances else [classes[n] for n in shown]
        objects = tuple(
            Prompts(inner_maximum(labels == n)[None], np.array([True]), label=classes[n])
            for n in shown
        )
        values = np.array([scores[n] for n in shown], np.float32)
        return Segmentation(table[labels], values, objects, proposal.heat_map, proposal.agreement)


def class_table(classes: dict[int, int], labels: IntArray) -> IntArray:
    """Class of each number up to the highest of `labels`; 0 for background."""
    table = np.zeros(max([0, *classes, int(labels.max(initial=0))]) + 1, np.int32)
    table[list(classes)] = list(classes.values())
    return table


def numbered(reference: Reference, *, instances: bool) -> tuple[IntArray, dict[int, int]]:
    """Objects of a reference's mask, and the class of each.

    Parameters
    ----------
    reference : Reference
        With a mask. An object has the class of the first positive click in it, else 1.
    instances : bool
        A mask of one value falls into its parts; else objects of one class are one.

    Returns
    -------
    labels : (H, W) int32
    classes : dict of int to int
    """
    labels = as_instances(reference.mask)
    classes = dict.fromkeys(np.unique(labels[labels > 0]).tolist(), 1)
    for prompts in reversed(reference.objects):
        for row, column in np.rint(prompts.points_rc[prompts.is_foreground]).astype(int)[::-1]:
            number = int(labels[row, column])
            if number:
                classes[number] = prompts.label
    if instances:
        return labels, classes
    merged = class_table(classes, labels)[labels]
    return merged, {c: c for c in set(classes.values())}

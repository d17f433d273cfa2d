"""One frame after another: what the frames before say about the next.

Beside `ImagePredictor`, and callable by `BatchRunner` as that one is: planes of a stack follow
each other, files of a folder only if the settings say so. Without a frame before, and with
`follow` never, it is the same as `ImagePredictor`. Knows no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from napari_samic.core.errors import InputError
from napari_samic.core.settings import MemorySettings, SegmentSettings
from napari_samic.core.types import (
    FloatArray,
    Image,
    ImagePlane,
    IntArray,
    Job,
    LazyImage,
    PromptProposal,
    Prompts,
    Reference,
    Segmentation,
)
from napari_samic.evaluation.metrics import iou
from napari_samic.io.normalize import Normalization
from napari_samic.models.samic.prompter import SamicPrompter
from napari_samic.models.video import mask_propagation, new_objects, optical_flow
from napari_samic.models.video.evidence import ClassLikelihood
from napari_samic.models.video.memory import FrameMemory, class_table, numbered
from napari_samic.ops.simulated_annotator import inner_maximum
from napari_samic.pipeline.linking import Place, comes_after, sequence_place
from napari_samic.pipeline.predictor import ImagePredictor, to_plane_result
from napari_samic.pipeline.runner import PlaneResult

FLOOR = 0.25
"""What is left of the map where no object was expected, so that new ones can be found. Where it is
below the cut of the peaks (0.3), a new object must be surer than the known."""


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


class VideoPredictor:
    """Segments frames in their order.

    Parameters
    ----------
    prompter : SamicPrompter
    segmenter : Segmenter
    settings : MemorySettings, optional
    segmenting : SegmentSettings, optional
    floor : float
        What is left of the map where no object was expected.

    Attributes
    ----------
    memory : FrameMemory
    track : Track or None
        None before the first frame, and after `forget`.
    numbers : tuple of int
        Lasting number of each object of the last result.
    """

    def __init__(
        self,
        prompter: SamicPrompter,
        segmenter: Any,
        settings: MemorySettings | None = None,
        segmenting: SegmentSettings | None = None,
        *,
        floor: float = FLOOR,
    ) -> None:
        self.predictor = ImagePredictor(prompter, segmenter, segmenting or SegmentSettings())
        self.settings = settings or MemorySettings()
        self.memory = FrameMemory(self.settings)
        self.track: Track | None = None
        self._place: Place | None = None
        self._evidence, self._floor = ClassLikelihood(), floor
        self.numbers: tuple[int, ...] = ()

    @property
    def normalization(self) -> Normalization:
        """Of the pixels that the prompter was trained on."""
        return self.predictor.normalization

    def forget(self) -> None:
        """Start anew: the next image follows no other."""
        self.memory.forget()
        self.track, self._place = None, None

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
        labels, classes = numbered(
            reference, reference.mask, instances=self.predictor.settings.instances
        )
        first_new = int(labels.max(initial=0)) + 1
        self.track = Track(reference.image, labels, classes, first_new)

    def __call__(self, plane: ImagePlane, image: Image | LazyImage) -> Job[PlaneResult]:
        """Result of one plane, for `BatchRunner`, with `numbers` that last."""
        place = self._enter(plane)
        if place is None:
            plane_result = yield from self.predictor(plane, image)
        else:
            plane_result = self._plane_result(np.asarray(image))
        self._place = place
        return plane_result

    def _enter(self, plane: ImagePlane) -> Place | None:
        """Place of a plane in its sequence; forgets the sequence before, if it begins another."""
        place = sequence_place(plane, self.settings.follow)
        if place is None or not comes_after(place, self._place):
            self.forget()
        return place

    def _plane_result(self, image: Image) -> PlaneResult:
        result = to_plane_result(self.segment(image), self.predictor.settings, self.numbers)
        if self.predictor.tile_side(image.shape) is None:
            return result
        return replace(result, remarks=("larger than the references, followed as a whole",))

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
        if self.settings.follow == "never":
            return self.predictor.segment(image)
        if self.track is not None and self.track.image.shape != image.shape:
            self.forget()
        if self.track is None or not self.track.labels.any():
            return self._first(image)
        return self._next(image, self.track)

    def take(self, plane: ImagePlane, image: Image, drawn: Segmentation) -> tuple[int, ...]:
        """Go on from a frame that somebody annotated, which counts in full from then on.

        Parameters
        ----------
        plane : ImagePlane
        image : (H, W, 3) uint8
        drawn : Segmentation
            As a segmenter would answer it.

        Returns
        -------
        tuple of int
            Lasting number of each object: that of the one that it overlaps most in the frame
            before, left where it was or carried along the optical flow.
        """
        place = self._enter(plane)
        if self.track is not None and self.track.image.shape != image.shape:
            self.forget()
        before: list[IntArray] = []
        if self.track is not None:
            field = optical_flow.flow(self.track.image, image)
            before = [self.track.labels, optical_flow.warp_labels(self.track.labels, field)]
        self.memory.begin(Reference(plane.label, image, drawn.objects, drawn.labels))
        self.track = self._tracked(image, drawn, before)
        self._place = place
        return self.numbers

    def _first(self, image: Image) -> Segmentation:
        """As `ImagePredictor` does; numbers go on where a sequence lost all its objects."""
        result = self.predictor.segment_whole(image)
        self.track = self._tracked(image, result, [])
        self._offer(self.track, result.score, 1.0)
        return result

    def _tracked(self, image: Image, result: Segmentation, before: list[IntArray]) -> Track:
        """A frame with lasting numbers: those of `before` where its objects are the same."""
        start = 1 if self.track is None else self.track.first_new
        classes = {} if self.track is None else self.track.classes
        previous = before or [np.zeros_like(result.labels)]
        labels, first_new = optical_flow.link_objects(previous, result.labels, first_new=start)
        values, places = np.unique(result.labels, return_index=True)
        lasting = labels.ravel()[places].tolist()
        number = {v: k for v, k in zip(values.tolist(), lasting, strict=True) if v}
        if self.predictor.settings.instances:
            kinds = {number[v]: result.objects[v - 1].label for v in number}
            self.numbers = tuple(number.values())
        else:
            kinds = {k: v for v, k in number.items()}
            self.numbers = tuple(number.get(p.label, 0) for p in result.objects)
        return Track(image, labels, {**classes, **kinds}, first_new)

    def _next(self, image: Image, last: Track) -> Segmentation:
        warped = optical_flow.warp_labels(last.labels, optical_flow.flow(last.image, image))
        references, weights = self.memory.references(self.predictor.prompter.references)
        proposal, maps = self._proposed(image, references, weights, warped, last.classes)
        evidence = self._evidence.odds(image, maps, references, weights)
        expected = list(mask_propagation.mask_priors(warped, last.classes, evidence))
        fits = mask_propagation.fit_priors(self.predictor.segmenter, image, expected)
        labels = mask_propagation.resolve_overlaps(fits, warped.shape)
        labels = mask_propagation.without_vanished(labels, last.classes, evidence)
        scores = {f.prior.number: f.score for f in fits}
        self.track = self._with_new(image, proposal, labels, evidence, scores, last)
        result = self._result(self.track, scores, proposal)
        self._offer(self.track, result.score, iou(self.track.labels > 0, warped > 0))
        return result

    def _offer(self, track: Track, confidence: float, agreement: float) -> None:
        self.memory.offer(
            track.image,
            track.labels,
            confidence=confidence,
            agreement=agreement,
            classes=track.classes,
        )

    def _proposed(
        self,
        image: Image,
        references: tuple[Reference, ...],
        weights: tuple[float, ...],
        warped: IntArray,
        classes: Mapping[int, int],
    ) -> tuple[PromptProposal, dict[int, FloatArray]]:
        """Motion-consistent peaks, and the maps that they are of."""
        prompter = self.predictor.prompter
        maps, agreement = prompter.maps_and_agreement(references, image, weights)
        kinds = class_table(classes, warped)[warped]  # (H, W)
        for label, values in maps.items():
            if (kinds == label).any():
                expected = optical_flow.prior(kinds == label)
                maps[label] = optical_flow.motion_consistent(values, expected, floor=self._floor)
        return replace(prompter.proposal(maps, image.shape), agreement=agreement), maps

    def _with_new(
        self,
        image: Image,
        proposal: PromptProposal,
        labels: IntArray,
        evidence: Mapping[int, FloatArray],
        scores: dict[int, float],
        last: Track,
    ) -> Track:
        """The frame with objects at peaks away from all that are known; notes their `scores`."""
        found_objects = new_objects.find_new_objects(
            self.predictor.segmenter, image, proposal.objects, labels, last.classes, evidence,
            self.predictor.settings,
        )  # fmt: skip
        labels, classes = labels.copy(), dict(last.classes)
        for number, new_object in enumerate(found_objects, start=last.first_new):
            labels[new_object.mask] = number
            scores[number], classes[number] = new_object.score, new_object.label
        return Track(image, labels, classes, last.first_new + len(found_objects))

    def _result(
        self, track: Track, scores: dict[int, float], proposal: PromptProposal
    ) -> Segmentation:
        """With consecutive numbers, or classes, as a Segmentation has them."""
        labels, classes = track.labels, track.classes
        numbers = np.unique(labels[labels > 0]).tolist()
        table = np.zeros(max(numbers, default=0) + 1, np.int32)
        instances = self.predictor.settings.instances
        table[numbers] = range(1, len(numbers) + 1) if instances else [classes[n] for n in numbers]
        objects = tuple(
            Prompts(inner_maximum(labels == n)[None], np.array([True]), label=classes[n])
            for n in numbers
        )
        self.numbers = tuple(numbers)
        values = np.array([scores[n] for n in numbers], np.float32)
        return Segmentation(table[labels], values, objects, proposal.heat_map, proposal.agreement)

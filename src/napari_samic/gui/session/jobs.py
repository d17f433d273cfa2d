"""The jobs of the window: thin generators over the core, each run by `runner.jobs`.

Must not know Qt or napari. Heavy modules are imported inside, so in the worker: torch takes
seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.types import (
    CroppedMask,
    Image,
    IntArray,
    Job,
    JobProgress,
    Prompts,
    Segmenter,
)
from napari_samic.gui.data.layer_pixels import LayerPixels
from napari_samic.gui.state.objects import Hint, MaskCandidates
from napari_samic.gui.state.thumbnails import Thumb, small, tinted
from napari_samic.io.normalize import read_rgb
from napari_samic.ops.shape import nearest

CUT = 0.5
"""Probability from which a pixel is inside an object, live."""
OTHERS_PAUSE_S = 0.5
"""After the shown slice, before others are looked at."""

if TYPE_CHECKING:
    from napari.types import LayerData

    from napari_samic.models.prompters.instant import InstantPredictor


def open_model(name: str) -> Job[Segmenter]:
    """Load a segmenter by name."""
    yield JobProgress(0, 0, name)
    from napari_samic.models.sam.segmenter import load_segmenter
    from napari_samic.pipeline.common import default_cache

    return load_segmenter(name, cache=default_cache())


def open_folder(folder: Path) -> Job[tuple[list[LayerData], list[str]]]:
    """The images of a folder as lazy layers, and what was guessed or left out.

    Raises
    ------
    InputError
        None can be read.
    """
    yield JobProgress(0, 0, folder.name)
    from napari_samic.gui.data.lazy_layers import lazy_layers

    lines: list[str] = []
    return lazy_layers(folder, tell=lines.append), lines


@dataclass(frozen=True, eq=False)
class ImageSummary:
    """What is known of an image once it was read."""

    index: tuple[int, ...]
    sha256: str
    normalization: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class SummaryStep(JobProgress):
    """A step after which more is known of an image."""

    summary: ImageSummary


@dataclass(frozen=True, kw_only=True)
class AnswerStep(JobProgress):
    """A step that brings a first answer."""

    answer: MaskCandidates


def prepare(
    segmenter: Segmenter | None, pixels: LayerPixels, indices: Sequence[tuple[int, ...]]
) -> Job[None]:
    """Read and encode images, the shown one first; a `SummaryStep` after each."""
    from napari_samic.io.text_files import pixels_sha256

    precompute = getattr(segmenter, "precompute", None)
    for done, index in enumerate(indices):
        yield JobProgress(done, len(indices), pixels.label(index))
        image = pixels.image(index)
        if precompute is not None:
            precompute(image)
        summary = ImageSummary(index, pixels_sha256(image), pixels.normalization().to_dict())
        yield SummaryStep(done + 1, len(indices), pixels.label(index), summary=summary)


def answer(
    segmenter: Segmenter, read: Callable[[], Image], prompts: Prompts, model: str
) -> Job[MaskCandidates]:
    """Segment one object: the single mask comes as an `AnswerStep`, at once; then all candidates.

    A network whose single mask is the first of its candidates is asked once.
    """
    image, knows_first = read(), getattr(segmenter, "single_is_first", False)
    first = MaskCandidates.of(
        segmenter.candidates(image, [prompts], multimask=knows_first)[0], model
    )
    if knows_first:
        return first
    yield AnswerStep(1, 2, "mask", answer=first)
    return first.plus(segmenter.candidates(image, [prompts], multimask=True)[0])


@dataclass(frozen=True)
class LiveReference:
    """A slice, its objects' masks as they are painted, and their classes.

    One that is not whole is annotated in part: only what is around its objects is ground.
    """

    pixels: LayerPixels
    index: tuple[int, ...]
    masks: tuple[CroppedMask, ...]
    classes: tuple[int, ...]
    is_whole: bool


@dataclass(frozen=True, eq=False)
class LiveResult:
    """What was found in a slice: classes, (H, W) int32, and how many objects that would be."""

    labels: IntArray
    count: int


@dataclass(frozen=True, kw_only=True)
class LiveStep(JobProgress):
    """A step after which it is known what is in a slice; with a thumbnail if that is not shown."""

    index: tuple[int, ...]
    result: LiveResult
    thumb: Thumb | None = None


def live(
    segmenter: Segmenter,
    references: Sequence[LiveReference],
    pixels: LayerPixels,
    indices: Sequence[tuple[int, ...]],
    colors: Mapping[int, tuple[float, ...]],
    stop: Callable[[], bool],
    kept: dict[str, Any],
) -> Job[None]:
    """Fit the instant predictor to what is annotated, and look at slices; a `LiveStep` of each.

    Parameters
    ----------
    indices : sequence of tuple of int
        The shown slice, and others.
    colors : dict of int to tuple
        Of the classes: red, green and blue in [0, 1].
    stop : callable
        True: the fit ends at once; nobody waits for it.
    kept : dict
        What the segmenter saw in images, for the next time.
    """
    from napari_samic.models.features.reference_masks import InstanceMasks
    from napari_samic.models.prompters.instant import InstantPredictor, surroundings

    images, masks, known = [], [], []
    total = len(references) + len(indices) + 1
    for done, reference in enumerate(references):
        yield JobProgress(done, total, "reading")
        image = reference.pixels.image(reference.index)
        numbers = np.zeros(image.shape[:2], np.int32)
        for number, mask in enumerate(reference.masks, start=1):
            mask.paint(numbers, number)
        images.append(image)
        masks.append(InstanceMasks(numbers, reference.classes))
        known.append(None if reference.is_whole else surroundings(numbers))
    yield JobProgress(len(references), total, "fitting")
    predictor = InstantPredictor(segmenter, images, masks, known=known, stop=stop, kept=kept)
    for done, index in enumerate(indices, start=len(references) + 1):
        yield JobProgress(done, total, "looking")
        if index == indices[0]:
            image, thumb = pixels.image(index), None
            result = _live_result(predictor, image)
        else:  # read past what `pixels` keeps, which is little
            if index == indices[1]:
                yield from _pause(JobProgress(done, total, "looking"))
            image = read_rgb(pixels.plane(index), pixels.normalization())
            result, picture = _live_result(predictor, image), small(image)
            overlay = tinted(picture, result.labels, colors)
            thumb = Thumb(pixels.label(index), picture, result.count, overlay)
        yield LiveStep(done=done, total=total, index=index, result=result, thumb=thumb)


def _pause(step: JobProgress) -> Job[None]:
    """Leave the cores to the user's next click, which ends this job."""
    ends = time.monotonic() + OTHERS_PAUSE_S
    while time.monotonic() < ends:
        time.sleep(0.02)
        yield step


def _live_result(predictor: InstantPredictor, image: Image) -> LiveResult:
    from napari_samic.refine import regions

    labels, surest, count = np.zeros(image.shape[:2], np.int32), np.full(image.shape[:2], CUT), 0
    for label, prediction in predictor.predict(image).items():
        prob = prediction.foreground_prob
        objects = regions.objects(prob, prediction.distance_map, cut=CUT, split=True)
        labels[prob > surest] = label
        surest = np.maximum(surest, prob)
        count += int(objects.max())
    return LiveResult(labels, count)


@dataclass(frozen=True, eq=False)
class ObjectConfidence:
    """What is known of the current object, and where the others are."""

    candidates: tuple[CroppedMask, ...] = ()
    others: tuple[CroppedMask, ...] = field(default_factory=tuple)


def explore(segmenter: Segmenter, read: Callable[[], Image], doubt: ObjectConfidence) -> Job[Hint]:
    """Color the parts that the encoder sees, and find the next click."""
    from napari_samic.ops import hints

    yield JobProgress(0, 1, "parts")
    image = read()
    embedding = segmenter.embedding(image)  # type: ignore[attr-defined]
    cells = hints.parts(embedding)
    yield JobProgress(1, 2, "next click")
    shape = image.shape[:2]
    small = [_shrunk(c, cells.shape) for c in doubt.candidates]
    taken = [_shrunk(c, cells.shape) for c in doubt.others]
    others = np.any(taken, axis=0) if taken else None
    place = hints.next_point(cells, small, others)
    scale = [n / m for n, m in zip(shape, cells.shape, strict=True)]
    point = None
    if place is not None:
        row, column = ((p + 0.5) * s - 0.5 for p, s in zip(place, scale, strict=True))
        point = (row, column)
    picture = nearest(np.moveaxis(hints.colors(cells), -1, 0), shape)
    return Hint(np.moveaxis(picture, 0, -1), point)


def _shrunk(mask: CroppedMask, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The mask at the middles of the cells."""
    return nearest(mask.full(), shape)

"""One seed and one number of references of a benchmark: a way learns once and answers every image.

What it answered of a set is a cell, and is written when the way is done with all of them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from napari_samic.benchmark import learners
from napari_samic.benchmark.datasets import DataSet, DatasetItem, Episode
from napari_samic.benchmark.davis import object_scores
from napari_samic.benchmark.methods import is_taught, sees_targets
from napari_samic.benchmark.overlays import OverlayRecord, draw, image_of
from napari_samic.benchmark.report import ImageScore
from napari_samic.core.errors import InputError, SamicError
from napari_samic.core.types import (
    BoolArray,
    Image,
    ImagePlane,
    IntArray,
    Job,
    JobProgress,
    Reference,
    Segmentation,
)
from napari_samic.evaluation.metrics import image_scores
from napari_samic.io import writers
from napari_samic.io.normalize import Normalization, fit_normalization
from napari_samic.ops import simulated_annotator
from napari_samic.pipeline import common
from napari_samic.pipeline.results.writer import write_failures

PEEKED = 8
"""Images to segment that are looked at to know whether a set is of color."""


@dataclass(frozen=True, eq=False)
class Trial:
    """The episodes of one seed and number of references.

    Attributes
    ----------
    folder : Path
        Of the benchmark.
    name : str
        Of the set.
    shots : int
    given : TrialContext
    episodes : tuple of Episode
    most : int
        Targets of an episode at most, drawn by the seed, or the first frames; 0: all.
    without : frozenset of str
        Names of images that are never targets.
    elsewhere : DataSet or None
        Whose images are targets of every episode of their class, too.
    is_video : bool
        Where a first frame has several objects, each is a class of its own then, and is scored by
        its number.
    base_class_items : dict of int or None to tuple of DatasetItem
        What is learned from before the references of a fold's episodes are shown.
    failures : dict of str to str
        What could not be read, and why; no way is asked for it.
    """

    folder: Path
    name: str
    shots: int
    given: learners.TrialContext
    episodes: tuple[Episode, ...]
    most: int
    without: frozenset[str]
    elsewhere: DataSet | None = None
    is_video: bool = False
    base_class_items: Mapping[int | None, tuple[DatasetItem, ...]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raise InputError if there is no target."""
        for name in self._names:
            if not any(self._targets(name, episode) for episode in self.episodes):
                msg = f"{name}, {self.shots} shots: no image to segment is left."
                raise InputError(f"{msg} Leave fewer out, or give a larger set.")

    def missing(self, way: str) -> tuple[str, ...]:
        """Sets that the way has not answered yet."""
        return tuple(name for name in self._names if not self._file(name, way).exists())

    @property
    def _names(self) -> tuple[str, ...]:
        return (self.name, *([self.elsewhere.name] if self.elsewhere is not None else []))

    def _file(self, name: str, way: str) -> Path:
        return self.folder / "cells" / f"{name}-{self.shots}-{self.given.seed}-{way}.csv"

    def run(self, way: str, done: int, total: int) -> Iterator[JobProgress]:
        """Learn and answer every episode, then write the cells that are missing.

        A way that learns from the images to be segmented learns for each set anew, so that a cell
        is the same whatever else was asked for.
        """
        cells = [TrialResults(name, way, self.shots, self.given) for name in self.missing(way)]
        groups = [[cell] for cell in cells] if sees_targets(way) else [cells]
        for group in groups:
            yield from self._run_group(way, group, done, total)

    def _run_group(
        self, way: str, cells: list[TrialResults], done: int, total: int
    ) -> Iterator[JobProgress]:
        taught: dict[int | None, tuple[Reference, ...]] = {}
        for episode in self.episodes:
            targets_by_set = {cell.name: self._targets(cell.name, episode) for cell in cells}
            if not any(targets_by_set.values()):
                continue
            if is_taught(way) and episode.fold not in taught:
                taught.clear()  # one fold at a time
                taught[episode.fold] = self._base_class_references(episode.fold)
            try:
                normalization = _normalization(episode.references, episode.targets)
                first = episode.references[0].read_truth() if self.is_video else None
            except SamicError as error:
                self.failures[episode.references[0].name] = str(error)
                continue
            several = first is not None and len(np.unique(first[first > 0])) > 1
            references = self._references(episode, normalization, by_class=several)
            if not references:
                continue
            base_references = taught.get(episode.fold, ())
            more = tuple(
                partial(image_of, item, normalization)
                for targets in targets_by_set.values()
                for item in targets
            )
            given = replace(
                self.given, instances=not several, base_class_references=base_references, more=more
            )
            where = f"{self.name}, {self.shots} shots, seed {self.given.seed}, {way}"
            job = learners.learn(way, references, given)
            answer = yield from _within_trial(job, done, total, where)
            for cell in cells:
                targets = targets_by_set[cell.name]
                for i, item in enumerate(targets):
                    try:
                        target = _Target.read(item, normalization)
                    except SamicError as error:
                        self.failures[cell.called(item, self.name)] = str(error)
                        continue
                    cell.add(target, answer, first)
                    yield JobProgress(
                        done, total, f"{where}: {cell.name}, {i + 1} of {len(targets)}"
                    )
        write_failures(self.folder, self.failures)
        for cell in cells:
            if not cell.results:
                msg = f"{cell.name}: no image could be segmented, the first because: "
                raise InputError(msg + next(iter(self.failures.values()), "there is none."))
            cell.write(self._file(cell.name, way), self.folder / "sheets")

    def _base_class_references(self, fold: int | None) -> tuple[Reference, ...]:
        """Read, with a number for each class."""
        items = self.base_class_items.get(fold, ())
        if not items:
            return ()
        numbers = {label: n for n, label in enumerate(dict.fromkeys(i.label for i in items), 1)}
        normalization = _normalization(items)
        out = []
        for item in items:
            try:
                out.append(_reference(item, normalization, numbers[item.label]))
            except SamicError as error:
                self.failures[item.name] = str(error)
        return tuple(out)

    def _references(
        self, episode: Episode, normalization: Normalization, *, by_class: bool
    ) -> list[Reference]:
        """Those references that can be read; none where no object is in any."""
        make, out = _of_classes if by_class else _reference, []
        for item in episode.references:
            try:
                out.append(make(item, normalization))
            except SamicError as error:
                self.failures[item.name] = str(error)
        if any(r.objects for r in out):
            return out
        reasons = {r.name: f"{r.name}: shows no object, so it can't be a reference." for r in out}
        self.failures.update(reasons)
        return []

    def _targets(self, name: str, episode: Episode) -> tuple[DatasetItem, ...]:
        if self.elsewhere is not None and name == self.elsewhere.name:
            candidates = self.elsewhere.where(label=episode.label)
        else:
            candidates = episode.targets
        kept = [item for item in candidates if item.name not in self.without]
        if self.is_video:  # frames that follow each other
            return tuple(kept[: self.most or None])
        order = np.random.default_rng(self.given.seed).permutation(len(kept))
        return tuple(kept[i] for i in sorted(order[: self.most or None]))


@dataclass(frozen=True, eq=False)
class _Target:
    """An image to segment, its truth as it was given and by objects, and which pixels count."""

    item: DatasetItem
    normalization: Normalization
    image: Image
    given: IntArray
    objects: IntArray
    counted: BoolArray

    @classmethod
    def read(cls, item: DatasetItem, normalization: Normalization) -> _Target:
        """Read all of it.

        Raises
        ------
        SamicError
            Something of it can't be read, or a truth of another shape.
        """
        image, given = image_of(item, normalization), item.read_truth()
        counted = ~item.read_ignored() if item.read_ignored else np.ones(given.shape, bool)
        if not given.shape == counted.shape == image.shape[:2]:
            msg = f"{item.name}: a truth of {given.shape} for an image of {image.shape[:2]}."
            raise InputError(f"{msg} Take a whole copy of the set.")
        return cls(item, normalization, image, given, item.objects_in(given), counted)


@dataclass(frozen=True, eq=False)
class TrialResults:
    """What a way answered of a set."""

    name: str
    way: str
    shots: int
    given: learners.TrialContext
    results: list[ImageScore] = field(default_factory=list)
    drawn: list[OverlayRecord] = field(default_factory=list)
    times_asked: Counter[str] = field(default_factory=Counter)

    def called(self, item: DatasetItem, own: str) -> str:
        """Name of an item among the failures, where `own` is the set that references are of."""
        return item.name if self.name == own else f"{self.name}/{item.name}"

    def add(
        self,
        target: _Target,
        answer: learners.Answerer,
        first: IntArray | None = None,
    ) -> None:
        """Ask for an image and score the answer, by the objects of a `first` frame if there is one.

        IoU and boundary F are then the means over these, whether they are still there or not.
        """
        item, counted = target.item, target.counted
        if hasattr(self.given.segmenter, "precompute"):
            self.given.segmenter.precompute(target.image)  # else the first way would pay for all
        started = time.monotonic()
        segmentation = answer(target.image)
        seconds = time.monotonic() - started
        predicted, truth = segmentation.labels * counted, target.objects * counted
        scores = image_scores(predicted, truth)
        measured = {k: scores[k] for k in ("iou", "dice", "boundary_f", "object_f1")}
        sure = _confidence(segmentation)
        if first is not None:
            frames = [(first, first), (segmentation.labels, target.given)]
            each = object_scores(frames).values()
            sure = sure if len(each) == 1 else float(segmentation.score)  # labels are classes
            measured["iou"] = float(np.mean([score.j for score in each]))
            measured["boundary_f"] = float(np.mean([score.f for score in each]))
            if len(each) > 1:
                measured |= {"dice": float("nan"), "object_f1": float("nan")}  # of which objects?
        self.times_asked[item.name] += 1
        times = self.times_asked[item.name]  # some protocols ask for an image more than once
        image_name = item.name if times == 1 else f"{item.name} again {times}"
        result = ImageScore(self.name, self.given.seed, self.shots, self.way, image_name,
                        **measured, score=sure, seconds=seconds, label=item.label,
                        both=int(((predicted > 0) & (truth > 0)).sum()),
                        either=int(((predicted > 0) | (truth > 0)).sum()))  # fmt: skip
        self.results.append(result)
        self.drawn.append(OverlayRecord.of(item, target.normalization, segmentation.labels))

    def write(self, cell: Path, sheets: Path) -> None:
        """Write the cell and its sheets of overlays."""
        common.make_folder(cell.parent)
        draw(sheets / cell.stem, self.results, self.drawn)
        rows = [asdict(r) for r in self.results]
        writers.write_csv(cell, rows, columns=[f.name for f in fields(ImageScore)])


def _within_trial(job: Job[Any], done: int, total: int, where: str) -> Job[Any]:
    try:
        while True:
            step = next(job)
            yield JobProgress(done, total, f"{where}: {step.message}")
    except StopIteration as stop:
        return stop.value
    finally:
        job.close()


def _confidence(segmentation: Segmentation) -> float:
    """Mean score of the objects by their area; nothing found is what nobody is sure of."""
    areas = np.bincount(segmentation.labels.ravel(), minlength=len(segmentation.scores) + 1)[1:]
    if len(areas) != len(segmentation.scores) or not areas.sum():
        return float(segmentation.score)
    return float(np.average(segmentation.scores, weights=areas))


def _normalization(
    items: Sequence[DatasetItem], targets: Sequence[DatasetItem] = ()
) -> Normalization:
    """Of the items; where these are gray, and the first that are asked for in color, of both."""
    normalization = fit_normalization([_plane(i) for i in items])
    if normalization.channel_count > 1 or not targets:
        return normalization
    both = fit_normalization([_plane(i) for i in (*items, *targets[:PEEKED])])
    return both if both.channel_count > 1 else normalization


def _plane(item: DatasetItem) -> ImagePlane:
    return ImagePlane(item.name, (), item.read_image)


def _reference(item: DatasetItem, normalization: Normalization, label: int = 1) -> Reference:
    """Its objects are of one class."""
    truth = item.objects_in(item.read_truth())
    prompts = tuple(
        replace(prompt, label=label) for prompt in simulated_annotator.prompts_of(truth)
    )
    return Reference(item.name, image_of(item, normalization), prompts, truth)


def _of_classes(item: DatasetItem, normalization: Normalization) -> Reference:
    """Each of its objects is a class of its own."""
    truth = item.read_truth()
    prompts = simulated_annotator.prompts_of(truth, by_class=True)
    return Reference(item.name, image_of(item, normalization), prompts, truth)

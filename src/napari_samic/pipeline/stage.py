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

from napari_samic import export, sambox
from napari_samic.contracts import IntArray, Job, Plane, Reference, Segmentation, Step
from napari_samic.datasets import DataSet, Episode, Item
from napari_samic.errors import InputError
from napari_samic.matching import as_instances
from napari_samic.metrics import image_scores
from napari_samic.normalise import Normalisation, fit_normalisation
from napari_samic.pipeline import common, contestants
from napari_samic.pipeline.drawn import Drawn, draw, image_of
from napari_samic.pipeline.ways import is_taught, sees_targets
from napari_samic.report import Result
from napari_samic.videoscores import object_scores


@dataclass(frozen=True, eq=False)
class Stage:
    """The episodes of one seed and number of references.

    Attributes
    ----------
    folder : Path
        Of the benchmark.
    name : str
        Of the set.
    shots : int
    given : Conditions
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
    lessons : dict of int or None to tuple of Item
        What is learned from before the references of a fold's episodes are shown.
    """

    folder: Path
    name: str
    shots: int
    given: contestants.Conditions
    episodes: tuple[Episode, ...]
    most: int
    without: frozenset[str]
    elsewhere: DataSet | None = None
    is_video: bool = False
    lessons: Mapping[int | None, tuple[Item, ...]] = field(default_factory=dict)

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

    def play(self, way: str, done: int, total: int) -> Iterator[Step]:
        """Learn and answer every episode, then write the cells that are missing.

        A way that learns from the images to be segmented learns for each set anew, so that a cell
        is the same whatever else was asked for.
        """
        books = [_Book(name, way, self.shots, self.given) for name in self.missing(way)]
        groups = [[book] for book in books] if sees_targets(way) else [books]
        for group in groups:
            yield from self._played(way, group, done, total)

    def _played(self, way: str, books: list[_Book], done: int, total: int) -> Iterator[Step]:
        taught: dict[int | None, tuple[Reference, ...]] = {}
        for episode in self.episodes:
            asked = {book.name: self._targets(book.name, episode) for book in books}
            if not any(asked.values()):
                continue
            if is_taught(way) and episode.fold not in taught:
                taught.clear()  # one fold at a time
                taught[episode.fold] = self._lessons(episode.fold)
            normalisation = _normalisation(episode.references)
            first = episode.references[0].read_truth() if self.is_video else None
            several = first is not None and len(np.unique(first[first > 0])) > 1
            make = _of_classes if several else _reference
            references = [make(item, normalisation) for item in episode.references]
            shown = taught.get(episode.fold, ())
            more = tuple(
                partial(image_of, item, normalisation)
                for targets in asked.values()
                for item in targets
            )
            given = replace(self.given, instances=not several, lessons=shown, more=more)
            where = f"{self.name}, {self.shots} shots, seed {self.given.seed}, {way}"
            job = contestants.learn(way, references, given)
            answer = yield from _told(job, done, total, where)
            for book in books:
                targets = asked[book.name]
                for i, item in enumerate(targets):
                    book.add(item, answer, normalisation, first)
                    yield Step(done, total, f"{where}: {book.name}, {i + 1} of {len(targets)}")
        for book in books:
            book.write(self._file(book.name, way), self.folder / "sheets")

    def _lessons(self, fold: int | None) -> tuple[Reference, ...]:
        """Read, with a number for each class."""
        items = self.lessons.get(fold, ())
        if not items:
            return ()
        numbers = {label: n for n, label in enumerate(dict.fromkeys(i.label for i in items), 1)}
        normalisation = _normalisation(items)
        return tuple(_reference(i, normalisation, numbers[i.label]) for i in items)

    def _targets(self, name: str, episode: Episode) -> tuple[Item, ...]:
        if self.elsewhere is not None and name == self.elsewhere.name:
            asked = self.elsewhere.where(label=episode.label)
        else:
            asked = episode.targets
        found = [item for item in asked if item.name not in self.without]
        if self.is_video:  # frames that follow each other
            return tuple(found[: self.most or None])
        order = np.random.default_rng(self.given.seed).permutation(len(found))
        return tuple(found[i] for i in sorted(order[: self.most or None]))


@dataclass(frozen=True, eq=False)
class _Book:
    """What a way answered of a set."""

    name: str
    way: str
    shots: int
    given: contestants.Conditions
    results: list[Result] = field(default_factory=list)
    drawn: list[Drawn] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)

    def add(
        self,
        item: Item,
        answer: contestants.Answerer,
        normalisation: Normalisation,
        first: IntArray | None = None,
    ) -> None:
        """Ask for an image and score the answer, by the objects of a `first` frame if there is one.

        IoU and boundary F are then the means over these, whether they are still there or not.
        """
        image, given = image_of(item, normalisation), item.read_truth()
        truth = as_instances(given)
        if hasattr(self.given.segmenter, "precompute"):
            self.given.segmenter.precompute(image)  # else the first way would pay for all
        started = time.monotonic()
        found = answer(image)
        seconds = time.monotonic() - started
        counted = np.ones(truth.shape, bool)
        if item.read_ignored is not None:
            counted = ~item.read_ignored()
        scores = image_scores(found.labels * counted, truth * counted)
        told = {k: scores[k] for k in ("iou", "dice", "boundary_f", "object_f1")}
        sure = _confidence(found)
        if first is not None:
            frames = [(first, first), (found.labels, given)]
            each = object_scores(frames).values()
            sure = sure if len(each) == 1 else float(found.score)  # labels are classes
            told["iou"] = float(np.mean([one.j for one in each]))
            told["boundary_f"] = float(np.mean([one.f for one in each]))
            if len(each) > 1:
                told |= {"dice": float("nan"), "object_f1": float("nan")}  # of which objects?
        self.asked[item.name] += 1
        times = self.asked[item.name]  # some protocols ask for an image more than once
        image_name = item.name if times == 1 else f"{item.name} again {times}"
        result = Result(self.name, self.given.seed, self.shots, self.way, image_name, **told,
                        score=sure, seconds=seconds)  # fmt: skip
        self.results.append(result)
        self.drawn.append(Drawn(item, normalisation, replace(found, heat_map=None)))

    def write(self, cell: Path, sheets: Path) -> None:
        """Write the cell and its sheets of overlays."""
        common.make_folder(cell.parent)
        draw(sheets / cell.stem, self.results, self.drawn)
        rows = [asdict(r) for r in self.results]
        export.write_csv(cell, rows, columns=[f.name for f in fields(Result)])


def _told(job: Job[Any], done: int, total: int, where: str) -> Job[Any]:
    try:
        while True:
            step = next(job)
            yield Step(done, total, f"{where}: {step.message}")
    except StopIteration as stop:
        return stop.value
    finally:
        job.close()


def _confidence(found: Segmentation) -> float:
    """Mean score of the objects by their area; nothing found is what nobody is sure of."""
    areas = np.bincount(found.labels.ravel(), minlength=len(found.scores) + 1)[1:]
    if len(areas) != len(found.scores) or not areas.sum():
        return float(found.score)
    return float(np.average(found.scores, weights=areas))


def _normalisation(items: Sequence[Item]) -> Normalisation:
    return fit_normalisation([Plane(i.name, (), i.read_image) for i in items])


def _reference(item: Item, normalisation: Normalisation, label: int = 1) -> Reference:
    """Its objects are of one class."""
    truth = as_instances(item.read_truth()).astype(np.int32)
    prompts = tuple(replace(one, label=label) for one in sambox.prompts_of(truth))
    return Reference(item.name, image_of(item, normalisation), prompts, truth)


def _of_classes(item: Item, normalisation: Normalisation) -> Reference:
    """Each of its objects is a class of its own."""
    truth = item.read_truth()
    prompts = sambox.prompts_of(truth, by_class=True)
    return Reference(item.name, image_of(item, normalisation), prompts, truth)

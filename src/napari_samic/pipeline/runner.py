"""The loop over planes that annotating and segmenting share.

A bad image is noted and passed over; images whose result is of this very run are skipped; what is
done is recorded even when the job is cancelled, killed, or the disk fills up.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_samic.core.errors import OutputError, SamicError, SettingsError
from napari_samic.core.types import (
    Image,
    ImagePlane,
    IntArray,
    Job,
    JobProgress,
    LazyImage,
    Prompts,
    Segmentation,
    map_progress,
)
from napari_samic.io import files as io_files
from napari_samic.io import writers
from napari_samic.io.masks import read_mask
from napari_samic.io.normalize import open_rgb
from napari_samic.pipeline.common import JobResult, groups, input_hashes, make_folder, reason
from napari_samic.pipeline.contact_sheet import ContactSheet
from napari_samic.pipeline.lookahead import Begun, Lookahead
from napari_samic.pipeline.results.ledger import part_of
from napari_samic.pipeline.results.reader import stem_of_plane
from napari_samic.pipeline.results.validity import ResultValidity
from napari_samic.pipeline.results.writer import LabelFileWriter, Part, ResultsWriter, make_record


@dataclass(frozen=True, eq=False)
class PlaneResult:
    """Result of one plane, what to say about it, and what to record.

    Attributes
    ----------
    objects : tuple of Prompts, optional
        All that was asked for; default: what `result` shows.
    extra : tuple of dict
        Further columns of the scores, for each of `objects`; (): none.
    numbered : bool
        Labels count objects; else they are classes.
    remarks : tuple of str
        What is special about the image, in words that fit others.
    numbers : tuple of int
        Of each object, through the planes of a stack; (): 1, 2, 3, ...
    """

    result: Segmentation
    caption: str
    objects: tuple[Prompts, ...] | None = None
    extra: tuple[Mapping[str, Any], ...] = ()
    clicks: int | None = None
    iou: float | None = None
    truth: IntArray | None = None
    numbered: bool = True
    remarks: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()

    @cached_property
    def labels(self) -> IntArray:
        """(H, W) int32 as the label file has them: with the objects' `numbers`."""
        if not (self.numbers and self.numbered):
            return self.result.labels
        return np.array([0, *self.numbers], np.int32)[self.result.labels]


@dataclass(frozen=True)
class PlaneStats:
    """What is kept of an answer for the figures; images would fill the memory."""

    scores: tuple[float, ...]
    requested: int
    clicks: int | None
    iou: float | None


Work = Callable[[ImagePlane, Image | LazyImage], PlaneResult | Job[PlaneResult]]
"""Answers a plane; a job, if that may take long."""
Chained = Literal["", "planes", "files"]


@dataclass(eq=False)
class BatchRunner:
    """One run over planes; `run` is the job.

    With `is_strict`, an image of another scale than the normalisation is for is refused; `is_own`
    says that this was fitted to the images themselves.

    The `JobProgress` after a plane has in `data` its label as `plane`, its `labels` as the file has
    them, and the `result`, a Segmentation, with a `caption`; or why there is none, as `failure`.
    Those over a file that was done before have `skipped`, the number of its planes. Those of the
    phase "check" look at what an earlier run has left.

    Parameters
    ----------
    planes : sequence of ImagePlane
    work : callable
    writer : ResultsWriter
    sheet : ContactSheet
    heatmaps : bool
    chained : str
        Whose answers hang on those before: of the "planes" of a stack, also of all "files", or "".
        What hangs together is begun anew, not gone on with.
    inputs : callable
        What an answer is made of beside the pixels: hashes, by what it is.
    workers : int
        Planes that are answered at once; above 1 only for work that threads may share, and whose
        answers do not hang on those before.
    elsewhere : callable, optional
        How many planes may be begun at once, for work that lets others answer.
    """

    planes: Sequence[ImagePlane]
    work: Work
    writer: ResultsWriter
    sheet: ContactSheet
    heatmaps: bool = False
    chained: Chained = ""
    inputs: Callable[[ImagePlane], Mapping[str, str]] = lambda _: {}
    is_strict: bool = False
    is_own: bool = False
    workers: int = 1
    elsewhere: Callable[[], int] | None = None
    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    plane_stats: list[PlaneStats] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)

    def run(self) -> Job[JobResult]:
        """Do every plane that has no result of this run; yields a `JobProgress` each.

        Raises
        ------
        StaleError
            Results of other settings or images are there.
        OutputError, SettingsError
            A name that is too long, the disk refuses, or no cluster answers: the next image would
            meet the same.
        """
        validity = ResultValidity(self.writer, self.inputs, self.heatmaps)
        files = [(name, members, self._target(name)) for name, members in groups(self.planes)]
        for _, _, target in files:
            io_files.check_free(target, overwrite=True)
        for i, (_, members, target) in enumerate(files):
            for name in validity.check(members, target):
                message = f"looking at earlier results: {name}"
                yield JobProgress(i + 1, len(files), message, {"phase": "check"})
        validity.refuse()
        if self.chained == "files":
            validity.all_or_none({target: members for _, members, target in files})
        is_complete = False
        is_open = [t not in validity.failed and t not in validity.valid for *_, t in files]
        todo = [p.label for (_, m, _), o in zip(files, is_open, strict=True) if o for p in m]
        self.writer.begin(todo)
        wanted = (
            plane
            for (_, members, _), open_now in zip(files, is_open, strict=True)
            for plane in members
            if open_now and self.writer.part(plane.label) is None
        )
        workers = 1 if self.chained else self.workers
        self._ahead = Lookahead(wanted, self._begin_plane, workers, self.elsewhere)
        try:
            for name, members, target in files:
                if why := validity.failed.get(target):
                    for plane in members:
                        self.writer.fail(plane.label, why)
                    yield self._step(f"{name}: left as it is")
                elif target in validity.valid:
                    self._skip(members, target)
                    yield self._step(f"{name}: done before", data={"skipped": len(members)})
                else:
                    yield from self._process_file(members, target)
            is_complete = True
        finally:
            self._ahead.close()
            self.writer.save(complete=is_complete)
            self.sheet.save()
        notices = [f"{n} image{'s' * (n > 1)}: {text}." for text, n in self.remarks.items()]
        return JobResult(
            self.writer.out,
            tuple(self.done),
            tuple(self.skipped),
            self.writer.failures,
            notices=(*validity.notices, *notices),
        )

    def _target(self, name: str) -> Path:
        return self.writer.out / f"{name}.tif"

    def _step(self, message: str, more: int = 0, data: dict[str, Any] | None = None) -> JobProgress:
        count = len(self.done) + len(self.skipped) + len(self.writer.failures) + more
        return JobProgress(count, len(self.planes), message, data or {})

    def _skip(self, members: Sequence[ImagePlane], target: Path) -> None:
        self.skipped += self.writer.recall(members)
        for plane in members:
            if not self.sheet.has_room:
                return
            with suppress(SamicError):  # what is on the sheet is a comfort
                image = open_rgb(plane, self.writer.normalization)
                if isinstance(image, LazyImage):
                    continue  # its labels would fill the memory
                labels = read_mask(plane, target, shape=image.shape)
                objects = self.writer.objects_of(plane.label)
                self.sheet.add(image, labels, objects, f"{plane.label}  done before")

    def _process_file(self, members: Sequence[ImagePlane], target: Path) -> Job[None]:
        done: dict[str, Part] = {}
        plane_stats: list[PlaneStats] = []
        part_path = part_of(target.parent, target.name)
        finished_parts = [part for p in members if (part := self.writer.part(p.label)) is not None]
        if self.chained or not finished_parts:
            io_files.remove(part_path)
            finished_parts = []
        commit = partial(self.writer.commit, target, planes=members, done=done)
        with LabelFileWriter(target, overwrite=True, part=part_path, ready=commit) as labels:
            resumes = bool(finished_parts) and labels.resume(
                members[0], finished_parts[0].record.prompts.shape
            )
            for plane in members:
                finished_part = self._resumable_part(plane) if resumes else None
                if finished_part is not None:
                    done[plane.label] = finished_part
                    plane_stats.append(_stats_of_part(finished_part))
                    yield self._step(f"{plane.label}: done before", len(done))
                    continue
                try:
                    plane_result = yield from self._process_plane(plane, labels, done)
                    plane_stats.append(_stats_of_result(plane_result))
                    caption, result = plane_result.caption, plane_result.result
                    message = f"{plane.label}: {caption}"
                    data: dict[str, Any] = {"result": result, "labels": plane_result.labels}
                    data["caption"] = caption
                except (OutputError, SettingsError):  # as of a cluster without workers
                    raise
                except (SamicError, MemoryError, RuntimeError) as error:
                    message = _reason(plane, error)
                    done.pop(plane.label, None)
                    labels.blank(plane)
                    self.writer.fail(plane.label, message)
                    data = {"failure": message}
                yield self._step(message, len(done), {"plane": plane.label, **data})
        self.done += done
        self.plane_stats += plane_stats

    def _begin_plane(self, plane: ImagePlane) -> Begun[PlaneResult]:
        """Read a plane and ask for its answer, which a job may give later."""
        begun, start = Begun[PlaneResult](plane), time.monotonic()
        begun.image = open_rgb(
            plane,
            self.writer.normalization,
            is_strict=self.is_strict,
            is_own=self.is_own,
            tell=begun.remarks.append,
        )
        answer = self.work(plane, begun.image)
        if isinstance(answer, PlaneResult):
            begun.answer = answer
        else:
            begun.job = answer
        begun.seconds = time.monotonic() - start
        return begun

    def _resumable_part(self, plane: ImagePlane) -> Part | None:
        """A plane that was done before its stack was stopped, if it still is what it was."""
        part = self.writer.part(plane.label)
        if part is None or (self.heatmaps and not part.heatmaps):
            return None
        with suppress(SamicError):
            if part.inputs == input_hashes(plane, self.writer.normalization, self.inputs):
                return part
        return None

    def _process_plane(
        self, plane: ImagePlane, labels: LabelFileWriter, done: dict[str, Part]
    ) -> Job[PlaneResult]:
        """Labels come last: where they are, all else is too."""
        count = len(done)
        begun = yield from map_progress(
            self._ahead.answer(plane),
            lambda step: self._step(f"{plane.label}: {step.message}", count),
        )
        started = time.monotonic()
        image, plane_result = begun.image, begun.answer
        assert image is not None
        assert plane_result is not None
        self.remarks.update([*begun.remarks, *plane_result.remarks])
        segmentation = plane_result.result
        if self.heatmaps and segmentation.heat_map is not None:
            folder = make_folder(self.writer.out / io_files.HEATMAPS)
            path = folder / f"{stem_of_plane(plane)}.tif"
            writers.write_heat_map(path, segmentation.heat_map, overwrite=True)
        seconds = round(begun.seconds + time.monotonic() - started, 3)
        record = make_record(
            plane, image, segmentation, objects=plane_result.objects, extra=plane_result.extra,
            clicks=plane_result.clicks, seconds=seconds, numbered=plane_result.numbered,
            numbers=plane_result.numbers,
        )  # fmt: skip
        inputs = {"pixels": record.prompts.sha256, **self.inputs(plane)}
        part = Part(record, inputs, self.heatmaps, plane_result.iou)
        done[plane.label] = part
        labels.write(plane, plane_result.labels)
        if plane.stack_shape and not self.chained:
            self.writer.note_part(plane.label, f"{plane.name}.tif", part)
        caption = f"{plane.label}  {plane_result.caption}"
        self.sheet.add(
            image, segmentation.labels, segmentation.objects, caption, plane_result.truth
        )
        return plane_result


def _stats_of_part(part: Part) -> PlaneStats:
    rows = [row for row in part.record.rows if row["object"]]
    requested, clicks = part.record.prompts.objects, part.record.prompts.clicks
    return PlaneStats(tuple(float(row["score"]) for row in rows), len(requested), clicks, part.iou)


def _stats_of_result(plane_result: PlaneResult) -> PlaneStats:
    scores = tuple(float(s) for s in plane_result.result.scores)
    requested = len(scores) if plane_result.objects is None else len(plane_result.objects)
    return PlaneStats(scores, requested, plane_result.clicks, plane_result.iou)


def _reason(plane: ImagePlane, error: Exception) -> str:
    """One line that names the image; what is neither ours nor a full memory is a bug."""
    if isinstance(error, SamicError):
        return reason(plane, error)
    if isinstance(error, MemoryError) or "memory" in str(error).lower():
        return f"{plane.label}: needs more memory than there is. Make it smaller, or cut it up."
    raise error

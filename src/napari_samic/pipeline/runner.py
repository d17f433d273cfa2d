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
from functools import partial
from pathlib import Path
from typing import Any, Literal

from napari_samic.core.errors import OutputError, SamicError
from napari_samic.core.types import (
    Image,
    ImagePlane,
    IntArray,
    Job,
    JobProgress,
    Prompts,
    Segmentation,
)
from napari_samic.io import files as io_files
from napari_samic.io import writers
from napari_samic.io.masks import read_mask
from napari_samic.io.normalize import read_rgb
from napari_samic.pipeline.common import JobResult, groups, made_of, make_folder, reason
from napari_samic.pipeline.contact_sheet import ContactSheet
from napari_samic.pipeline.results.journal import part_of
from napari_samic.pipeline.results.reader import stem_of_plane
from napari_samic.pipeline.results.validity import ResultValidity
from napari_samic.pipeline.results.writer import LabelFileWriter, Part, ResultsWriter, record_of


@dataclass(frozen=True, eq=False)
class PlaneResult:
    """Result of one plane, what to say about it, and what to record.

    Attributes
    ----------
    objects : tuple of Prompts, optional
        All that was asked for; default: what `result` shows.
    extra : dict of int to dict
        Further columns of the scores, by id() of the Prompts.
    numbered : bool
        Labels count objects; else they are classes.
    """

    result: Segmentation
    caption: str
    objects: tuple[Prompts, ...] | None = None
    extra: Mapping[int, dict[str, Any]] = field(default_factory=dict)
    clicks: int | None = None
    iou: float | None = None
    truth: IntArray | None = None
    numbered: bool = True


@dataclass(frozen=True)
class PlaneStats:
    """What is kept of an answer for the figures; images would fill the memory."""

    scores: tuple[float, ...]
    asked: int
    clicks: int | None
    iou: float | None


Work = Callable[[ImagePlane, Image], PlaneResult]
Chained = Literal["", "planes", "files"]


@dataclass(eq=False)
class BatchRunner:
    """One run over planes; `run` is the job.

    With `is_strict`, an image of another scale than the normalisation is for is refused; `is_own`
    says that this was fitted to the images themselves.

    The Step after a plane has in `data` its label as `plane`, and the `result`, a Segmentation; or
    why there is none, as `failure`. Steps over a file that was done before have `skipped`, the
    number of its planes. Steps of the phase "check" look at what an earlier run has left.

    Parameters
    ----------
    planes : sequence of ImagePlane
    work : callable
    records : ResultsWriter
    sheet : ContactSheet
    heatmaps : bool
    chained : str
        Whose answers hang on those before: of the "planes" of a stack, also of all "files", or "".
        What hangs together is begun anew, not gone on with.
    inputs : callable
        What an answer is made of beside the pixels: hashes, by what it is.
    """

    planes: Sequence[ImagePlane]
    work: Work
    records: ResultsWriter
    sheet: ContactSheet
    heatmaps: bool = False
    chained: Chained = ""
    inputs: Callable[[ImagePlane], Mapping[str, str]] = lambda _: {}
    is_strict: bool = False
    is_own: bool = False
    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    tallies: list[PlaneStats] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)

    def run(self) -> Job[JobResult]:
        """Do every plane that has no result of this run; yields a Step each.

        Raises
        ------
        StaleError
            Results of other settings or images are there.
        OutputError
            A name that is too long, or the disk refuses: the next image would meet the same.
        """
        survey = ResultValidity(self.records, self.inputs, self.heatmaps)
        files = [(name, members, self._target(name)) for name, members in groups(self.planes)]
        for _, _, target in files:
            io_files.check_free(target, overwrite=True)
        for i, (_, members, target) in enumerate(files):
            for name in survey.look(members, target):
                message = f"looking at earlier results: {name}"
                yield JobProgress(i + 1, len(files), message, {"phase": "check"})
        survey.refuse()
        if self.chained == "files":
            survey.all_or_none({target: members for _, members, target in files})
        complete = False
        self.records.begin()
        try:
            for name, members, target in files:
                if why := survey.failed.get(target):
                    for plane in members:
                        self.records.fail(plane.label, why)
                    yield self._step(f"{name}: left as it is")
                elif target in survey.valid:
                    self._skip(members, target)
                    yield self._step(f"{name}: done before", data={"skipped": len(members)})
                else:
                    yield from self._one_file(members, target)
            complete = True
        finally:
            self.records.save(complete=complete)
            self.sheet.save()
        notices = [f"{n} image{'s' * (n > 1)}: {text}." for text, n in self.remarks.items()]
        return JobResult(
            self.records.out,
            tuple(self.done),
            tuple(self.skipped),
            self.records.failures,
            notices=(*survey.notices, *notices),
        )

    def _target(self, name: str) -> Path:
        return self.records.out / f"{name}.tif"

    def _step(self, message: str, more: int = 0, data: dict[str, Any] | None = None) -> JobProgress:
        count = len(self.done) + len(self.skipped) + len(self.records.failures) + more
        return JobProgress(count, len(self.planes), message, data or {})

    def _skip(self, members: Sequence[ImagePlane], target: Path) -> None:
        self.skipped += self.records.recall(members)
        for plane in members:
            if not self.sheet.has_room:
                return
            with suppress(SamicError):  # what is on the sheet is a comfort
                image = read_rgb(plane, self.records.normalisation)
                labels = read_mask(plane, target, shape=image.shape)
                objects = self.records.objects_of(plane.label)
                self.sheet.add(image, labels, objects, f"{plane.label}  done before")

    def _one_file(self, members: Sequence[ImagePlane], target: Path) -> Job[None]:
        done: dict[str, Part] = {}
        tallies: list[PlaneStats] = []
        part = part_of(target.parent, target.name)
        begun = [found for p in members if (found := self.records.part(p.label)) is not None]
        if self.chained or not begun:
            io_files.remove(part)
            begun = []
        commit = partial(self.records.commit, target, planes=members, done=done)
        with LabelFileWriter(target, overwrite=True, part=part, ready=commit) as labels:
            resumes = bool(begun) and labels.resume(members[0], begun[0].record.prompts.shape)
            for plane in members:
                before = self._before(plane) if resumes else None
                if before is not None:
                    done[plane.label] = before
                    tallies.append(_tally_of(before))
                    yield self._step(f"{plane.label}: done before", len(done))
                    continue
                try:
                    answer = self._one(plane, labels, done)
                    tallies.append(_tally(answer))
                    message = f"{plane.label}: {answer.caption}"
                    data: dict[str, Any] = {"result": answer.result}
                except OutputError:
                    raise
                except (SamicError, MemoryError, RuntimeError) as error:
                    message = _reason(plane, error)
                    done.pop(plane.label, None)
                    labels.blank(plane)
                    self.records.fail(plane.label, message)
                    data = {"failure": message}
                yield self._step(message, len(done), {"plane": plane.label, **data})
        self.done += done
        self.tallies += tallies

    def _before(self, plane: ImagePlane) -> Part | None:
        """A plane that was done before its stack was stopped, if it still is what it was."""
        found = self.records.part(plane.label)
        if found is None or (self.heatmaps and not found.heatmaps):
            return None
        with suppress(SamicError):
            if found.inputs == made_of(plane, self.records.normalisation, self.inputs):
                return found
        return None

    def _one(
        self, plane: ImagePlane, labels: LabelFileWriter, done: dict[str, Part]
    ) -> PlaneResult:
        """Labels come last: where they are, all else is too."""
        started = time.monotonic()
        remarks: list[str] = []
        image = read_rgb(
            plane,
            self.records.normalisation,
            is_strict=self.is_strict,
            is_own=self.is_own,
            tell=remarks.append,
        )
        self.remarks.update(remarks)
        answer = self.work(plane, image)
        result = answer.result
        if self.heatmaps and result.heat_map is not None:
            folder = make_folder(self.records.out / io_files.HEATMAPS)
            path = folder / f"{stem_of_plane(plane)}.tif"
            writers.write_heat_map(path, result.heat_map, overwrite=True)
        seconds = round(time.monotonic() - started, 3)
        record = record_of(
            plane, image, result, objects=answer.objects, extra=answer.extra,
            clicks=answer.clicks, seconds=seconds, numbered=answer.numbered,
        )  # fmt: skip
        inputs = {"pixels": record.prompts.sha256, **self.inputs(plane)}
        made = Part(record, inputs, self.heatmaps, answer.iou)
        done[plane.label] = made
        labels.write(plane, result.labels)
        if plane.stack_shape and not self.chained:
            self.records.note_part(plane.label, f"{plane.name}.tif", made)
        caption = f"{plane.label}  {answer.caption}"
        self.sheet.add(image, result.labels, result.objects, caption, answer.truth)
        return answer


def _tally_of(part: Part) -> PlaneStats:
    rows = [row for row in part.record.rows if row["object"]]
    asked, clicks = part.record.prompts.objects, part.record.prompts.clicks
    return PlaneStats(tuple(float(row["score"]) for row in rows), len(asked), clicks, part.iou)


def _tally(answer: PlaneResult) -> PlaneStats:
    scores = tuple(float(s) for s in answer.result.scores)
    asked = len(scores) if answer.objects is None else len(answer.objects)
    return PlaneStats(scores, asked, answer.clicks, answer.iou)


def _reason(plane: ImagePlane, error: Exception) -> str:
    """One line that names the image; what is neither ours nor a full memory is a bug."""
    if isinstance(error, SamicError):
        return reason(plane, error)
    if isinstance(error, MemoryError) or "memory" in str(error).lower():
        return f"{plane.label}: needs more memory than there is. Make it smaller, or cut it up."
    raise error

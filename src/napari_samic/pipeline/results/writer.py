"""What a run leaves beside its label files: prompts, scores and failures, and the ledger.

They are joined to those of earlier runs. A record counts only once its label file is there, so that
the tables always tell of the files.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from napari_samic.core.errors import FormatError, InputError, OutputError, SamicError, StaleError
from napari_samic.core.types import (
    Image,
    ImagePlane,
    IntArray,
    LazyImage,
    Prompts,
    Segmentation,
    row_blocks,
    row_parts,
)
from napari_samic.io import files as io_files
from napari_samic.io import writers
from napari_samic.io.normalize import Normalization
from napari_samic.io.paths import folded, natural_key
from napari_samic.io.prompts import (
    ImagePrompts,
    PromptFile,
    load_prompts,
    parsed,
    save_prompts,
    to_tree,
)
from napari_samic.io.text_files import pixels_sha256, read_text, sha256_of
from napari_samic.io.writers import plain
from napari_samic.pipeline.results.ledger import (
    Ledger,
    Provenance,
    Run,
    UnfinishedResults,
    load_provenance,
    part_of,
    read_unfinished,
    same_run,
    stamp_of,
    stopped_job_error,
)

FAILURES = "failures.csv"
_HEAD = {"run", "overwrite", "model", "normalisation"}


class LabelFileWriter:
    """Label file of one image or stack: written plane by plane, there only when complete.

    Use in a ``with`` block, one for each file.

    Parameters
    ----------
    path : Path
    overwrite : bool
    part : Path, optional
        Where the unfinished file of a stack is kept when the block fails.
    ready : callable
        Called with the finished file before it takes its place.
    calibration : Calibration, optional
        Then it is an OME-TIFF.
    """

    def __init__(
        self,
        path: Path,
        *,
        overwrite: bool,
        part: Path | None = None,
        ready: Callable[[Path], None] = lambda _: None,
        calibration: writers.Calibration | None = None,
    ) -> None:
        self._calibration = calibration
        self._path, self._overwrite, self._part, self._ready = path, overwrite, part, ready
        self._stack = ExitStack()
        self._writer: writers.StackWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> bool | None:
        return self._stack.__exit__(*exception)

    def write(self, plane: ImagePlane, labels: IntArray) -> None:
        """Put one plane."""
        if not plane.stack_shape:
            writers.write_labels(
                self._path, labels, overwrite=self._overwrite, ready=self._ready,
                calibration=self._calibration,
            )  # fmt: skip
            return
        self._opened(plane, (labels.shape[0], labels.shape[1])).write(plane.index, labels)

    def resume(self, plane: ImagePlane, shape: tuple[int, int]) -> bool:
        """Go on with the unfinished stack of `plane`; whether it is there and has this shape."""
        return bool(plane.stack_shape) and self._opened(plane, shape).resumes

    def blank(self, plane: ImagePlane) -> None:
        """Leave nothing of an earlier run where a plane of a stack failed."""
        if self._writer is not None:
            self._writer.write(plane.index, np.zeros(self._writer.shape, np.int32))

    def _opened(self, plane: ImagePlane, shape: tuple[int, int]) -> writers.StackWriter:
        if self._writer is None:
            writer = writers.StackWriter(
                self._path, plane.stack_shape, shape, overwrite=self._overwrite, part=self._part,
                ready=self._ready, calibration=self._calibration,
            )  # fmt: skip
            self._writer = self._stack.enter_context(writer)
        return self._writer


@dataclass(frozen=True, eq=False)
class Record:
    """What prompts.json and scores.csv say of one plane."""

    prompts: ImagePrompts
    rows: tuple[dict[str, Any], ...]

    def to_tree(self) -> dict[str, Any]:
        """Plain values."""
        return {"prompts": to_tree(PromptFile((self.prompts,))), "rows": list(self.rows)}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any], where: str) -> Record:
        """Build from what `to_tree` gave.

        Raises
        ------
        FormatError, PromptError
            It did not.
        """
        try:
            (prompts,) = parsed(tree["prompts"], where).images
            return cls(prompts, tuple(dict(row) for row in tree["rows"]))
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{where}: no record of ours ({error}).") from error


@dataclass(frozen=True, eq=False)
class Part:
    """One plane that is done.

    Attributes
    ----------
    record : Record
    inputs : dict of str to str
        Hashes of what it was made of.
    heatmaps : bool
        Whether a heat map was asked for.
    iou : float or None
        With the truth, where that is known.
    """

    record: Record
    inputs: Mapping[str, str]
    heatmaps: bool
    iou: float | None = None


@dataclass(eq=False)
class Tables:
    """What a folder of results says of its label files, and what a killed run adds to it.

    Attributes
    ----------
    images, rows, provenance : dict
        By image; `rows` are those of scores.csv.
    model : str
    normalization : dict or None
    classes : dict of int to str
    unfinished : UnfinishedResults or None
    lost : list of str
        Images whose label file is gone.
    """

    images: dict[str, ImagePrompts] = field(default_factory=dict)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    provenance: dict[str, Provenance] = field(default_factory=dict)
    model: str = ""
    normalization: dict[str, Any] | None = None
    classes: dict[int, str] = field(default_factory=dict)
    unfinished: UnfinishedResults | None = None
    lost: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether no run has left a result here."""
        return not self.images

    @property
    def prompts(self) -> PromptFile:
        """As prompts.json holds it."""
        images = tuple(self.images[k] for k in sorted(self.images, key=natural_key))
        return PromptFile(images, self.model, self.normalization, self.classes)

    def allow(self, model: str, normalization: dict[str, Any]) -> bool:
        """Whether results of this kind can stand beside those that are there."""
        before = self.normalization
        is_more = before is not None and Normalization.extends(normalization, before)
        return self.model == model and (before == normalization or is_more)

    def drop(self, label: str) -> None:
        """Forget one image."""
        for table in (self.images, self.rows, self.provenance):
            table.pop(label, None)

    def join(self, entries: Mapping[str, Mapping[str, Any]], run: Run) -> None:
        """Take what a run has noted of label files that are there.

        Raises
        ------
        FormatError, PromptError
            It is damaged.
        """
        files = {folded(str(entry["file"])) for entry in entries.values()}
        for label in [
            k for k, provenance in self.provenance.items() if folded(provenance.file) in files
        ]:
            self.drop(label)
        for label, entry in entries.items():
            self.drop(label)
            if entry["made"] is not None:
                record = Record.from_tree(entry, label)
                self.images[label], self.rows[label] = record.prompts, list(record.rows)
                self.provenance[label] = Provenance.from_tree(entry["made"], run)


def read_tables(folder: Path) -> Tables:
    """Read the tables of a folder of results, and what a run that was killed has noted.

    Raises
    ------
    FormatError, InputError, PromptError
        A file of these names that is damaged, or not ours.
    """
    tables = Tables()
    path = folder / "prompts.json"
    if path.exists():
        stored = load_prompts(path)
        tables.images = {image.name: image for image in stored.images}
        tables.model, tables.normalization = stored.model, stored.normalization
        tables.classes = dict(stored.classes)
    if (folder / "scores.csv").exists():
        tables.rows = _read_scores(folder / "scores.csv")
    tables.provenance = load_provenance(folder)
    present = {folded(path.name) for path in folder.glob("*")}
    for label in [
        k for k, provenance in tables.provenance.items() if folded(provenance.file) not in present
    ]:
        tables.drop(label)
        tables.lost.append(label)
    tables.unfinished = unfinished = read_unfinished(folder)
    if unfinished is None or not {"model", "normalisation"} <= unfinished.head.keys():
        return tables
    kind = (unfinished.head["model"], unfinished.head["normalisation"])
    if not tables.is_empty and not tables.allow(*kind):
        tables = Tables(unfinished=unfinished)  # an overwriting run of another kind was here
    tables.model, tables.normalization = kind
    try:
        tables.join(unfinished.entries, unfinished.head["run"])
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{folder}: damaged notes of a run ({error}).") from error
    return tables


def _read_scores(path: Path) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                rows.setdefault(row["image"], []).append(dict(row))
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise FormatError(f"{path}: not a table of ours ({error}). Move it away.") from error
    return rows


def recorded_prompts(path: Path | str) -> PromptFile:
    """A prompt file, with what a killed run in its folder has noted and not yet put there.

    Raises
    ------
    InputError, FormatError, PromptError
        As `load_prompts`.
    """
    source = Path(path)
    if source.name == "prompts.json" and read_unfinished(source.parent) is not None:
        return read_tables(source.parent).prompts
    return load_prompts(source)


def make_record(
    plane: ImagePlane,
    image: Image | LazyImage,
    result: Segmentation,
    *,
    objects: Sequence[Prompts] | None = None,
    extra: Sequence[Mapping[str, Any]] = (),
    clicks: int | None = None,
    seconds: float | None = None,
    numbered: bool = True,
    numbers: Sequence[int] = (),
) -> Record:
    """Make the record of one finished plane.

    Parameters
    ----------
    objects : sequence of Prompts, optional
        All that was asked for, if that is more than what `result` shows: a hidden object keeps its
        clicks, with a score of 0.
    extra : sequence of dict
        Further columns for each of `objects`; (): none.
    numbered : bool
        Labels count objects; else they are classes, and no object has an area of its own.
    numbers : sequence of int
        Of the objects, as the label file has them; (): 1, 2, 3, ...
    """
    scores = {id(p): float(s) for p, s in zip(result.objects, result.scores, strict=True)}
    requested = tuple(objects if objects is not None else result.objects)
    height, width = image.shape[:2]
    prompts = ImagePrompts(
        plane.label,
        str(plane.path or ""),
        (height, width),
        pixels_sha256(image),
        requested,
        tuple(scores.get(id(p), 0.0) for p in requested),
        clicks,
        seconds,
    )
    columns = {id(p): row for p, row in zip(requested, extra, strict=bool(extra))}
    rows = _rows(plane, image, result, columns, numbers, numbered=numbered)
    return Record(prompts, tuple(rows))


def _rows(
    plane: ImagePlane,
    image: Image | LazyImage,
    result: Segmentation,
    extra: Mapping[int, Mapping[str, Any]],
    numbers: Sequence[int],
    *,
    numbered: bool,
) -> list[dict[str, Any]]:
    head = {"image": plane.label, "image_score": round(result.score, 4)}
    if result.labels.shape != image.shape[:2]:
        msg = f"labels of {result.labels.shape} for an image of {image.shape[:2]}."
        raise InputError(f"{plane.label}: {msg}")
    highest = max(int(part.max(initial=0)) for part in row_parts(result.labels))
    areas = np.zeros(max(len(result.scores), highest) + 1, np.int64)
    light = np.zeros(len(areas))
    for place, part in zip(row_blocks(image.shape), row_parts(result.labels), strict=True):
        areas += np.bincount(part.ravel(), minlength=len(areas))
        light += np.bincount(part.ravel(), image[place, :].mean(-1).ravel(), len(areas))
    brightness = light / np.maximum(areas, 1)
    rows = [
        {
            **head,
            "object": numbers[i] if numbers and numbered else i + 1,
            "class": prompts.label,
            "score": round(float(score), 4),
            "area_px": int(areas[i + 1]) if numbered else None,
            "brightness": round(float(brightness[i + 1]), 1) if numbered else None,
            **extra.get(id(prompts), {}),
        }
        for i, (prompts, score) in enumerate(zip(result.objects, result.scores, strict=True))
    ]
    return rows or [{**head, "object": 0}]


class ResultsWriter:
    """All records of an output folder that a run writes to.

    `begin` comes before the first image, `save` at the end, also after a cancel.

    Parameters
    ----------
    out : Path
    model : str
    normalization : Normalization
    run : dict
        What makes the results: see `ledger`.
    overwrite : bool
        Do again what is there. One that was stopped is gone on with, also without this.

    Raises
    ------
    StaleError
        The folder holds results of another model or normalisation and `overwrite` is off.
    OutputError
        Tables that are not ours.
    """

    def __init__(
        self,
        out: Path,
        model: str,
        normalization: Normalization,
        run: Run,
        *,
        overwrite: bool = False,
    ) -> None:
        self.out, self.run = out, plain(run)
        self.failures: dict[str, str] = {}
        self.model, self.normalization = model, normalization
        try:
            self._tables = read_tables(out)
        except (SamicError, KeyError, TypeError, ValueError) as error:
            msg = f"{out}: holds a file that is in the way ({error}). Choose another folder."
            raise OutputError(msg) from error
        unfinished = self._tables.unfinished
        if unfinished is not None and not unfinished.head.keys() >= _HEAD:
            raise stopped_job_error(out, unfinished)
        head = (
            unfinished.head
            if unfinished is not None and same_run(unfinished.head["run"], self.run)
            else {}
        )
        self.resumes, self.overwrite_requested = bool(head), overwrite
        self.overwrite = overwrite or bool(head.get("overwrite"))
        self.replaces = bool(head.get("replaces"))
        self._spelled: dict[str, str] | None = None
        self._ledger = Ledger(out)
        self._check_kind()

    def _check_kind(self) -> None:
        earlier, mine = self._tables, self.normalization.to_dict()
        if earlier.is_empty or earlier.allow(self.model, mine):
            return
        if not self.overwrite:
            what = "another normalisation" if earlier.model == self.model else earlier.model
            raise StaleError(self.out, f"results of {what}")
        self._tables, self.replaces = Tables(), True

    def begin(self, labels: Iterable[str]) -> None:
        """Keep what a killed run had noted, and begin to note what this one does of `labels`.

        Raises
        ------
        OutputError
            The disk refuses.
        """
        if self._tables.unfinished is not None:
            self._write_tables()
        kind = {"model": self.model, "normalisation": self.normalization.to_dict()}
        how = {"overwrite": self.overwrite, "replaces": self.replaces}
        self._ledger.begin({"run": self.run, **how, **kind}, resumes=self.resumes)
        self._ledger.plan(labels)

    def provenance_of(self, label: str) -> Provenance | None:
        """What made the labels that are there; None if that is not known."""
        return self._tables.provenance.get(label) if label in self._tables.images else None

    def labels_in(self, file: str) -> set[str]:
        """Images whose labels lie in a file, as far as is known."""
        return {
            k
            for k, provenance in self._tables.provenance.items()
            if folded(provenance.file) == folded(file)
        }

    def has_scores(self, label: str) -> bool:
        """Whether scores.csv tells of an image."""
        return label in self._tables.rows

    def recorded_spelling(self, label: str) -> str:
        """How a label is spelled that is recorded, in other cases or accents; "" if none is."""
        if self._spelled is None:
            self._spelled = {folded(k): k for k in self._tables.images}
        return self._spelled.get(folded(label), "")

    def file_of(self, label: str) -> str:
        """Where the image was that is recorded; "" if not known."""
        return self._tables.images[label].file if label in self._tables.images else ""

    def part(self, label: str) -> Part | None:
        """A plane that lies in an unfinished stack."""
        try:
            entry = self._ledger.part(label)
            if entry is None or not part_of(self.out, entry["file"]).exists():
                return None
            provenance = Provenance.from_tree(entry["made"], self.run)
            return Part(
                Record.from_tree(entry, label), provenance.inputs, provenance.heatmaps, entry["iou"]
            )
        except (SamicError, KeyError, TypeError, ValueError):
            return None

    def note_part(self, label: str, file: str, part: Part) -> None:
        """Note a plane of a stack that is not finished."""
        provenance = Provenance(self.run, file, "", part.inputs, part.heatmaps)
        entry = {"image": label, "file": file, "stamp": None, "made": provenance.to_tree()}
        self._ledger.note([entry | {"iou": part.iou} | part.record.to_tree()])

    def commit(
        self,
        file: Path,
        ready: Path,
        planes: Sequence[ImagePlane],
        done: Mapping[str, Part],
    ) -> None:
        """Note one file that is about to take its place.

        Parameters
        ----------
        file, ready : Path
            Where it will be, and where it is now.
        planes : sequence of ImagePlane
            All of the file; those without a record lose what they had.
        done : dict of str to Part
            By plane.
        """
        sha256 = sha256_of(ready)
        of_file = {"file": file.name, "stamp": stamp_of(ready), "labels": sha256, "made": None}

        def entry(label: str) -> dict[str, Any]:
            if label not in done:
                return {"image": label, **of_file}
            part = done[label]
            made = Provenance(self.run, file.name, sha256, part.inputs, part.heatmaps)
            return {"image": label, **of_file, "made": made.to_tree(), **part.record.to_tree()}

        self._ledger.note(entry(plane.label) for plane in planes)

    def objects_of(self, label: str) -> tuple[Prompts, ...]:
        """Prompts that are recorded for a plane."""
        images = self._tables.images
        return images[label].objects if label in images else ()

    def fail(self, label: str, reason: str) -> None:
        """Note an image that could not be done."""
        self.failures[label] = reason
        self._ledger.fail(label, reason)

    def recall(self, planes: Sequence[ImagePlane]) -> list[str]:
        """Labels of planes done before; those that an earlier run left blank fail again."""
        for plane in planes:
            if plane.label not in self._tables.images:
                msg = f"{plane.label}: blank in a stack that is done. Overwrite to do it again."
                self.fail(plane.label, msg)
        return [p.label for p in planes if p.label in self._tables.images]

    def save(self, *, complete: bool) -> None:
        """Write prompts.json, scores.csv, and failures.csv if there were any, of the ledger.

        Parameters
        ----------
        complete : bool
            Nothing is left to be gone on with.

        Raises
        ------
        OutputError
            The disk refuses.
        """
        with closing(self._ledger) as ledger:
            ledger.check()
            self._join_noted()
            self._write_tables()
            write_failures(self.out, self.failures)
            if complete or not (ledger.has_parts or self.overwrite):
                ledger.end()

    def _join_noted(self) -> None:
        """Take what this run has noted; of many images it is much, so nothing else keeps it."""
        noted = read_unfinished(self.out)
        if noted is not None:
            self._tables.join(noted.entries, self.run)

    def _write_tables(self) -> None:
        tables = self._tables
        content = PromptFile(
            tables.prompts.images, self.model, self.normalization.to_dict(), tables.classes
        )
        save_prompts(self.out / "prompts.json", content, overwrite=True)
        rows = [row for name in sorted(tables.rows, key=natural_key) for row in tables.rows[name]]
        if rows or (self.out / "scores.csv").exists():
            writers.write_csv(self.out / "scores.csv", rows, overwrite=True)
        self._ledger.store(tables.provenance)


def write_failures(folder: Path, failures: Mapping[str, str]) -> None:
    """Write failures.csv: images and why they could not be done; none if there is no failure.

    Raises
    ------
    OutputError
        The disk refuses.
    """
    target = folder / FAILURES
    if failures:
        rows = [{"image": k, "reason": v} for k, v in failures.items()]
        writers.write_csv(target, rows, overwrite=True)
        return
    io_files.remove(target)


def read_failures(folder: Path) -> dict[str, str]:
    """Read failures.csv back; nothing if it is not there.

    Raises
    ------
    FormatError
        Another kind of table.
    """
    source = folder / FAILURES
    if not source.exists():
        return {}
    rows = csv.DictReader(io.StringIO(read_text(source, "a failures.csv"), newline=""))
    if rows.fieldnames != ["image", "reason"]:
        raise FormatError(f"{source}: not a table of failures. Move it away.")
    return {row["image"]: row["reason"] for row in rows}

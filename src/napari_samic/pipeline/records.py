"""What a run leaves beside its label files: prompts, scores and failures, joined to earlier ones.

A record counts only once its label file is there, so that the tables always tell of the files.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from napari_samic import atomic, export
from napari_samic.contracts import Image, IntArray, Plane, Prompts, Segmentation
from napari_samic.errors import FormatError, OutputError, SamicError
from napari_samic.listing import natural_key
from napari_samic.normalise import Normalisation
from napari_samic.pipeline.common import pixels_sha256
from napari_samic.prompts import ImagePrompts, PromptFile, load_prompts, save_prompts
from napari_samic.textfiles import read_text

FAILURES = "failures.csv"


class Labels:
    """Label file of one image or stack: written plane by plane, there only when complete.

    Use in a ``with`` block, one for each file.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self._path, self._overwrite = path, overwrite
        self._stack = ExitStack()
        self._writer: export.StackWriter | None = None
        self._before = self._stamp()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> bool | None:
        return self._stack.__exit__(*exception)

    @property
    def is_written(self) -> bool:
        """Whether the file is there, and is ours: not one of an earlier run."""
        return self._stamp() not in (None, self._before)

    def _stamp(self) -> tuple[int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns

    def write(self, plane: Plane, labels: IntArray) -> None:
        """Put one plane."""
        if not plane.stack_shape:
            export.write_labels(self._path, labels, overwrite=self._overwrite)
            return
        if self._writer is None:
            height, width = labels.shape
            self._writer = self._stack.enter_context(
                export.StackWriter(
                    self._path, plane.stack_shape, (height, width), overwrite=self._overwrite
                )
            )
        self._writer.write(plane.index, labels)


@dataclass(frozen=True, eq=False)
class Record:
    """What prompts.json and scores.csv say of one plane."""

    prompts: ImagePrompts
    rows: tuple[dict[str, Any], ...]


def record_of(
    plane: Plane,
    image: Image,
    result: Segmentation,
    *,
    objects: Sequence[Prompts] | None = None,
    extra: Mapping[int, dict[str, Any]] | None = None,
    clicks: int | None = None,
    seconds: float | None = None,
    numbered: bool = True,
) -> Record:
    """Make the record of one finished plane.

    Parameters
    ----------
    objects : sequence of Prompts, optional
        All that was asked for, if that is more than what `result` shows: a hidden object keeps its
        clicks, with a score of 0.
    extra : dict of int to dict, optional
        Further columns for the object whose Prompts have this id().
    numbered : bool
        Labels count objects; else they are classes, and no object has an area of its own.
    """
    scores = {id(p): float(s) for p, s in zip(result.objects, result.scores, strict=True)}
    asked = tuple(objects if objects is not None else result.objects)
    height, width = image.shape[:2]
    prompts = ImagePrompts(
        plane.label,
        str(plane.path or ""),
        (height, width),
        pixels_sha256(image),
        asked,
        tuple(scores.get(id(p), 0.0) for p in asked),
        clicks,
        seconds,
    )
    return Record(prompts, tuple(_rows(plane, result, extra or {}, numbered=numbered)))


def _rows(
    plane: Plane, result: Segmentation, extra: Mapping[int, dict[str, Any]], *, numbered: bool
) -> list[dict[str, Any]]:
    head = {"image": plane.label, "image_score": round(result.score, 4)}
    areas = np.bincount(result.labels.ravel(), minlength=len(result.scores) + 1)
    rows = [
        {
            **head,
            "object": i + 1,
            "class": prompts.label,
            "score": round(float(score), 4),
            "area_px": int(areas[i + 1]) if numbered else None,
            **extra.get(id(prompts), {}),
        }
        for i, (prompts, score) in enumerate(zip(result.objects, result.scores, strict=True))
    ]
    return rows or [{**head, "object": 0}]


class Records:
    """All records of an output folder. `save` is called at the end, and also after a cancel.

    Raises
    ------
    OutputError
        The folder holds results of another model or normalisation and `overwrite` is off, or
        tables that are not ours.
    """

    def __init__(
        self, out: Path, model: str, normalisation: Normalisation, *, overwrite: bool = False
    ) -> None:
        self.out = out
        self.failures: dict[str, str] = {}
        self.model, self.normalisation = model, normalisation
        self._images: dict[str, ImagePrompts] = {}
        self._rows: dict[str, list[dict[str, Any]]] = {}
        if self._read_prompts(overwrite=overwrite):
            self._read_scores()

    def _read_prompts(self, *, overwrite: bool) -> bool:
        path = self.out / "prompts.json"
        if not path.exists():
            return not overwrite
        try:
            earlier = load_prompts(path)
        except SamicError as error:
            msg = f"{self.out}: holds a file that is in the way ({error}). Choose another folder."
            raise OutputError(msg) from error
        same = earlier.normalisation == self.normalisation.to_dict()
        if not (same and earlier.model == self.model):
            if not overwrite:
                what = "another normalisation" if earlier.model == self.model else earlier.model
                msg = (
                    f"{self.out}: holds results of {what}. Choose another folder, or overwrite "
                    "them (--overwrite)."
                )
                raise OutputError(msg)
            return False
        self._images = {image.name: image for image in earlier.images}
        return True

    def _read_scores(self) -> None:
        path = self.out / "scores.csv"
        if not path.exists():
            return
        try:
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    self._rows.setdefault(row["image"], []).append(dict(row))
        except (OSError, ValueError, KeyError, csv.Error) as error:
            msg = f"{path}: not a table of ours ({error}). Choose another folder."
            raise OutputError(msg) from error

    def commit(self, planes: Sequence[Plane], records: Mapping[str, Record]) -> None:
        """Take the records of one written file; planes without one lose what they had."""
        for plane in planes:
            self._images.pop(plane.label, None)
            self._rows.pop(plane.label, None)
        for label, record in records.items():
            self._images[label] = record.prompts
            self._rows[label] = list(record.rows)

    def objects_of(self, label: str) -> tuple[Prompts, ...]:
        """Prompts that are recorded for a plane."""
        return self._images[label].objects if label in self._images else ()

    def fail(self, label: str, reason: str) -> None:
        """Note an image that could not be done."""
        self.failures[label] = reason

    def recall(self, planes: Sequence[Plane]) -> list[str]:
        """Labels of planes done before; those that an earlier run left blank fail again."""
        known = [p.label in self._images for p in planes]
        if not any(known):  # a file without records: made by hand, or its tables are gone
            return [p.label for p in planes]
        for plane, is_known in zip(planes, known, strict=True):
            if not is_known:
                msg = f"{plane.label}: blank in a stack that is done. Overwrite to do it again."
                self.fail(plane.label, msg)
        return [p.label for p, is_known in zip(planes, known, strict=True) if is_known]

    def save(self) -> None:
        """Write prompts.json, scores.csv, and failures.csv if there were any.

        Raises
        ------
        OutputError
            The disk refuses.
        """
        images = tuple(self._images[k] for k in sorted(self._images, key=natural_key))
        content = PromptFile(images, self.model, self.normalisation.to_dict())
        save_prompts(self.out / "prompts.json", content, overwrite=True)
        rows = [row for name in sorted(self._rows, key=natural_key) for row in self._rows[name]]
        if rows or (self.out / "scores.csv").exists():
            export.write_csv(self.out / "scores.csv", rows, overwrite=True)
        write_failures(self.out, self.failures)


def write_failures(folder: Path, failures: Mapping[str, str]) -> None:
    """Write failures.csv: images and why they could not be done; none if there is no failure.

    Raises
    ------
    OutputError
        The disk refuses.
    """
    target = folder / FAILURES
    if failures:
        lost = [{"image": k, "reason": v} for k, v in failures.items()]
        export.write_csv(target, lost, overwrite=True)
        return
    try:
        target.unlink(missing_ok=True)
    except OSError as error:
        raise atomic.output_error(target, error) from error


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

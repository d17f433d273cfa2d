"""A folder of results, read again: its label files and what its tables say of them.

Read by what comes after segmenting: reviewing, accepting, exporting. Writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_samic.core.errors import FormatError, InputError, SamicError
from napari_samic.core.label_objects import LabelObjects, ObjectRecord
from napari_samic.core.types import ImagePlane, IntArray, Job, JobProgress, Prompts
from napari_samic.io import files as io_files
from napari_samic.io import masks
from napari_samic.io.normalize import Normalization
from napari_samic.io.paths import check_stems, folded, natural_key, some
from napari_samic.io.prompts import ImagePrompts, PromptFile
from napari_samic.io.text_files import sha256_of, text_sha256
from napari_samic.pipeline.common import input_hashes, open_planes, planes_of, with_recorded_name
from napari_samic.pipeline.results.ledger import Provenance, Run, difference, same_run
from napari_samic.pipeline.results.writer import read_tables

SUFFIXES = (".tif", ".tiff")
MAX_NAMES = 3
"""Names that a line tells."""


@dataclass(frozen=True, eq=False)
class StoredResult:
    """One label image of a folder.

    Attributes
    ----------
    plane : ImagePlane
        Of the label file.
    prompts : ImagePrompts or None
        What was asked for.
    rows : tuple of dict
        Of scores.csv, one for each object that is there.
    score : float or None
        Confidence of the image; None if the tables do not tell.
    """

    plane: ImagePlane
    prompts: ImagePrompts | None = None
    rows: tuple[Mapping[str, str], ...] = ()
    score: float | None = None
    classes: Mapping[int, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """As `ImagePlane.label`."""
        return self.plane.label

    @property
    def numbered(self) -> bool:
        """Whether values count objects; only then an object has an area of its own."""
        return not self.rows or any(row.get("area_px") for row in self.rows)

    @property
    def is_large(self) -> bool:
        """Whether its labels are not to be held in memory as a whole."""
        return self.plane.is_large

    @property
    def image_file(self) -> str:
        """Where the image was; "" if not known."""
        return self.prompts.file if self.prompts is not None else ""

    def labels(self) -> IntArray:
        """The label image.

        Raises
        ------
        InputError
            It can't be read.
        """
        return masks.read_labels(self.plane)

    def prompts_by_value(self) -> dict[int, Prompts]:
        """Prompts of each value: of all that were asked for, those whose object is there."""
        if not self.numbered or self.prompts is None:
            return {}
        objects, scores = self.prompts.objects, self.prompts.scores
        present = [p for p, score in zip(objects, scores, strict=True) if score > 0]
        if len(present) != len(self.rows):
            present = list(objects)
        if len(present) != len(self.rows):
            return dict(enumerate(present, start=1))
        return dict(zip((int(row["object"]) for row in self.rows), present, strict=True))

    def records(self) -> dict[int, ObjectRecord]:
        """What the table tells of each object, by its number; nothing where values are classes."""
        return {
            int(r["object"]): ObjectRecord(int(r["class"]), _number(r.get("score")))
            for r in self.rows
            if self.numbered
        }

    def label_objects(self) -> LabelObjects:
        """The label image with all that is known of its objects."""
        file = Path(self.image_file).name if self.image_file else ""
        return LabelObjects(
            self.label,
            self.labels(),
            file,
            self.records(),
            self.classes,
            self.numbered,
        )


@dataclass(frozen=True, eq=False)
class StoredResults:
    """All label images of a folder, and its prompt file if it has one.

    `provenance` says by image what made its labels, where that is known; `unknown` are label files
    that the tables do not tell of, and which are no results; `lost` are images whose label file
    is gone; `is_unfinished`: a run was stopped.
    """

    folder: Path
    images: tuple[StoredResult, ...]
    stored: PromptFile | None = None
    classes: Mapping[int, str] = field(default_factory=dict)
    provenance: Mapping[str, Provenance] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    is_unfinished: bool = False
    _hashes: dict[Path, str] = field(default_factory=dict)
    _is_same: dict[str, bool] = field(default_factory=dict)

    def hash_of(self, result: StoredResult) -> str:
        """sha256 of the label file of one image, "" without a file.

        Raises
        ------
        InputError
            It can't be read.
        """
        path = result.plane.path
        if path is None:
            return ""
        if path not in self._hashes:
            self._hashes[path] = sha256_of(path)
        return self._hashes[path]

    @property
    def inputs(self) -> list[Path]:
        """Label files, and the images they were made of that are still where they were."""
        images = {result.image_file for result in self.images if result.image_file}
        labels = {result.plane.path for result in self.images if result.plane.path is not None}
        return sorted(labels) + sorted(path for path in map(Path, images) if _is_there(path))

    @property
    def sha256(self) -> str:
        """Of all label files and the tables.

        Raises
        ------
        InputError
            One can't be read.
        """
        parts = [
            f"{result.label} {self.hash_of(result)} {result.prompts} {result.rows}"
            for result in self.images
        ]
        return text_sha256("\n".join(parts))


def _is_there(path: Path) -> bool:
    with suppress(OSError):  # a folder that may not be entered, a name that is too long
        return path.exists()
    return False


def read_results(folder: Path | str, *, classes: Mapping[int, str] | None = None) -> StoredResults:
    """Read what `segment`, `annotate` or `accept` left; the label files are not read yet.

    Parameters
    ----------
    folder : Path
    classes : dict of int to str, optional
        Names that count more than those of the folder.

    Raises
    ------
    InputError
        No such folder, or no label file in it.
    FormatError
        A prompt file or table that is damaged.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder. Give the folder that `segment` wrote.")
    files = [p for p in root.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "."]
    if not files:
        raise InputError(f"{root}: no label file (.tif). Give the folder that `segment` wrote.")
    tables = read_tables(root)
    stored = None if tables.is_empty else tables.prompts
    recorded = {image.name: image for image in stored.images} if stored is not None else {}
    names = {**(stored.classes if stored is not None else {}), **(classes or {})}
    rows = _parsed_rows(root / "scores.csv", tables.rows)
    spellings = {folded(name): name for name in recorded}
    planes = [
        with_recorded_name(plane, spellings)
        for file in sorted(files, key=lambda f: natural_key(f.name))
        for plane in _with_stack_index(planes_of(file, palette_indices=True), recorded)
    ]
    images = [
        _result(plane, recorded.get(plane.label), rows.get(plane.label, []), names)
        for plane in planes
        if not recorded or plane.label in recorded
    ]
    recorded_names = {result.plane.name for result in images}
    unknown = tuple(dict.fromkeys(p.name for p in planes if p.name not in recorded_names))
    if not images:
        msg = f"{root}: prompts.json names none of the label files. Are they of another run?"
        raise InputError(msg)
    is_unfinished = tables.unfinished is not None
    lost = tuple(tables.lost)
    return StoredResults(
        root, tuple(images), stored, names, tables.provenance, unknown, lost, is_unfinished
    )


def _with_stack_index(
    planes: list[ImagePlane], recorded: Mapping[str, ImagePrompts]
) -> list[ImagePlane]:
    """A stack of one slice is read as a lone image: give it its place back."""
    if len(planes) != 1 or planes[0].label in recorded:
        return planes
    matches = [
        m for n in recorded if (m := re.fullmatch(rf"{re.escape(planes[0].name)}((\[0\])+)", n))
    ]
    if not matches:
        return planes
    index = (0,) * matches[0].group(1).count("[")
    return [replace(planes[0], index=index, stack_shape=tuple(1 for _ in index))]


def _result(
    plane: ImagePlane,
    prompts: ImagePrompts | None,
    rows: list[dict[str, Any]],
    classes: Mapping[int, str],
) -> StoredResult:
    score = _number(rows[0].get("image_score")) if rows else None
    objects = tuple(row for row in rows if int(row["object"]) > 0)
    return StoredResult(plane, prompts, objects, score, classes)


def _parsed_rows(
    path: Path, rows: Mapping[str, list[dict[str, Any]]]
) -> dict[str, list[dict[str, Any]]]:
    """Rows of scores.csv by image, with numbers of objects and classes."""
    try:
        for row in (row for of_image in rows.values() for row in of_image):
            row |= {"object": int(row["object"]), "class": int(row.get("class") or 1)}
            _number(row.get("score"))
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{path}: not a table of ours ({error}). Segment the images again."
        raise FormatError(msg) from error
    return dict(rows)


def _number(text: Any) -> float | None:
    return float(text) if text not in (None, "") else None


def staleness_notices(
    results: StoredResults,
    *,
    quick: bool = False,
    judged: Collection[str] = (),
    may_read: Callable[[Path], bool] = lambda _: True,
) -> Job[tuple[str, ...]]:
    """What is no longer as it was when the labels were made, for people; a `JobProgress` an image.

    Labels that were edited since, images that have changed since, and labels of several runs. What
    is not known, and images that are not where they were, are passed over.

    Parameters
    ----------
    results : StoredResults
    quick : bool
        Read only images whose file is newer than the labels.
    judged : collection of str
        Images whose labels stay as they are, whatever run they are of.
    may_read : callable
        Whether an image file may be looked at; others are passed over.
    """
    edited: list[str] = []
    changed: list[str] = []
    runs: list[Run] = []
    images: dict[Path, dict[str, ImagePlane]] = {}
    for i, result in enumerate(results.images):
        provenance = results.provenance.get(result.label)
        if provenance is not None:
            edited += [result.label] if results.hash_of(result) != provenance.labels else []
            is_new = result.label not in judged and not any(
                same_run(provenance.run, r) for r in runs
            )
            runs += [provenance.run] if is_new else []
        if not result.image_file or may_read(Path(result.image_file)):
            changed += [result.label] if _has_changed(result, results, images, quick=quick) else []
        yield JobProgress(i, len(results.images), f"{result.label}: comparing it with its image")
    notices = []
    if results.unknown:
        notices.append(
            f"label files that no table tells of, left out: {some(results.unknown, MAX_NAMES)}."
        )
    if results.lost:
        notices.append(f"labels that are gone, left out: {some(results.lost, MAX_NAMES)}.")
    if edited:
        notices.append(
            f"labels edited since they were made, so scores may not fit: {some(edited, MAX_NAMES)}."
        )
    if changed:
        what = "images changed since their labels were made; segment them again"
        notices.append(f"{what}: {some(changed, MAX_NAMES)}.")
    if len(runs) > 1:
        notices.append(f"labels of {len(runs)} runs: {difference(runs[0], runs[1])}.")
    if results.is_unfinished:
        notices.append("a run here was stopped before its end; the same command goes on with it.")
    return tuple(notices)


def _has_changed(
    result: StoredResult,
    results: StoredResults,
    images: dict[Path, dict[str, ImagePlane]],
    *,
    quick: bool,
) -> bool:
    """Whether the image is there and is another now; `images` keeps planes of the last file."""
    recorded, labels = result.prompts, result.plane.path
    if quick and recorded is not None and recorded.file and labels is not None:
        with suppress(OSError):
            if Path(recorded.file).stat().st_mtime <= labels.stat().st_mtime:
                return False
    return source_plane(result, results, images)[1]


def source_plane(
    result: StoredResult, results: StoredResults, images: dict[Path, dict[str, ImagePlane]]
) -> tuple[ImagePlane | None, bool]:
    """The image that labels were made of, and whether another one is there now.

    None where it is not known, not there, or another. `images` keeps planes of the last file.
    """
    recorded, stored = result.prompts, results.stored
    if recorded is None or not recorded.sha256 or not recorded.file or stored is None:
        return None, False
    if stored.normalization is None:
        return None, False
    image = Path(recorded.file)
    try:
        image.stat()
        if image not in images:
            images.clear()
            images[image] = _planes_by_name(image, results.provenance.get(result.label))
        plane = images[image].get(folded(result.label))
        if plane is None:
            return None, False
        if result.label not in results._is_same:  # it takes reading the image
            hashes = input_hashes(plane, Normalization.from_dict(stored.normalization))
            results._is_same[result.label] = hashes["pixels"] == recorded.sha256
    except (OSError, TypeError):
        return None, False  # not there, or not for us
    except SamicError:
        return None, True
    is_same = results._is_same[result.label]
    return (plane if is_same else None), not is_same


def _planes_by_name(image: Path, provenance: Provenance | None) -> dict[str, ImagePlane]:
    """Planes of an image, read as it was then, by their folded labels."""
    options = (
        {k: provenance.run.get(k) for k in ("axes", "series")} if provenance is not None else {}
    )
    return {folded(plane.label): plane for plane in open_planes(image, **options)}


def stacks(results: StoredResults) -> dict[str, list[StoredResult]]:
    """Results by label file: the planes of a stack stay together, in their order."""
    by_file: dict[str, list[StoredResult]] = {}
    for result in results.images:
        by_file.setdefault(result.plane.name, []).append(result)
    return by_file


def stem_of_plane(plane: ImagePlane) -> str:
    """Name of a file for one plane: `cells`, or `day-0003` of a stack.

    >>> stem_of_plane(ImagePlane("day", (3,), lambda: None, (9,)))
    'day-0003'
    """
    return "-".join([plane.name, *(f"{i:04d}" for i in plane.index)])


def check_plane_files(folder: Path, planes: Sequence[ImagePlane], ending: str) -> None:
    """Raise, before work begins, if planes can't have a file each of `stem_of_plane`.

    Raises
    ------
    InputError
        Two of one name: `day-0001`, and the second plane of `day`.
    OutputError
        A name that is too long.
    """
    check_stems([stem_of_plane(p) for p in planes], [p.label for p in planes])
    for plane in planes:
        io_files.check_free(folder / f"{stem_of_plane(plane)}{ending}", overwrite=True)


__all__ = [
    "StoredResult",
    "StoredResults",
    "check_plane_files",
    "read_results",
    "source_plane",
    "stacks",
    "staleness_notices",
    "stem_of_plane",
]

"""A folder of results, read again: its label files and what its tables say of them.

Read by what comes after segmenting: reviewing, accepting, exporting. Writes nothing.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_samic import atomic, masks
from napari_samic.contracts import IntArray, Plane
from napari_samic.errors import FormatError, InputError
from napari_samic.export.objects import About, Labelled
from napari_samic.listing import check_stems, folded, natural_key
from napari_samic.pipeline.common import planes_of, spelled_as
from napari_samic.prompts import ImagePrompts, PromptFile, load_prompts

SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True, eq=False)
class Result:
    """One label image of a folder.

    Attributes
    ----------
    plane : Plane
        Of the label file.
    prompts : ImagePrompts or None
        What was asked for.
    rows : tuple of dict
        Of scores.csv, one for each object that is there.
    score : float or None
        Confidence of the image; None if the tables do not tell.
    """

    plane: Plane
    prompts: ImagePrompts | None = None
    rows: tuple[Mapping[str, str], ...] = ()
    score: float | None = None
    classes: Mapping[int, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """As `Plane.label`."""
        return self.plane.label

    @property
    def numbered(self) -> bool:
        """Whether values count objects; only then an object has an area of its own."""
        return not self.rows or any(row.get("area_px") for row in self.rows)

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

    def labelled(self) -> Labelled:
        """The label image with all that is known of its objects."""
        about = {
            int(r["object"]): About(int(r["class"]), _number(r.get("score"))) for r in self.rows
        }
        file = Path(self.image_file).name if self.image_file else ""
        return Labelled(
            self.label,
            self.labels(),
            file,
            about if self.numbered else {},
            self.classes,
            self.numbered,
        )


@dataclass(frozen=True, eq=False)
class Results:
    """All label images of a folder, and its prompt file if it has one."""

    folder: Path
    images: tuple[Result, ...]
    stored: PromptFile | None = None
    classes: Mapping[int, str] = field(default_factory=dict)


def read_results(folder: Path | str, *, classes: Mapping[int, str] | None = None) -> Results:
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
    place = Path(folder)
    if not place.is_dir():
        raise InputError(f"{place}: no such folder. Give the folder that `segment` wrote.")
    files = [p for p in place.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "."]
    if not files:
        raise InputError(f"{place}: no label file (.tif). Give the folder that `segment` wrote.")
    path = place / "prompts.json"
    stored = load_prompts(path) if path.is_file() else None
    known = {image.name: image for image in stored.images} if stored is not None else {}
    names = {**(stored.classes if stored is not None else {}), **(classes or {})}
    spelled = {folded(name): name for name in known}
    rows = _scores(place / "scores.csv")
    images = [
        _result(plane, known.get(plane.label), rows.get(plane.label, []), names)
        for file in sorted(files, key=lambda f: natural_key(f.name))
        for read in _placed(planes_of(file), known)
        for plane in [spelled_as(read, spelled)]
        if not known or plane.label in known
    ]
    if not images:
        msg = f"{place}: prompts.json names none of the label files. Are they of another run?"
        raise InputError(msg)
    return Results(place, tuple(images), stored, names)


def _placed(planes: list[Plane], known: Mapping[str, ImagePrompts]) -> list[Plane]:
    """A stack of one slice is read as a lone image: give it its place back."""
    if len(planes) != 1 or planes[0].label in known:
        return planes
    found = [m for n in known if (m := re.fullmatch(rf"{re.escape(planes[0].name)}((\[0\])+)", n))]
    if not found:
        return planes
    index = (0,) * found[0].group(1).count("[")
    return [replace(planes[0], index=index, stack_shape=tuple(1 for _ in index))]


def _result(
    plane: Plane,
    prompts: ImagePrompts | None,
    rows: list[dict[str, Any]],
    classes: Mapping[int, str],
) -> Result:
    score = _number(rows[0].get("image_score")) if rows else None
    objects = tuple(row for row in rows if int(row["object"]) > 0)
    return Result(plane, prompts, objects, score, classes)


def _scores(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of scores.csv by image."""
    if not path.is_file():
        return {}
    found: dict[str, list[dict[str, Any]]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                checked = {**row, "object": int(row["object"]), "class": int(row.get("class") or 1)}
                _number(row.get("score"))
                found.setdefault(row["image"], []).append(checked)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        msg = f"{path}: not a table of ours ({error}). Segment the images again."
        raise FormatError(msg) from error
    return found


def _number(text: Any) -> float | None:
    return float(text) if text not in (None, "") else None


def stacks(results: Results) -> dict[str, list[Result]]:
    """Results by label file: the planes of a stack stay together, in their order."""
    out: dict[str, list[Result]] = {}
    for one in results.images:
        out.setdefault(one.plane.name, []).append(one)
    return out


def stem_of_plane(plane: Plane) -> str:
    """Name of a file for one plane: `cells`, or `day-0003` of a stack.

    >>> stem_of_plane(Plane("day", (3,), lambda: None, (9,)))
    'day-0003'
    """
    return "-".join([plane.name, *(f"{i:04d}" for i in plane.index)])


def check_plane_files(folder: Path, planes: Sequence[Plane], ending: str) -> None:
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
        atomic.check_free(folder / f"{stem_of_plane(plane)}{ending}", overwrite=True)


__all__ = ["Result", "Results", "check_plane_files", "read_results", "stacks", "stem_of_plane"]

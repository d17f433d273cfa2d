"""The results of a project: what `segment` made, what was painted over it, and what is protected.

    results/NAME.tif          made by `segment`, by nobody else
    review/NAME.tif           what Review has made of it; shown instead, if its decision says so
    results/edits/NAME.tif    painted on a result that is shown by Propagate; shown instead of both,
                              until Review is shown the image and takes it over
    results/before/           what the last run that did all again replaced

NAME is the name of the image: the stem of its file, or of the TIFF that `Session.images` made of a
slice, `cells[3]`; `cells[s0]` where a file has several. An image with an edit, and one that was
accepted, is protected: propagating passes it over. Plain Python: knows no Qt and no napari.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import InputError, SamicError
from napari_samic.core.types import ImagePlane, IntArray, Job, JobProgress
from napari_samic.gui.data.lazy_layers import PartArray, levels
from napari_samic.io import files as io_files
from napari_samic.io.images import planes_of_file
from napari_samic.io.masks import read_labels, read_mask
from napari_samic.io.paths import image_of
from napari_samic.io.prompts import PromptFile, load_prompts
from napari_samic.io.writers import write_labels

KEPT = ("accepted", "edited")
"""Verdicts of Review on results that stay as they are."""
EDITS, BEFORE, REVIEW = "edits", "before", "review"


class LabelFiles:
    """See the module.

    Parameters
    ----------
    folder : Path
        `Project.results_folder`; need not be there yet.
    notes : dict
        `Project.notes`.
    """

    def __init__(self, folder: Path, notes: dict[str, Any]) -> None:
        self.folder, self.notes = folder, notes

    def file(self, name: str) -> Path:
        """Label file of an image, made or not."""
        return self.folder / f"{name}.tif"

    def edit(self, name: str) -> Path:
        """Where its edit is kept, if there is one."""
        return self.folder / EDITS / f"{name}.tif"

    def current_file(self, name: str) -> Path | None:
        """The file to be shown: the newest edit, else the result; None if there is nothing."""
        reviewed = [self.folder.parent / REVIEW / f"{name}.tif"] if self._is_edited(name) else []
        files = (self.edit(name), *reviewed, self.file(name))
        return next((path for path in files if path.is_file()), None)

    def _is_edited(self, name: str) -> bool:
        decision = _decisions(self.notes).get(name)
        return isinstance(decision, dict) and bool(decision.get("edit"))

    def has(self, name: str) -> bool:
        """Whether there is a result or an edit."""
        return self.current_file(name) is not None

    def labels(self, name: str, shape: tuple[int, int]) -> IntArray | None:
        """What is shown, (H, W) int32; None if there is nothing yet.

        Raises
        ------
        InputError
            A damaged file, or one of another shape.
        """
        path = self.current_file(name)
        if path is None:
            return None
        labels = read_labels(path)
        if labels.shape != shape:
            msg = f"{path.name}: {labels.shape} pixels for an image of {shape}. Propagate again."
            raise InputError(msg)
        return labels

    def protected(self) -> set[str]:
        """Names of images that propagating may not touch."""
        edits = {p.stem for p in (self.folder / EDITS).glob("*.tif")}
        return edits | _judged(_decisions(self.notes))

    def names(self) -> set[str]:
        """Names of images with a result."""
        return {p.stem for p in self.folder.glob("*.tif")}

    def tables(self) -> PromptFile | None:
        """What `segment` recorded of the results; None if nothing, or nothing readable."""
        try:
            return load_prompts(self.folder / "prompts.json")
        except SamicError:
            return None

    # --- what changes files

    def write_edit(self, name: str, labels: NDArray[Any]) -> Job[Path]:
        """Keep what was painted; ours stays beside it until the user accepts."""
        yield JobProgress(0, 1, name)
        self.keep(name, labels)
        return self.edit(name)

    def keep(self, name: str, labels: NDArray[Any]) -> None:
        """The same at once, for the end of a session."""
        self.edit(name).parent.mkdir(parents=True, exist_ok=True)
        write_labels(self.edit(name), labels, overwrite=True)

    def taken_over(self, name: str) -> None:
        """What was painted is an edit of Review now."""
        with suppress(OSError):
            self.edit(name).unlink(missing_ok=True)

    def set_aside(self, names: Iterable[str], *, tables: bool = False) -> None:
        """Move results to `before/`, to be made anew; those that lie there are replaced.

        Parameters
        ----------
        names : iterable of str
        tables : bool
            Also the tables: those to come are of another kind.
        """
        others = ("prompts.json", "scores.csv", "ledger.sqlite") if tables else ()
        for file in [*(self.file(name) for name in names), *(self.folder / n for n in others)]:
            if file.is_file():
                _move(file, self.folder / BEFORE / file.name)

    def check_names(self, files: Mapping[Path, Iterable[str]]) -> None:
        """Raise InputError if one of the names that each file has is that of another file."""
        earlier = self.tables()
        sources = {image_of(i.name): i.file for i in earlier.images if i.file} if earlier else {}
        for image, name in ((image, name) for image, names in files.items() for name in names):
            other = sources.get(name)
            if other and self.file(name).is_file() and not _same(Path(other), image):
                msg = (
                    f"{image.name}: the project has the result of another image of that name "
                    f"({other}). Use another project for this folder."
                )
                raise InputError(msg)


def _decisions(notes: dict[str, Any]) -> dict[str, Any]:
    """What the Review step noted of each image."""
    review = notes.get(REVIEW)
    decisions = review.get("opinions") if isinstance(review, dict) else None
    return decisions if isinstance(decisions, dict) else {}


def _judged(decisions: dict[str, Any]) -> set[str]:
    """Names that are accepted or edited."""
    return {
        name
        for name, decision in decisions.items()
        if isinstance(decision, dict) and (decision.get("verdict") in KEPT or decision.get("edit"))
    }


def read_result(path: Path, plane: ImagePlane, shape: tuple[int, ...]) -> IntArray:
    """Labels of one plane of a file; background if there are none."""
    return read_mask(plane, path, shape=shape) if path.is_file() else np.zeros(shape[:2], np.int32)


def _same(first: Path, other: Path) -> bool:
    return first.resolve() == other.resolve()


def _move(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
    except OSError as error:
        raise io_files.output_error(target, error) from error


def large_labels(path: Path, shape: tuple[int, ...]) -> list[Any]:
    """Labels of a large image as levels for napari; background if there are none.

    Raises
    ------
    InputError
        A damaged file, or one of another shape.
    """
    if not path.is_file():
        return levels(np.broadcast_to(np.int32(0), shape))
    plane = planes_of_file(path, palette_indices=True)[0]
    is_numbers = plane.kind is not None and plane.kind[1].kind in "iu"
    if plane.read_part is None or plane.kind is None or not is_numbers:
        labels: Any = read_labels(path)
    else:
        labels = PartArray(plane.read_part, *plane.kind)
    if labels.shape != tuple(shape):
        msg = f"{path.name}: {labels.shape} pixels for an image of {shape}. Propagate again."
        raise InputError(msg)
    return levels(labels)

"""One folder that holds everything of a piece of work, opened again as it was.

`project.json` keeps what no other file does: short notes of each step, as plain values. Prompts,
images, the prompter, results and the recipe have files of their own. Knows no Qt and no napari.
"""

from __future__ import annotations

import filecmp
import json
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_samic.core.errors import FormatError, InputError, OutputError
from napari_samic.io.files import atomic_file, output_error
from napari_samic.io.text_files import read_json

FILE = "project.json"
FORMAT, VERSION = "napari-samic/project", 1
WRITTEN = (
    "images", "references", "annotated", "results", "exports", "review", "reviews",
    "edits", "before", "heatmaps",
)  # fmt: skip
"""Folders in a project that are written to."""


class Project:
    """See the module; made by `create` and `open`.

    Attributes
    ----------
    folder : Path
    notes : dict
        Plain values of the steps, by their names; kept by `save`.
    """

    def __init__(self, folder: Path, notes: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.notes: dict[str, Any] = {} if notes is None else notes
        self._lock = threading.Lock()
        self._taken = self._written = 0

    @property
    def file(self) -> Path:
        """The notes."""
        return self.folder / FILE

    @property
    def prompts_file(self) -> Path:
        """All prompts, saved as they change."""
        return self.folder / "prompts.json"

    @property
    def references_files(self) -> list[Path]:
        """Prompts of exactly the images that a training learned from, one file each, in order.

        Recipes name them, so none is written to again. Before there was one for each training,
        all had `references.json`, which stays as it is.
        """
        by_number = {p.stem.partition("-")[2]: p for p in self.folder.glob("references-*.json")}
        return [by_number[n] for n in sorted((n for n in by_number if n.isdecimal()), key=int)]

    @property
    def images_folder(self) -> Path:
        """Slices without a file of their own, as TIFF, once a job needed them."""
        return self.folder / "images"

    @property
    def references_folder(self) -> Path:
        """What `annotate` makes of the references."""
        return self.folder / "references"

    @property
    def annotated_folder(self) -> Path:
        """What was drawn on the references whenever a run began, in a folder each: see `frozen`."""
        return self.folder / "annotated"

    @property
    def prompter_file(self) -> Path:
        """What `train` makes."""
        return self.folder / "prompter.pt"

    @property
    def results_folder(self) -> Path:
        """What `segment` makes: label TIFFs, prompts.json, scores.csv, heatmaps/."""
        return self.folder / "results"

    @property
    def exports_folder(self) -> Path:
        """What the user exports."""
        return self.folder / "exports"

    @property
    def recipe(self) -> Path:
        """What was done."""
        return self.folder / "recipe.yaml"

    @classmethod
    def create(cls, folder: str | Path) -> Project:
        """Begin a project in a folder that is empty, or not there yet.

        Raises
        ------
        OutputError
            The folder holds something, or can't be written to.
        """
        place = Path(folder)
        if is_project(place):
            raise OutputError(f"{place}: is a project already. Open it, or choose another folder.")
        try:
            place.mkdir(parents=True, exist_ok=True)
            existing = sorted(p.name for p in place.iterdir() if not p.name.startswith("."))
        except (FileExistsError, NotADirectoryError) as error:
            raise OutputError(f"{place}: is a file, expected a folder. Choose another.") from error
        except OSError as error:
            raise output_error(place, error) from error
        if existing:
            more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
            msg = f"{place}: holds {existing[0]}{more}. Choose an empty folder for the project."
            raise OutputError(msg)
        project = cls(place)
        project.save()
        return project

    @classmethod
    def open(cls, folder: str | Path) -> Project:
        """Open a project by its folder, or by its `project.json`.

        Raises
        ------
        InputError
            No project there, or one that can't be read.
        FormatError
            Damaged, or of another version; or a folder in it is a link that leads out of it.
        """
        place = Path(folder)
        place = place.parent if place.name == FILE else place
        if not is_project(place):
            msg = f"{place}: no SAMIC project, it has no {FILE}. Choose its folder, or begin one."
            raise InputError(msg)
        _check_links(place)
        return cls(place, _notes_of(place / FILE))

    def save(self) -> None:
        """Write the notes; the file is complete or as it was.

        Raises
        ------
        OutputError
            A place that can't be written to, or notes that JSON can't hold.
        """
        self.write(self.snapshot())

    def snapshot(self) -> tuple[int, str]:
        """The notes as they are now, to be written by a job."""
        try:
            text = json.dumps(
                {"format": FORMAT, "version": VERSION, "notes": self.notes},
                indent=1, allow_nan=False,
            )  # fmt: skip
        except (TypeError, ValueError) as error:
            raise OutputError(f"{self.file}: notes that JSON can't hold ({error}).") from error
        self._taken += 1
        return self._taken, text + "\n"

    def write(self, snapshot: tuple[int, str]) -> None:
        """Write a snapshot, from any thread; one that is older than what was written is dropped."""
        number, text = snapshot
        with self._lock:
            if number > self._written:
                with atomic_file(self.file, overwrite=True) as temporary:
                    temporary.write_text(text, encoding="utf-8")
                self._written = number


def frozen(folder: Path, write: Callable[[Path], None]) -> Path:
    """A folder `folder`/N that is not written to again; the last N if it holds the very same.

    Parameters
    ----------
    folder : Path
    write : callable
        Writes into the folder that it is given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
        write(Path(temporary))
        number = max((int(p.name) for p in folder.iterdir() if p.name.isdecimal()), default=0)
        last = folder / str(number)
        if not (number and _is_same(Path(temporary), last)):
            last = folder / str(number + 1)
            last.mkdir()
            for path in sorted(Path(temporary).iterdir()):
                path.replace(last / path.name)
    return last


def _is_same(first: Path, other: Path) -> bool:
    comparison = filecmp.dircmp(first, other)
    if comparison.left_only or comparison.right_only or comparison.funny_files:
        return False
    same, _, _ = filecmp.cmpfiles(first, other, comparison.common_files, shallow=False)
    inside = all(_is_same(first / name, other / name) for name in comparison.common_dirs)
    return len(same) == len(comparison.common_files) and inside


def is_project(folder: str | Path) -> bool:
    """Whether a folder has a `project.json`."""
    return (Path(folder) / FILE).is_file()


def _check_links(folder: Path) -> None:
    """Raise if what is written into a folder of the project would go somewhere else."""
    inside = folder.resolve()
    for path in (*folder.iterdir(), *folder.glob("results/*")):
        leads = path.resolve()
        if path.name in WRITTEN and not leads.is_relative_to(inside):
            msg = f"{path}: leads to {leads}, out of the project. Put a folder in its place."
            raise FormatError(msg)


def _notes_of(path: Path) -> dict[str, Any]:
    tree = read_json(path, "the folder of a project")
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise FormatError(f"{path}: not a SAMIC project. Choose the folder of one.")
    if tree.get("version") != VERSION:
        msg = (
            f"{path}: version {tree.get('version')!r:.40}, this package knows {VERSION}. "
            "Update napari-samic, or begin a new project."
        )
        raise FormatError(msg)
    notes = tree.get("notes")
    if not isinstance(notes, dict):
        raise FormatError(f"{path}: notes are no object. Restore the file from a copy.")
    return notes

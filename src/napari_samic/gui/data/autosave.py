"""Keeps the prompts: after each change in a recovery file or the project's folder; saves, loads.

No file of the user is replaced unasked: only our recovery file, and the prompt file of a project
that this session began or opened, whose notes also keep what prompt files have no place for: marks
of references, colors of classes and the model. Knows no Qt and no napari.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import InputError, OutputError, SamicError
from napari_samic.core.types import Job, JobProgress, run_job
from napari_samic.gui.data import prompts_io, recovery
from napari_samic.gui.data.masks_io import LoadedMasks
from napari_samic.gui.data.project import Project
from napari_samic.gui.runner.jobs import Calls, Runner
from napari_samic.gui.state.annotator import AnnotationModel
from napari_samic.io import files as io_files
from napari_samic.io.prompts import PromptFile, load_prompts, save_prompts
from napari_samic.io.text_files import read_json
from napari_samic.io.writers import write_json

KEY = "annotate"


class AutoSaver:
    """See the module.

    Parameters
    ----------
    state : AnnotationModel
    runner : Runner
    say : callable
        Takes a line for the user.
    is_busy : callable
        Whether a click is being answered: writing waits for that, until `flush`.

    Attributes
    ----------
    project : Project or None
        Where everything is saved as it changes.
    on_project : callable
        Called when a project was begun or opened.
    unsaved : bool
        Whether there are prompts that no file of the user's has.
    """

    def __init__(
        self,
        state: AnnotationModel,
        runner: Runner,
        say: Callable[[str], None],
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self.state, self.runner, self._say, self._is_busy = state, runner, say, is_busy
        self.project: Project | None = None
        self.on_project: Callable[[], None] = lambda: None
        self.unsaved = False
        self.recovery = recovery.begin()
        self._claim = ExitStack()
        self._inherited: list[Path] = []
        self._writing = False
        self._dirty = False
        state.events.prompts.connect(self._mark_dirty)
        state.events.classes.connect(self._mark_dirty)

    @property
    def has_prompts(self) -> bool:
        """Whether anything is annotated."""
        return any(annotation.items for annotation in self.state.annotations.values())

    def _mark_dirty(self) -> None:
        self.unsaved = self._dirty = True
        if not self._is_busy():
            self.flush()

    def note(self) -> None:
        """Notes of the project changed: write them with the prompts."""
        if self.project is not None:
            self._dirty = True
            self.flush()

    def flush(self) -> None:
        """Write the newest prompts, if they are not written; one write at a time."""
        if self._writing or not self._dirty:
            return
        self._writing, self._dirty = True, False
        self.runner.start(self._newest(), Calls(on_done=self._written, on_end=self._ended))

    def _written(self, path: Path) -> None:
        if path != self.recovery:
            recovery.discard(self.recovery)  # of before there was a project, or while it was read
            self.unsaved = self.unsaved and self._dirty
        while self._inherited:
            recovery.discard(self._inherited.pop())

    def _ended(self) -> None:
        self._writing = False
        self.flush()

    def begin_project(self, project: Project) -> None:
        """Keep everything in a new project; prompts that have no project yet go into it.

        Raises
        ------
        OutputError
            Another window has it open.
        """
        claim = self._claimed(project)
        if self.project is not None:
            self.state.forget()
        self._enter(project, claim)

    def open_project(self, project: Project) -> None:
        """Take over what a project holds, and keep everything there from now on.

        Raises
        ------
        OutputError
            There are prompts that no project has: none is lost. Or another window has it open.
        """
        if self.has_prompts and self.project is None:
            msg = "there are prompts that were not saved. Save them, or begin a new project first."
            raise OutputError(msg)
        claim = self._claimed(project)
        if not project.prompts_file.exists():
            self._begin_anew(project, claim)
            return
        self._say(f"Opening {project.folder.name} ...")

        def read(data: PromptFile) -> None:
            self._begin_anew(project, claim.pop_all() if claim is not None else None, data)

        calls = Calls(on_done=read, on_end=claim.close if claim is not None else None)
        self.runner.start(read_prompts(project.prompts_file), calls)

    def _claimed(self, project: Project) -> ExitStack | None:
        """Keep other windows out of a project; None if it is the one that is open."""
        if self.project is not None and _is_same(self.project.folder, project.folder):
            return None
        claim = ExitStack()
        try:
            claim.enter_context(io_files.claimed(project.folder))
        except OutputError as error:
            msg = f"{project.folder}: is open in another window. Close it there, so that only one "
            raise OutputError(f"{msg}writes to it.") from error
        return claim

    def _begin_anew(
        self, project: Project, claim: ExitStack | None, data: PromptFile | None = None
    ) -> None:
        self.project = None  # what is taken back belongs to no project before it is complete
        self.state.forget()
        if data is not None:
            prompts_io.take(self.state, data)
        recall(self.state, project.notes)
        self._enter(project, claim)
        self._say(f"Opened {project.folder.name}.")

    def _enter(self, project: Project, claim: ExitStack | None) -> None:
        if claim is not None:
            self._claim.close()
            self._claim = claim
        self.project = project
        self._dirty = True
        self.flush()
        self.on_project()

    def save(self, folder: Path) -> None:
        """Write prompts and label images into a folder; nothing there is replaced.

        Raises
        ------
        InputError
            Nothing was annotated.
        """
        files, labels = prompts_io.to_files(self.state), prompts_io.to_labels(self.state)
        if not files:
            raise InputError("nothing is annotated yet. Click on an object first.")
        job = export_all(folder, files, labels)
        self.runner.start(job, Calls(on_done=self._saved), title="SAMIC: saving")

    def _saved(self, paths: list[Path]) -> None:
        self.unsaved = False
        self._say(f"Saved {len(paths)} files in {paths[0].parent}.")

    def load(self, path: Path) -> None:
        """Read a prompt file; it replaces the objects of images it names, undo brings them back."""
        self._read_then(path, lambda: self._mark_dirty())

    def load_masks(self, job: Job[LoadedMasks]) -> None:
        """Take masks over that a job reads, in place of the objects of the same images."""
        calls = Calls(on_done=partial(self._take_masks, self.project))
        self.runner.start(job, calls, title="SAMIC: reading masks")

    def _take_masks(self, project: Project | None, loaded: LoadedMasks) -> None:
        if project is not self.project:
            self._say("Another project was opened: the masks were not loaded.")
            return
        self.state.message = loaded.line
        for data in loaded.files:
            prompts_io.take_masks(self.state, data)
        self._say("Loaded masks.")
        self._mark_dirty()

    def restore(self, path: Path) -> None:
        """Take over what an earlier session left; its file goes once ours is written."""

        def done() -> None:
            self._inherited.append(path)
            self.state.events.prompts.emit()

        self._read_then(path, done, recovery.notes_file(path))

    def _read_then(
        self, path: Path, after: Callable[[], None], notes_file: Path | None = None
    ) -> None:
        def read(data: PromptFile) -> None:
            count = prompts_io.take(self.state, data)
            if notes_file is not None:
                with suppress(SamicError):  # prompts are what counts
                    recall(self.state, read_json(notes_file, "notes of a session"))
            self._say(f"Loaded the prompts of {count} image{'s' * (count != 1)}.")
            after()

        self.runner.start(read_prompts(path), Calls(on_done=read))

    def close(self) -> None:
        """The session ends: what is not saved goes into the project, or is offered again."""
        keep = self.unsaved and self.has_prompts
        if keep:
            try:
                run_job(self._newest())
                keep = self.project is None
            except SamicError:
                keep = self.recovery.exists()
        recovery.end(self.recovery, keep=keep)
        self._claim.close()

    def _newest(self) -> Job[Path]:
        """Writes everything as it is now."""
        data = prompts_io.to_file(self.state, all_items=True)
        if self.project is None:
            notes: dict[str, Any] = {}
            remember(self.state, notes)
            return write_recovery(self.recovery, data, notes)
        remember(self.state, self.project.notes)
        return write_project(self.project, data)


def _is_same(first: Path, other: Path) -> bool:
    return first.resolve() == other.resolve()


# --- notes of a project


def remember(state: AnnotationModel, notes: dict[str, Any]) -> None:
    """Put it into the notes; what else is there stays."""
    own = dict(notes.get(KEY, {}))
    own["references"] = sorted(
        p.name for p in state.annotations.values() if p.is_reference and p.items
    )
    own["classes"] = {
        str(label): {"name": style.name, "colour": style.color}
        for label in state.classes.labels
        if (style := state.classes.style(label))
    }
    own["model"] = state.model or own.get("model", "")
    notes[KEY] = own


def recall(state: AnnotationModel, notes: Mapping[str, Any]) -> None:
    """Take it back; what is damaged is left out, since prompts are what counts."""
    own = notes.get(KEY)
    if not isinstance(own, dict):
        return
    marked = own.get("references")
    for name in marked if isinstance(marked, list) else []:
        if isinstance(name, str) and name in state.annotations:
            state.annotations[name].is_reference = True
    classes = own.get("classes")
    for number, style in classes.items() if isinstance(classes, dict) else ():
        if str(number).isdigit() and int(number) > 0 and isinstance(style, dict):
            label = int(number)
            state.classes.take({label: str(style.get("name") or f"class {label}")}, {label})
            if re.fullmatch(r"#[0-9a-fA-F]{6}", str(style.get("colour"))):
                state.classes.recolor(label, str(style["colour"]))
    state.events.classes.emit()


def model_of(notes: Mapping[str, Any]) -> str:
    """The model that the project was annotated with; "" if none is known."""
    own = notes.get(KEY)
    model = own.get("model") if isinstance(own, dict) else None
    return model if isinstance(model, str) else ""


def write_recovery(path: Path, data: PromptFile, notes: Mapping[str, Any]) -> Job[Path]:
    """Save prompts and notes over our own earlier ones."""
    yield JobProgress(0, 1, path.name)
    write_json(recovery.notes_file(path), notes, overwrite=True)
    save_prompts(path, data, overwrite=True)
    return path


def write_project(project: Project, data: PromptFile) -> Job[Path]:
    """Save the prompts and notes of a project over its earlier ones."""
    snapshot = project.snapshot()
    yield JobProgress(0, 1, project.folder.name)
    save_prompts(project.prompts_file, data, overwrite=True)
    project.write(snapshot)
    return project.prompts_file


def read_prompts(path: Path) -> Job[PromptFile]:
    """Load prompts."""
    yield JobProgress(0, 1, path.name)
    return load_prompts(path)


def export_all(
    folder: Path, files: dict[str, PromptFile], labels: dict[str, NDArray[np.int32]]
) -> Job[list[Path]]:
    """Save prompt files and label images in a folder; nothing that is there is replaced.

    Raises
    ------
    OutputError
        One of the names is taken (then nothing is written), or the disk refuses.
    """
    from napari_samic.io.writers import write_labels

    prompts = {folder / f"{name}.json": data for name, data in files.items()}
    images = {folder / f"{name}.tif": values for name, values in labels.items()}
    for path in [*prompts, *images]:
        io_files.check_free(path, overwrite=False)
    total = len(prompts) + len(images)
    for done, (path, data) in enumerate(prompts.items()):
        yield JobProgress(done, total, path.name)
        save_prompts(path, data)
    for done, (path, values) in enumerate(images.items(), start=len(prompts)):
        yield JobProgress(done, total, path.name)
        write_labels(path, values)
    return [*prompts, *images]

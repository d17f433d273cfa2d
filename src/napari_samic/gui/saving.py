"""Keeps the prompts: after each change in a recovery file or the project's folder; saves, loads.

No file of the user is replaced unasked: only our recovery file, and the prompt file of a project
that this session began or opened. Knows no Qt and no napari.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from napari_samic.contracts import run
from napari_samic.errors import InputError, OutputError, SamicError
from napari_samic.gui import exchange, recovery, work
from napari_samic.gui.controller import Annotator
from napari_samic.gui.jobs import Calls, Runner
from napari_samic.prompts import PromptFile

PROJECT_FILE = "prompts.json"


class Keeper:
    """See the module.

    Parameters
    ----------
    state : Annotator
    runner : Runner
    say : callable
        Takes a line for the user.
    is_busy : callable
        Whether a click is being answered: writing waits for that, until `flush`.

    Attributes
    ----------
    project : Path or None
        Folder in which prompts are saved as they change.
    unsaved : bool
        Whether there are prompts that no file of the user's has.
    """

    def __init__(
        self,
        state: Annotator,
        runner: Runner,
        say: Callable[[str], None],
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self.state, self.runner, self._say, self._is_busy = state, runner, say, is_busy
        self.project: Path | None = None
        self.unsaved = False
        self.recovery = recovery.begin()
        self._inherited: list[Path] = []
        self._writing = False
        self._dirty = False
        state.listeners.append(self._changed)

    @property
    def has_prompts(self) -> bool:
        """Whether anything is annotated."""
        return any(page.items for page in self.state.pages.values())

    def _changed(self, what: str) -> None:
        if what in ("prompts", "classes"):
            self.unsaved = self._dirty = True
            if not self._is_busy():
                self.flush()

    def flush(self) -> None:
        """Write the newest prompts, if they are not written; one write at a time."""
        if self._writing or not self._dirty:
            return
        self._writing, self._dirty = True, False
        data = exchange.to_file(self.state, all_items=True)
        target = self.recovery if self.project is None else self.project / PROJECT_FILE
        calls = Calls(on_done=self._written, on_end=self._ended)
        self.runner.start(work.write_prompts(target, data), calls)

    def _written(self, path: Path) -> None:
        if path != self.recovery and not self._dirty:
            self.unsaved = False
        while self._inherited:
            recovery.discard(self._inherited.pop())

    def _ended(self) -> None:
        self._writing = False
        self.flush()

    def choose_project(self, folder: Path) -> None:
        """Keep the prompts in a folder from now on; open those that are there.

        Raises
        ------
        OutputError
            The folder has prompts and so have we: none is overwritten.
        """
        target = folder / PROJECT_FILE
        if target.exists() and self.has_prompts:
            msg = f"{target}: exists already. Choose an empty folder, or load that file first."
            raise OutputError(msg)
        if target.exists():
            self._read_then(target, lambda: self._enter(folder))
        else:
            self._enter(folder)

    def _enter(self, folder: Path) -> None:
        self.project = folder
        self._dirty = True
        self.flush()

    def save(self, folder: Path) -> None:
        """Write prompts and label images into a folder; nothing there is replaced.

        Raises
        ------
        InputError
            Nothing was annotated.
        """
        files, labels = exchange.to_files(self.state), exchange.to_labels(self.state)
        if not files:
            raise InputError("nothing is annotated yet. Click on an object first.")
        job = work.export(folder, files, labels)
        self.runner.start(job, Calls(on_done=self._saved), title="SAMIC: saving")

    def _saved(self, paths: list[Path]) -> None:
        self.unsaved = False
        self._say(f"Saved {len(paths)} files in {paths[0].parent}.")

    def load(self, path: Path) -> None:
        """Read a prompt file; it replaces the objects of images it names, undo brings them back."""
        self._read_then(path, lambda: self._changed("prompts"))

    def restore(self, path: Path) -> None:
        """Take over what an earlier session left; its file goes once ours is written."""

        def done() -> None:
            self._inherited.append(path)
            self._changed("prompts")

        self._read_then(path, done)

    def _read_then(self, path: Path, after: Callable[[], None]) -> None:
        def read(data: PromptFile) -> None:
            count = exchange.take(self.state, data)
            self._say(f"Loaded the prompts of {count} image{'s' * (count != 1)}.")
            after()

        self.runner.start(work.read_prompts(path), Calls(on_done=read))

    def close(self) -> None:
        """The session ends: what is not saved stays in the recovery file, to be offered again."""
        keep = self.unsaved and self.has_prompts
        if keep:
            try:
                run(work.write_prompts(self.recovery, exchange.to_file(self.state, all_items=True)))
            except SamicError:
                keep = self.recovery.exists()
        recovery.end(self.recovery, keep=keep)

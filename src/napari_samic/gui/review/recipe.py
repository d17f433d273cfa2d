"""The recipe: shown, copied, saved under another name, loaded, and run again, by jobs.

Plain Python: knows no Qt and no napari.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_samic import recipes
from napari_samic.core.errors import InputError
from napari_samic.core.types import Job, JobProgress
from napari_samic.gui.runner.jobs import Calls, Handle, Runner
from napari_samic.io import files
from napari_samic.recipes import scripting

if TYPE_CHECKING:
    from napari_samic.gui.data.project import Project
    from napari_samic.pipeline import JobResult


class RecipeRunner:
    """See the module.

    Parameters
    ----------
    runner : Runner
    project : callable
        Gives the open project, or None.

    Attributes
    ----------
    path : Path or None
        The recipe that is shown; None for that of the project.
    status : str
        What is going on, for the user.
    on_change : callable
        Called when `status` or `is_running` changed.
    """

    def __init__(self, runner: Runner, project: Callable[[], Project | None]) -> None:
        self.runner, self._project = runner, project
        self.path: Path | None = None
        self.status = ""
        self.on_change: Callable[[], None] = lambda: None
        self._running: Handle | None = None

    @property
    def is_running(self) -> bool:
        """Whether a replay is under way."""
        return self._running is not None

    @property
    def current_path(self) -> Path | None:
        """The recipe in question: the one that was loaded, or that of the project."""
        project = self._project()
        return self.path or (project.recipe if project is not None else None)

    def text(self) -> str:
        """The recipe as it stands; "" if nothing was recorded yet.

        Raises
        ------
        InputError, FormatError
            It can't be read, or is none.
        """
        path = self.current_path
        if path is None or not path.exists():
            return ""
        recipes.load_recipe(path)
        return path.read_text(encoding="utf-8-sig")

    def load(self, path: Path | None) -> None:
        """Show another recipe; None goes back to that of the project.

        Raises
        ------
        InputError, FormatError
            It can't be read, or is none; then the one before stays.
        """
        if path is not None:
            recipes.load_recipe(path)
        self.path = path
        self.on_change()

    def as_text(self, kind: str) -> str:
        """The recipe as what one would type, to be copied: it writes into a folder of its own.

        Parameters
        ----------
        kind : {"command", "Python"}

        Raises
        ------
        InputError
            Nothing was recorded yet.
        SettingsError
            Settings that are no options of the shell.
        """
        write = scripting.as_python if kind == "Python" else scripting.as_command
        recipe = recipes.load_recipe(self._needed())
        folders = (recipe.folder / f"again-{number}" for number in count(1))
        out = next(folder for folder in folders if not folder.exists())
        text = write(recipe, out=out)
        steps = len(recipe.steps)
        self._set_status(
            f"Copied {steps} step{'s' * (steps != 1)} as {kind}. What was drawn is read from the "
            f"project; all that is made goes to {out}."
        )
        return text

    def save_as(self, path: Path) -> None:
        """Write the recipe to another file, with paths that hold there.

        Raises
        ------
        InputError
            Nothing was recorded yet.
        """
        source = self._needed()
        self.runner.start(_rewritten(source, path), Calls(on_done=self._saved))

    def replay(self, out: Path, *, images: Path | Sequence[Path] | None = None) -> None:
        """Run it again into another folder; with other images if some are given.

        Raises
        ------
        InputError
            Nothing was recorded yet, or a replay is under way.
        """
        if self._running is not None:
            raise InputError("A recipe is being replayed. Wait for it, or stop it.")
        job: Job[JobResult] = recipes.replay(self._needed(), out=out, images=images)
        calls = Calls(on_step=self._stepped, on_done=self._done, on_end=self._ended)
        self._running = self.runner.start(job, calls, title="SAMIC: replaying")
        self._set_status("Replaying ...")

    def stop(self) -> None:
        """End the replay; what is done stays."""
        if self._running is not None:
            self._running.cancel()

    def _needed(self) -> Path:
        path = self.current_path
        if path is None or not path.exists():
            raise InputError("Nothing was recorded yet. Train or propagate first, or load a file.")
        return path

    def _stepped(self, step: JobProgress) -> None:
        number = step.data.get("step")
        count = f" {step.done} of {step.total}" if step.total else ""
        self._set_status(f"Step {number}: {step.message}{count}" if number else step.message)

    def _done(self, outcome: Any) -> None:
        failed = f", {len(outcome.failures)} images failed" if outcome.failures else ""
        self._set_status(
            f"Replayed {len(outcome.done)} steps{failed}. {_sameness(outcome.figures)}"
        )

    def _saved(self, path: Path) -> None:
        self._set_status(f"Saved {path.name}.")

    def _ended(self) -> None:
        self._running = None
        if not self.status.startswith("Replayed"):
            self.status = "The replay was not finished."
        self.on_change()

    def _set_status(self, text: str) -> None:
        self.status = text
        self.on_change()


def _sameness(figures: dict[str, Any]) -> str:
    """Whether the labels are those recorded."""
    same = [s["same_labels"] for s in figures.get("steps", ()) if s.get("same_labels") is not None]
    if not same:
        return ""
    return "All labels are the same." if all(same) else "Some labels are other than recorded."


def _rewritten(source: Path, target: Path) -> Job[Path]:
    """A copy whose relative paths begin in its own folder."""
    from napari_samic.recipes.paths import relocate

    yield JobProgress(0, 1, target.name)
    text = relocate(source, target)
    with files.atomic_file(target, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target

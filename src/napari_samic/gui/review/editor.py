"""The result on the screen, changed by the user: points that move, labels that are painted.

The mask follows the points: the objects that changed are asked for again, and late answers are
dropped. Every change is kept as a label file in the project. Plain Python: knows no Qt, no napari.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from psygnal import Signal, SignalGroup

from napari_samic.core.errors import InputError
from napari_samic.core.types import Segmenter
from napari_samic.gui.review import jobs, result
from napari_samic.gui.review.jobs import Read
from napari_samic.gui.review.result import ReviewedResult
from napari_samic.gui.review.verdicts import Edit, Placed
from napari_samic.gui.runner.jobs import Calls, Runner

KEPT = 50
"""Changes of a result that can be undone, at most."""
KEPT_BYTES = 256 * 2**20
"""Label images of theirs that are kept, at most."""


class ResultEditorEvents(SignalGroup):
    """What changed of the result on the screen."""

    reviewed = Signal()
    labels = Signal()
    points = Signal()
    painted = Signal()


class ResultEditor:
    """See the module.

    Parameters
    ----------
    runner : Runner
    segmenter : callable
        Gives the model that answers, or None.
    on_edit : callable
        Called with the name of an image and its edit; its hash is "" until the file is written.
        With None once all changes since it was shown are undone.

    Attributes
    ----------
    reviewed : ReviewedResult or None
        What is on the screen.
    read : callable or None
        Gives its image, (H, W, 3) uint8.
    folder : Path or None
        Of the edited label files.
    label : int
        Class of new objects.
    past : list of (ReviewedResult, tuple of int)
        What was on the screen before each change of this result, the latest last, and the objects
        whose masks were under way then.
    waiting : bool
        Whether a mask is under way.
    events : ResultEditorEvents
    """

    def __init__(
        self,
        runner: Runner,
        segmenter: Callable[[], Segmenter | None],
        on_edit: Callable[[str, Edit | None], None],
    ) -> None:
        self.runner, self._segmenter, self._on_edit = runner, segmenter, on_edit
        self.reviewed: ReviewedResult | None = None
        self.read: Read | None = None
        self.folder: Path | None = None
        self.label = 1
        self.past: list[tuple[ReviewedResult, tuple[int, ...]]] = []
        self._is_edit = False
        self.events = ResultEditorEvents()
        self._asked: dict[int, int] = {}
        self._generation = 0
        self._todo: dict[str, ReviewedResult] = {}
        self._writing = ""

    @property
    def waiting(self) -> bool:
        """Whether a mask is under way."""
        return bool(self._asked)

    def show(
        self, reviewed: ReviewedResult | None, read: Read | None = None, *, is_edit: bool = False
    ) -> None:
        """Put another result on the screen; answers for the one before no longer count.

        Parameters
        ----------
        is_edit : bool
            The result is not as predicted: an edit of an earlier time.
        """
        self.reviewed, self.read = reviewed, read
        self._asked.clear()
        self.begin(is_edit=is_edit)
        self.events.reviewed.emit()

    def begin(self, *, is_edit: bool) -> None:
        """Let `undo` go back to what is shown now, and no further."""
        self.past.clear()
        self._is_edit = is_edit

    def _remember(self, reviewed: ReviewedResult) -> None:
        self.past.append((reviewed, tuple(self._asked)))
        while len(self.past) > KEPT or (len(self.past) > 1 and self._held() > KEPT_BYTES):
            del self.past[0]
            self._is_edit = True  # what is then the first is not as predicted

    def _held(self) -> int:
        images = {id(reviewed.labels): reviewed.labels.nbytes for reviewed, _ in self.past}
        return sum(images.values())

    def undo(self) -> None:
        """Take the last change of points or labels back, with the masks that it brought."""
        if self.reviewed is None or not self.past:
            return
        self.reviewed, under_way = self.past.pop()
        self._asked.clear()
        segmenter, again = self._segmenter(), [n for n in under_way if self.reviewed.is_askable(n)]
        if again and segmenter is not None and self.read is not None:
            self._ask(segmenter, self.read, self.reviewed, again)
        if self.past or self._is_edit:
            self._changed()
        else:  # as predicted
            self.forget(self.reviewed.name)
            self._on_edit(self.reviewed.name, None)
        self.events.points.emit()
        self.events.labels.emit()

    # --- points

    def take_points(self, listed: Sequence[Placed]) -> None:
        """The user added, moved or deleted points; the masks follow.

        Raises
        ------
        InputError
            Values are classes, or no model is loaded; the points stay as they were.
        """
        if self.reviewed is None:
            return
        if self.reviewed.levels is not None:
            self.events.points.emit()
            self.reviewed.check_changeable()
        if not self.reviewed.numbered:
            self.events.points.emit()
            raise InputError(f"{self.reviewed.name}: its values are classes. Paint in the labels.")
        segmenter = self._segmenter()
        if segmenter is None or self.read is None:
            self.events.points.emit()
            what = "image of this result is not there" if segmenter else "model is not loaded"
            raise InputError(f"the {what}. Choose one in the Annotate step.")
        previous, before = self.reviewed, self.reviewed.labels
        self.reviewed, changed = result.moved(self.reviewed, listed, self.label)
        if changed:
            self._remember(previous)
        wanted = [n for n in changed if self.reviewed.is_askable(n)]
        for number in changed:
            self._asked.pop(number, None)
        if wanted:
            self._ask(segmenter, self.read, self.reviewed, wanted)
        if changed and not wanted:
            self._changed()
        self.events.points.emit()
        if self.reviewed.labels is not before:
            self.events.labels.emit()

    def _ask(
        self, segmenter: Segmenter, read: Read, reviewed: ReviewedResult, wanted: Sequence[int]
    ) -> None:
        self._generation += 1
        self._asked |= dict.fromkeys(wanted, self._generation)
        job = jobs.redo(segmenter, read, {n: reviewed.prompts(n) for n in wanted})
        calls = Calls(
            on_done=partial(self._answered, self._generation),
            on_error=partial(self._unanswered, self._generation),
        )
        self.runner.start(job, calls)

    def _answered(self, generation: int, answers: dict[int, tuple[NDArray[Any], float]]) -> None:
        fresh = [n for n in answers if self._asked.get(n) == generation]
        if self.reviewed is None or not fresh:
            return
        for number in fresh:
            del self._asked[number]
            mask, score = answers[number]
            self.reviewed = result.answered(self.reviewed, number, mask, score)
        self._changed()
        self.events.labels.emit()

    def _unanswered(self, generation: int, error: Exception) -> bool:
        del error
        for number in [n for n, g in self._asked.items() if g == generation]:
            del self._asked[number]
        return False

    # --- painting

    def take_labels(self, labels: NDArray[Any]) -> None:
        """The user painted.

        Raises
        ------
        InputError
            The labels are those of a large image.
        """
        if self.reviewed is not None:
            self.reviewed.check_changeable()
        if self.reviewed is not None and (labels != self.reviewed.labels).any():
            self._remember(self.reviewed)
            self.reviewed = result.painted(self.reviewed, labels, self.label)
            self._changed()
            self.events.painted.emit()

    # --- keeping

    def _changed(self) -> None:
        """Keep the labels; one file is written at a time, and only the newest of each image."""
        if self.reviewed is None or self.folder is None:
            return
        self._on_edit(self.reviewed.name, edit_of(self.reviewed))
        self._todo[self.reviewed.name] = self.reviewed
        self._write()

    def _write(self) -> None:
        if self._writing or not self._todo or self.folder is None:
            return
        name, reviewed = self._todo.popitem()
        self._writing = name
        job = jobs.keep_edit(self.folder / file_name(name), reviewed.labels)
        calls = Calls(on_done=partial(self._written, reviewed), on_end=self._ended)
        self.runner.start(job, calls)

    def _written(self, reviewed: ReviewedResult, sha256: str) -> None:
        if reviewed.name not in self._todo:
            self._on_edit(reviewed.name, edit_of(reviewed, sha256))

    def _ended(self) -> None:
        self._writing = ""
        self._write()

    @property
    def is_writing(self) -> bool:
        """Whether an edit has no file yet."""
        return bool(self._writing or self._todo)

    def forget(self, name: str) -> None:
        """An edit is taken back: it need not be written any more."""
        self._todo.pop(name, None)


def edit_of(reviewed: ReviewedResult, sha256: str = "") -> Edit:
    """What is kept of a changed result."""
    return Edit(file_name(reviewed.name), sha256, reviewed.records(), reviewed.points)


def file_name(name: str) -> str:
    """Of the label file of an edit; the names of images are names of files already."""
    return f"{name}.tif"

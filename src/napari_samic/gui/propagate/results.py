"""Results of the chosen image layer: which file each slice shows, and what is painted on them.

What is painted is kept in a file of its own (`LabelFiles.edit`) a moment later, and never lost
to a run. Plain Python: must not know Qt or napari.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal, SignalGroup

from napari_samic.core.errors import SamicError
from napari_samic.core.types import IntArray, Job, JobProgress
from napari_samic.gui.data.lazy_labels import Index, LabelStack
from napari_samic.gui.data.result_files import LabelFiles, large_labels
from napari_samic.gui.runner.jobs import Calls

if TYPE_CHECKING:
    from napari_samic.gui.data.layer_pixels import LayerPixels
    from napari_samic.gui.session.session import Session


class ResultStoreEvents(SignalGroup):
    """What changed.

    opened : another layer or project; slice : the shown slice has other labels; other : another one
    has; painted : `keep` should be called soon.
    """

    opened = Signal()
    slice = Signal()
    other = Signal()
    painted = Signal()


class ResultStore:
    """See the module.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    results : LabelFiles or None
        Of the project.
    stack : LabelStack or None
        Labels of the chosen layer; None without project or image, and of a large image.
    levels : list or None
        Labels of a large image, once they were read: to be looked at, not painted on.
    events : ResultStoreEvents
    """

    def __init__(self, session: Session) -> None:
        self.session, self.events = session, ResultStoreEvents()
        self.results: LabelFiles | None = None
        self.stack: LabelStack | None = None
        self.levels: list[Any] | None = None
        self._pixels: LayerPixels | None = None
        self._writing = False
        self._has_any: bool | None = None
        self._reading: set[Index] = set()
        self.open()

    def need_results(self) -> LabelFiles:
        """Of the open project.

        Raises
        ------
        InputError
            No project.
        """
        project = self.session.need_project()
        if self.results is None or self.results.folder != project.results_folder:
            self.open()
        return self.results or LabelFiles(project.results_folder, project.notes)

    def open(self) -> None:
        """Another project or layer: keep what was painted, and show its results."""
        self.keep_now()
        project, pixels = self.session.project, self.session.pixels
        self.results = LabelFiles(project.results_folder, project.notes) if project else None
        self._pixels, self.stack, self.levels, self._has_any = pixels, None, None, None
        if pixels is not None and pixels.is_large:
            self._read_large()
        elif self.results is not None and pixels is not None:
            read = partial(_read, self.results, pixels)
            shape, later = pixels.shape, self._read_later
            self.stack = LabelStack(pixels.stack_shape, shape, read, self._painted, later)
        self.events.opened.emit()

    def reread(self) -> None:
        """Files changed: look at them again."""
        self._has_any = None
        if self._pixels is not None and self._pixels.is_large:
            self._read_large()
        elif self.stack is not None:
            self.stack.forget()
            self.events.slice.emit()

    @property
    def any_here(self) -> bool:
        """Whether any image of the chosen layer has labels to show."""
        if self._has_any is None:
            self._has_any = self._look_for_any()
        return self._has_any

    def _look_for_any(self) -> bool:
        if self.results is None or self._pixels is None:
            return False
        names = self.results.names() | self.results.protected()
        return any(self._pixels.label(index) in names for index in self._pixels.indices())

    def _read_later(self, index: Index) -> None:
        """Read a large plane in a job; then it is shown."""
        if (stack := self.stack) is None or index in self._reading:
            return
        self._reading.add(index)

        def read() -> Job[None]:
            yield JobProgress(0, 1)
            stack.plane(index)

        def ended() -> None:
            self._reading.discard(index)
            if stack is self.stack and index == self.session.scheduler.index:
                self.events.slice.emit()

        self.session.runner.start(read(), Calls(on_end=ended))

    def _read_large(self) -> None:
        """Read the levels of a large image's labels in a job; then they are shown."""
        results, pixels = self.results, self._pixels
        if results is None or pixels is None:
            return

        def read() -> Job[list[Any] | None]:
            yield JobProgress(0, 1)
            path = results.current_file(pixels.label(()))
            return None if path is None else large_labels(path, pixels.shape)

        def done(levels: list[Any] | None) -> None:
            if pixels is self._pixels and results is self.results:
                self.levels = levels
                self.events.slice.emit()

        self.session.runner.start(read(), Calls(on_done=done))

    def add_result(self, label: str, labels: IntArray) -> None:
        """A run has made the labels of an image; an edit goes on being shown."""
        index = self._pixels.index_of(label) if self._pixels is not None else None
        if index is not None and self._pixels is not None and self._pixels.is_large:
            self.reread()
        if index is None or self.stack is None or self.results is None:
            return
        if not self._has_any:
            self._has_any = True
            self.events.slice.emit()  # the first: the layer comes
        if index in self.stack.painted or self.results.edit(label).is_file():
            return
        if index == self.session.scheduler.index and labels.shape == self.stack.plane_shape:
            self.stack.put(index, labels)
            self.events.slice.emit()
        else:
            self.stack.forget(index)
            self.events.other.emit()

    # --- painting

    def _painted(self, _index: Index) -> None:
        self.events.painted.emit()

    def keep(self) -> None:
        """Write what was painted, one plane at a time, until all is in files."""
        stack, results, pixels = self.stack, self.results, self._pixels
        if self._writing or stack is None or results is None or pixels is None or not stack.painted:
            return
        index, labels = next(iter(stack.painted.items()))
        self._writing = True

        def kept(_path: Path) -> None:
            stack.saved(index, labels)
            self.session.events.review.emit()

        def ended() -> None:
            self._writing = False
            if stack is self.stack and stack.painted.get(index) is not labels:
                self.keep()

        job = results.write_edit(pixels.label(index), labels)
        self.session.runner.start(job, Calls(on_done=kept, on_end=ended))

    def keep_now(self) -> None:
        """Write what was painted before this is left; of little size, so at once."""
        stack, results, pixels = self.stack, self.results, self._pixels
        if stack is None or results is None or pixels is None:
            return
        for index, labels in list(stack.painted.items()):
            with suppress(SamicError):
                results.keep(pixels.label(index), labels)
                stack.saved(index, labels)

    def close(self) -> None:
        """The session ends."""
        self.events.disconnect()
        self.keep_now()


def _read(results: LabelFiles, pixels: LayerPixels, index: Index) -> IntArray | None:
    """Labels of a slice; one that can't be read shows nothing: `Review` says why."""
    with suppress(SamicError):
        return results.labels(pixels.label(index), pixels.shape)
    return None

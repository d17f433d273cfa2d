"""The dock of napari: the project, and the steps from left to right. A host: it knows no step's
work.

Lets all go when the dock or the viewer closes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QMimeData, QObject
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QSizePolicy, QStackedWidget, QVBoxLayout, QWidget

from napari_samic.gui.annotate.step import AnnotateStep
from napari_samic.gui.canvas import gl_context
from napari_samic.gui.header import ProjectLine, StepBar
from napari_samic.gui.propagate.step import PropagateStep
from napari_samic.gui.review.step import ReviewStep
from napari_samic.gui.runner import jobs
from napari_samic.gui.session.session import Session, WorkflowStep
from napari_samic.gui.train.step import TrainStep

if TYPE_CHECKING:
    from napari.viewer import Viewer


class SamicDock(QWidget):
    """From a few clicks to all labels: Annotate, Train, Propagate, Review.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    runner : Runner, optional
        Who runs jobs; tests give one without threads.
    """

    def __init__(self, napari_viewer: Viewer, runner: jobs.Runner | None = None) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.session = Session(napari_viewer, runner or jobs.Jobs())
        self._was_docked = self._closed = False
        self._end_context = gl_context.keep_current(napari_viewer)
        self.annotate = AnnotateStep(self.session)
        self.train, self.propagate = TrainStep(self.session), PropagateStep(self.session)
        self.review = ReviewStep(self.session)
        self.steps: list[WorkflowStep] = [self.annotate, self.train, self.propagate, self.review]
        self.line = ProjectLine(self, self.session)
        self.bar = StepBar([step.title for step in self.steps], self.go_to)
        self.pages = QStackedWidget()
        self._lay_out()
        self.session.ask_project = self.line.ask
        self.session.ask_images = self.line.ask_images
        self.session.go_to = self.go_to
        self.session.events.project.connect(self._project_changed)
        self.destroyed.connect(_closer(self.session, self.annotate.disconnect, self._end_context))
        application = QApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self.release)
        self.steps[0].enter()

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.line)
        layout.addWidget(self.bar)
        for step in self.steps:
            self.pages.addWidget(step.widget)
        # without a part that wants the height napari adds an empty one, a larger one for each dock
        self.pages.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        layout.addWidget(self.pages, 1)
        self.setMinimumWidth(300)
        self.setAcceptDrops(True)

    # --- steps

    @property
    def step(self) -> WorkflowStep:
        """The step that is shown."""
        return self.steps[self.pages.currentIndex()]

    def go_to(self, title: str) -> None:
        """Show a step by its title; the project remembers which."""
        wanted = next((step for step in self.steps if step.title == title), None)
        if wanted is None or self._closed:
            return
        if wanted is not self.step:
            self.step.leave()
            self.pages.setCurrentIndex(self.steps.index(wanted))
            wanted.enter()
        self.bar.show_step(title)
        if self.session.project is not None and self.session.project.notes.get("step") != title:
            self.session.project.notes["step"] = title
            self.session.scheduler.autosaver.note()

    @property
    def is_closed(self) -> bool:
        """Whether it let go of the viewer."""
        return self._closed

    def _project_changed(self) -> None:
        if self.session.project is not None:
            self.line.show_project(self.session.project)
            self.go_to(str(self.session.project.notes.get("step", self.step.title)))

    # --- folders that are dropped

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        """Take a folder."""
        if event is not None and _folder_in(event.mimeData()) is not None:
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent | None) -> None:
        """Open a folder of images, or a project; load a folder of masks."""
        folder = None if event is None else _folder_in(event.mimeData())
        if event is not None and folder is not None:
            event.acceptProposedAction()
            jobs.notify_errors(self.annotate.drop)([folder])

    # --- the end

    def event(self, event: QEvent | None) -> bool:
        """Notice that napari took the widget out of its dock, which is how it closes one."""
        if event is not None and event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._was_docked = True
                self._watch_window()
            elif self._was_docked:
                self.release()
        return bool(super().event(event))

    def _watch_window(self) -> None:
        """Hear of it when napari's window closes."""
        top: QObject = self
        while (above := top.parent()) is not None:
            top = above
        if top is not self:
            top.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Let go while the window closes: after it, the widgets of the steps are no more."""
        closing = event is not None and event.type() == QEvent.Type.Close
        if event is None or watched is None or not closing or self._closed:
            return False
        watched.event(event)  # may ask the user, who may say no
        if event.isAccepted():
            self.release()
        return True

    def release(self) -> None:
        """Let go of the viewer: no key, no callback, no job of ours is left."""
        if self._closed:
            return
        self._closed = True
        self.step.leave()
        for step in reversed(self.steps):
            step.release()
        self.session.close()
        self._end_context()


def _folder_in(dropped: QMimeData | None) -> Path | None:
    """The folder that is dropped; None if it is something else."""
    urls = [] if dropped is None else dropped.urls()
    folder = Path(urls[0].toLocalFile()) if len(urls) == 1 and urls[0].isLocalFile() else None
    return folder if folder is not None and folder.is_dir() else None


def _closer(session: Session, *disconnects: Callable[[], None]) -> Callable[..., None]:
    """Ends the work when Qt destroys the dock, without touching the dock."""

    def close(*_: Any) -> None:
        for disconnect in disconnects:
            disconnect()
        session.close()

    return close

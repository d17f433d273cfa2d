"""The top of the dock: the project, and the bar of steps. Views, and the questions for a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtGui import QAction  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QButtonGroup,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QMenu,
    QMessageBox,
    QPushButton,
    QSizePolicy,
    QWidget,
)

from napari_samic.gui.data.project import Project, is_project
from napari_samic.gui.runner.jobs import notify_errors
from napari_samic.gui.session import preferences
from napari_samic.gui.session.session import Session

NO_PROJECT = "no project yet"
SHOWN = 10
"""Paths in a question."""


class ProjectLine(QWidget):
    """Name of the project, and the buttons that begin or open one.

    Parameters
    ----------
    parent : QWidget
    session : Session
    """

    def __init__(self, parent: QWidget, session: Session) -> None:
        super().__init__(parent)
        self.session = session
        row = QHBoxLayout(self)
        row.setContentsMargins(8, 0, 8, 0)
        row.setSpacing(4)
        self.name = QLabel(NO_PROJECT)
        self.name.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.name.setToolTip("A project keeps prompts, prompter, results and recipe in one folder.")
        row.addWidget(QLabel("Project"))
        row.addWidget(self.name, 1)
        self.new = self._button("New", "Begin a project in a new folder", self.begin)
        self.open = self._button("Open", "Open the folder of a project", self.choose)
        self.recent = QPushButton()
        self.recent.setToolTip("Projects that were open last")
        self.recent.setAccessibleName("recent projects")
        self.recent.setFixedWidth(22)
        self.menu = QMenu(self.recent)
        self.menu.aboutToShow.connect(self._list_recent)
        self.recent.setMenu(self.menu)
        for button in (self.new, self.open, self.recent):
            row.addWidget(button)

    def _button(self, text: str, tip: str, act: Callable[[], object]) -> QPushButton:
        button = QPushButton(text)
        button.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        button.setToolTip(tip)
        button.clicked.connect(lambda: notify_errors(act)())
        return button

    def show_project(self, project: Project) -> None:
        """Show its name."""
        self.name.setText(project.folder.name)
        self.name.setToolTip(str(project.folder))
        preferences.remember_project(project.folder)

    def _list_recent(self) -> None:
        """Those that are gone can't be chosen."""
        self.menu.clear()
        own = self.session.project
        folders = [f for f in preferences.recent_projects() if own is None or f != own.folder]
        for folder in folders:
            action = QAction(f"{folder.name}  ({folder.parent})", self.menu)
            action.setEnabled(is_project(folder))
            action.triggered.connect(partial(notify_errors(self._open), folder))
            self.menu.addAction(action)
        if not folders:
            nothing = QAction("No other project yet", self.menu)
            nothing.setEnabled(False)
            self.menu.addAction(nothing)

    def _open(self, folder: Path, *_: bool) -> None:
        self.session.scheduler.autosaver.open_project(Project.open(folder))

    def ask_folder(self, title: str) -> Path | None:
        """A folder, or None."""
        chosen = QFileDialog.getExistingDirectory(self, title)
        return Path(chosen) if chosen else None

    def begin(self) -> None:
        """Ask for the name of a new folder and begin a project there."""
        options = QFileDialog.Option.ShowDirsOnly | QFileDialog.Option.DontConfirmOverwrite
        title = "Name of the new project's folder"
        chosen, _ = QFileDialog.getSaveFileName(self, title, "samic-project", options=options)
        if chosen:
            self.session.scheduler.autosaver.begin_project(Project.create(chosen))

    def choose(self) -> None:
        """Ask for the folder of a project and open it."""
        if folder := self.ask_folder("Folder of the project"):
            self._open(folder)

    def ask(self) -> None:
        """A project is needed: an empty folder begins one, that of a project is opened."""
        folder = self.ask_folder("A project is needed: choose an empty folder, or a project")
        if folder is not None and is_project(folder):
            self._open(folder)
        elif folder is not None:
            self.session.scheduler.autosaver.begin_project(Project.create(folder))

    def ask_images(self, files: Sequence[Path]) -> bool:
        """Whether a project may open images outside of its folder; their paths are shown."""
        some = "\n".join(map(str, files[:SHOWN])) + ("\n..." if len(files) > SHOWN else "")
        text = (
            f"This project names {len(files)} image{'s' * (len(files) != 1)} outside of its "
            f"folder:\n\n{some}\n\nOpen?"
        )
        yes, no = QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.No
        answer = QMessageBox.question(self, "Images of the project", text, yes | no, no)
        return bool(answer == yes)


class StepBar(QWidget):
    """The steps from left to right; Tab and the arrow keys reach them.

    Parameters
    ----------
    titles : sequence of str
    go_to : callable
        Takes the title of a step.
    """

    def __init__(self, titles: Sequence[str], go_to: Callable[[str], None]) -> None:
        super().__init__()
        row = QHBoxLayout(self)
        row.setContentsMargins(8, 0, 8, 0)
        row.setSpacing(2)
        self._group = QButtonGroup(self)
        self.buttons: dict[str, QPushButton] = {}
        for number, title in enumerate(titles, start=1):
            button = QPushButton(title)
            button.setCheckable(True)
            button.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
            button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            button.setToolTip(f"Step {number} of {len(titles)}")
            button.clicked.connect(lambda _=False, title=title: go_to(title))
            self._group.addButton(button)
            self.buttons[title] = button
            row.addWidget(button)
        self.show_step(titles[0])

    def show_step(self, title: str) -> None:
        """Mark the step that is shown."""
        self.buttons[title].setChecked(True)

"""The page Recipe as the user sees it: read it, save it, load one, run it again.

A view: it decides nothing. Must not know jobs, layers or models.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from qtpy.QtGui import QFontDatabase
from qtpy.QtWidgets import (
    QApplication,
    QFileDialog,
    QGridLayout,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_samic.gui.review.recipe import RecipeRunner
from napari_samic.gui.runner.jobs import notify_errors

KINDS = "Recipes (*.yaml *.yml)"


class RecipeView(QWidget):
    """What was done, to be read, saved and run again.

    Parameters
    ----------
    recipe_runner : RecipeRunner
    """

    def __init__(self, recipe_runner: RecipeRunner) -> None:
        super().__init__()
        self.recipe_runner = recipe_runner
        recipe_runner.on_change = self.refresh
        self.text = QPlainTextEdit()
        self.text.setReadOnly(True)
        self.text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.text.setPlaceholderText("Nothing was recorded yet.")
        self.text.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.place, self.status = QLabel(), QLabel()
        self.place.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.status.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 6)
        layout.addWidget(self.place)
        layout.addWidget(self.text, 1)
        layout.addWidget(self._buttons())
        layout.addWidget(self.status)

    def _buttons(self) -> QWidget:
        part = QWidget()
        grid = QGridLayout(part)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        self.buttons: dict[str, QPushButton] = {}
        rows: tuple[tuple[str, Callable[[], None], str], ...] = (
            ("Load ...", self.load, "Show another recipe"),
            ("Save as ...", self.save, "A copy whose paths hold where it lies"),
            ("Replay ...", self.replay, "Run all steps again, into another folder"),
            ("Replay on others ...", self.replay_on, "Run it on another folder of images"),
            ("Stop", self.recipe_runner.stop, "End the replay; what is done stays"),
            ("Of the project", self.back, "Show the project's own recipe again"),
            ("Copy as command", partial(self.copy, "command"), "What to type in a shell"),
            ("Copy as Python", partial(self.copy, "Python"), "A script that does the same"),
        )  # fmt: skip
        for number, (name, act, tip) in enumerate(rows):
            button = self.buttons[name] = _button(name, act, tip)
            grid.addWidget(button, number // 2, number % 2)
        return part

    def refresh(self) -> None:
        """Show the recipe as it is now."""
        notify_errors(self._show_text)()
        path = self.recipe_runner.current_path
        self.place.setText(path.name if path is not None else "No project is open.")
        self.place.setToolTip(str(path or ""))
        self.status.setText(self.recipe_runner.status)
        has_text, running = bool(self.text.toPlainText()), self.recipe_runner.is_running
        own = {"Stop": running, "Load ...": not running, "Of the project": self._is_other}
        for name, button in self.buttons.items():
            button.setEnabled(own.get(name, has_text and not running))

    @property
    def _is_other(self) -> bool:
        return self.recipe_runner.path is not None and not self.recipe_runner.is_running

    def _show_text(self) -> None:
        text = self.recipe_runner.text()
        if text != self.text.toPlainText():
            self.text.setPlainText(text)

    # --- questions

    def ask_file(self) -> Path | None:
        """A recipe that is there, or None."""
        chosen, _ = QFileDialog.getOpenFileName(self, "Recipe", "", KINDS)
        return Path(chosen) if chosen else None

    def ask_target(self) -> Path | None:
        """Where to save, or None."""
        chosen, _ = QFileDialog.getSaveFileName(self, "Save the recipe", "recipe.yaml", KINDS)
        return Path(chosen) if chosen else None

    def ask_folder(self, title: str) -> Path | None:
        """A folder, or None."""
        chosen = QFileDialog.getExistingDirectory(self, title)
        return Path(chosen) if chosen else None

    def load(self) -> None:
        """Show another recipe."""
        if path := self.ask_file():
            self.recipe_runner.load(path)

    def back(self) -> None:
        """Show that of the project."""
        self.recipe_runner.load(None)

    def copy(self, kind: str) -> None:
        """Put the steps on the clipboard, as a command or a script."""
        text = self.recipe_runner.as_text(kind)
        if (clipboard := QApplication.clipboard()) is not None:
            clipboard.setText(text)

    def save(self) -> None:
        """Save a copy."""
        if path := self.ask_target():
            self.recipe_runner.save_as(path)

    def replay(self) -> None:
        """Run it again."""
        if out := self.ask_folder("Empty folder for the results"):
            self.recipe_runner.replay(out)

    def replay_on(self) -> None:
        """Run it again on other images."""
        if images := self.ask_folder("Folder of other images"):
            out = self.ask_folder("Empty folder for the results")
            if out is not None:
                self.recipe_runner.replay(out, images=images)


def _button(name: str, act: Callable[[], None], tip: str) -> QPushButton:
    button = QPushButton(name)
    button.setToolTip(tip)
    button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    button.clicked.connect(lambda: notify_errors(act)())
    return button

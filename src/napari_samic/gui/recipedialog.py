"""The recipe in a window of its own: read it, save it, load one, run it again. A view."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qtpy.QtGui import QFontDatabase
from qtpy.QtWidgets import (
    QDialog,
    QFileDialog,
    QGridLayout,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_samic.gui.guarding import shown
from napari_samic.gui.replayer import Replayer

KINDS = "Recipes (*.yaml *.yml)"


class RecipeDialog(QDialog):
    """See the module.

    Parameters
    ----------
    parent : QWidget
    replayer : Replayer
    """

    def __init__(self, parent: QWidget, replayer: Replayer) -> None:
        super().__init__(parent)
        self.replayer = replayer
        self.setWindowTitle("Recipe")
        self.resize(560, 520)
        self.place, self.status = QLabel(), QLabel()
        for label in (self.place, self.status):
            label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.text = QPlainTextEdit()
        self.text.setReadOnly(True)
        self.text.setPlaceholderText("Nothing was recorded yet.")
        self.text.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        layout = QVBoxLayout(self)
        for part in (self.place, self.text, self._buttons(), self.status):
            layout.addWidget(part)
        replayer.on_change = self.refresh
        self.refresh()

    def _buttons(self) -> QWidget:
        part = QWidget()
        grid = QGridLayout(part)
        grid.setContentsMargins(0, 0, 0, 0)
        self.buttons = {}
        for column, (name, act, tip) in enumerate(
            (
                ("Load ...", self.load, "Show another recipe"),
                ("Save as ...", self.save_as, "A copy whose paths hold where it lies"),
                ("Replay ...", self.replay, "Run all steps again, into another folder"),
                ("On other images ...", self.replay_on, "Replay it on another folder of images"),
                ("Stop", self.replayer.stop, "End the replay; what is done stays"),
            )
        ):
            self.buttons[name] = _button(name, act, tip)
            grid.addWidget(self.buttons[name], 0, column)
        return part

    def refresh(self) -> None:
        """Show the recipe and what is going on."""
        path = self.replayer.shown
        self.place.setText(str(path or "No project is open."))
        shown(self._show_text)()
        self.status.setText(self.replayer.status)
        running, known = self.replayer.is_running, bool(self.text.toPlainText())
        for name, button in self.buttons.items():
            is_stop = name == "Stop"
            button.setEnabled(running if is_stop else not running and (known or name[0] == "L"))

    def _show_text(self) -> None:
        text = self.replayer.text()
        if text != self.text.toPlainText():  # so that a reader keeps the place
            self.text.setPlainText(text)

    # --- questions

    def ask_file(self) -> Path | None:
        """A recipe that is there, or None."""
        chosen, _ = QFileDialog.getOpenFileName(self, "Recipe", "", KINDS)
        return Path(chosen) if chosen else None

    def ask_target(self) -> Path | None:
        """Where to save a recipe, or None."""
        chosen, _ = QFileDialog.getSaveFileName(self, "Save the recipe", "recipe.yaml", KINDS)
        return Path(chosen) if chosen else None

    def ask_folder(self, title: str) -> Path | None:
        """A folder, or None."""
        chosen = QFileDialog.getExistingDirectory(self, title)
        return Path(chosen) if chosen else None

    def load(self) -> None:
        """Show another recipe."""
        if path := self.ask_file():
            self.replayer.load(path)

    def save_as(self) -> None:
        """Save a copy."""
        if path := self.ask_target():
            self.replayer.save_as(path)

    def replay(self) -> None:
        """Run it again."""
        if out := self.ask_folder("Empty folder for the results"):
            self.replayer.replay(out)

    def replay_on(self) -> None:
        """Run it again on other images."""
        if images := self.ask_folder("Folder of other images"):
            out = self.ask_folder("Empty folder for the results")
            if out is not None:
                self.replayer.replay(out, images=images)


def _button(name: str, act: Callable[[], None], tip: str) -> QPushButton:
    button = QPushButton(name)
    button.setToolTip(tip)
    button.setAutoDefault(False)
    button.clicked.connect(lambda: shown(act)())
    return button

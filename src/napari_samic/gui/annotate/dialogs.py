"""Questions to the user in windows of their own: names, colors, folders; and what was left over.

Asks, then passes on. Must not know layers or models.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qtpy.QtGui import QColor
from qtpy.QtWidgets import QColorDialog, QFileDialog, QInputDialog, QWidget

from napari_samic.gui.annotate.view import AnnotatePanel
from napari_samic.gui.data import recovery
from napari_samic.gui.session.scheduler import PromptScheduler


class Dialogs:
    """Verbs that ask something first.

    Parameters
    ----------
    parent : QWidget
    scheduler : PromptScheduler
    """

    def __init__(self, parent: QWidget, scheduler: PromptScheduler) -> None:
        self.parent, self.scheduler = parent, scheduler
        self._leftovers: list[recovery.Leftover] = []
        self._panel: AnnotatePanel | None = None

    def handlers(self) -> dict[str, Callable[..., None]]:
        """For the panel's buttons."""
        return {
            "new_class": self.new_class,
            "rename": self.rename_class,
            "recolor": self.recolor_class,
            "save": self.save,
            "restore": self.restore,
            "discard": self.discard,
        }

    def new_class(self) -> None:
        """Ask for a name; the selected object is of that class, or else the next one."""
        name, done = QInputDialog.getText(self.parent, "New class", "Name of the class:")
        if done:
            state = self.scheduler.state
            state.choose_class(state.classes.add(name))

    def rename_class(self) -> None:
        """Ask for another name of the current class."""
        state = self.scheduler.state
        style = state.classes.style(state.class_here)
        title, text = "Class", "Name of the class:"
        name, done = QInputDialog.getText(self.parent, title, text, text=style.name)
        if done:
            state.style_class(state.class_here, name=name)

    def recolor_class(self) -> None:
        """Ask for another color of the current class."""
        state = self.scheduler.state
        before = QColor(state.classes.style(state.class_here).color)
        color = QColorDialog.getColor(before, self.parent, "Colour of the class")
        if color.isValid():
            state.style_class(state.class_here, color=color.name())

    def ask_folder(self, title: str) -> Path | None:
        """A folder, or None."""
        chosen = QFileDialog.getExistingDirectory(self.parent, title)
        return Path(chosen) if chosen else None

    def ask_file(self, title: str, kinds: str = "") -> Path | None:
        """A file that is there, or None."""
        chosen, _ = QFileDialog.getOpenFileName(self.parent, title, "", kinds)
        return Path(chosen) if chosen else None

    def save(self) -> None:
        """Prompts and labels, into a folder."""
        if folder := self.ask_folder("Folder for prompts and labels"):
            self.scheduler.autosaver.save(folder)

    def offer_recovery(self, panel: AnnotatePanel) -> None:
        """Show what earlier sessions left, the newest first."""
        self._panel, self._leftovers = panel, recovery.leftovers()
        text = ""
        if self._leftovers:
            when = f"{self._leftovers[0].saved:%d %B, %H:%M}"
            text = f"Prompts of {when} were not saved. Take them over?"
        panel.show_recovery(text)

    def restore(self) -> None:
        """Take them over."""
        self.scheduler.autosaver.restore(self._leftovers[0].path)
        if self._panel is not None:
            self._panel.show_recovery("")

    def discard(self) -> None:
        """Delete them, and offer those before."""
        recovery.discard(self._leftovers[0].path)
        if self._panel is not None:
            self.offer_recovery(self._panel)

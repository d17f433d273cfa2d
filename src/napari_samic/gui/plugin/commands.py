"""The dock of a viewer, found or made; and what the command palette and the menus do with it.

napari imports this to register the commands: whatever is heavy is imported inside.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_samic.core.errors import InputError
from napari_samic.gui.runner.jobs import notify_errors

if TYPE_CHECKING:
    from napari_samic.gui.dock import SamicDock

PLUGIN, WIDGET = "napari-samic", "Few-shot segmentation"


def dock_of(viewer: Any) -> SamicDock:
    """The dock of a viewer; it is opened if need be."""
    from napari_samic.gui.dock import SamicDock

    window = viewer.window
    docks: list[SamicDock] = window._qt_window.findChildren(SamicDock)
    for dock in docks:
        if not dock.is_closed:
            return dock
    _, widget = window.add_plugin_dock_widget(PLUGIN, WIDGET)
    dock = getattr(widget, "native", widget)
    if not isinstance(dock, SamicDock):
        raise InputError("The SAMIC dock can't be opened. Is another plugin of this name there?")
    return dock


def open_project_in(viewer: Any, path: str | Path) -> None:
    """Open a project in the dock of a viewer.

    Raises
    ------
    InputError, FormatError
        No project, or a damaged one.
    OutputError
        There are prompts that were not saved.
    """
    from napari_samic.gui.data.project import Project

    project = Project.open(path)
    session = dock_of(viewer).session
    if session.project is None or session.project.folder.resolve() != project.folder.resolve():
        session.scheduler.autosaver.open_project(project)


def _dock() -> SamicDock:
    from napari import current_viewer

    viewer = current_viewer()
    if viewer is None:
        raise InputError("no napari window is open. Start napari first.")
    return dock_of(viewer)


def _to(title: str) -> SamicDock:
    dock = _dock()
    dock.go_to(title)
    return dock


@notify_errors
def show_annotate() -> None:
    """Click and segment."""
    _to("Annotate")


@notify_errors
def show_train() -> None:
    """Teach a prompter from the references."""
    _to("Train")


@notify_errors
def show_propagate() -> None:
    """Segment all other images."""
    _to("Propagate")


@notify_errors
def show_review() -> None:
    """Look at the results, most doubtful first, and export them."""
    _to("Review")


@notify_errors
def new_project() -> None:
    """Ask for the name of a new folder and begin a project there."""
    _dock().line.begin()


@notify_errors
def open_project() -> None:
    """Ask for the folder of a project and open it."""
    _dock().line.choose()


@notify_errors
def replay_recipe() -> None:
    """Ask for a recipe and show it, ready to be run again."""
    _to("Review").review.load_recipe()

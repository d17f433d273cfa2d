"""The dock of a viewer, found or made, and a project opened in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_samic.errors import InputError
from napari_samic.gui.dock import SamicDock
from napari_samic.gui.project import Project

PLUGIN, WIDGET = "napari-samic", "Few-shot segmentation"


def dock_of(viewer: Any) -> SamicDock:
    """The dock of a viewer; it is opened if need be."""
    window = viewer.window
    found: list[SamicDock] = window._qt_window.findChildren(SamicDock)
    for dock in found:
        if not dock.is_closed:
            return dock
    _, widget = window.add_plugin_dock_widget(PLUGIN, WIDGET)
    dock = getattr(widget, "native", widget)
    if not isinstance(dock, SamicDock):
        raise InputError("The SAMIC dock can't be opened. Is another plugin of this name there?")
    return dock


def open_project(viewer: Any, path: str | Path) -> None:
    """Open a project in the dock of a viewer.

    Raises
    ------
    InputError, FormatError
        No project, or a damaged one.
    OutputError
        There are prompts that were not saved.
    """
    project = Project.open(path)
    bench = dock_of(viewer).bench
    if bench.project is None or bench.project.folder.resolve() != project.folder.resolve():
        bench.desk.keeper.open_project(project)

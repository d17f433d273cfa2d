"""What the command palette and the menus call: each finds the viewer and its dock.

napari imports this to register the commands: whatever is heavy is imported inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_samic.errors import InputError
from napari_samic.gui.guarding import shown

if TYPE_CHECKING:
    from napari_samic.gui.dock import SamicDock


def _dock() -> SamicDock:
    from napari import current_viewer

    from napari_samic.gui.opening import dock_of

    viewer = current_viewer()
    if viewer is None:
        raise InputError("no napari window is open. Start napari first.")
    return dock_of(viewer)


def _to(title: str) -> SamicDock:
    dock = _dock()
    dock.go_to(title)
    return dock


@shown
def show_annotate() -> None:
    """Click and segment."""
    _to("Annotate")


@shown
def show_train() -> None:
    """Teach a prompter from the references."""
    _to("Train")


@shown
def show_propagate() -> None:
    """Segment all other images."""
    _to("Propagate")


@shown
def show_review() -> None:
    """Look at the results, most doubtful first, and export them."""
    _to("Review")


@shown
def new_project() -> None:
    """Ask for an empty folder and begin a project there."""
    _dock().line.begin()


@shown
def open_project() -> None:
    """Ask for the folder of a project and open it."""
    _dock().line.choose()


@shown
def replay_recipe() -> None:
    """Ask for a recipe and show it, ready to be run again."""
    _to("Review").review.load_recipe()

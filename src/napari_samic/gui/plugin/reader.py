"""Opens our files in napari: prompt files as layers, projects in the dock.

napari asks by name only ("*prompts.json"), so the content's kind is checked before anything is
claimed. No folder is: the manifest can claim all or none, and of each folder that two plugins claim
napari asks the user which. Speaks napari's layer tuples; only a project needs a viewer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_samic.core.errors import InputError
from napari_samic.gui.data.project import FILE, is_project
from napari_samic.io.prompts import ImagePrompts, holds_prompts, load_prompts

LayerTuple = tuple[Any, dict[str, Any], str]


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[Any]] | None:
    """The reader, if this is one of our prompt files; None for any other JSON."""
    if not isinstance(path, str) or not holds_prompts(Path(path)):
        return None
    return read


def get_project_reader(
    path: str | Sequence[str],
) -> Callable[[str | Sequence[str]], list[Any]] | None:
    """The reader, if this is the `project.json` or the folder of a project; None for all else."""
    if not isinstance(path, str):
        return None
    place = Path(path)
    ours = is_project(place) or (place.name == FILE and is_project(place.parent))
    return read_project if ours else None


def read_project(path: str | Sequence[str]) -> list[Any]:
    """Open a project in the dock, which brings its images; no layer comes from here.

    Raises
    ------
    InputError
        No napari window is open.
    """
    from napari import current_viewer
    from qtpy.QtCore import QTimer

    from napari_samic.gui.plugin.commands import open_project_in
    from napari_samic.gui.runner.jobs import notify_errors

    place, viewer = path if isinstance(path, str) else path[0], current_viewer()
    if viewer is None:
        raise InputError(f"{place}: a project opens in napari's window. Start napari first.")
    # napari is still reading: it would take the layers made meanwhile for those of this path
    QTimer.singleShot(0, lambda: notify_errors(open_project_in)(viewer, place))
    return [(None,)]


def read(path: str | Sequence[str]) -> list[LayerTuple]:
    """Clicks and boxes of each image as Points and Shapes layers.

    Raises
    ------
    FormatError, PromptError
        A damaged file; all its faults are named.
    """
    source = path if isinstance(path, str) else path[0]
    layers = [layer for image in load_prompts(source).images for layer in _layers(image)]
    return layers or [(np.zeros((0, 2)), {"name": f"{Path(source).stem}, empty"}, "points")]


def _layers(image: ImagePrompts) -> list[LayerTuple]:
    numbers = [n for n, prompts in enumerate(image.objects, 1) for _ in prompts.points_rc]
    signs = [bool(s) for prompts in image.objects for s in prompts.is_foreground]
    points = [row for prompts in image.objects for row in prompts.points_rc.tolist()]
    boxes = [
        _corners(prompts.box_rc.tolist()) for prompts in image.objects if prompts.box_rc is not None
    ]
    of_points = {
        "name": f"{image.name} clicks",
        "features": {"object": numbers, "positive": signs},
        "face_color": ["#2ee66b" if sign else "#ff4060" for sign in signs],
        "metadata": {"shape": image.shape},
    }
    out: list[LayerTuple] = []
    if points:
        out.append((np.array(points), of_points, "points"))
    if boxes:
        of_boxes = {"name": f"{image.name} boxes", "face_color": "transparent"}
        out.append((boxes, of_boxes | {"edge_color": "#2ee66b"}, "shapes"))
    return out


def _corners(box: list[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    row0, column0, row1, column1 = box
    return np.array([(row0, column0), (row0, column1), (row1, column1), (row1, column0)])

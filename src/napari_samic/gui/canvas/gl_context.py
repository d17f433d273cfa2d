"""The OpenGL context of napari's canvas, made current before a layer goes.

napari (0.9.2, after its pull request 8122) deletes the textures and programs of a removed layer at
once, in whichever context is current. Between two frames that is Qt's, not the canvas's: the canvas
goes on with programs of which it never heard that they are gone, and a later frame crashes Python
(seen with Mesa 22.3). Must not know any step.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any


def keep_current(viewer: Any) -> Callable[[], None]:
    """Make the context of the canvas current before each removal of a layer, whoever removes it.

    Parameters
    ----------
    viewer : napari.Viewer

    Returns
    -------
    callable
        Ends it.
    """
    real = getattr(viewer, "__wrapped__", viewer)  # plugins are given a proxy, which warns

    def make_current(_event: Any = None) -> None:
        with suppress(AttributeError, RuntimeError):  # no window, a closed one, another napari
            real.window._qt_viewer.canvas._scene_canvas.set_current()

    removing = real.layers.events.removing
    removing.connect(make_current)
    return lambda: removing.disconnect(make_current)

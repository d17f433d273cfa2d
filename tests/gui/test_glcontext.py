"""The context in which napari deletes what a removed layer drew with, in a window that is shown."""

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("qtpy")
from qtpy.QtGui import QOpenGLContext
from qtpy.QtWidgets import QApplication

from napari_samic.gui import glcontext


def test_a_removed_layer_is_deleted_in_the_context_of_the_canvas(make_napari_viewer, monkeypatch):
    viewer = make_napari_viewer(show=True)
    canvas = viewer.window._qt_viewer.canvas._scene_canvas
    current = []
    monkeypatch.setattr(
        canvas.context, "finish", lambda: current.append(QOpenGLContext.currentContext())
    )

    def remove_one():
        layer = viewer.add_image(np.zeros((8, 8), np.float32))
        viewer.screenshot(flash=False)
        QApplication.processEvents()
        canvas.native.doneCurrent()  # as between two frames
        viewer.layers.remove(layer)

    end = glcontext.keep_current(viewer)
    remove_one()
    end()
    remove_one()
    ours, naparis = current
    assert ours is canvas.native.context()
    assert naparis is not canvas.native.context()  # once it is, `glcontext` can go


def test_a_viewer_without_a_window_loses_layers_as_before():
    from napari.components import ViewerModel

    viewer = ViewerModel()
    end = glcontext.keep_current(viewer)
    viewer.layers.remove(viewer.add_image(np.zeros((8, 8), np.float32)))
    end()
    assert not viewer.layers
    assert not viewer.layers.events.removing.callbacks

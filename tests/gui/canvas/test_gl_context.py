"""The context in which napari deletes what a removed layer drew with, in a window that is shown."""

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("qtpy")
from napari.utils._proxies import PublicOnlyProxy
from qtpy.QtGui import QOpenGLContext
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QApplication

from napari_samic.gui.canvas import gl_context


@pytest.mark.filterwarnings("error::FutureWarning")
@pytest.mark.parametrize("wrap", [lambda viewer: viewer, PublicOnlyProxy])
def test_a_removed_layer_is_deleted_in_the_context_of_the_canvas(make_napari_viewer, wrap):
    viewer = make_napari_viewer(show=True)
    [canvas] = [w for w in QApplication.allWidgets() if isinstance(w, QOpenGLWidget)]
    current = []
    layer = viewer.add_image(np.zeros((8, 8), np.float32))
    viewer.screenshot(flash=False)
    QApplication.processEvents()
    end = gl_context.keep_current(wrap(viewer))
    seen = lambda _: current.append(QOpenGLContext.currentContext())  # noqa: E731
    viewer.layers.events.removed.connect(seen)
    canvas.doneCurrent()  # as between two frames
    viewer.layers.remove(layer)
    end()
    viewer.layers.events.removed.disconnect(seen)
    assert current[0] is not None
    assert current[0] is canvas.context()


def test_a_viewer_without_a_window_loses_layers_as_before():
    from napari.components import ViewerModel

    viewer = ViewerModel()
    end = gl_context.keep_current(viewer)
    viewer.layers.remove(viewer.add_image(np.zeros((8, 8), np.float32)))
    end()
    assert not viewer.layers
    assert not viewer.layers.events.removing.callbacks

"""Points of our layers in a real viewer."""

import numpy as np
import pytest

pytest.importorskip("napari")
from napari_samic.gui.canvas.owned_layers import draw_points, point_rows, points_layer
from napari_samic.gui.canvas.style import faces


def draw(layer, places, signs):
    signs = np.array(signs, bool)
    numbers = np.arange(1, len(signs) + 1)
    draw_points(layer, np.array(places, float), numbers, signs, faces(signs, signs))


def test_points_of_a_hidden_layer_become_fewer(make_napari_viewer):
    viewer = make_napari_viewer()
    layer = points_layer("clicks", 2)
    viewer.add_layer(layer)
    draw(layer, [(1, 1), (2, 2), (3, 3)], [True, True, True])
    layer.visible = False  # napari does not look at what a hidden layer shows
    draw(layer, [(4, 4), (5, 5)], [True, False])
    layer.visible = True
    assert [row[2] for row in point_rows(layer)] == [(4, 4, True), (5, 5, False)]

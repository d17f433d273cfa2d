"""Colors of objects."""

import numpy as np

from napari_samic.gui.canvas import style
from napari_samic.gui.state.classes import Classes


def test_objects_of_a_single_class_are_told_apart_until_it_has_a_color():
    classes = Classes()
    assert len({style.tint(n, 1, classes) for n in (1, 2, 3, 4)}) == 4
    classes.recolor(1, "#102030")
    assert style.tint(1, 1, classes) == "#102030"
    classes = Classes()
    label = classes.add("other")
    assert style.tint(1, label, classes) == classes.style(label).color


def test_colormap_gives_each_number_its_color_and_the_rest_none():
    colormap = style.colormap({1: "#ff0000", 3: "#00ff00", 70_000: "#0000ff"})
    colors = colormap.map(np.arange(4, dtype=np.int32))
    assert colors.tolist() == [[0, 0, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1]]

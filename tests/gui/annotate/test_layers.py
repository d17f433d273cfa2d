"""Annotating with a real mouse and real keys, in a real window; jobs run in this thread."""

import numpy as np
import pytest
import tifffile

pytest.importorskip("napari")
pytest.importorskip("qtpy")
from discs import Discs, Inline
from napari.layers import Image
from napari.layers.utils.stack_utils import stack_to_images
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QApplication

from napari_samic.core.errors import OutputError
from napari_samic.gui.data import recovery
from napari_samic.gui.data.layer_pixels import FILE
from napari_samic.gui.data.project import Project
from napari_samic.gui.dock import SamicDock
from napari_samic.gui.session import jobs

IMAGE = np.random.default_rng(0).integers(0, 255, (48, 64), np.uint8)


class Window:
    """A shown viewer with an image and the dock, and a user with a mouse."""

    def __init__(self, viewer, qtbot, data=IMAGE, **image):
        self.viewer, self.qtbot, self.runner = viewer, qtbot, Inline()
        if data is not None:
            viewer.add_image(data, name="cells", **image)
        self.open()
        names = ("CanvasBackendDesktop",)
        self.canvas = next(w for w in QApplication.allWidgets() if type(w).__name__ in names)
        self.settle()
        viewer.reset_view()
        self.settle()

    def open(self):
        self.dock = SamicDock(self.viewer, self.runner)
        self.docked = self.viewer.window.add_dock_widget(self.dock, name="SAMIC")

    def close(self):
        self.viewer.window.remove_dock_widget(self.docked)
        self.settle()

    def settle(self):
        for _ in range(3):
            self.runner.settle()
            QApplication.processEvents()

    @property
    def state(self):
        return self.dock.session.scheduler.state

    @property
    def layers(self):
        return self.dock.annotate.owned_layers.layers

    @property
    def panel(self):
        return self.dock.annotate.panel

    def _place(self, row, column):
        size, camera = self.canvas.size(), getattr(self.viewer, "scene", self.viewer).camera
        x = size.width() / 2 + (column - camera.center[-1]) * camera.zoom
        y = size.height() / 2 + (row - camera.center[-2]) * camera.zoom
        return QPoint(round(x), round(y))

    def click(self, row, column):
        self.qtbot.mouseMove(self.canvas, self._place(row, column))
        self.qtbot.mouseClick(self.canvas, Qt.MouseButton.LeftButton, pos=self._place(row, column))
        self.settle()

    def drag(self, start, end):
        left = Qt.MouseButton.LeftButton
        self.qtbot.mouseMove(self.canvas, self._place(*start))
        self.qtbot.mousePress(self.canvas, left, pos=self._place(*start))
        for share in (0.5, 0.9, 1.0):
            at = [a + share * (b - a) for a, b in zip(start, end, strict=True)]
            self.qtbot.mouseMove(self.canvas, self._place(*at))
            QApplication.processEvents()
        self.qtbot.mouseRelease(self.canvas, left, pos=self._place(*end))
        self.settle()

    def key(self, key, modifier=Qt.KeyboardModifier.NoModifier):
        self.qtbot.keyClick(self.canvas, key, modifier)
        self.settle()

    def shown(self):
        """Rounded points and boxes of the objects, by number."""
        return {
            item.number: (
                [tuple(round(v) for v in point[:2]) for point in item.points],
                None if item.box is None else tuple(round(v) for v in item.box),
            )
            for item in self.state.annotation.items
        }


@pytest.fixture
def window(make_napari_viewer, qtbot, tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))

    def open_model(name):
        yield jobs.JobProgress(0, 0)
        return Discs()

    monkeypatch.setattr(jobs, "open_model", open_model)

    def made(data=IMAGE, **image):
        return Window(make_napari_viewer(show=True), qtbot, data, **image)

    return made


def test_second_box_begins_the_next_object_and_can_be_undone(window):
    w = window()
    w.key(Qt.Key.Key_W)
    w.drag((5, 5), (15, 20))
    assert w.shown() == {1: ([], (5, 5, 15, 20))}
    w.drag((25, 30), (40, 50))
    both = {1: ([], (5, 5, 15, 20)), 2: ([], (25, 30, 40, 50))}
    assert w.shown() == both
    assert w.layers["masks"].data[[10, 30], [10, 40]].tolist() == [1, 2]
    w.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert w.shown() == {1: ([], (5, 5, 15, 20))}
    w.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier)
    assert w.shown() == both


def test_new_object_begins_with_a_positive_click(window):
    w = window()
    w.click(10, 12)
    w.key(Qt.Key.Key_Q)
    w.click(14, 12)
    w.key(Qt.Key.Key_N)
    assert w.panel.tools["positive"].isChecked()
    w.click(30, 40)
    signs = [[sign for *_, sign in item.points] for item in w.state.annotation.items]
    assert signs == [[True, False], [True]]
    w.key(Qt.Key.Key_W)
    w.key(Qt.Key.Key_N)
    assert w.panel.tools["draw"].isChecked()  # box after box


def test_sign_key_takes_away_from_a_box(window):
    w = window()
    w.key(Qt.Key.Key_W)
    w.drag((5, 5), (15, 20))
    w.key(Qt.Key.Key_Q)
    w.click(7, 8)
    assert [sign for *_, sign in w.state.annotation.item().points] == [False]


def test_stroke_is_clicks_along_it_in_one_step_of_undo(window):
    w = window()
    w.panel.tools["scribble"].click()
    w.drag((10, 10), (10, 50))
    w.drag((12, 10), (30, 10))
    signs = [[sign for *_, sign in item.points] for item in w.state.annotation.items]
    assert signs == [[True] * 6]
    rows, columns = np.array(w.shown()[1][0])[:3].T
    assert rows.tolist() == [10, 10, 10]
    assert 10 <= columns[0] < columns[1] < columns[2] <= 50
    assert w.layers["boxes"].nshapes == 0
    w.key(Qt.Key.Key_Q)
    w.drag((12, 40), (30, 40))
    assert [sign for *_, sign in w.state.annotation.item().points] == [True] * 6 + [False] * 3
    w.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    w.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert [sign for *_, sign in w.state.annotation.item().points] == [True] * 3
    w.key(Qt.Key.Key_N)
    w.drag((40, 10), (40, 50))
    assert [item.number for item in w.state.annotation.items] == [1, 2]
    assert all(sign for *_, sign in w.state.annotation.item().points)


def test_stroke_begins_another_object_where_each_click_does(window):
    w = window()
    w.panel.one_click.setChecked(True)
    w.panel.tools["scribble"].click()
    w.drag((10, 10), (10, 50))
    w.drag((30, 10), (30, 50))
    assert [len(item.points) for item in w.state.annotation.items] == [3, 3]


def test_clicks_that_were_undone_are_not_counted(window):
    w = window()
    w.click(10, 12)
    w.click(14, 12)
    w.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert w.panel.table.item(0, 3).text() == "1"
    assert "1 click," in w.panel.totals.text()


def test_class_box_and_add_are_for_the_next_object_unless_one_is_selected(window, monkeypatch):
    w = window()

    def choose(name):
        place = w.panel.classes.findText(name)
        w.panel.classes.setCurrentIndex(place)
        w.panel.classes.activated.emit(place)
        w.settle()

    def classes():
        return [w.state.classes.style(item.label).name for item in w.state.annotation.items]

    w.click(10, 12)
    monkeypatch.setattr(
        "napari_samic.gui.annotate.dialogs.QInputDialog.getText", lambda *_: ("nucleus", True)
    )
    w.panel.handlers["new_class"]()
    w.settle()
    assert classes() == ["object"]
    w.click(30, 40)
    assert classes() == ["object", "nucleus"]
    choose("object")
    assert classes() == ["object", "nucleus"]
    w.click(30, 12)
    assert classes() == ["object", "nucleus", "object"]
    w.panel.table.cellClicked.emit(0, 0)
    w.settle()
    choose("nucleus")
    assert classes() == ["nucleus", "nucleus", "object"]
    monkeypatch.setattr(
        "napari_samic.gui.annotate.dialogs.QInputDialog.getText", lambda *_: ("debris", True)
    )
    w.panel.handlers["new_class"]()  # the first is still the selected one
    w.settle()
    assert classes() == ["debris", "nucleus", "object"]


def test_marks_of_references_and_colors_are_restored(window):
    w = window()
    w.click(10, 12)
    w.key(Qt.Key.Key_U)
    w.state.style_class(1, color="#123456")
    w.settle()
    w.close()
    w.open()
    w.settle()
    assert not w.state.annotation.items
    w.panel.handlers["restore"]()
    w.settle()
    assert w.state.annotation.is_reference
    assert w.panel.reference.isChecked()
    assert w.state.classes.style(1).color == "#123456"
    w.dock.session.scheduler.autosaver.begin_project(Project.create(recovery.folder().parent / "p"))
    w.settle()
    assert not list(recovery.folder().glob("*.notes.json")) or recovery.leftovers() == []


def test_dock_that_is_opened_again_adds_no_second_set_of_layers(window):
    w = window(np.stack([IMAGE, IMAGE]))
    w.click(10, 12)
    names = [layer.name for layer in w.viewer.layers]
    w.close()
    assert [layer.name for layer in w.viewer.layers] == ["cells", "cells masks"]
    assert w.viewer.layers["cells masks"].data.max() == 1  # what was drawn is not lost
    w.open()
    w.settle()
    assert [layer.name for layer in w.viewer.layers] == names


def test_project_that_is_open_in_one_viewer_is_refused_in_another(window, tmp_path):
    first, second = window(), window()
    project = Project.create(tmp_path / "work")
    first.dock.session.scheduler.autosaver.begin_project(project)
    first.settle()
    saver = second.dock.session.scheduler.autosaver
    with pytest.raises(OutputError, match="open in another window"):
        saver.open_project(Project.open(project.folder))
    assert saver.project is None
    first.dock.session.scheduler.autosaver.open_project(Project.open(project.folder))  # its own
    first.settle()
    first.close()
    saver.open_project(Project.open(project.folder))
    second.settle()
    assert saver.project.folder == project.folder


def test_clicks_lie_above_channels_that_a_layer_is_split_into(window):
    w = window(np.stack([IMAGE, IMAGE, IMAGE]))
    layer = w.viewer.layers["cells"]
    w.viewer.layers.remove(layer)
    w.viewer.layers.extend(stack_to_images(layer, 0))
    w.settle()
    assert len([layer for layer in w.viewer.layers if isinstance(layer, Image)]) == 3
    top = [w.layers[kind] for kind in ("masks", "boxes", "clicks")]
    assert list(w.viewer.layers)[-3:] == top


def choose(w, box, text):
    place = box.findText(text, Qt.MatchFlag.MatchContains)
    box.setCurrentIndex(place)
    box.activated.emit(place)
    w.settle()


def test_short_first_axis_can_be_taken_for_channels(window):
    w = window(np.stack([IMAGE, 255 - IMAGE]))
    assert w.state.annotation.name == "cells[0]"  # slices, as long as nobody says otherwise
    assert w.panel.channels.isVisible()
    choose(w, w.panel.channels, "channels")
    assert w.viewer.dims.ndim == 2
    image = w.dock.session.pixels.image(())
    np.testing.assert_array_equal(np.argsort(image[..., 0], None)[:9], np.argsort(IMAGE, None)[:9])
    assert (image[..., 0] != image[..., 1]).any()
    w.click(10, 12)
    assert w.shown() == {1: ([(10, 12)], None)}
    assert w.layers["masks"].data[10, 12] == 1


def test_split_channels_are_called_as_the_file_calls_them(window, tmp_path):
    path = tmp_path / "cells.ome.tif"
    planes = np.stack([np.stack([IMAGE, 255 - IMAGE]) for _ in range(5)])
    metadata = {"axes": "ZCYX", "Channel": {"Name": ["DAPI", "anti-GFP"]}}
    tifffile.imwrite(path, planes, metadata=metadata, photometric="minisblack")
    w = window(None)
    w.viewer.open(path, plugin="napari")
    w.settle()
    choose(w, w.panel.channels, "split")
    assert "cells DAPI + cells anti-GFP" in w.panel.channels.currentText()


def test_channels_of_a_stack_are_split_and_the_box_says_which_are_seen(window, tmp_path):
    path = tmp_path / "cells.ome.tif"
    planes = np.stack([np.stack([IMAGE // (z + 1), 255 - IMAGE]) for z in range(5)])
    size = {f"PhysicalSize{axis}": 0.25 for axis in "YX"}
    tifffile.imwrite(path, planes, metadata={"axes": "ZCYX", **size}, photometric="minisblack")
    w = window(None)
    w.viewer.open(path, plugin="napari")
    w.settle()
    assert "channels" in w.panel.guide.text()
    choose(w, w.panel.channels, "split")
    session = w.dock.session
    assert w.panel.channels.currentText().startswith("red, green")
    assert session.pixels.plane((3,)).read().shape == (*IMAGE.shape, 2)
    choose(w, w.panel.channels, "this layer")
    np.testing.assert_array_equal(session.pixels.plane((3,)).read(), planes[3, 0])
    assert session.pixels.pixel_size((3,)).width_um == 0.25
    w.click(10, 12)
    assert w.state.annotation.name == "cells channel 0[0]"

    other = w.viewer.add_image(planes[:, 0], name="another image of this size")
    w.settle()
    session.choose_layer(w.viewer.layers["cells channel 1"])
    choose(w, w.panel.channels, "red, green")
    assert str(other.name) not in w.panel.channels.currentText()
    np.testing.assert_array_equal(session.pixels.plane((3,)).read(), np.moveaxis(planes[3], 0, -1))

    w.viewer.layers.remove(other)
    project = Project.create(tmp_path / "project")
    session.scheduler.autosaver.begin_project(project)
    w.close()
    w.viewer.layers.clear()
    w.open()
    w.settle()
    w.dock.session.scheduler.autosaver.open_project(Project.open(project.folder))
    w.settle()
    pixels = w.dock.session.pixels
    assert pixels.name == "cells channel 1"
    np.testing.assert_array_equal(pixels.plane((3,)).read(), np.moveaxis(planes[3], 0, -1))
    assert w.panel.channels.currentText().startswith("red, green")


def test_file_says_whether_its_first_axis_may_be_channels(window, tmp_path):
    w = window()
    stack = np.stack([IMAGE] * 3)
    for axes, told in (("CYX", True), ("ZYX", False)):
        path = tmp_path / f"{axes}.ome.tif"
        tifffile.imwrite(path, stack, metadata={"axes": axes}, photometric="minisblack")
        image = w.viewer.add_image(stack, name=axes, metadata={FILE: str(path)})
        w.dock.session.choose_layer(image)
        w.settle()
        assert ("channels" in w.panel.guide.text()) is told
        choices = [w.panel.channels.itemText(i) for i in range(w.panel.channels.count())]
        assert any("split" in choice for choice in choices) is told
    assert not w.runner.errors

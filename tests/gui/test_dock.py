"""The dock in a real viewer. Viewers are slow to make, so each test tells a whole story."""

import os

import numpy as np
import PIL.Image
import pytest
import tifffile

pytest.importorskip("napari")
pytest.importorskip("qtpy")
from discs import Discs, Inline
from lab import is_heard
from napari.layers import Image, Labels, Points, Shapes
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QScrollArea, QStyle

from napari_samic.gui.data import recovery
from napari_samic.gui.data.project import Project
from napari_samic.gui.dock import SamicDock
from napari_samic.gui.plugin.sample_data import sample_scenes
from napari_samic.gui.session import jobs
from napari_samic.gui.session.scheduler import PromptScheduler
from napari_samic.gui.widgets.settings_form import SettingsForm
from napari_samic.io.prompts import load_prompts
from napari_samic.sample_data.samples import sample_set

IMAGE = np.random.default_rng(0).integers(0, 255, (3, 48, 64), np.uint8)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))


@pytest.fixture
def discs(monkeypatch):
    made = Discs()

    def open_model(name):
        yield jobs.JobProgress(0, 0)
        return made

    monkeypatch.setattr(jobs, "open_model", open_model)
    return made


class Story:
    """A viewer with an image and the dock on it, its jobs run in this thread."""

    def __init__(self, viewer, qtbot, data=IMAGE, runner=None, **image):
        self.viewer, self.qtbot = viewer, qtbot
        self.image = viewer.add_image(data, name="cells", **image)
        self.runner = runner or Inline()
        self.dock = SamicDock(viewer, self.runner)
        self.docked = viewer.window.add_dock_widget(self.dock, name="SAMIC")
        self.settle()

    def settle(self):
        for _ in range(3):
            self.runner.settle()
            QApplication.processEvents()

    @property
    def step(self):
        return self.dock.annotate

    @property
    def scheduler(self):
        return self.dock.session.scheduler

    @property
    def state(self):
        return self.scheduler.state

    @property
    def layers(self):
        return self.step.owned_layers.layers

    @property
    def shown(self):
        return self.layers["masks"].data[self.scheduler.index]

    def click(self, row, column):
        self.layers["clicks"].add((*self.scheduler.index, row, column))
        self.settle()

    def press(self, verb):
        self.step.panel.handlers[verb]()
        self.settle()


@pytest.fixture
def story(make_napari_viewer, qtbot, discs):
    def tell(data=IMAGE, **image):
        return Story(make_napari_viewer(), qtbot, data, **image)

    return tell


def test_annotating_from_first_click_to_saved_files(story, tmp_path, monkeypatch):
    s = story()
    panel, clicks = s.step.panel, s.layers["clicks"]
    assert s.scheduler.index == (1,)
    assert "Click on an object" in panel.guide.text()
    assert s.viewer.layers.selection.active is clicks
    assert clicks.mode == "add"
    assert [type(s.layers[k]) for k in ("masks", "boxes", "clicks")] == [Labels, Shapes, Points]

    s.click(10, 12)
    assert s.shown[10, 12] == 1
    assert panel.confidence.value == pytest.approx(0.6)
    assert panel.table.item(0, 2).text() == "0.60"
    assert s.layers["masks"].data[0].max() == 0

    s.press("sign")
    assert panel.tools["negative"].isChecked()
    s.click(12, 12)
    assert s.state.annotation.item().points == ((10, 12, True), (12, 12, False))
    np.testing.assert_allclose(clicks.face_color[1], [1, 0.25, 0.376, 1], atol=0.01)
    assert [str(v) for v in clicks.symbol] == ["disc", "cross"]

    s.press("sign")
    s.press("new")
    s.click(30, 40)
    assert (s.shown[30, 40], len(s.state.annotation.items)) == (2, 2)
    assert clicks.face_color[0][3] < clicks.face_color[2][3] == 1.0  # the current one is bright

    s.press("undo")
    assert len(clicks.data) == 2
    assert s.shown[30, 40] == 0
    s.press("redo")
    assert len(clicks.data) == 3
    assert s.shown[30, 40] == 2

    nucleus = s.state.add_class("nucleus")
    s.press("class")
    s.step.panel.handlers["classed"](nucleus)
    s.settle()
    assert panel.table.item(1, 1).text() == "nucleus"
    assert panel.classes.currentText() == "nucleus"

    s.press("box")
    assert s.layers["boxes"].mode == "add_rectangle"
    s.layers["boxes"].add_rectangles(np.array([[1, 20, 30], [1, 20, 50], [1, 40, 50], [1, 40, 30]]))
    s.settle()
    assert s.state.annotation.item(2).box == (20, 30, 40, 50)
    assert s.shown[22, 48] == 2

    s.press("cycle")
    assert "2 of 4" in panel.cycle.text()
    s.press("reference")
    assert "(1 so far)" in panel.reference.text()
    s.press("hint")
    assert "cells hints" in s.viewer.layers
    s.press("hint")
    assert "cells hints" not in s.viewer.layers
    s.press("live")
    s.settle()
    assert s.viewer.layers["cells live"].data.shape == s.shown.shape
    assert panel.live.isChecked()
    assert "here" in panel.live_status.text()
    s.press("live")
    assert "cells live" not in s.viewer.layers

    monkeypatch.setattr(s.step.dialogs, "ask_folder", lambda _title: tmp_path / "out")
    s.press("save")
    saved = load_prompts(tmp_path / "out" / "prompts.json")
    assert saved.images[0].name == "cells[1]"
    assert [one.label for one in saved.images[0].objects] == [1, 2]
    assert "Saved 2 files" in panel.status.text()

    s.press("delete")
    s.press("delete")
    assert len(clicks.data) == s.layers["boxes"].nshapes == s.shown.max() == 0
    s.scheduler.autosaver.load(tmp_path / "out" / "prompts.json")
    s.settle()
    assert len(clicks.data) == 3
    assert s.layers["boxes"].nshapes == 1
    assert s.shown.max() > 0


def stroke(s, row, *columns, label=None):
    """Paint or erase along a row of the shown slice, as napari's brush does."""
    masks = s.layers["masks"]
    with masks.block_history():
        for column in columns:
            place = *s.scheduler.index, row, column
            masks.paint(place, masks.selected_label if label is None else label)
    s.settle()


def test_brush_corrects_masks_which_then_stay_as_drawn(story, discs, tmp_path):
    s = story()
    s.scheduler.autosaver.begin_project(Project.create(tmp_path / "p"))
    s.click(10, 12)
    s.press("brush")
    masks = s.layers["masks"]
    masks.brush_size, asked = 4, len(discs.asked)
    stroke(s, 10, 20, 23, 26)
    assert s.shown[10, 12] == s.shown[10, 26] == 1
    (item,) = s.state.annotation.items
    assert item.points == ((10, 12, True),)
    assert s.step.panel.table.item(0, 2).text() == "drawn"
    assert "as it was drawn" in s.step.panel.guide.text()

    stroke(s, 10, 12, label=0)  # the click is no longer on the object
    assert s.shown[10, 12] == 0
    ((row, column, sign),) = s.state.annotation.items[0].points
    assert sign
    assert s.shown[int(row), int(column)] == 1

    s.press("new")
    stroke(s, 32, 40, 42)
    assert [i.number for i in s.state.annotation.items] == [1, 2]
    assert s.shown[32, 42] == 2
    drawn = s.shown.copy()
    s.press("undo")
    assert s.shown[32, 42] == 0
    s.press("redo")
    np.testing.assert_array_equal(s.shown, drawn)
    assert len(discs.asked) == asked  # no model was asked

    s.viewer.window.remove_dock_widget(s.docked)
    reopened = SamicDock(s.viewer, s.runner)
    s.viewer.window.add_dock_widget(reopened, name="SAMIC again")
    reopened.session.scheduler.autosaver.open_project(Project.open(tmp_path / "p"))
    s.settle()
    np.testing.assert_array_equal(
        reopened.session.scheduler.state.annotations["cells[1]"].labels() > 0, drawn > 0
    )


def test_existing_labels_are_loaded_from_a_layer_and_by_dropping_a_file(story, discs, tmp_path):
    s = story()
    panel, truth = s.step.panel, np.zeros(IMAGE.shape, np.uint8)
    truth[:, 4:9, 5:20], truth[2, 30:34, 40:44] = 3, 7
    s.viewer.add_labels(truth, name="truth")
    panel.load_menu.aboutToShow.emit()
    actions = {action.text(): action for action in panel.load_menu.actions()}
    assert {"Layer truth, this slice: cells[1]", "Layer truth, all slices"} <= set(actions)
    actions["Layer truth, this slice: cells[1]"].trigger()
    s.settle()
    np.testing.assert_array_equal(s.shown > 0, truth[1] > 0)
    assert panel.totals.text().startswith("cells[1]: 1 object")
    assert list(s.state.annotations) == ["cells[1]"]
    assert "1 object on cells[1]" in panel.guide.text()
    actions["Layer truth, all slices"].trigger()
    s.settle()
    assert {n: len(a.items) for n, a in s.state.annotations.items()} == {
        "cells[0]": 1, "cells[1]": 1, "cells[2]": 2,
    }  # fmt: skip
    assert not discs.asked
    s.click(20, 30)
    assert len(s.state.annotation.items) == 2  # the next click is of another object

    tifffile.imwrite(tmp_path / "cells_mask.tif", truth[:, ::-1], photometric="minisblack")
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(tmp_path / "cells_mask.tif"))])
    at, left = QPoint(9, 9), Qt.MouseButton.LeftButton
    common = Qt.DropAction.CopyAction, data, left, Qt.KeyboardModifier.NoModifier
    entered = QDragEnterEvent(at, *common)
    QApplication.sendEvent(panel, entered)
    assert entered.isAccepted()
    QApplication.sendEvent(panel, QDropEvent(QPointF(at), *common))
    s.settle()
    np.testing.assert_array_equal(s.shown > 0, truth[1, ::-1] > 0)
    s.press("undo")
    assert s.shown[20, 30] > 0
    assert not s.runner.errors


def test_slices_layers_and_images_come_and_go(story):
    s = story()
    s.click(10, 12)
    s.viewer.dims.set_point(0, 2)
    s.settle()
    assert s.state.annotation.name == "cells[2]"
    assert len(s.layers["clicks"].data) == 0
    s.click(20, 20)
    s.viewer.dims.set_point(0, 1)
    s.settle()
    np.testing.assert_array_equal(s.layers["clicks"].data, [[1, 10, 12]])
    assert s.layers["masks"].data[2, 20, 20] == 1

    s.layers["clicks"].data[0, 1:] = (30, 40)  # as napari does while a point is dragged
    s.layers["clicks"].events.data(
        value=s.layers["clicks"].data, action="changed", data_indices=(0,), vertex_indices=((),)
    )
    s.settle()
    assert s.state.annotation.item().points == ((30, 40, True),)
    assert s.shown[30, 40] == 1

    s.layers["clicks"].selected_data = {0}
    s.layers["clicks"].remove_selected()
    s.settle()
    assert not s.state.annotation.items
    s.press("undo")
    assert len(s.layers["clicks"].data) == 1

    s.image.name = "renamed"
    assert s.step.panel.image.currentText() == "renamed"
    assert s.state.annotation.name == "cells[1]"

    for kind in ("clicks", "masks", "boxes"):
        s.viewer.layers.remove(s.layers[kind])
    s.settle()
    assert s.state.annotation.items
    s.step.use_tool("positive")
    s.settle()
    assert len(s.layers["clicks"].data) == 1
    assert s.shown[30, 40] == 1
    assert all(layer in s.viewer.layers for layer in s.layers.values())

    s.image.data = np.zeros((2, 30, 30), np.uint8)  # other pixels, another size
    s.settle()
    assert s.state.annotation.shape == (30, 30)
    s.image.data = IMAGE
    s.settle()
    s.viewer.dims.set_point(0, 1)
    s.settle()
    assert s.step.owned_layers.pixels.shape == (48, 64)
    assert s.state.annotation.items

    s.viewer.dims.ndisplay = 3
    s.settle()
    assert "2-D view" in s.step.panel.guide.text()
    s.viewer.dims.ndisplay = 2
    s.settle()

    other = s.viewer.add_image(
        np.zeros((20, 30, 3), np.uint8), rgb=True, name="other", scale=(2, 2)
    )
    s.settle()
    assert s.step.panel.image.currentText() == "other"
    assert s.state.annotation.name == "other"
    assert s.layers["clicks"].scale.tolist() == [2, 2]
    s.click(5, 6)
    assert s.shown[5, 6] == 1
    for name in ("renamed", "other"):
        s.step.panel.image.setCurrentIndex(s.step.panel.image.findText(name))
        s.step.panel.image.activated.emit(s.step.panel.image.currentIndex())
        s.settle()
    assert s.shown[5, 6] == 1
    kinds = [type(layer) for layer in s.viewer.layers]
    assert (kinds.count(Points), kinds.count(Shapes)) == (1, 1)  # none is left from before

    s.layers["clicks"].add((9, 9))  # an answer is under way when its image goes
    s.viewer.layers.remove(other)
    s.settle()
    assert s.step.owned_layers.image is s.image  # what is still open is gone on with
    assert s.state.annotations["other"].items
    s.viewer.layers.remove(s.image)
    s.settle()
    assert s.step.owned_layers is None
    assert "Open an image" in s.step.panel.guide.text()
    assert not s.runner.errors


def test_clicks_are_taken_again_once_the_active_layer_is_removed(story):
    s = story()
    layer = s.viewer.add_labels(np.zeros((3, 48, 64), np.uint8))
    s.settle()
    assert s.viewer.layers.selection.active is layer
    s.viewer.layers.remove(layer)
    s.settle()
    assert s.viewer.layers.selection.active is s.layers["clicks"]


def test_lasso_and_bucket_of_napari_count_as_annotation(story):
    """Its polygon and fill tools, on the layer of masks."""
    s = story()
    s.click(10, 12)
    masks, item = s.layers["masks"], s.state.annotation.item()
    masks.paint_polygon([(1, 30, 30), (1, 30, 50), (1, 44, 50), (1, 44, 30)], item.number)
    s.settle()
    drawn = s.state.annotation.item().mask.full()
    assert drawn[35, 40]
    assert drawn[10, 12]
    masks.fill((1, 35, 40), 0)
    s.settle()
    assert not s.state.annotation.item().mask.full()[35, 40]
    assert s.state.annotation.item().mask.full()[10, 12]


def test_closing_leaves_no_key_and_no_callback(story):
    s = story()
    layers = list(s.viewer.layers)
    keys_before = [dict(type(layer).class_keymap) for layer in layers]
    assert dict(s.viewer.keymap) == {}
    clicks, image = s.layers["clicks"], s.image
    assert len(clicks.keymap) == 13
    assert not image.keymap
    taken = {str(key) for kind in (Points, Shapes) for key in kind.class_keymap}
    assert not taken & {str(key) for key in clicks.keymap}
    s.click(10, 12)
    s.viewer.window.remove_dock_widget(s.docked)
    s.settle()
    assert not any(layer.keymap for layer in layers)
    assert dict(s.viewer.keymap) == {}
    assert [dict(type(layer).class_keymap) for layer in layers] == keys_before
    steps = len(s.state.annotations["cells[1]"].past)
    clicks.add((1, 20, 20))
    s.viewer.dims.set_point(0, 2)
    s.image.name = "renamed"
    s.settle()
    assert len(s.state.annotations["cells[1]"].past) == steps
    (left,) = recovery.leftovers()  # nothing was saved: offered again

    again = SamicDock(s.viewer, s.runner)
    s.viewer.window.add_dock_widget(again, name="SAMIC again")
    assert not again.annotate.panel.recovery.isHidden()
    again.annotate.panel.handlers["restore"]()
    s.settle()
    assert again.session.scheduler.state.annotations["cells[1]"].items
    assert not left.path.exists()


def test_click_before_a_new_slice_is_drawn_takes_no_clicks_of_the_old_one_along(story):
    s = story()
    s.click(10, 12)
    s.viewer.dims.set_point(0, 2)
    s.layers["clicks"].add((2, 20, 20))  # the layer still holds the click of slice 1
    s.settle()
    (item,) = s.state.annotations["cells[2]"].items
    assert item.points == ((20, 20, True),)
    assert s.state.annotations["cells[1]"].items[0].points == ((10, 12, True),)
    s.press("new")
    s.viewer.dims.set_point(0, 1)
    s.layers["clicks"].add((1, 30, 40))  # nor does it take away those of the new one
    s.settle()
    (item,) = s.state.annotations["cells[1]"].items
    assert item.points == ((10, 12, True), (30, 40, True))
    assert [i.points for i in s.state.annotations["cells[2]"].items] == [((20, 20, True),)]


def test_box_before_a_slice_is_drawn_takes_no_boxes_of_the_old_one_along(story):
    s = story()

    def box(number, corner):
        (r, c), far = corner, (corner[0] + 8, corner[1] + 9)
        places = [(number, *at) for at in ((r, c), (r, far[1]), far, (far[0], c))]
        s.layers["boxes"].add_rectangles([places])

    box(1, (4, 5))
    s.settle()
    s.viewer.dims.set_point(0, 2)
    box(2, (20, 20))
    s.settle()
    assert [i.box for i in s.state.annotations["cells[2]"].items] == [(20, 20, 28, 29)]
    s.press("new")
    s.viewer.dims.set_point(0, 1)
    box(1, (30, 40))
    s.settle()
    boxes = [i.box for i in s.state.annotations["cells[1]"].items]
    assert (30, 40, 38, 49) in boxes
    assert s.state.annotations["cells[2]"].items[0].box == (20, 20, 28, 29)


def test_click_before_a_new_object_is_drawn_is_of_the_new_object(story):
    s = story()
    s.click(10, 12)
    s.step.panel.handlers["new"]()
    s.layers["clicks"].add((1, 30, 40))  # faster than the timer that draws
    s.step.panel.handlers["new"]()
    s.layers["boxes"].add_rectangles(np.array([[1, 2, 30], [1, 2, 50], [1, 9, 50], [1, 9, 30]]))
    s.settle()
    items = s.state.annotations["cells[1]"].items
    assert [(i.points, i.box) for i in items] == [
        (((10, 12, True),), None), (((30, 40, True),), None), ((), (2, 30, 9, 50)),
    ]  # fmt: skip


def test_slices_are_encoded_only_where_they_can_be_clicked(story, discs):
    encoded = []
    discs.precompute = lambda image: encoded.append(image)
    s = story(np.random.default_rng(0).integers(0, 255, (12, 48, 64), np.uint8))
    s.qtbot.waitUntil(lambda: s.settle() or len(encoded) == 3)  # the shown one, and two ahead
    s.dock.go_to("Propagate")
    s.viewer.dims.set_point(0, 9)
    annotation = s.state.annotation
    s.qtbot.waitUntil(
        lambda: s.settle() or bool(annotation.sha256)
    )  # a reference can be made of it
    assert annotation.name == "cells[9]"
    assert annotation.normalization
    assert len(encoded) == 3
    s.dock.go_to("Annotate")
    s.qtbot.waitUntil(lambda: s.settle() or len(encoded) == 6)


def test_masks_are_painted_once_for_a_click(story):
    s = story()
    s.click(10, 12)
    s.press("new")
    s.click(12, 18)  # overlaps the first, which is as sure
    painted = []
    s.layers["masks"].events.set_data.connect(lambda _: painted.append(s.shown.copy()))
    s.layers["clicks"].add((1, 14, 20))
    s.step.redraw()
    assert not painted  # an object that waits for its answer looks as before
    s.settle()
    assert len(painted) == 1


def test_slices_without_masks_take_no_memory_in_the_layer(story, monkeypatch):
    s = story()
    written = []

    class Noted(np.ndarray):
        def __setitem__(self, key, value):
            written.append(key)
            super().__setitem__(key, value)

    masks = s.layers["masks"]
    monkeypatch.setattr(masks, "_data", masks.data.view(Noted))
    for index in (0, 2, 1):
        s.viewer.dims.set_point(0, index)
        s.settle()
    assert written == []
    s.click(10, 12)
    s.press("undo")
    assert written == [(1,), (1,)]  # the mask, and its end
    assert not s.shown.any()


def test_what_a_click_changes_is_drawn_together_with_it(story, qtbot):
    from qtpy.QtCore import QObject
    from qtpy.QtWidgets import QWidget

    from napari_samic.gui.widgets.base import CoalescedCall

    told = []

    class Drawn(QWidget):
        def paintEvent(self, _event):
            told.append("drawn")

    owner, widget = QObject(), Drawn()
    qtbot.addWidget(widget)
    widget.show()
    qtbot.waitUntil(lambda: "drawn" in told)
    qtbot.wait(20)
    told.clear()
    soon = CoalescedCall(owner, lambda: told.append("called"))
    widget.update()
    soon.start()
    soon.start()
    qtbot.waitUntil(lambda: "drawn" in told)
    assert told == ["called", "drawn"]


def test_closing_the_viewer_in_the_middle_of_a_job_is_survived(story):
    s = story()
    s.layers["clicks"].add((1, 10, 12))
    s.runner.jobs[-1].advance()
    scheduler: PromptScheduler = s.scheduler
    s.viewer.close()
    # Qt destroyed the dock, which ended the work
    s.qtbot.waitUntil(lambda: not is_heard(scheduler.events))
    s.runner.settle()
    assert scheduler.state.annotations["cells[1]"].items
    assert not s.runner.errors


@pytest.mark.parametrize(
    "data",
    [
        pytest.param([np.zeros((64, 80), np.uint8), np.zeros((32, 40), np.uint8)], id="multiscale"),
        pytest.param(np.zeros((2, 3, 32, 40), np.uint16), id="four_axes"),
    ],
)
def test_other_kinds_of_images_are_annotated(story, data):
    s = story(data)
    s.click(10, 12)
    assert s.shown[10, 12] == 1
    assert not s.runner.errors


class Window:
    """A real window with the dock, that mouse and keys of a user reach."""

    def __init__(self, viewer):
        self.viewer, self.runner = viewer, Inline()
        viewer.window.resize(1200, 900)
        self.open_dock()

    def open_dock(self):
        self.dock = SamicDock(self.viewer, self.runner)
        self.docked = self.viewer.window.add_dock_widget(self.dock, name="SAMIC")
        self.canvas = self.dock.window().findChild(QOpenGLWidget)
        self.settle()

    settle = Story.settle

    def open(self, file):
        self.viewer.open(file, plugin="napari")
        self.settle()

    def click(self, widget=None, right=0):
        widget = widget or self.canvas
        place = widget.rect().center() + QPoint(right, 0)
        QTest.mouseClick(widget, Qt.MouseButton.LeftButton, pos=place)
        self.settle()

    def press(self, key):
        QTest.keyClick(self.canvas, key)
        self.settle()

    @property
    def panel(self):
        return self.dock.annotate.panel

    @property
    def state(self):
        return self.dock.session.scheduler.state

    def signs(self, name):
        """Of each click on each object, whether it is positive."""
        return [[p[2] for p in item.points] for item in self.state.annotations[name].items]


@pytest.fixture
def window(make_napari_viewer, discs):
    return Window(make_napari_viewer(show=True))


@pytest.fixture
def files(tmp_path):
    """Images of one size, the same name in two folders."""
    paths = [tmp_path / name for name in ("a/009.png", "a/010.png", "b/009.png")]
    for number, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        PIL.Image.fromarray(IMAGE[number]).save(path)
    return paths


def test_dock_fills_the_window_each_time_it_is_opened(window):
    heights = [window.dock.pages.height()]
    for _ in range(2):
        window.viewer.window.remove_dock_widget(window.docked)
        window.open_dock()
        heights.append(window.dock.pages.height())
    assert min(heights) == max(heights) > 0.8 * window.dock.height()


def test_nothing_is_cut_in_a_narrow_dock_and_starting_stays_in_sight(window):
    main = window.dock.window()
    main.resize(1024, 700)
    main.resizeDocks([window.docked], [300], Qt.Orientation.Horizontal)
    for step, start in (
        (window.dock.annotate, None), (window.dock.train, window.dock.train.panel.start),
        (window.dock.propagate, window.dock.propagate.panel.start), (window.dock.review, None),
    ):  # fmt: skip
        window.dock.go_to(step.title)
        for form in step.widget.findChildren(SettingsForm):
            form.show_advanced(True)
        window.settle()
        pages = [area.widget() for area in step.widget.parent().findChildren(QScrollArea)]
        pages = [page for page in pages if page is not None and step.widget.isAncestorOf(page)]
        room = 300 - window.dock.style().pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent)
        assert [page for page in pages if page.minimumSizeHint().width() > room] == []
        assert start is None or start.visibleRegion().boundingRect() == start.rect()
    assert window.dock.width() < 310


def test_clicks_and_keys_reach_images_that_are_opened_with_the_dock_there(window, files):
    w, (first, second, _) = window, files
    w.open(first)
    w.click()
    w.press(Qt.Key.Key_Q)
    w.click(right=20)
    w.press(Qt.Key.Key_N)
    w.press(Qt.Key.Key_W)
    assert w.panel.tools["draw"].isChecked()
    assert w.signs("009") == [[True, False]]

    w.open(second)  # covers the first
    w.click()
    assert w.panel.image.currentText() == "010"
    assert (w.signs("009"), w.signs("010")) == ([[True, False]], [[True]])

    mine = w.viewer.add_labels(np.zeros(IMAGE[0].shape, np.uint8))
    w.settle()
    asked = w.panel.guide.text()
    w.click(right=20)
    assert w.viewer.layers.selection.active is mine
    assert w.signs("010") == [[True]]
    w.click(w.panel.tools["positive"])
    assert w.panel.guide.text() != asked
    w.click(right=20)
    assert w.signs("010") == [[True, True]]

    w.panel.image.setCurrentText("009")
    w.panel.image.activated.emit(w.panel.image.currentIndex())
    w.settle()
    images = [layer.name for layer in w.viewer.layers if isinstance(layer, Image)]
    assert images == ["010", "009"]  # what takes the clicks is what is seen


def test_folder_is_opened_by_a_button_without_holding_the_window_up(window, files, monkeypatch):
    folder = files[0].parent
    monkeypatch.setattr(window.dock.annotate.dialogs, "ask_folder", lambda _title: folder)
    QTest.mouseClick(window.panel.folder, Qt.MouseButton.LeftButton)
    assert (window.panel.folder.isEnabled(), len(window.viewer.layers)) == (False, 0)  # a job's
    window.settle()
    assert window.panel.folder.isEnabled()
    window.click()
    assert window.state.annotation.name in ("009", "010")
    assert window.signs(window.state.annotation.name) == [[True]]


def test_projects_that_were_open_last_are_a_click_away(window, tmp_path):
    line, autosaver = window.dock.line, window.dock.session.scheduler.autosaver

    def listed():
        line.menu.aboutToShow.emit()
        return {a.text().split()[0]: a for a in line.menu.actions()}

    for name in ("one", "two", "three"):
        autosaver.begin_project(Project.create(tmp_path / name))
        window.settle()
    assert list(listed()) == ["two", "one"]  # not the one that is open
    (tmp_path / "one" / "project.json").unlink()
    assert not listed()["one"].isEnabled()
    listed()["two"].trigger()
    window.settle()
    assert window.dock.session.project.folder == tmp_path / "two"
    for i in range(9):
        autosaver.begin_project(Project.create(tmp_path / f"p{i}"))
        window.settle()
    assert list(listed()) == [f"p{i}" for i in range(7, 0, -1)]


def test_image_that_is_removed_and_opened_again_has_its_annotations(window, files):
    w, (first, second, namesake) = window, files
    w.open(first)
    w.click()
    w.open(second)
    w.viewer.layers.remove("009")
    w.settle()
    assert not [layer for layer in w.viewer.layers if "009" in layer.name]
    w.open(first)
    assert w.panel.table.rowCount() == 1
    assert w.dock.annotate.owned_layers.layers["masks"].data.any()
    w.click(right=20)
    assert w.signs("009") == [[True, True]]

    w.viewer.layers.select_all()
    w.viewer.layers.remove_selected()  # as napari's button does
    w.settle()
    assert len(w.viewer.layers) == 0
    w.open(namesake)
    w.open(first)
    assert w.signs("009") == [[True, True]]
    assert [name for name in w.state.annotations if not w.signs(name)] == ["010", "009 (2)"]


def test_dock_is_there_before_layers_and_model(make_napari_viewer, qtbot, discs):
    viewer = make_napari_viewer()
    viewer.add_image(IMAGE, name="cells")
    runner = Inline()
    dock = SamicDock(viewer, runner)
    viewer.window.add_dock_widget(dock, name="SAMIC")
    assert len(viewer.layers) == 1
    assert dock.session.scheduler.segmenter is None
    qtbot.waitUntil(lambda: len(viewer.layers) == 4)
    assert viewer.layers.selection.active.name == "cells clicks"
    runner.settle()
    assert dock.session.scheduler.segmenter is discs


def test_dock_that_is_closed_at_once_begins_nothing(make_napari_viewer, qtbot, discs):
    viewer, runner = make_napari_viewer(), Inline()
    viewer.add_image(IMAGE, name="cells")
    closed = SamicDock(viewer, runner)
    closed.release()
    later = SamicDock(viewer, Inline())
    qtbot.waitUntil(lambda: len(viewer.layers) == 4)  # so the first would have begun, too
    runner.settle()
    assert closed.session.scheduler.segmenter is None
    later.release()


@pytest.mark.skipif(os.environ.get("QT_QPA_PLATFORM") == "offscreen", reason="needs a screen")
def test_packaged_model_answers_a_click_in_the_window(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    data, options, _ = sample_scenes()[0]
    viewer.add_image(data, **options)
    dock = SamicDock(viewer)
    viewer.window.add_dock_widget(dock, name="SAMIC")
    qtbot.waitUntil(lambda: dock.session.scheduler.status.startswith("Ready: tiny"), timeout=60_000)
    index = dock.session.scheduler.index
    truth = sample_set()[index[0]].truth
    rows, columns = np.nonzero(truth == truth[truth > 0][0])
    place = rows.mean().round(), columns.mean().round()
    dock.annotate.owned_layers.layers["clicks"].add((*index, *place))
    qtbot.waitUntil(lambda: dock.annotate.panel.confidence.value is not None, timeout=30_000)
    qtbot.waitUntil(lambda: not dock.session.scheduler.state.is_waiting, timeout=30_000)
    assert dock.annotate.owned_layers.layers["masks"].data[index].max() == 1
    qtbot.waitUntil(lambda: dock.session.scheduler.runner.count == 0, timeout=30_000)
    dock.release()

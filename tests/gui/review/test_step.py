"""Review in a real viewer. Viewers are slow to make, so each test tells a whole story."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("qtpy")
from discs import Discs, Inline
from napari.layers import Labels, Points
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication
from reviewed import PLACES, SHAPE, labels_of, write_results

from napari_samic.core.errors import InputError
from napari_samic.gui.data import trusted_files
from napari_samic.gui.data.layer_pixels import FILES
from napari_samic.gui.data.project import Project
from napari_samic.gui.dock import SamicDock
from napari_samic.gui.review.queue_view import KEYS
from napari_samic.gui.session import jobs
from napari_samic.io.masks import read_labels
from napari_samic.recipes import load_recipe
from napari_samic.recipes.scripting import as_command, as_python


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))

    def open_model(name):
        yield jobs.JobProgress(0, 0)
        return Discs(radius=6)

    monkeypatch.setattr(jobs, "open_model", open_model)


class Story:
    """A viewer with the stack of images, the dock on a project with results, in Review."""

    def __init__(self, viewer, folder, *, opened=True):
        self.viewer, self.runner = viewer, Inline()
        self.project = Project.create(folder / "project")
        write_results(self.project.results_folder, folder / "pictures")
        paths = [str(folder / "pictures" / f"{name}.png") for name in PLACES]
        trusted_files.remember([folder / "pictures" / "a.png"])
        if opened:
            from PIL import Image

            stack = np.stack([np.array(Image.open(path)) for path in paths])
            viewer.add_image(stack, rgb=True, name="pictures", metadata={FILES: paths})
        self.dock = SamicDock(viewer, self.runner)
        viewer.window.add_dock_widget(self.dock, name="SAMIC")
        self.dock.session.scheduler.autosaver.begin_project(self.project)
        self.settle()
        self.dock.go_to("Review")
        self.settle()

    def settle(self):
        from qtpy.QtWidgets import QApplication

        for _ in range(4):
            QApplication.processEvents()
            self.runner.settle()

    @property
    def step(self):
        return next(s for s in self.dock.steps if s.title == "Review")

    @property
    def queue(self):
        return self.step.queue

    @property
    def review(self):
        return self.step.review

    def layer(self, kind):
        return self.step.owned_layers.layers[kind]

    def do(self, verb, *args):
        self.queue.handlers[verb](*args)
        self.settle()

    def cells(self, column):
        model = self.queue.model
        return [model.data(model.index(row, column)) for row in range(model.rowCount())]


@pytest.fixture
def story(make_napari_viewer, tmp_path):
    return Story(make_napari_viewer(), tmp_path)


def test_queue_is_judged_edited_and_exported(story, tmp_path):
    assert story.runner.errors == []
    assert story.cells(1) == ["d", "b", "a", "c"]
    first, second = story.cells(3)[:2]
    assert first.startswith("no object")
    assert second.startswith("confidence 0.60")
    assert "<b>d</b>" in story.queue.why.text()
    assert story.dock.session.scheduler.state.annotation.name == "d"  # the image came with it
    assert isinstance(story.layer("labels"), Labels)
    assert isinstance(story.layer("points"), Points)
    assert not any(x.visible for x in story.viewer.layers if x.name.endswith("clicks"))

    assert story.queue.score.value() == 0.9  # the median of .6, .9 and .9
    assert story.queue.all_above.text().startswith("Accept 2 ")
    story.queue.score.setValue(0.95)
    assert not story.queue.all_above.isEnabled()
    story.queue.score.setValue(0.6)
    assert story.queue.all_above.text().startswith("Accept 3 ")
    story.do("look")
    assert story.queue.score.value() == 0.6  # the user's choice stays

    late = story.viewer.add_labels(np.ones((4, 4), int), name="results [SAMIC]")
    assert not late.visible  # another step's would cover what is edited here

    story.do("reject")
    assert (story.review.current, story.cells(0)[0]) == ("b", "✗")
    np.testing.assert_array_equal(story.layer("labels").data, labels_of("b"))
    points = story.layer("points")
    assert points.data.tolist() == [[10.0, 10.0], [30.0, 40.0]]

    points.data = np.array([[15.0, 20.0], [30.0, 40.0]])  # as dragging does, with its event
    points.events.data(value=points.data, action="changed", data_indices=(0,), vertex_indices=())
    story.settle()
    assert story.layer("labels").data[15, 20] == 1
    assert story.layer("labels").data[10, 10] == 0
    assert story.cells(0) == ["✗", "✎", "", ""]

    story.do("positive")
    points.add([[35.0, 5.0]])
    story.settle()
    assert story.layer("labels").data[35, 5] == 3
    assert list(points.features["object"]) == [1, 2, 3]

    story.do("undo")
    assert points.data.tolist() == [[15.0, 20.0], [30.0, 40.0]]
    assert story.layer("labels").data[35, 5] == 0
    story.do("undo")
    assert story.layer("labels").data[10, 10] == 1
    assert story.cells(0) == ["✗", "", "", ""]
    points.add([[35.0, 5.0]])
    story.settle()

    story.do("go", "a")
    story.do("brush")
    labels = story.layer("labels")
    assert labels.mode == "paint"
    assert labels.selected_label == 3  # a new object: there are two
    labels.selected_label = 9
    labels.brush_size = 3
    labels.paint((4, 50), 9)
    story.do("undo")  # at once: it is this stroke
    assert labels.data[4, 50] == 0
    labels.paint((20, 20), 9)
    story.do("accept")  # at once: the stroke counts all the same
    assert story.review.decision("a").verdict == "edited"
    edited = read_labels(story.project.folder / "review" / "a.tif")
    assert edited[20, 20] == 9

    asked = []
    story.step.ask = lambda question: bool(asked.append(question))
    story.do("go", "a")
    story.do("revert")
    assert len(asked) == 1
    assert story.review.decision("a").edit is not None  # the answer was no
    asked.clear()
    story.queue.score.setValue(0.8)
    story.step.ask = lambda question: asked.append(question) or True
    story.do("accept_above")
    assert asked == ["Accept 1 result with a score from 0.80?"]
    assert story.queue.summary.text() == "4 results: ✓ 1  ✎ 2  ✗ 1, 0 to do"

    exports = story.step.exports
    story.step.tabs.setCurrentIndex(2)
    exports.place.setText(str(tmp_path / "out"))
    exports.boxes["coco"].setChecked(True)
    story.step.tabs.setCurrentIndex(0)
    story.step.tabs.setCurrentIndex(2)  # what was chosen stays
    exports.button.click()
    story.settle()
    assert story.runner.errors == []
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["a.tif", "b.tif", "c.tif", "coco.json"]
    assert read_labels(tmp_path / "out" / "a.tif")[20, 20] == 9
    assert "4 files in" in exports.status.text()
    story.step.tabs.setCurrentIndex(3)
    assert "- do: accept" in story.step.recipe.text.toPlainText()

    recipe = load_recipe(story.project.recipe)
    for name, write in (("Copy as command", as_command), ("Copy as Python", as_python)):
        story.step.recipe.buttons[name].click()
        again = story.project.folder / "again-1"
        assert QApplication.clipboard().text() == write(recipe, out=again)


def test_everything_is_let_go_and_comes_back(story):
    story.do("go", "a")
    bound = [story.layer(k) for k in ("labels", "points")]
    keys = {str(k) for layer in bound for k in layer.keymap}
    assert {key.replace("Control-", "Ctrl+") for key, _ in KEYS.values()} <= keys
    story.do("go", "c")
    story.viewer.layers.remove(story.layer("points"))  # the user may
    story.viewer.layers.remove(story.layer("labels"))
    story.do("go", "b")
    assert story.layer("points").data.shape == (2, 2)
    story.viewer.dims.set_point(0, 2)  # the slider: the image "c"
    story.settle()
    assert (story.review.current, story.layer("points").data.shape) == ("c", (1, 2))

    truth = story.viewer.add_labels(np.stack([labels_of(n) for n in PLACES]), name="gt")
    assert story.queue.truth.itemText(1) == "gt"
    story.queue.truth.setCurrentIndex(1)
    story.do("score")
    assert "IoU 1.00" in story.queue.scores.text()
    story.viewer.layers.remove(truth)

    story.do("reference")
    annotation = story.dock.session.scheduler.state.annotations["c"]
    assert (annotation.is_reference, len(annotation.items)) == (True, 1)

    story.dock.go_to("Annotate")
    story.settle()
    assert not any("review" in layer.name for layer in story.viewer.layers)
    assert any(x.visible for x in story.viewer.layers if x.name.endswith("clicks"))
    assert not any(str(k) in ("Y", "J") for layer in bound for k in layer.keymap)

    story.dock.go_to("Review")
    story.settle()
    assert story.review.current == "c"
    story.dock.release()
    assert not any("review" in layer.name for layer in story.viewer.layers)
    assert story.runner.jobs == []
    story.viewer.dims.set_point(0, 0)


def test_images_that_are_not_open_are_shown_from_their_files(make_napari_viewer, tmp_path):
    story = Story(make_napari_viewer(), tmp_path, opened=False)
    assert story.runner.errors == []
    assert story.review.current == "d"
    assert story.layer("picture").data.shape == (*SHAPE, 3)
    story.do("go", "a")
    story.do("positive")
    story.layer("points").add([[5.0, 50.0]])
    story.settle()
    assert story.layer("labels").data[5, 50] == 3
    story.dock.release()


def test_a_click_on_a_dot_shows_its_object(story):
    summary = story.queue.summary
    summary.setText("5000 results: ✓ 1234  ✎ 567  ✗ 890, 2309 to do")  # of a large project
    story.queue.resize(270, 700)  # in a dock of 300 px
    story.queue.grab()
    assert summary.width() < summary.fontMetrics().horizontalAdvance(summary.text())
    assert summary.height() >= 2 * summary.fontMetrics().height()  # in two lines: nothing is cut
    story.step.tabs.setCurrentIndex(1)
    story.step.tabs.resize(320, 500)
    story.settle()
    view = story.step.objects
    view.refresh()
    plot = view.plot
    assert len(plot.places()) == 5
    view.up.setCurrentText("Brightness")  # of which these results tell nothing
    assert len(plot.places()) == 0
    view.up.setCurrentText("Score")
    lowest = int(plot.places()[:, 1].argmax())
    QTest.mouseClick(plot, Qt.MouseButton.LeftButton, pos=QPoint(*map(int, plot.places()[lowest])))
    story.settle()
    assert "b, object" in view.text.text()
    assert story.review.current == "b"
    number = int(view.text.text().split("object ")[1].split(":")[0])
    place = PLACES["b"][number - 1]
    camera = getattr(story.viewer, "scene", story.viewer).camera
    np.testing.assert_allclose(camera.center[-2:], place, atol=1)

    story.do("reject")
    view.refresh()
    assert len(plot.places()) == 3
    plot.show_dots(np.array([[9.0, 0.5], [65940.0, 1.0]]), ["red"] * 2, ["", ""])
    assert plot.end_texts() == ("9", "65940", "0.5", "1")


def test_results_of_large_images_are_looked_at_judged_and_not_changed(
    make_napari_viewer, tmp_path, monkeypatch
):
    from napari.utils.notifications import notification_manager

    monkeypatch.setattr("napari_samic.core.types.LARGE_PX", 1000)
    s = Story(make_napari_viewer(), tmp_path, opened=False)
    assert s.cells(1) == ["d", "b", "a", "c"]
    s.do("go", "a")
    assert s.layer("labels").multiscale
    np.testing.assert_array_equal(np.asarray(s.layer("labels").data[0]), labels_of("a"))
    assert not s.layer("labels").editable
    assert "not changed" in s.queue.status.text()
    for tool in ("brush", "positive", "reference"):
        s.do(tool)
        assert "not changed" in notification_manager.records[-1].message
        notification_manager.records.clear()
    s.layer("points").add((5, 5))
    s.settle()
    assert len(s.layer("points").data) == 0
    assert s.review.decision("a").edit is None
    s.review.show_object("a", 2)
    s.settle()
    camera = getattr(s.viewer, "scene", s.viewer).camera
    np.testing.assert_allclose(camera.center[-2:], PLACES["a"][1])
    s.do("accept")
    assert s.review.decision("a").verdict == "accepted"
    with monkeypatch.context() as full:
        full.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=40 * 60 * 30))
        with pytest.raises(InputError, match="GB are free"):
            s.step.exporter.export("accepted results", tmp_path / "out", s.step.exporter.settings)
    s.step.exporter.export("accepted results", tmp_path / "out", s.step.exporter.settings)
    s.settle()
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "a.tif"), labels_of("a"))

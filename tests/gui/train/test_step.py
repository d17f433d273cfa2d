"""The Train step in a real viewer. Viewers are slow to make, so each test tells a whole story."""

import time

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("qtpy")
from discs import Discs, Inline
from napari.layers import Image
from qtpy.QtWidgets import QApplication
from toys import scene

from napari_samic.core.errors import SettingsError
from napari_samic.core.settings import HeatMapSettings
from napari_samic.core.types import JobProgress
from napari_samic.gui.data.project import Project
from napari_samic.gui.dock import SamicDock
from napari_samic.gui.runner import jobs as runner_jobs
from napari_samic.gui.session import jobs as session_jobs
from napari_samic.gui.train import jobs as train_jobs
from napari_samic.gui.train.curve_plot import LOSS, SCORE, CurvePlot
from napari_samic.gui.train.jobs import PrompterComparison
from napari_samic.gui.train.progress import TrainingHistory
from napari_samic.gui.train.view import comparison_text

STACK = np.stack([scene(i)[0] for i in range(5)])


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(session_jobs, "open_model", lambda _name: loaded())


def loaded():
    yield JobProgress(0, 0)
    return Discs()


class Story:
    def __init__(self, viewer, folder):
        self.viewer, self.folder = viewer, folder
        self.image = viewer.add_image(STACK, name="cells", rgb=True)
        self.runner = Inline()
        self.dock = SamicDock(viewer, self.runner)
        viewer.window.add_dock_widget(self.dock, name="SAMIC")
        self.settle()
        self.step = next(step for step in self.dock.steps if step.title == "Train")
        self.panel, self.trainer = self.step.panel, self.step.trainer

    def settle(self):
        for _ in range(3):
            self.runner.settle()
            QApplication.processEvents()

    @property
    def state(self):
        return self.dock.session.scheduler.state

    def annotate(self, *slices):
        for number in slices:
            self.viewer.dims.set_point(0, number)
            self.settle()
            for row, column in ((12 + number, 14), (32, 40 - number)):
                self.state.new_object()
                self.state.add_point(row, column)
                self.settle()

    def begin(self):
        self.dock.session.scheduler.autosaver.begin_project(Project.create(self.folder))
        self.settle()
        self.dock.go_to("Train")
        self.settle()

    def advance(self, count):
        for _ in range(count):
            self.runner.jobs[-1].advance()


@pytest.fixture
def story(make_napari_viewer, tmp_path):
    return Story(make_napari_viewer(), tmp_path / "project")


def epochs(order):
    """Stands for `trainwork.train`."""
    yield JobProgress(0, 0, "", {"phase": "files"})
    for epoch in (1, 2, 3):
        if epoch > 1 and order.stop():
            break
        data = {"phase": "epoch", "epoch": epoch, "loss": 4.0 - epoch}
        yield JobProgress(1000 * epoch, 3000, "", data)
    train_jobs.new_file(order.project).write_bytes(b"new")
    old = order.project.prompter_file.exists()
    return PrompterComparison(0.8 if old else None, 0.4, ("cells[1]",), "3 epochs", "", old)


def visible(widget):
    return not widget.isHidden()


def test_from_nothing_to_a_choice_between_two_prompters(story, monkeypatch):
    monkeypatch.setattr(train_jobs, "train", epochs)
    s = story
    s.begin()
    assert s.trainer.missing() in s.panel.guide.text()
    assert not s.panel.start.isEnabled()
    assert not visible(s.panel.thumbs)
    s.annotate(0, 1)  # while the Train step is shown: it follows
    assert s.panel.count.text() == "2 references"
    assert s.panel.thumbs.item(1).text() == "cells[1] · 2"
    assert s.panel.guide.text().startswith("2 references.")
    assert "Device: not known yet · no prompter yet" in s.panel.device.text()

    s.panel.start.click()
    assert not s.panel.form.isEnabled()
    assert s.panel.stop.isEnabled()
    s.advance(2)
    assert visible(s.panel.plot)
    assert s.panel.plot.history.losses == {1: 3.0}
    assert s.panel.eta.text().startswith("epoch 1")
    assert s.panel.bar.value() == 333
    for widget in (s.panel.bar, s.panel.eta, s.panel.news, s.panel.comparison):
        assert s.panel.foot.isAncestorOf(widget)  # in sight, however long the settings are
    s.panel.stop.click()
    assert s.panel.stop.text() == "Stopping ..."
    s.settle()
    assert "a prompter is in use" in s.panel.device.text()
    assert s.panel.news.text() == "3 epochs."
    assert not visible(s.panel.comparison)

    s.panel.start.click()
    s.settle()
    assert visible(s.panel.comparison)
    assert "<b>0.400</b>" in s.panel.verdict_text.text()
    assert "<b>0.800</b>" in s.panel.verdict_text.text()
    assert "is worse" in s.panel.verdict_text.text()
    assert "bold" in s.panel.old.styleSheet()
    assert not s.panel.start.isEnabled()
    s.panel.old.click()
    s.settle()
    assert not visible(s.panel.comparison)
    assert (s.folder / "prompter-1.pt").read_bytes() == b"new"
    real = [e for e in s.runner.errors if "not a prompter file" not in str(e)]
    assert not real  # Propagate has looked at the file that stands for a prompter


def test_references_and_their_heat_maps_are_shown(story, monkeypatch):
    s = story
    s.annotate(1, 3)
    s.begin()
    first, _second = s.step.gallery.thumbs
    place = np.unravel_index(
        np.abs(first.overlay.astype(int) - first.picture).sum(2).argmax(), (74, 92)
    )
    expected = np.array([[13, 14], [32, 39]]) * 92 / 60
    assert np.hypot(*(expected - place).T).min() < 3

    s.panel.thumbs.itemClicked.emit(s.panel.thumbs.item(1))
    s.settle()
    assert s.dock.session.scheduler.index == (3,)
    s.panel.heat_button.click()
    s.settle()
    layer = s.step.layer.layer
    assert layer.name == "cells[3] heat map [SAMIC]"
    drawn = s.dock.annotate.owned_layers.layers
    assert (drawn["masks"].visible, drawn["clicks"].visible) == (False, True)
    assert layer.ndim == 3
    assert layer.get_value((3, 15, 14), world=True) > 0.9
    s.viewer.dims.set_point(0, 1)
    assert layer.extent.data[:, 0].tolist() == [0, 0]  # it belongs to one slice
    s.settle()
    assert s.step.layer.layer.name == "cells[1] heat map [SAMIC]"  # which has its own
    assert s.panel.thumbs.currentItem().text() == "cells[1] · 2"
    s.viewer.dims.set_point(0, 3)
    s.settle()
    layer = s.step.layer.layer
    assert layer not in [s.image]
    assert s.viewer.layers.selection.active is not layer
    assert s.dock.session.layer is s.image  # an image of ours is not one to annotate

    s.panel.form.show_advanced(True)
    s.panel.form.fields["sigma_frac"].editor.setText("0.1")
    s.settle()
    wide = s.step.layer.layer
    assert wide.data.sum() > 3 * layer.data.sum()
    assert s.trainer.of(HeatMapSettings).sigma_frac == 0.1
    s.viewer.layers.remove(wide)  # by the user
    s.settle()
    assert not s.panel.heat_button.isChecked()
    s.panel.heat_button.click()
    s.settle()
    assert s.step.layer.has("heat map")
    s.panel.heat_button.click()
    s.viewer.dims.set_point(0, 0)  # no reference
    s.panel.heat_button.click()
    s.settle()
    assert s.dock.session.scheduler.index == (3,)
    s.dock.go_to("Annotate")
    s.settle()
    assert not any("heat map" in one.name for one in s.viewer.layers if isinstance(one, Image))
    assert not s.panel.heat_button.isChecked()
    assert drawn["masks"].visible


def test_wrong_setting_is_told_and_nothing_is_trained(story, monkeypatch):
    errors, s = [], story
    monkeypatch.setattr(runner_jobs, "show", errors.append)
    s.annotate(0, 1)
    s.begin()
    s.panel.form.fields["learning_rate"].editor.setText("fast")
    s.panel.start.click()
    assert [type(e) for e in errors] == [SettingsError]
    assert "Learning rate" in str(errors[0])
    assert visible(s.panel.form.advanced)
    assert not s.trainer.is_busy


def test_dock_that_closes_leaves_nothing_behind(story, monkeypatch):
    closed = []

    def train(order):
        try:
            yield from epochs(order)
        finally:
            closed.append(True)

    monkeypatch.setattr(train_jobs, "train", train)
    s = story
    s.annotate(0, 1)
    s.begin()
    s.panel.heat_button.click()
    s.settle()
    s.panel.start.click()
    s.advance(2)
    s.dock.release()
    assert closed == [True]
    assert not any("[SAMIC]" in layer.name for layer in s.viewer.layers)
    s.viewer.dims.set_point(0, 2)
    s.viewer.layers.remove(s.image)
    s.settle()
    assert not s.runner.errors


def test_no_callback_takes_long(story, monkeypatch):
    """Of 40 references: what runs in the main thread, beside the jobs."""
    s = story
    s.annotate(*range(5))
    s.begin()
    annotation = next(iter(s.state.annotations.values()))
    for i in range(40):
        s.state.annotations[f"more {i}"] = annotation
    s.step.gallery.refresh()
    s.settle()
    spent = {}

    def timed(name, act):
        times = []
        for _ in range(5):
            started = time.perf_counter()
            act()
            times.append(1000 * (time.perf_counter() - started))
        spent[name] = min(times)  # other processes of the machine are not ours

    history = TrainingHistory(
        {n: 1 / n for n in range(1, 2000)}, dict.fromkeys(range(1, 2000), 0.5)
    )
    s.trainer.history = history
    timed("state", lambda: s.panel.show_trainer(s.trainer))
    timed("gallery", lambda: s.panel.show_gallery(s.step.gallery))
    timed("refresh", s.step.gallery.refresh)
    timed("plot", s.panel.plot.grab)
    timed("edit", s.panel.form.changed.emit)
    assert max(spent.values()) < 50, spent


# --- parts


def test_plot_draws_both_curves(qtbot):
    plot = CurvePlot()
    qtbot.addWidget(plot)
    plot.resize(320, 132)
    assert not colors(plot) & {LOSS, SCORE}
    plot.show_curves(TrainingHistory(batches=True))  # a fine-tuning begins
    assert not colors(plot) & {LOSS, SCORE}
    plot.show_curves(TrainingHistory({1: 3.0, 2: 1.0, 3: 2.0}))
    assert LOSS in colors(plot)
    plot.show_curves(TrainingHistory({1: 3.0, 2: float("nan")}, {1: 0.5, 2: 0.75}))
    assert SCORE in colors(plot)


@pytest.mark.parametrize(
    "history",
    [
        pytest.param(TrainingHistory(batches=True), id="before_the_first_point"),
        pytest.param(TrainingHistory({1: float("nan")}, {1: 0.5}), id="no_finite_loss"),
        pytest.param(TrainingHistory({1: float("nan"), 2: 3.0, 3: 1.0}), id="the_first_is_none"),
        pytest.param(TrainingHistory({5: float("inf")}, batches=True), id="batches"),
    ],
)
def test_plot_is_drawn_whatever_there_is(qtbot, history):
    plot = CurvePlot()
    qtbot.addWidget(plot)
    plot.resize(320, 132)
    plot.show_curves(history)
    assert len(colors(plot)) > 1  # words, or a curve


def colors(plot):
    """Of the inner part: numbers stand outside of it."""
    image = plot.grab().toImage()
    points = [(x, y) for x in range(45, 280) for y in range(24, 112)]
    return {image.pixelColor(x, y).name() for x, y in points}


@pytest.mark.parametrize(
    ("comparison", "parts"),
    [
        pytest.param(
            PrompterComparison(0.5, 0.75, ("a", "b"), "", "", True),
            ["is better", "a, b"],
            id="better",
        ),
        pytest.param(PrompterComparison(0.5, 0.5, ("a",), "", "", True), ["as good"], id="equal"),
        pytest.param(
            PrompterComparison(0.5, 0.4, ("a",), "", "", True, False),
            ["is worse", "did not help"],
            id="worse",
        ),
        pytest.param(
            PrompterComparison(None, None, (), "", "", True), ["not known", "four"], id="unknown"
        ),
        pytest.param(
            PrompterComparison(None, 0.5, ("a",), "", "x < y", True), ["x &lt; y"], id="unusable"
        ),
        pytest.param(
            PrompterComparison(0.5, 0.5, ("a",), notices=("left <a> out.",)),
            ["Left &lt;a&gt; out."],
            id="notices",
        ),
    ],
)
def test_verdict_says_what_is_known(comparison, parts):
    text = comparison_text(comparison)
    assert all(part in text for part in parts)

"""All four steps in one dock, and what must not harm them. One viewer a story: they are slow."""

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("qtpy")
from discs import Discs, Inline
from lab import is_heard
from qtpy.QtWidgets import QApplication
from toys import scene

from napari_samic.gui.data import recovery
from napari_samic.gui.data.project import Project
from napari_samic.gui.dock import SamicDock
from napari_samic.gui.propagate import jobs as propagate_jobs
from napari_samic.gui.session import jobs as session_jobs
from napari_samic.gui.train import jobs as train_jobs
from napari_samic.io.prompts import load_prompts

TITLES = ["Annotate", "Train", "Propagate", "Review"]
EVENTS = ("inserted", "removing", "removed", "reordered")
DIMS = ("point", "ndisplay", "order", "current_step")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(session_jobs, "open_model", _discs)


def _discs(name):
    yield session_jobs.JobProgress(0, 0)
    return Discs(name, radius=8 if name == "vit_b" else 5)


class Story:
    def __init__(self, viewer, folder):
        self.viewer = viewer
        self.image = viewer.add_image(
            np.stack([scene(i)[0] for i in range(4)]), rgb=True, name="cells"
        )
        self.wires = self.count_wires()
        self.runner = Inline()
        self.dock = SamicDock(viewer, self.runner)
        self.docked = viewer.window.add_dock_widget(self.dock, name="SAMIC")
        self.settle()
        self.project = Project.create(folder)
        self.dock.session.scheduler.autosaver.begin_project(self.project)
        self.settle()

    def settle(self):
        for _ in range(4):
            self.runner.settle()
            QApplication.processEvents()

    def count_wires(self):
        """How many callbacks the viewer calls."""
        layers, dims = self.viewer.layers.events, self.viewer.dims.events
        return {
            **{name: len(getattr(layers, name).callbacks) for name in EVENTS},
            **{name: len(getattr(dims, name).callbacks) for name in DIMS},
        }

    @property
    def state(self):
        return self.dock.session.scheduler.state

    def click(self, number, row, column):
        self.dock.go_to("Annotate")
        self.viewer.dims.set_point(0, number)
        self.settle()
        self.dock.annotate.owned_layers.layers["clicks"].add((number, row, column))
        self.settle()


@pytest.fixture
def story(make_napari_viewer, tmp_path):
    return Story(make_napari_viewer(), tmp_path / "project")


def test_every_step_survives_what_happens_to_layers_and_leaves_nothing(story):
    story.click(1, 13, 14)
    story.click(2, 14, 14)
    for title in TITLES:
        story.dock.go_to(title)
        story.settle()
        assert story.project.notes["step"] == title
        modes = [one.mode for one in story.viewer.layers if one.name.endswith("clicks")]
        assert modes == (["add"] if title == "Annotate" else ["pan_zoom"]), title
        story.image.name = f"cells in {title}"
        story.viewer.dims.ndisplay = 3
        story.settle()
        story.viewer.dims.ndisplay = 2
        for layer in [one for one in story.viewer.layers if one is not story.image]:
            story.viewer.layers.remove(layer)
        story.settle()
        other = story.viewer.add_image(np.zeros((30, 40), np.uint8), name="other")
        story.dock.session.choose_layer(other)
        story.settle()
        story.viewer.layers.remove(other)
        story.settle()
        story.dock.session.choose_layer(story.image)
        story.settle()
        assert not story.runner.errors, title
    assert len(load_prompts(story.project.prompts_file).images) == 2

    before = story.state.annotations["cells[1]"].items[0].points
    story.dock.go_to("Annotate")
    assert story.dock.annotate.owned_layers.layers["clicks"].mode == "add"
    story.viewer.dims.set_point(0, 1)
    story.dock.session.scheduler.choose_model("vit_b")
    story.settle()
    assert story.state.annotations["cells[1]"].items[0].points == before
    assert story.state.model == "vit_b"
    assert story.state.annotation.labels().sum() > 100  # the other model's disc

    story.viewer.window.remove_dock_widget(story.docked)
    story.settle()
    assert story.count_wires() == story.wires
    assert not any(layer.keymap for layer in story.viewer.layers)
    assert not is_heard(story.dock.session.events)
    assert not story.runner.jobs
    assert recovery.leftovers() == []


class Endless:
    """A job that never ends by itself, and tells whether it was closed."""

    def __init__(self):
        self.open = 0

    def __call__(self, *args, **kwargs):
        self.open += 1
        try:
            while True:
                yield session_jobs.JobProgress(0, 0, "endless")
        finally:
            self.open -= 1


@pytest.mark.parametrize("way", ["dock", "window", "image"])
def test_jobs_of_train_and_propagate_survive_what_is_closed(story, monkeypatch, way):
    training, run = Endless(), Endless()
    monkeypatch.setattr(train_jobs, "train", training)
    monkeypatch.setattr(propagate_jobs, "propagate", run)
    monkeypatch.setattr(propagate_jobs, "read_peaks", lambda _file: iter(()))
    for number in (0, 1, 2):
        story.click(number, 12 + number, 14)
    story.project.prompter_file.write_bytes(b"")
    trainer, going = story.dock.train.trainer, story.dock.propagate.presenter.run
    trainer.start()
    going.start()
    for job in list(story.runner.jobs):
        job.advance()
    assert (training.open, run.open) == (1, 1)
    if way == "image":
        story.image.data = np.zeros((2, 30, 40, 3), np.uint8)
        story.viewer.layers.remove(story.image)
        assert (training.open, run.open) == (1, 1)
        trainer.stop()
        going.cancel()
        for job in list(story.runner.jobs):
            job.advance()
    elif way == "dock":
        story.viewer.window.remove_dock_widget(story.docked)
    else:
        story.viewer.close()
    QApplication.processEvents()
    assert (training.open, run.open) == (0, 0)
    assert not [e for e in story.runner.errors if not isinstance(e, ValueError)]
    assert len(load_prompts(story.project.prompts_file).images) == 3

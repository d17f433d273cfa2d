"""The whole story in a real window with the packaged model, and its recipe in a fresh process."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile

pytest.importorskip("napari")
pytest.importorskip("qtpy")

from napari_samic.core.settings import AdaptSettings, TrainSettings
from napari_samic.gui.data.project import Project
from napari_samic.gui.plugin.commands import dock_of
from napari_samic.recipes import load_recipe
from napari_samic.sample_data.samples import sample_set

needs_screen = pytest.mark.skipif(
    os.environ.get("QT_QPA_PLATFORM") == "offscreen", reason="needs a screen"
)
REFERENCES, SLICES = 2, 4


class Session:
    """A user of the window, who waits until what was begun is done."""

    def __init__(self, viewer, qtbot, folder):
        self.viewer, self.qtbot = viewer, qtbot
        viewer.open_sample("napari-samic", "scenes")
        image = viewer.layers["SAMIC samples"]
        image.data = image.data[:SLICES]  # all 24 tell the same and take four times as long
        viewer.layers["SAMIC samples, truth"].data = viewer.layers[-1].data[:SLICES]
        viewer.dims.set_point(0, 0)
        self.dock = dock_of(viewer)
        self.session = self.dock.session
        self.wait(lambda: self.session.scheduler.status.startswith("Ready"), 900)
        self.session.scheduler.autosaver.begin_project(Project.create(folder))

    @property
    def project(self):
        return self.session.project

    def wait(self, done, seconds=300):
        self.qtbot.waitUntil(done, timeout=1000 * seconds)

    def rest(self):
        self.wait(lambda: self.session.runner.count == 0, 1800)

    def step(self, title):
        self.dock.go_to(title)
        assert self.dock.step.title == title
        return self.dock.step

    def annotate(self, number):
        step = self.step("Annotate")
        self.viewer.dims.set_point(0, number)
        truth = sample_set()[number].truth
        for value in [v for v in np.unique(truth) if v][:2]:
            inside = np.argwhere(truth == value)
            row, column = inside[np.abs(inside - inside.mean(0)).sum(1).argmin()]
            step.panel.handlers["new"]()
            self.wait(
                lambda: is_drawn(
                    step.owned_layers.layers["clicks"], self.session.scheduler.state.annotation
                )
            )
            step.owned_layers.layers["clicks"].add((number, row, column))
            self.wait(lambda: self.session.scheduler.state.annotation.item() is not None)
            self.wait(lambda: not self.session.scheduler.state.is_waiting)
        places = [item.points for item in self.session.scheduler.state.annotation.items]
        assert [len(points) for points in places] == [1] * min(2, int(truth.max()))
        step.panel.handlers["reference"]()
        self.rest()

    def train(self):
        step = self.step("Train")
        step.panel.form.show_values(TrainSettings(epochs=1, views=1))
        step.panel.form.show_values(AdaptSettings(adapt=False))
        step.panel.handlers["start"]()
        self.rest()
        assert self.project.prompter_file.exists(), step.trainer.news

    def propagate(self):
        step = self.step("Propagate")
        step.panel.handlers["start"]()
        self.rest()
        assert not step.presenter.run.failures
        return step

    def review(self):
        """Reject the most doubtful, accept the others, and export."""
        step = self.step("Review")
        self.rest()
        step.queue.handlers["reject"]()
        self.rest()
        while any(not step.review.decision(one.name).verdict for one in step.review.order):
            step.queue.handlers["accept"]()
            self.rest()
        for name in ("tiff", "coco", "geojson", "table"):
            step.exports.boxes[name].setChecked(True)
        step.exports.button.click()
        self.rest()
        return step


def is_drawn(clicks, annotation):
    """Whether the layer shows all points, so that the next click goes to the current object."""
    points = [point[:2] for item in annotation.items for point in item.points]
    shown = [tuple(at[-2:]) for at in clicks.data]
    return shown == points and clicks.feature_defaults["object"].iloc[0] == annotation.current


def hashes(folder):
    """Of every file below a folder, so that a figure or an outline counts too."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".tif", ".geojson", ".csv") or path.name == "coco.json"
    }


def labels(folder):
    """Of the label images alone, which lie at the top."""
    return {k: v for k, v in hashes(folder).items() if k.endswith(".tif") and "/" not in k}


def shell(*arguments, threads=2):
    """The command in a process of its own; its torch has this many threads by itself."""
    done = subprocess.run(
        [sys.executable, "-m", "napari_samic", *map(str, arguments)],
        capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


@needs_screen
@pytest.mark.slow
def test_session_in_the_window_is_replayed_by_the_shell_label_for_label(
    make_napari_viewer, qtbot, tmp_path
):
    session = Session(make_napari_viewer(), qtbot, tmp_path / "project")
    for number in range(REFERENCES):
        session.annotate(number)
    session.train()
    session.propagate()
    project = session.project
    made = labels(project.results_folder)
    assert sorted(made) == [f"SAMIC samples[{n}].tif" for n in range(SLICES)]
    shown = session.viewer.layers["SAMIC samples results [SAMIC]"]
    for number in range(SLICES):
        stored = tifffile.imread(project.results_folder / f"SAMIC samples[{number}].tif")
        np.testing.assert_array_equal(np.asarray(shown.data[number]), stored)
    step = session.review()
    rejected = step.review.order[0].name
    exported = hashes(project.exports_folder)
    assert list(labels(project.exports_folder)) == ["SAMIC samples.tif"]
    volume = tifffile.imread(project.exports_folder / "SAMIC samples.tif")
    assert [f"SAMIC samples[{n}]" for n in range(SLICES) if not volume[n].any()] == [rejected]
    assert not any(rejected in name for name in exported)
    jobs = [one.do for one in load_recipe(project.recipe).steps]
    assert jobs == ["annotate", "train", "segment", "accept", "export"]
    session.dock.release()

    shell("run", project.recipe, "--out", tmp_path / "again")
    assert labels(tmp_path / "again" / "results") == made
    assert hashes(tmp_path / "again" / "exports") == exported

    others = tmp_path / "others"
    others.mkdir()
    for scene in sample_set()[SLICES : SLICES + 2]:
        tifffile.imwrite(others / f"{scene.name}.tif", scene.image, photometric="rgb")
    shell("run", project.recipe, "--images", others, "--out", tmp_path / "there")
    threads = load_recipe(project.recipe).steps[2].threads
    direct = ("--prompter", project.prompter_file, "--out", tmp_path / "direct")
    shell("segment", others, *direct, threads=threads)
    found = labels(tmp_path / "there" / "results")
    assert len(found) == 2
    assert found == labels(tmp_path / "direct")

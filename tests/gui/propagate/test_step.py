"""The Propagate step in a real viewer; jobs run in this thread."""

import csv
import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

pytest.importorskip("napari")
pytest.importorskip("qtpy")
from discs import Discs, Inline
from napari.layers import Image, Labels, Points
from toys import scene, write_image

from napari_samic.core.settings import PeakSettings, SegmentSettings
from napari_samic.core.types import ImagePlane, PixelSize
from napari_samic.gui.data.project import Project
from napari_samic.gui.dock import SamicDock
from napari_samic.gui.propagate.jobs import SegmentOptions
from napari_samic.gui.session import jobs
from napari_samic.io.images import pixel_size
from napari_samic.recipes import load_recipe
from napari_samic.recipes.scripting import as_command

STACK = np.stack([scene(i)[0] for i in range(4)])


class Story:
    """A viewer with a stack, the dock on a project with a prompter, and the step shown."""

    def __init__(self, viewer, tmp_path, prompter):
        self.viewer = viewer
        self.image = viewer.add_image(STACK, rgb=True, name="cells")
        self.runner = Inline()
        self.dock = SamicDock(viewer, self.runner)
        self.docked = viewer.window.add_dock_widget(self.dock, name="SAMIC")
        self.project = Project.create(tmp_path / "work")
        shutil.copy(prompter, self.project.prompter_file)
        self.dock.session.scheduler.autosaver.begin_project(self.project)
        self.step = next(s for s in self.dock.steps if s.title == "Propagate")
        self.panel, self.of = self.step.panel, self.step.presenter
        self.dock.go_to("Propagate")
        viewer.dims.set_point(0, 0)
        self.settle()

    def settle(self):
        from qtpy.QtWidgets import QApplication

        for _ in range(3):
            self.runner.settle()
            QApplication.processEvents()

    def ours(self):
        return {layer.name: layer for layer in self.viewer.layers if "[SAMIC]" in layer.name}

    def run_until(self, count):
        self.panel.start.click()
        job = self.runner.jobs[-1]
        while len(self.of.run.finished) < count:
            job.advance()
        return job


@pytest.fixture
def story(make_napari_viewer, tmp_path, monkeypatch, prompter):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))
    made = Discs()

    def open_model(name):
        yield jobs.JobProgress(0, 0)
        return made

    monkeypatch.setattr(jobs, "open_model", open_model)
    return Story(make_napari_viewer(), tmp_path, prompter)


def test_preview_shows_layers_that_follow_slice_and_settings(story, qtbot):
    s = story
    active = s.viewer.layers.selection.active
    s.panel.preview.click()
    s.settle()
    heat, masks, points = (
        s.ours()[f"cells {kind} [SAMIC]"]
        for kind in ("heat map", "preview masks", "predicted points")
    )
    assert [type(x) for x in (heat, masks, points)] == [Image, Labels, Points]
    assert heat.blending == "translucent"  # added to stained tissue, it would be white
    assert heat.colormap.map([0.0, 1.0])[:, 3].tolist() == [0, 1]
    order = [s.viewer.layers.index(x) for x in (s.image, heat, masks, points)]
    assert order == sorted(order)
    result = s.of.preview.result
    np.testing.assert_array_equal(masks.data, result.labels)
    assert len(points.data) == len(result.scores) > 0
    assert list(points.text.values) == [f"{score:.2f}" for score in result.scores]
    assert f"{len(result.scores)} object" in s.panel.preview_text.text()
    assert s.viewer.layers.selection.active is active

    s.panel.form.show_values(PeakSettings(threshold=0.99, min_area_frac=50))
    qtbot.waitUntil(lambda: s.of.options.peaks is not None)
    s.settle()
    assert len(s.ours()["cells predicted points [SAMIC]"].data) < len(result.scores)
    assert s.panel.form.values(PeakSettings).min_area_frac == 50

    s.viewer.dims.set_point(0, 2)
    assert not s.ours()  # what was seen of another slice is not shown over this one
    qtbot.waitUntil(lambda: s.of.preview_status != "")  # Annotate encodes the slice too
    s.settle()
    assert s.of.preview.label == "cells[2]"
    s.dock.go_to("Annotate")
    assert not s.ours()


@pytest.fixture
def mosaic(story, tmp_path, monkeypatch):
    """An image too large to click in, that the dock opened; and how much of it is read at once."""
    monkeypatch.setattr("napari_samic.core.types.LARGE_PX", 100**2)
    monkeypatch.setattr("napari_samic.core.types.PART_PX", 60**2)
    monkeypatch.setattr("napari_samic.gui.data.layer_pixels.CLICKED_PX", 100**2)
    reads, before = [], ImagePlane.__init__

    def watched(self, *args, **kwargs):
        before(self, *args, **kwargs)
        for name in ("read", "read_part"):
            if (read := getattr(self, name)) is not None:
                object.__setattr__(self, name, partial(spied, read))

    def spied(read, *part):
        pixels = read(*part)
        reads.append(pixels.shape[0] * pixels.shape[1])
        return pixels

    path = tmp_path / "large" / "mosaic.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, np.tile(STACK[0], (4, 3, 1)), photometric="rgb", tile=(16, 16))
    s = story
    s.dock.annotate.open_folder(path.parent)
    s.settle()
    s.dock.go_to("Propagate")
    s.panel.form.show_values(SegmentSettings(tile_px=64))
    s.of.change(SegmentSettings(tile_px=64))
    monkeypatch.setattr(ImagePlane, "__init__", watched)
    layer = s.viewer.layers["mosaic"]
    return SimpleNamespace(path=path, reads=reads, layer=layer, most=layer.data[0].size // 12)


def test_a_large_image_is_previewed_and_propagated_to_part_by_part(story, mosaic):
    s = story
    assert mosaic.layer.multiscale
    s.panel.preview.click()
    job = s.runner.jobs[-1]
    while "Tile 3" not in s.panel.preview_text.text():
        job.advance()
    s.panel.preview.click()  # in the middle
    s.settle()
    assert not s.ours()
    assert s.of.preview_status == ""
    s.panel.preview.click()
    s.settle()
    masks = s.ours()["mosaic preview masks [SAMIC]"]
    assert masks.multiscale
    assert not masks.editable
    preview = np.asarray(masks.data[0])
    assert preview.max() == len(s.of.preview.result.scores) > 4
    assert max(mosaic.reads) <= mosaic.most

    s.panel.start.click()
    s.settle()
    file = s.project.results_folder / "mosaic.tif"
    np.testing.assert_array_equal(tifffile.imread(file), preview)
    assert not (file.parent / "heatmaps").exists()  # it would be held as a whole
    assert max(mosaic.reads) <= mosaic.most
    results = s.ours()["mosaic results [SAMIC]"]
    assert results.visible
    assert results.multiscale
    assert not results.editable
    np.testing.assert_array_equal(np.asarray(results.data[0]), preview)
    np.testing.assert_array_equal(results.data[1], preview[::4, ::4])
    assert "not painted on" in s.panel.status.text()
    tifffile.imwrite(file, np.zeros_like(preview), tile=(16, 16))
    s.dock.session.events.review.emit()
    s.settle()
    assert not np.asarray(s.ours()["mosaic results [SAMIC]"].data[0]).any()


def test_a_large_image_of_a_folder_is_shown_by_levels(story, mosaic):
    s = story
    s.of.run.choose(mosaic.path.parent)
    s.panel.start.click()
    s.settle()
    mosaic.reads.clear()
    s.of.open_folder_image("mosaic")
    s.settle()
    picture, labels = (s.ours()[f"mosaic {kind}[SAMIC]"] for kind in ("", "labels "))
    np.testing.assert_array_equal(np.asarray(picture.data[0]), tifffile.imread(mosaic.path))
    file = s.project.results_folder / "mosaic.tif"
    np.testing.assert_array_equal(np.asarray(labels.data[0]), tifffile.imread(file))


def test_an_image_too_large_to_click_in_says_so(story, mosaic, qtbot):
    s, annotate = story, story.dock.annotate
    s.dock.go_to("Annotate")
    annotate.choose_layer(mosaic.layer)
    s.settle()
    assert not [x for x in s.viewer.layers if x.name.startswith("mosaic ")]  # nothing to click in
    qtbot.waitUntil(lambda: "Too large" in annotate.panel.status.text())
    assert "Annotate crops" in annotate.panel.guide.text()
    for tool in annotate.panel.tools.values():
        tool.click()
        s.settle()
    assert not s.runner.errors
    assert max(mosaic.reads, default=0) <= mosaic.most
    annotate.choose_layer(s.image)
    s.settle()
    assert "cells clicks" in s.viewer.layers
    qtbot.waitUntil(lambda: "Too large" not in annotate.panel.status.text())


def test_preset_and_method_are_chosen_and_say_what_they_are(story, qtbot):
    s, panel = story, story.panel
    assert panel.preset.currentData() == "default"
    panel.preset.setCurrentIndex(panel.preset.findText("Literal paper"))
    panel.preset.activated.emit(panel.preset.currentIndex())
    assert s.of.options == SegmentOptions("samic", SegmentSettings.paper(), PeakSettings.paper())
    assert panel.method.currentText() == "samic"
    assert panel.form.fields["threshold"].editor.text() == "0.5"
    assert "paper" in panel.preset_text.text()
    panel.form.fields["strategy"].editor.setCurrentText("box")
    qtbot.waitUntil(lambda: s.of.options.strategy.strategy == "box")
    assert s.of.options.settings == SegmentSettings.paper()  # what is not shown stays
    assert panel.preset.currentText() == ""
    panel.form.fields["smooth_px"].editor.setValue(2)
    panel.form.fields["map_cut"].editor.setText("9")
    panel.start.click()  # at once: a field is wrong, so nothing begins
    assert s.of.run.state == "idle"
    panel.form.fields["map_cut"].editor.setText("0.5")
    panel.start.click()  # at once: what was typed counts
    s.settle()
    (step,) = load_recipe(s.project.recipe).steps
    assert {step.settings[k] for k in ("method", "map_cut", "smooth_px")} == {"samic", 0.5, 2}
    panel.method.setCurrentIndex(panel.method.findText("forest"))
    panel.method.activated.emit(panel.method.currentIndex())
    assert "forest" in panel.preset_text.text()  # it has no strategy


def seen(s):
    """What of the step can be seen, without the names of image and package."""
    return {name[6:-8] for name, layer in s.ours().items() if layer.visible}


def test_one_thing_at_a_time_is_seen(story):
    s = story
    clicks = s.dock.annotate.owned_layers.layers["clicks"]
    assert not clicks.visible  # of another step
    s.panel.preview.click()
    s.settle()
    s.panel.start.click()
    assert not s.panel.preview.isChecked()
    s.settle()
    assert seen(s) == {"results"}
    s.panel.preview.click()
    s.settle()
    assert seen(s) == {"heat map", "preview masks", "predicted points"}
    s.panel.preview.click()
    s.settle()
    assert seen(s) == {"results"}
    clicks.visible = True  # by the user
    s.settle()
    s.viewer.dims.set_point(0, 1)
    s.settle()
    assert clicks.visible
    s.dock.go_to("Annotate")
    assert clicks.visible
    assert not seen(s)
    s.dock.go_to("Propagate")
    assert seen(s) == {"results"}
    s.ours()["cells results [SAMIC]"].visible = False
    s.dock.go_to("Train")
    s.dock.go_to("Propagate")
    assert not seen(s)  # the user hid them
    s.ours()["cells results [SAMIC]"].visible = True
    s.dock.go_to("Annotate")
    s.dock.release()
    assert seen(s) == {"results"}


def test_run_shows_results_as_they_come_and_can_be_stopped(story):
    s = story
    s.viewer.dims.set_point(0, 1)
    s.settle()
    assert s.panel.start.text() == "Propagate"
    job = s.run_until(2)
    layer = s.ours()["cells results [SAMIC]"]
    file = s.project.results_folder / "cells[1].tif"
    rows, columns = np.indices(layer.data.shape[1:])[:, ::4, ::4].reshape(2, -1)
    shown = [layer.get_value((1, r, c)) for r, c in zip(rows, columns, strict=True)]
    np.testing.assert_array_equal(shown, tifffile.imread(file)[rows, columns])
    assert layer.data[3].max() == 0
    assert (s.panel.bar.value(), s.panel.bar.maximum()) == (2, 4)
    assert s.panel.status.text().startswith("2 of 4")
    assert [s.panel.finished.item(i).text()[:9] for i in range(2)] == ["cells[0]:", "cells[1]:"]
    assert (s.panel.start.isEnabled(), s.panel.cancel.isEnabled()) == (False, True)
    assert job.title.startswith("SAMIC: propagating")  # in napari's activity, too

    s.panel.cancel.click()
    s.settle()
    assert s.panel.start.text() == "Resume"
    assert not s.panel.cancel.isEnabled()
    s.panel.start.click()
    s.settle()
    assert s.panel.status.text().startswith("2 images done")
    s.panel.finished.itemClicked.emit(s.panel.finished.item(1))
    assert s.of.session.scheduler.index == (3,)
    assert not s.runner.errors


def test_results_lie_above_another_channel(story):
    s = story
    other = s.viewer.add_image(STACK[..., 0], name="above")
    s.settle()
    for press in (s.panel.start.click, s.panel.preview.click):
        press()
        s.settle()
        assert s.dock.session.layer is s.image
        assert s.ours()
        assert all(
            s.viewer.layers.index(x) > s.viewer.layers.index(other) for x in s.ours().values()
        )


def test_painting_on_a_result_is_kept_and_shown_again(story, qtbot):
    s = story
    s.panel.start.click()
    s.settle()
    layer = s.ours()["cells results [SAMIC]"]
    layer.selected_label, layer.brush_size = 99, 5
    layer.paint((0, 20, 20), 99)
    assert layer.get_value((0, 20, 20)) == 99
    qtbot.waitUntil(lambda: bool(s.runner.jobs))
    s.settle()
    edit = tifffile.imread(s.project.results_folder / "edits" / "cells[0].tif")
    assert (edit == 99).sum() > 5
    layer.undo()
    assert layer.data[0, 20, 20] != 99
    layer.redo()
    s.viewer.dims.set_point(0, 2)
    s.viewer.dims.set_point(0, 0)
    assert layer.get_value((0, 20, 20)) == 99
    layer.paint((0, 40, 40), 98)
    s.dock.release()  # before it was written
    assert tifffile.imread(s.project.results_folder / "edits" / "cells[0].tif")[40, 40] == 98
    assert not layer.editable


def test_images_of_a_folder_are_shown_one_by_one(story, tmp_path, monkeypatch):
    s = story
    for i, side in enumerate((40, 64)):
        write_image(tmp_path / "more" / f"q{i}.png", scene(i, (side, side + 8))[0])
    (tmp_path / "more" / "bad.png").write_bytes(b"no image")
    monkeypatch.setattr(s.step, "ask_folder", lambda: tmp_path / "more")
    s.panel.source.setCurrentIndex(1)
    s.panel.source.activated.emit(1)
    assert s.panel.source.currentText() == "Folder more"
    s.panel.start.click()
    s.settle()
    assert not s.panel.failures.isHidden()
    assert s.panel.failures.item(0).text().startswith("bad.png: ")
    for row, shape in ((0, (40, 48)), (1, (64, 72))):
        s.panel.finished.itemClicked.emit(s.panel.finished.item(row))
        s.settle()
        labels = s.ours()[f"q{row} labels [SAMIC]"]
        assert labels.data.shape == s.ours()[f"q{row} [SAMIC]"].data.shape[:2] == shape
    assert len(s.ours()) == 2
    assert s.dock.session.layer is s.image  # none of ours became the image to annotate


def test_images_of_another_depth_are_refused_until_their_range_is_fitted(
    story, tmp_path, monkeypatch
):
    s, panel = story, story.panel
    panel.start.click()
    s.settle()
    before = (s.project.results_folder / "scores.csv").read_text()
    for i in range(2):
        write_image(tmp_path / "deep" / f"d{i}.tif", scene(i, scale=100)[0])
    monkeypatch.setattr(s.step, "ask_folder", lambda: tmp_path / "deep")
    panel.source.activated.emit(1)
    panel.start.click()
    s.settle()
    why = panel.failures.item(0).text()
    assert panel.rescale.text() in why
    assert "--rescale" not in why
    assert panel.rescale.text() in panel.status.text()  # in sight, wherever the page is scrolled to

    panel.rescale.click()
    panel.start.click()
    s.settle()
    assert not s.of.run.failures
    assert "2 images done" in panel.status.text()
    assert all(tifffile.imread(s.project.results_folder / f"d{i}.tif").any() for i in range(2))
    assert set(before.splitlines()) < set(
        (s.project.results_folder / "scores.csv").read_text().splitlines()
    )
    recipe = load_recipe(s.project.recipe)
    assert recipe.steps[-1].settings["rescale"] is True
    assert "--rescale" in as_command(recipe)


def test_linking_stands_beside_every_preset_but_following(story):
    s, panel = story, story.panel

    def choose(title):
        panel.preset.setCurrentIndex(panel.preset.findText(title))
        panel.preset.activated.emit(panel.preset.currentIndex())

    panel.link.click()
    choose("Touching cells")
    assert panel.link.isChecked()
    assert panel.preset.currentText() == "Touching cells"
    assert s.of.options.refine.split
    assert panel.form.fields["link"].editor.currentText() == "stacks"
    panel.start.click()
    s.settle()
    command = as_command(load_recipe(s.project.recipe))
    assert "--link always" in command
    assert "--split" in command or "--preset touching-cells" in command
    choose("Stack that goes on")
    assert not panel.link.isChecked()
    assert not panel.link.isEnabled()


def test_without_project_or_prompter_it_says_what_to_do(story):
    s = story
    s.project.prompter_file.unlink()
    s.dock.session.events.prompter.emit()
    s.settle()
    assert "No prompter yet" in s.panel.prompter.text()
    assert not s.panel.start.isEnabled()
    s.panel.preview.click()
    assert not s.panel.preview.isChecked()


def test_layers_and_images_that_go_in_the_middle_are_survived(story):
    s = story
    s.panel.preview.click()
    s.settle()
    for layer in list(s.ours().values()):
        s.viewer.layers.remove(layer)
    job = s.run_until(1)
    s.viewer.layers.remove(s.ours()["cells results [SAMIC]"])
    while len(s.of.run.finished) < 2:
        job.advance()
    assert "cells results [SAMIC]" in s.ours()
    s.viewer.layers.remove(s.image)
    s.settle()
    assert len(list(s.project.results_folder.glob("*.tif"))) == 4
    assert not s.runner.errors


def test_closing_leaves_nothing_but_the_results(story):
    s = story
    s.panel.preview.click()
    s.settle()
    s.run_until(1)
    s.viewer.window.remove_dock_widget(s.docked)
    s.settle()
    assert list(s.ours()) == ["cells results [SAMIC]"]
    assert not s.runner.jobs
    s.viewer.dims.set_point(0, 2)
    s.settle()
    assert not s.runner.errors
    assert len(list(s.project.results_folder.glob("*.tif"))) >= 1

    again = SamicDock(s.viewer, s.runner)
    s.viewer.window.add_dock_widget(again, name="SAMIC again")
    s.settle()
    again.session.scheduler.autosaver.open_project(Project.open(s.project.folder))
    s.settle()
    again.go_to("Propagate")
    s.settle()
    assert list(s.ours()) == ["cells results [SAMIC]"]
    assert s.ours()["cells results [SAMIC]"].data is again.propagate.presenter.store.stack
    again.release()


def draw(s, index, *places):
    """Click on objects of a slice, in the Annotate step."""
    s.dock.go_to("Annotate")
    s.viewer.dims.set_point(0, index)
    s.settle()
    for row, column in places:
        s.dock.annotate.panel.handlers["new"]()
        s.dock.annotate.owned_layers.layers["clicks"].add((index, row, column))
        s.settle()


def propagate(s):
    s.dock.go_to("Propagate")
    s.panel.start.click()
    s.settle()


def export(s):
    """Accept all of the queue, and export label TIFFs."""
    s.dock.go_to("Review")
    s.settle()
    review = s.dock.review
    while review.review.counts[""]:
        review.queue.handlers["accept"]()
        s.settle()
    review.exports.button.click()
    s.settle()


def test_what_is_drawn_on_references_is_kept_left_out_of_the_queue_and_exported(story):
    s = story
    propagate(s)
    predicted = tifffile.imread(s.project.results_folder / "cells[0].tif")
    draw(s, 0, (30, 50))
    s.dock.annotate.panel.handlers["cycle"]()  # another mask than the model's first
    s.settle()
    drawn = s.dock.session.scheduler.state.annotations["cells[0]"].labels()
    assert not np.array_equal(drawn, predicted)

    s.dock.go_to("Review")
    s.settle()
    review = s.dock.review
    assert sorted(flag.name for flag in review.review.order) == [f"cells[{i}]" for i in (1, 2, 3)]
    export(s)
    (error,) = s.runner.errors  # nothing is exported in place of what was drawn
    assert "cells[0]" in str(error)
    assert "Propagate again" in str(error)
    assert not list(s.project.exports_folder.glob("*.tif"))
    s.runner.errors.clear()

    propagate(s)
    np.testing.assert_array_equal(tifffile.imread(s.project.results_folder / "cells[0].tif"), drawn)
    shown = s.ours()["cells results [SAMIC]"].data
    np.testing.assert_array_equal(np.asarray(shown[0]), drawn)
    assert s.of.run.finished == {"cells[0]": "1 object, as annotated"}
    export(s)
    assert not s.runner.errors
    assert len(review.review.order) == 3
    exported = {p.name: tifffile.imread(p) for p in s.project.exports_folder.glob("*.tif")}
    (volume,) = exported.values()  # one file, as the image is
    assert volume.shape[0] == 4
    np.testing.assert_array_equal(volume[0], drawn)


def test_slices_of_a_volume_are_exported_as_one_with_its_objects_as_a_whole(story):
    s = story
    s.viewer.layers.remove(s.image)
    s.image = s.viewer.add_image(
        STACK, rgb=True, name="cells", scale=(2.0, 0.5, 0.5), units=("micrometer",) * 3
    )
    s.settle()
    s.panel.link.click()
    propagate(s)
    s.dock.go_to("Review")
    s.settle()
    assert len({str(layer.units) for layer in s.viewer.layers if layer.ndim == 3}) == 1
    assert s.viewer.layers.extent.units is not None  # of one unit, so that napari shows them in it
    s.dock.review.exports.boxes["table"].setChecked(True)
    s.dock.review.exports.boxes["ome_zarr"].setChecked(True)
    export(s)
    assert not s.runner.errors
    folder = s.project.exports_folder
    assert sorted(p.name for p in folder.iterdir() if p.name[0] != ".") == [
        "cells.ome.zarr", "cells.tif", "measurements.csv", "measurements_3d.csv",
    ]  # fmt: skip
    with tifffile.TiffFile(folder / "cells.tif") as file:
        assert file.series[0].axes == "ZYX"
        labels = file.asarray()
    for name in ("cells.tif", "cells.ome.zarr"):
        assert pixel_size(folder / name) == PixelSize(0.5, 0.5, 2.0)
    results = [tifffile.imread(s.project.results_folder / f"cells[{i}].tif") for i in range(4)]
    np.testing.assert_array_equal(labels, results)
    with (folder / "measurements_3d.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {int(row["object"]) for row in rows} == set(np.unique(labels[labels > 0]).tolist())
    for row in rows:
        places = np.argwhere(labels == int(row["object"]))
        assert int(row["voxels"]) == len(places)
        assert float(row["volume"]) == pytest.approx(len(places) * 0.5)
        assert row["unit"] == "micrometer"
        assert (int(row["plane_first"]), int(row["plane_last"])) == (
            places[:, 0].min(), places[:, 0].max(),
        )  # fmt: skip
        centroid = [float(row[k]) for k in ("plane", "row", "column")]
        np.testing.assert_allclose(centroid, places.mean(0), rtol=1e-6)

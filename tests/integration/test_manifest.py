"""Every contribution of the manifest, reached as a user reaches it, in a real viewer."""

import json

import numpy as np
import pytest
import tifffile

pytest.importorskip("napari")
pytest.importorskip("qtpy")
import npe2
from discs import Discs, Inline
from napari._app_model import get_app_model
from napari.layers import Image, Labels
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QFileDialog, QMessageBox
from roifile import roiread

from napari_samic.gui.data.layer_pixels import LayerPixels
from napari_samic.gui.data.project import Project
from napari_samic.gui.dock import SamicDock
from napari_samic.gui.header import ProjectLine
from napari_samic.gui.plugin.commands import dock_of
from napari_samic.gui.review.recipe_view import RecipeView
from napari_samic.gui.session import jobs


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def discs(monkeypatch):
    monkeypatch.setattr(jobs, "open_model", _discs)
    monkeypatch.setattr("napari_samic.gui.runner.jobs.Jobs", Inline)


def _discs(_name):
    yield jobs.JobProgress(0, 0)
    return Discs()


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


def settle(viewer):
    for _ in range(4):
        QApplication.processEvents()
        for dock in docks(viewer):
            dock.session.runner.settle()


def run(command):
    """As the command palette does."""
    return get_app_model().commands.execute_command(f"napari-samic.{command}").result()


def docks(viewer):
    inner = viewer.window.dock_widgets.values()
    return [d for d in inner if isinstance(d, SamicDock) and not d.is_closed]


def test_every_command_is_in_the_palette_or_serves_files(viewer):
    app = get_app_model()
    items = app.menus.get_menu(app.menus.COMMAND_PALETTE_ID)
    offered = {item.command.id: item.command for item in items}
    manifest = npe2.PluginManager.instance().get_manifest("napari-samic")
    offers = manifest.contributions
    of_files = {o.command for o in (*offers.readers, *offers.writers)}
    named = {o.command: f"napari-samic.{o.key}" for o in offers.sample_data}
    for command in offers.commands:
        found = offered[named.get(command.id, command.id)]
        usable = found.enablement is None or found.enablement.eval({})
        assert usable == (command.id not in of_files), command.id


@pytest.mark.parametrize(
    ("menu", "commands"),
    [
        pytest.param("napari/layers/segment", ["dock", "train", "propagate"], id="segment"),
        pytest.param("napari/layers/annotate", ["annotate"], id="annotate"),
        pytest.param(
            "napari/file/io_utilities", ["new_project", "open_project", "replay", "review"],
            id="file",
        ),
    ],
)  # fmt: skip
def test_menus_show_the_commands(viewer, menu, commands):
    items = get_app_model().menus.get_menu(menu)
    ours = {i.command.id for i in items if hasattr(i, "command") and "samic" in i.command.id}
    assert {one.rpartition(".")[2] for one in ours} == set(commands)


@pytest.mark.parametrize("command", ["annotate", "train", "propagate", "review"])
def test_command_opens_the_dock_once_at_its_step(viewer, command):
    run(command)
    run(command)
    (dock,) = docks(viewer)
    assert dock.step.title.lower() == command
    assert dock.bar.buttons[dock.step.title].isChecked()


def test_project_is_begun_and_opened_from_the_menu(viewer, tmp_path, monkeypatch):
    folder = tmp_path / "project"  # typed: there is no such folder yet
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(folder), ""))
    monkeypatch.setattr(ProjectLine, "ask_folder", lambda *_: folder if folder.exists() else None)
    run("new_project")
    (dock,) = docks(viewer)
    assert dock.line.name.text() == "project"
    assert dock.session.project.file.exists()
    viewer.window.remove_dock_widget(dock)
    run("open_project")
    (again,) = docks(viewer)
    assert again is not dock
    assert again.session.project.folder == tmp_path / "project"


def test_recipe_is_loaded_from_the_menu(viewer, tmp_path, monkeypatch):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("format: napari-samic/recipe\nversion: 1\nsteps:\n")
    monkeypatch.setattr(RecipeView, "ask_file", lambda *_: recipe)
    run("replay")
    (dock,) = docks(viewer)
    assert dock.step is dock.review
    assert dock.review.recipe.place.toolTip() == str(recipe)
    assert "steps:" in dock.review.recipe.text.toPlainText()


def test_project_dropped_on_the_window_comes_back_with_its_image(viewer, tmp_path):
    folder = tmp_path / "cells"
    folder.mkdir()
    for number in range(3):
        tifffile.imwrite(folder / f"c{number}.tif", np.full((40, 50), number, np.uint8))
    project = Project.create(tmp_path / "project")
    viewer.open(folder, plugin="napari")
    dock = dock_of(viewer)
    settle(viewer)
    dock.session.scheduler.autosaver.begin_project(project)
    dock.annotate.owned_layers.layers["clicks"].add((1, 20, 30))
    settle(viewer)
    dock.session.scheduler.state.use_as_reference(True)
    settle(viewer)
    viewer.window.remove_dock_widget(dock)
    viewer.layers.clear()

    viewer.open(str(project.file), plugin=None)
    settle(viewer)
    (again,) = docks(viewer)
    state = again.session.scheduler.state
    assert isinstance(viewer.layers[0], Image)
    assert again.session.pixels.file == str(folder)
    assert state.references == ("c1",)
    again.session.show_image("c1")
    settle(viewer)
    assert again.annotate.owned_layers.layers["clicks"].data.tolist() == [[1, 20, 30]]
    assert not str(viewer.layers[0].source.path).endswith("project")


@pytest.mark.parametrize("answer", ["Yes", "No"])
def test_hostile_project_dropped_on_the_window_runs_nothing(viewer, tmp_path, monkeypatch, answer):
    asked, usual = [], []

    def question(_parent, _title, text, _buttons, default):
        asked.append(text)
        usual.append(default)
        return getattr(QMessageBox.StandardButton, answer)

    monkeypatch.setattr(QMessageBox, "question", question)
    project, flag = Project.create(tmp_path / "project"), tmp_path / "was_run"
    code = f"open({str(flag)!r}, 'w')"
    inside, outside = project.folder / "a.py", tmp_path / "b.py"
    for path in (inside, outside):
        path.write_text(code)
    image = {"name": "a", "reader": "napari", "sample": [], "files": []}
    project.notes["annotate"] = {"images": [
        {**image, "path": str(inside)}, {**image, "path": str(outside)},
        {**image, "path": "", "sample": ["napari", "coins"]},
    ]}  # fmt: skip
    project.save()
    viewer.open(str(project.file), plugin=None)
    settle(viewer)
    assert not flag.exists()
    assert not [one for one in viewer.layers if isinstance(one, Image)]
    assert len(asked) == 1
    assert str(outside) in asked[0]
    assert str(inside) not in asked[0]
    assert usual == [QMessageBox.StandardButton.No]


def open_folder(viewer, folder, *, on_page=False):
    """Drop a folder on the dock, or on its page; its image layers."""
    dropped = QMimeData()
    dropped.setUrls([QUrl.fromLocalFile(str(folder))])
    dock = dock_of(viewer).annotate.panel if on_page else dock_of(viewer)
    how = (Qt.DropAction.CopyAction, dropped, Qt.MouseButton.LeftButton)
    middle, keys = dock.rect().center(), Qt.KeyboardModifier.NoModifier
    for event in (QDragEnterEvent(middle, *how, keys), QDropEvent(QPointF(middle), *how, keys)):
        assert QApplication.sendEvent(dock, event)
        assert event.isAccepted()
    settle(viewer)
    settle(viewer)
    return [layer for layer in viewer.layers if isinstance(layer, Image)]


def test_folder_is_left_to_napari_without_a_question(viewer, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((40, 50), np.uint8))
    readers = npe2.PluginManager.instance().iter_compatible_readers([str(tmp_path)])
    assert "napari-samic" not in [reader.plugin_name for reader in readers]


@pytest.mark.parametrize("on_page", [True, False])
def test_project_dropped_on_the_dock_is_opened(viewer, tmp_path, on_page):
    open_folder(viewer, Project.create(tmp_path / "project").folder, on_page=on_page)
    (dock,) = docks(viewer)
    assert dock.line.name.text() == "project"


@pytest.mark.parametrize("on_page", [True, False])
def test_folder_that_is_dropped_has_images_or_masks_of_those_that_are_open(
    viewer, tmp_path, on_page
):
    labels = np.zeros((40, 50), np.uint8)
    labels[5:15, 5:15] = 1
    for name in ("cells", "masks"):
        (tmp_path / name).mkdir()
        for stem in ("a", "b"):
            tifffile.imwrite(tmp_path / name / f"{stem}.tif", labels)
    assert len(open_folder(viewer, tmp_path / "cells", on_page=on_page)) == 1
    assert len(open_folder(viewer, tmp_path / "masks", on_page=on_page)) == 1
    assert set(dock_of(viewer).session.scheduler.state.references) == {"a", "b"}


def test_folder_of_images_opens_as_a_stack_that_knows_its_files(viewer, tmp_path):
    folder = tmp_path / "cells"
    folder.mkdir()
    for number in (1, 2, 10):
        tifffile.imwrite(folder / f"c{number}.tif", np.full((40, 50), number, np.uint8))
    (layer,) = open_folder(viewer, folder)
    dock = dock_of(viewer)
    assert layer.data.shape == (3, 40, 50)
    assert dock.session.pixels.index_of("c10") == (2,)
    assert int(layer.data[2].compute()[0, 0]) == 10


def test_image_that_lies_alone_among_others_goes_by_its_own_name(viewer, tmp_path):
    folder = tmp_path / "cells"
    folder.mkdir()
    tifffile.imwrite(folder / "a.tif", np.full((40, 50), 1, np.uint8))
    tifffile.imwrite(folder / "b.tif", np.full((3, 30, 20), 2, np.uint8), photometric="minisblack")
    tifffile.imwrite(folder / "c.tif", np.full((30, 40, 2), 3, np.uint8), photometric="minisblack")
    layers = open_folder(viewer, folder)
    assert {layer.name: layer.data.shape for layer in layers} == {
        "a": (40, 50), "b": (3, 30, 20), "c channel 0": (30, 40), "c channel 1": (30, 40),
    }  # fmt: skip
    labels = [LayerPixels((layer,)).label((0,) * (layer.ndim - 2)) for layer in layers]
    assert sorted(labels) == ["a", "b[0]", "c channel 0", "c channel 1"]


def test_labels_are_saved_by_every_writer(viewer, tmp_path):
    values = np.zeros((2, 20, 30), np.int32)
    values[0, 2:6, 3:9] = 1
    values[1, 8:12, 10:20] = 2
    layer = viewer.add_labels(values, name="cells")
    for name in ("a.tif", "a.json", "a.geojson", "a.zip"):
        path = tmp_path / name
        assert viewer.layers.save(str(path), plugin="napari-samic"), name
    del layer
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), values)
    coco = json.loads((tmp_path / "a.json").read_text())
    assert [i["name"] for i in coco["images"]] == ["cells[0]", "cells[1]"]
    assert [a["bbox"] for a in coco["annotations"]] == [[3, 2, 6, 4], [10, 8, 10, 4]]
    assert sorted(p.name for p in tmp_path.glob("*.geojson")) == ["a[0].geojson", "a[1].geojson"]
    second = json.loads((tmp_path / "a[1].geojson").read_text())
    assert [f["id"] for f in second["features"]] == [2]
    assert [roi.name for roi in roiread(tmp_path / "a.zip")] == ["0001-class 1-1", "0002-class 1-2"]


def test_packaged_samples_open(viewer):
    kinds = [type(layer) for layer in viewer.open_sample("napari-samic", "scenes")]
    assert kinds == [Image, Labels]
    assert len(viewer.open_sample("napari-samic", "coins")) == 12


def test_model_of_the_preferences_is_the_one_the_dock_opens_with(viewer, monkeypatch):
    asked = []

    def open_model(name):
        asked.append(name)
        return _discs(name)

    from napari.settings import get_plugin_settings

    monkeypatch.setattr(jobs, "open_model", open_model)
    monkeypatch.setattr(get_plugin_settings("napari-samic").start, "model", "tiny")
    dock_of(viewer)
    settle(viewer)
    assert asked == ["tiny"]

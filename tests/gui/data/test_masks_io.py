"""Existing labels become annotations of the open images."""

import json

import numpy as np
import pytest
from lab import begin, layer, make_session
from toys import SHAPE, scene, write_image

from napari_samic.core.errors import InputError
from napari_samic.core.label_objects import LabelObjects, ObjectRecord
from napari_samic.core.types import run_job
from napari_samic.export.coco import coco_tree
from napari_samic.export.geojson import geojson_tree
from napari_samic.gui.data import masks_io
from napari_samic.gui.data.layer_pixels import LayerPixels
from napari_samic.gui.state.annotator import AnnotationModel
from napari_samic.io.prompts import load_prompts

TRUTH = [scene(i)[1] for i in range(3)]


def images(*names):
    return [LayerPixels([layer(scene(i)[0], name)]) for i, name in enumerate(names)]


def stack():
    return LayerPixels([layer(np.stack([scene(i)[0] for i in range(3)]))])


def state():
    asked = []
    model = AnnotationModel(asked.append)
    return model, asked


def taken(loaded, model):
    from napari_samic.gui.data import prompts_io

    for data in loaded.files:
        prompts_io.take_masks(model, data)
    return {name: annotation.labels() for name, annotation in model.annotations.items()}


def test_masks_of_a_folder_go_to_the_open_images_by_name(tmp_path):
    write_image(tmp_path / "p0.png", TRUTH[0])
    write_image(tmp_path / "P1_mask.tif", TRUTH[1].astype(np.uint16))
    write_image(tmp_path / "other.png", TRUTH[2])
    model, asked = state()
    loaded = run_job(masks_io.read_files([tmp_path], images("p0", "p1", "p2"), "nucleus"))
    labels = taken(loaded, model)
    assert sorted(labels) == ["p0", "p1"]
    for i in range(2):
        np.testing.assert_array_equal(labels[f"p{i}"] > 0, TRUTH[i] > 0)
    for item in model.annotations["p1"].items:
        ((row, column, sign),) = item.points
        assert sign
        assert item.drawn.holds(row, column)
        assert model.classes.style(item.label).name == "nucleus"
    assert "4 objects on p0, p1" in loaded.line
    assert "other.png" in loaded.line
    assert not asked  # no model is needed for masks that are known


def test_black_and_white_masks_are_told_apart_as_the_shell_does(tmp_path):
    write_image(tmp_path / "p0.png", (TRUTH[0] > 0).astype(np.uint8) * 255)
    model, _ = state()
    taken(run_job(masks_io.read_files([tmp_path / "p0.png"], images("p0"), "object")), model)
    assert len(model.annotations["p0"].items) == 2


@pytest.mark.parametrize("kind", ["coco", "geojson"])
def test_classes_of_outlines_go_by_their_names(tmp_path, kind):
    about = {1: ObjectRecord(1), 2: ObjectRecord(2)}
    image = LabelObjects("p0", TRUTH[0], "p0.png", about, {1: "nucleus", 2: "object"})
    tree = coco_tree([image]) if kind == "coco" else geojson_tree(image)
    path = tmp_path / ("all.json" if kind == "coco" else "p0.geojson")
    path.write_text(json.dumps(tree))
    model, _ = state()
    labels = taken(run_job(masks_io.read_files([path], images("p0"), "object")), model)
    np.testing.assert_array_equal(labels["p0"] > 0, TRUTH[0] > 0)
    names = [model.classes.style(item.label).name for item in model.annotations["p0"].items]
    assert names == ["nucleus", "object"]
    assert model.classes.names == {1: "object", 2: "nucleus"}  # 1 was there, and means the same


def test_masks_beside_outlines_keep_their_own_class(tmp_path):
    about = {1: ObjectRecord(1), 2: ObjectRecord(1)}
    tree = geojson_tree(LabelObjects("p0", TRUTH[0], "p0.png", about, {1: "tumor"}))
    (tmp_path / "p0.geojson").write_text(json.dumps(tree))
    write_image(tmp_path / "p1.png", TRUTH[1])
    model, _ = state()
    taken(run_job(masks_io.read_files([tmp_path], images("p0", "p1"), "object")), model)
    classes = {
        name: {model.classes.style(item.label).name for item in annotation.items}
        for name, annotation in model.annotations.items()
    }
    assert classes == {"p0": {"tumor"}, "p1": {"object"}}


def test_labels_layer_is_taken_whole_or_by_slice():
    model, _ = state()
    labels = np.stack([TRUTH[0], TRUTH[1] * 0, TRUTH[2]])
    pixels = stack()
    loaded = run_job(masks_io.read_layer("truth", labels, pixels, pixels.indices(), "object"))
    got = taken(loaded, model)
    assert sorted(got) == ["cells[0]", "cells[2]"]
    np.testing.assert_array_equal(got["cells[2]"] > 0, TRUTH[2] > 0)
    assert "cells[1]" in loaded.line  # what is empty is told
    for array in (labels[0], labels):
        model, _ = state()
        got = taken(run_job(masks_io.read_layer("truth", array, pixels, [(0,)], "object")), model)
        np.testing.assert_array_equal(got["cells[0]"] > 0, TRUTH[0] > 0)


def test_what_was_there_comes_back_with_undo_and_what_was_a_reference_stays_it():
    model, _ = state()
    for name in ("cells[1]", "cells[0]"):
        model.open_image(name, SHAPE)
        model.add_point(3, 3)
    before = model.annotation.items
    pixels = stack()
    loaded = run_job(masks_io.read_layer("truth", np.stack(TRUTH), pixels, [(0,)], "object"))
    taken(loaded, model)
    # none was marked, so that both were learned
    assert set(model.references) == {"cells[0]", "cells[1]"}
    model.undo()
    assert model.annotation.items == before
    model.annotations["cells[1]"].is_reference = False
    taken(loaded, model)
    assert model.references == ("cells[0]",)
    model.add_point(20, 20)  # of a new object, not on one of the loaded
    assert len(model.annotation.items) == 3


SMALL, GRAY = TRUTH[0][:20], np.indices(SHAPE)[0].astype(np.float32) / 7


@pytest.mark.parametrize(
    ("name", "stored", "message"),
    [
        pytest.param("p0.png", SMALL, r"mask of \(20, 60\) for the image p0", id="size"),
        pytest.param("p0.tif", GRAY, r"p0: value 0\.14.* whole numbers", id="fractions"),
        pytest.param("p0.png", scene(0)[0], "3 different channels", id="colors"),
        pytest.param("p0.png", TRUTH[0] * 0, "no object in it", id="empty"),
        pytest.param("q7.png", TRUTH[0], "no mask for p0", id="another_image"),
        pytest.param("p0.png", TRUTH[0] + 5, "Save them as numbers", id="no_ground"),
    ],
)
def test_masks_that_can_not_be_used_say_why(tmp_path, name, stored, message):
    if stored.dtype == np.float32:
        import tifffile

        tifffile.imwrite(tmp_path / name, stored)
    else:
        write_image(tmp_path / name, stored)
    with pytest.raises(InputError, match=message):
        run_job(masks_io.read_files([tmp_path / name], images("p0"), "object"))


def test_one_mask_that_can_not_be_used_keeps_no_other_from_being(tmp_path):
    write_image(tmp_path / "p0.png", TRUTH[0])
    write_image(tmp_path / "p1.png", SMALL)
    model, _ = state()
    loaded = run_job(masks_io.read_files([tmp_path], images("p0", "p1"), "object"))
    assert list(taken(loaded, model)) == ["p0"]
    assert "1 can't be used, the first because: p1.png: mask of (20, 60)" in loaded.line


@pytest.mark.parametrize(
    ("array", "message"),
    [
        pytest.param(np.stack(TRUTH[:2]), r"labels of \(2, 48, 60\), the image", id="slices"),
        pytest.param(TRUTH[0][:9], r"labels of \(9, 60\), the image", id="size"),
        pytest.param(TRUTH[0] * 0, "truth: no object in it", id="empty"),
    ],
)
def test_layers_that_do_not_fit_say_why(array, message):
    with pytest.raises(InputError, match=message):
        run_job(masks_io.read_layer("truth", array, stack(), [(0,)], "object"))


def test_no_open_image_is_told(tmp_path):
    with pytest.raises(InputError, match="no image is open"):
        run_job(masks_io.read_files([tmp_path], [], "object"))


def test_loaded_masks_are_what_a_training_learns(monkeypatch, tmp_path):
    session = make_session(monkeypatch, "toy", count=3)
    begin(session, tmp_path / "project")
    pixels = session.pixels
    job = masks_io.read_layer("truth", np.stack(TRUTH), pixels, pixels.indices(), "object")
    session.scheduler.autosaver.load_masks(job)
    session.runner.settle()
    assert not session.runner.errors
    _, prompts = run_job(session.reference_images())
    data = load_prompts(prompts)
    assert data.normalization == pixels.normalization().to_dict()
    for image, truth in zip(data.images, TRUTH, strict=True):
        np.testing.assert_array_equal(
            np.any([mask.full() for mask in image.masks], axis=0), truth > 0
        )

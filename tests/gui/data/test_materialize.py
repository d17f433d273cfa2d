"""Slices as files: their own, or TIFFs that read back as the layer is. No window."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from discs import Discs, Inline
from PIL import Image
from toys import scene

import napari_samic
from napari_samic.core.errors import InputError
from napari_samic.core.settings import AdaptSettings, TrainSettings
from napari_samic.core.types import PixelSize, run_job
from napari_samic.gui.data import materialize
from napari_samic.gui.data.layer_pixels import LayerNames, LayerPixels
from napari_samic.gui.data.project import Project
from napari_samic.gui.session import jobs
from napari_samic.gui.session.session import Session
from napari_samic.io.images import open_images, pixel_size
from napari_samic.io.prompts import load_prompts

RNG = np.random.default_rng(0)


def layer(data, name="cells", rgb=False, path=None):
    source = SimpleNamespace(path=None if path is None else str(path))
    return SimpleNamespace(
        data=data, name=name, rgb=rgb, multiscale=False, source=source, metadata={},
        ndim=data.ndim - rgb,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(RNG.integers(0, 255, (9, 8), np.uint8), id="uint8"),
        pytest.param(RNG.integers(0, 60000, (9, 8), np.uint16), id="uint16"),
        pytest.param(RNG.integers(-9, 9, (9, 8), np.int32), id="int32"),
        pytest.param(RNG.integers(-9, 9, (9, 8), np.int64), id="int64"),
        pytest.param(RNG.random((9, 8), np.float32), id="float32"),
        pytest.param(RNG.random((9, 8)), id="float64"),
        pytest.param(RNG.random((9, 8)) > 0.5, id="bool"),
        pytest.param(RNG.integers(0, 255, (9, 8, 3), np.uint8), id="rgb"),
        pytest.param(RNG.integers(0, 255, (9, 8, 4), np.uint8), id="rgba"),
        pytest.param(RNG.integers(0, 255, (9, 8, 2), np.uint16), id="two_channels"),
        pytest.param(RNG.integers(0, 255, (4, 3), np.uint8), id="small"),
    ],
)
def test_written_image_reads_back_the_same(tmp_path, pixels):
    materialize.write_image(tmp_path / "a[1].tif", pixels)
    (plane,) = open_images([tmp_path / "a[1].tif"])
    found = plane.read()
    assert plane.label == "a[1]"
    assert found.dtype == pixels.dtype
    np.testing.assert_array_equal(found, pixels)


def test_slices_of_a_stack_become_files_of_their_names(tmp_path):
    stack = RNG.integers(0, 255, (2, 3, 9, 8), np.uint8)
    made = LayerPixels([layer(stack)])
    paths = run_job(materialize.as_files(made, made.indices(), tmp_path))
    assert [p.label for p in open_images(paths)] == [made.label(i) for i in made.indices()]
    np.testing.assert_array_equal(open_images(paths)[5].read(), stack[1, 2])


def test_copy_of_a_slice_keeps_the_size_of_its_pixels(tmp_path):
    stack = layer(RNG.integers(0, 255, (2, 9, 8), np.uint8))
    stack.scale, stack.units = (3.0, 0.5, 250.0), ("micrometer", "nanometer", "nanometer")
    made = LayerPixels([stack])
    (path,) = run_job(materialize.as_files(made, [(1,)], tmp_path))
    assert pixel_size(path) == PixelSize(0.0005, 0.25, 3.0)
    np.testing.assert_array_equal(open_images([path])[0].read(), stack.data[1])


def test_image_with_a_file_of_its_own_is_not_copied(tmp_path):
    pixels = RNG.integers(0, 255, (9, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    made = LayerPixels([layer(pixels, rgb=True, path=tmp_path / "a.png")])
    assert run_job(materialize.as_files(made, [()], tmp_path / "images")) == [tmp_path / "a.png"]
    assert not (tmp_path / "images").exists()


def test_file_that_holds_other_pixels_than_the_layer_is_not_taken_for_it(tmp_path):
    pixels = RNG.integers(0, 255, (9, 8), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    made = LayerPixels([layer(255 - pixels, path=tmp_path / "a.png")])
    (path,) = run_job(materialize.as_files(made, [()], tmp_path / "images"))
    assert path == tmp_path / "images" / "a.tif"
    np.testing.assert_array_equal(tifffile.imread(path), 255 - pixels)


def test_earlier_image_of_that_name_is_used_if_the_same_and_never_replaced(tmp_path):
    stack = RNG.integers(0, 255, (2, 9, 8), np.uint8)
    (first, _) = run_job(materialize.as_files(LayerPixels([layer(stack)]), [(0,), (1,)], tmp_path))
    before = first.stat().st_mtime_ns
    assert run_job(materialize.as_files(LayerPixels([layer(stack)]), [(0,)], tmp_path)) == [first]
    assert first.stat().st_mtime_ns == before
    with pytest.raises(InputError, match="another image of this name is in the project"):
        run_job(materialize.as_files(LayerPixels([layer(stack + 1)]), [(0,)], tmp_path))
    np.testing.assert_array_equal(tifffile.imread(first), stack[0])


def test_name_of_a_layer_becomes_one_that_a_file_can_have(tmp_path):
    made = LayerPixels([layer(np.ones((2, 9, 8), np.uint8), "a/b: c?")])
    (path,) = run_job(materialize.as_files(made, [(1,)], tmp_path))
    assert path.parent == tmp_path
    assert [p.label for p in open_images([path])] == [made.label((1,))] == ["a_b_ c_[1]"]


@pytest.mark.parametrize("stem", ["T:001", "we\\ird", "x" * 249])
def test_file_whose_name_no_result_can_have_is_called_otherwise(tmp_path, stem):
    pixels = RNG.integers(0, 255, (9, 8), np.uint8)
    materialize.write_image(tmp_path / f"{stem}.tif", pixels)
    made = LayerPixels([layer(pixels, path=tmp_path / f"{stem}.tif")])
    (path,) = run_job(materialize.as_files(made, [()], tmp_path / "images"))
    assert [plane.label for plane in open_images([path])] == [made.name]
    np.testing.assert_array_equal(open_images([path])[0].read(), pixels)


def test_long_names_of_layers_are_cut_and_stay_apart(tmp_path):
    stack = RNG.integers(0, 255, (2, 9, 8), np.uint8)
    made = [LayerPixels([layer(stack, "x" * 300 + end)]) for end in "ab"]
    paths = [path for one in made for path in run_job(materialize.as_files(one, [(1,)], tmp_path))]
    assert len({path.name for path in paths}) == 2


def test_image_that_can_not_be_read_is_left_to_the_job_that_reports_it(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    made = LayerPixels([layer(np.ones((9, 8), np.uint8), path=tmp_path / "a.png")])
    assert run_job(materialize.as_files(made, [()], tmp_path / "images")) == [tmp_path / "a.png"]


# --- folders


def write_folder(folder, count=12):
    stack = RNG.integers(0, 255, (count, 9, 8), np.uint8)
    folder.mkdir()
    for number, pixels in enumerate(stack):
        Image.fromarray(pixels).save(folder / f"im{number}.png")
    return stack


def test_folder_that_napari_stacked_is_its_files(tmp_path):
    stack = write_folder(tmp_path / "day")
    made = LayerNames().open(layer(stack, "day", path=tmp_path / "day"))
    assert (made.label((2,)), made.label((11,))) == ("im2", "im11")
    assert made.index_of("im11") == (11,)
    paths = run_job(materialize.as_files(made, made.indices(), tmp_path / "images"))
    assert [p.name for p in paths] == [f"im{number}.png" for number in range(12)]
    assert not (tmp_path / "images").exists()


def test_folder_with_another_count_of_images_is_one_stack(tmp_path):
    stack = write_folder(tmp_path / "day")
    made = LayerNames().open(layer(stack[:5], "day", path=tmp_path / "day"))
    assert made.label((2,)) == "day[2]"


def test_two_folders_with_files_of_the_same_names_share_no_prompts(tmp_path):
    names = LayerNames()
    layers = [
        layer(write_folder(tmp_path / day), day, path=tmp_path / day) for day in ("one", "two")
    ]
    assert [names.open(one).label((0,)) for one in layers] == ["im0", "two[0]"]
    assert names.open(layers[0]).label((1,)) == "im1"


def test_file_that_is_opened_again_keeps_its_name_alone_and_in_its_folder(tmp_path):
    stack, names = write_folder(tmp_path / "day"), LayerNames()
    file = tmp_path / "day" / "im3.png"
    assert names.open(layer(stack[3], "im3", path=file)).label(()) == "im3"
    assert names.open(layer(stack[3].copy(), "im3 [1]", path=file)).label(()) == "im3"
    day = names.open(layer(stack, "day", path=tmp_path / "day"))
    assert (day.label((3,)), day.label((4,))) == ("im3", "im4")
    assert names.of(layer(stack.copy(), "day", path=tmp_path / "day")) == day.name


def test_other_pixels_of_the_same_file_have_a_name_of_their_own(tmp_path):
    stack, names = write_folder(tmp_path / "day"), LayerNames()
    file = tmp_path / "day" / "im3.png"
    channels = [layer(stack[i], "im3", path=file) for i in (3, 4)]
    assert [names.of(channel) for channel in channels] == ["im3", "im3 (2)"]
    assert names.of(layer(stack[4].copy(), "im3", path=file)) == "im3 (2)"


# --- references


class Viewer:
    def __init__(self, *layers):
        self.layers = list(layers)


@pytest.fixture
def session(tmp_path, monkeypatch):
    """Over a stack of four 16-bit scenes, as if its slices were shown and clicked."""
    monkeypatch.setattr(
        "napari_samic.gui.data.layer_choice.image_layers", lambda viewer: viewer.layers
    )
    stack = np.stack([scene(i, scale=200)[0] for i in range(4)])
    cells = layer(stack, rgb=True)
    made = Session(Viewer(cells), Inline())
    made.layer, made.pixels = cells, LayerPixels([cells], made.names.of(cells))
    monkeypatch.setattr(jobs, "open_model", lambda _name: iter_of(Discs()))
    made.scheduler.choose_model("tiny")
    yield made
    made.close()


def iter_of(value):
    yield jobs.JobProgress(0, 0)
    return value


def annotate(session, number):
    session.scheduler.show(session.pixels, (number,))
    session.scheduler.prepare()
    session.scheduler.state.add_point(12 + number, 14)
    session.scheduler.state.new_object()
    session.scheduler.state.add_point(32, 40 - number)
    session.runner.settle()


def test_project_and_annotations_are_asked_for(session, tmp_path):
    with pytest.raises(InputError, match="Choose a project folder first"):
        session.images()
    session.ask_project = lambda: session.scheduler.autosaver.begin_project(
        Project.create(tmp_path / "p")
    )
    assert len(run_job(session.images())) == 4
    with pytest.raises(InputError, match="Nothing is annotated yet"):
        session.reference_images()


def test_marked_images_are_the_references_or_all_if_none_is(session, tmp_path):
    session.scheduler.autosaver.begin_project(Project.create(tmp_path / "p"))
    for number in (0, 2, 3):
        annotate(session, number)
    names = [path.name for path in run_job(session.reference_images())[0]]
    assert names == ["cells[0].tif", "cells[2].tif", "cells[3].tif"]
    session.scheduler.show(session.pixels, (2,))
    session.scheduler.state.use_as_reference(True)
    (path,), prompts = run_job(session.reference_images())
    assert path.name == "cells[2].tif"
    stored = load_prompts(prompts)
    assert [image.name for image in stored.images] == ["cells[2]"]


def test_of_a_drawn_mask_there_is_no_doubt_and_no_model_is_asked(session, tmp_path):
    state, pixels = session.scheduler.state, session.pixels
    session.scheduler.show(pixels, (0,))
    state.paint(1, np.indices(pixels.shape)[0] < 5)
    planes, drawing = [pixels.plane((0,))], materialize.Drawing.of(state, None)
    job = materialize.write_drawing(drawing, planes, pixels.normalization(), tmp_path / "kept")
    (row,) = csv.DictReader((run_job(job) / "scores.csv").open())
    assert (float(row["score"]), float(row["image_score"])) == (1, 1)


def test_prompts_of_a_training_are_not_written_to_again(session, tmp_path):
    project = Project.create(tmp_path / "p")
    (project.folder / "references.json").write_text("of an older version")
    session.scheduler.autosaver.begin_project(project)
    annotate(session, 0)
    _, first = run_job(session.reference_images())
    text = first.read_text()
    assert run_job(session.reference_images())[1] == first  # the very same
    annotate(session, 1)
    _, second = run_job(session.reference_images())
    assert [first.name, second.name] == ["references-1.json", "references-2.json"]
    assert first.read_text() == text
    (project.folder / "references-10.json").write_text(text)
    annotate(session, 2)
    assert run_job(session.reference_images())[1].name == "references-11.json"
    assert (project.folder / "references.json").read_text() == "of an older version"


def test_open_images_that_are_not_annotated_are_the_others(session, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="Choose a project folder first"):
        session.other_images()
    session.scheduler.autosaver.begin_project(Project.create(tmp_path / "p"))
    annotate(session, 1)
    session.viewer.layers.append(layer(scene(5)[0], "alone", rgb=True))
    found = run_job(session.other_images()(0))
    assert {path.name for path in found} == {
        "cells[0].tif", "cells[2].tif", "cells[3].tif", "alone.tif",
    }  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(materialize, "OTHERS", 2)
        assert run_job(session.other_images()(0)) == found[:2]
    (session.project.images_folder / "cells[2].tif").write_bytes(b"another image")
    session.pixels.filed.clear()
    assert {path.name for path in run_job(session.other_images()(0))} == {
        "cells[0].tif", "cells[3].tif", "alone.tif",
    }  # fmt: skip


def test_channels_of_the_chosen_image_are_no_other_images(session, tmp_path):
    session.scheduler.autosaver.begin_project(Project.create(tmp_path / "p"))
    red, green = (
        layer(np.stack([scene(i)[0][..., c] for i in range(2)]), n, rgb=False)
        for c, n in enumerate(("red", "green"))
    )
    session.viewer.layers[:] = [red, green]
    session.layer, session.pixels = red, LayerPixels([red, green], "both")
    assert sorted(path.name for path in run_job(session.other_images()(0))) == [
        "both[0].tif", "both[1].tif",
    ]  # fmt: skip


def test_training_takes_what_the_window_annotated(session, tmp_path, toy):
    project = Project.create(tmp_path / "p")
    session.scheduler.autosaver.begin_project(project)
    for number in (0, 1, 3):
        annotate(session, number)
    paths, prompts = run_job(session.reference_images())
    stored = load_prompts(prompts)
    assert all(image.sha256 for image in stored.images)  # so that train checks the pixels
    outcome = napari_samic.train(
        paths, prompts=prompts, out=project.prompter_file, model=toy,
        device="cpu", settings=TrainSettings(epochs=1, views=1), adapt=AdaptSettings(adapt=False),
    )  # fmt: skip
    assert outcome.done == ("cells[0]", "cells[1]", "cells[3]")
    assert not outcome.failures


def test_training_takes_references_of_images_that_were_open_one_by_one(session, tmp_path, toy):
    project = Project.create(tmp_path / "p")
    session.scheduler.autosaver.begin_project(project)
    for number in range(2):  # each was made RGB in its own way
        cells = layer(scene(number, scale=200 - number)[0], f"cells {number}", rgb=True)
        session.viewer.layers.append(cells)
        session.layer, session.pixels = cells, LayerPixels([cells], session.names.of(cells))
        session.scheduler.show(session.pixels, ())
        session.scheduler.prepare()
        session.scheduler.state.add_point(12 + number, 14)
        session.runner.settle()
    paths, prompts = run_job(session.reference_images())
    outcome = napari_samic.train(
        paths, prompts=prompts, out=project.prompter_file,
        model=toy, device="cpu", settings=TrainSettings(epochs=1, views=1),
        adapt=AdaptSettings(adapt=False),
    )  # fmt: skip
    assert outcome.done == ("cells 0", "cells 1")


def test_reference_whose_layer_was_closed_is_found_in_the_project_or_asked_for(session, tmp_path):
    project = Project.create(tmp_path / "p")
    session.scheduler.autosaver.begin_project(project)
    annotate(session, 1)
    paths, _ = run_job(session.reference_images())
    session.viewer.layers.clear()
    session.layer = session.pixels = None
    assert run_job(session.reference_images())[0] == paths
    paths[0].unlink()
    with pytest.raises(InputError, match=r"cells\[1\]: annotated, but not open in napari"):
        run_job(session.reference_images())

"""A project's images, brought back: as they were, by our own reader, from where the user allows."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from napari_samic.core.errors import InputError
from napari_samic.gui.data import layer_choice, provenance, trusted_files
from napari_samic.gui.data.layer_pixels import CHANNEL, FILE, FILES, LayerNames
from napari_samic.gui.data.lazy_layers import lazy_layers
from napari_samic.gui.data.project import Project
from napari_samic.io.images import open_images

SHAPE = (20, 30)


class Layer(SimpleNamespace):
    __eq__ = object.__eq__


class Viewer:
    """Takes images as arrays; whatever else it is asked for is told in `asked`."""

    def __init__(self):
        self.layers, self.asked = [], []

    def add_image(self, data, name, rgb=None, metadata=None):
        levels = isinstance(data, list)
        first = data[0] if levels else data
        rgb = (first.ndim > 2 and first.shape[-1] in (3, 4)) if rgb is None else rgb
        self.layers.append(Layer(
            data=data, name=name, rgb=rgb, metadata=metadata or {}, multiscale=levels,
            source=SimpleNamespace(path=None, sample=None), ndim=first.ndim - rgb,
        ))  # fmt: skip

    def open_sample(self, plugin, key):
        self.asked.append((plugin, key))
        self.add_image(np.zeros(SHAPE), "sample")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(layer_choice, "image_layers", lambda viewer: viewer.layers)


@pytest.fixture
def project(tmp_path):
    return Project.create(tmp_path / "project")


def image(path, shape=SHAPE, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.arange(np.prod(shape)).reshape(shape).astype(np.uint16), **how)
    return path


def note(path="", name="a", files=(), **more):
    files = [str(one) for one in files]
    return {"name": name, "path": str(path), "reader": "evil", "sample": [], "files": files} | more


def back(project, *notes, answer=False):
    """What is opened, what is asked for, and what is told."""
    viewer, asked, told = Viewer(), [], ""
    project.notes["annotate"] = {"images": list(notes), "image": "a"}
    try:
        provenance.bring_back(
            viewer, LayerNames(), project, lambda files: asked.extend(files) or answer
        )
    except InputError as error:
        told = str(error)
    return viewer, asked, told


def test_image_in_the_project_is_opened_unasked(project):
    path = image(project.folder / "images" / "a.tif")
    viewer, asked, told = back(project, note(path))
    assert (len(viewer.layers), asked, told) == (1, [], "")
    assert viewer.layers[0].data.shape == SHAPE


def test_image_beside_one_that_the_user_opened_is_opened_unasked(project, tmp_path):
    path = image(tmp_path / "data" / "a.tif")
    trusted_files.remember([tmp_path / "data" / "other.tif"])
    viewer, asked, _ = back(project, note(path))
    assert (len(viewer.layers), asked) == (1, [])


def test_image_elsewhere_is_asked_for_with_its_path(project, tmp_path):
    path = image(tmp_path / "data" / "a.tif")
    viewer, asked, told = back(project, note(path), answer=False)
    assert (viewer.layers, asked) == ([], [path])
    assert f"a: {path} was not opened" in told
    viewer, asked, told = back(project, note(path), answer=True)
    assert (len(viewer.layers), asked, told) == (1, [path], "")
    viewer, asked, _ = back(project, note(path), answer=False)
    assert (len(viewer.layers), asked) == (1, [])  # not asked again


def test_folder_below_one_that_was_opened_is_another(project, tmp_path):
    trusted_files.remember([tmp_path / "a.tif"])
    _, asked, _ = back(project, note(path := image(tmp_path / "private" / "a.tif")))
    assert asked == [path]


@pytest.mark.parametrize("way", ["link", "dots"])
def test_way_out_of_the_project_is_asked_for(project, tmp_path, way):
    image(tmp_path / "private" / "a.tif")
    path = project.folder / ".." / "private" / "a.tif"
    if way == "link":
        path = project.folder / "a.tif"
        path.symlink_to(tmp_path / "private" / "a.tif")
    viewer, asked, _ = back(project, note(path))
    assert (viewer.layers, asked) == ([], [path])


@pytest.mark.parametrize("name", ["a.py", "a.ipynb", "a.npy", "a.csv", "a", "a.czi", "a.webp"])
def test_file_that_is_no_image_of_ours_is_opened_by_nobody(project, name):
    path = project.folder / name
    path.write_text(f"open({str(project.folder / 'was_run')!r}, 'w')")
    viewer, _, told = back(project, note(path), answer=True)
    assert viewer.layers == []
    assert f"a: {name} is there" in told
    assert not (project.folder / "was_run").exists()


def test_image_that_is_gone_or_may_not_be_looked_at_is_not_said_to_be_there(project, tmp_path):
    (tmp_path / "a.webp").touch()
    assert "was not opened" in back(project, note(tmp_path / "a.webp"))[2]
    assert "a: not where it was" in back(project, note(project.folder / "a.webp"))[2]


@pytest.mark.parametrize(
    ("sample", "opened"),
    [
        pytest.param(["napari-samic", "scenes"], True, id="ours"),
        pytest.param(["evil", "scenes"], False, id="of_another"),
        pytest.param(["napari-samic", "evil"], False, id="unknown"),
        pytest.param(["napari-samic", "kvasir"], False, id="would_be_fetched"),
        pytest.param(["napari-samic"], False, id="half"),
    ],
)
def test_samples_are_ours_only(project, sample, opened):
    viewer, _, _ = back(project, note(sample=sample), answer=True)
    assert (viewer.asked == [tuple(sample)]) == opened


@pytest.mark.parametrize(
    "odd",
    [
        3,
        {"name": ["a"]},
        note(name=None),
        note("a\0b.tif"),
        {**note(), "path": ["a"]},
        {**note(), "files": [3]},
        {**note(), "files": "abc"},
        {**note(), "sample": {"a": 1}},
        {**note(), "sample": [["a"], 1]},
    ],
)
def test_odd_notes_open_nothing_and_do_no_harm(project, odd):
    viewer, _, _ = back(project, odd, answer=True)
    assert (viewer.layers, viewer.asked) == ([], [])


@pytest.mark.parametrize(
    ("shape", "how"),
    [
        pytest.param(SHAPE, {}, id="flat"),
        pytest.param((4, *SHAPE), {}, id="stack"),
        pytest.param((2, 4, *SHAPE), {}, id="stacks"),
        pytest.param((*SHAPE, 3), {"photometric": "rgb"}, id="colour"),
        pytest.param((5, *SHAPE, 3), {"photometric": "rgb"}, id="colour_stack"),
        pytest.param((2, *SHAPE), {"imagej": True, "metadata": {"axes": "CYX"}}, id="channels"),
    ],
)
def test_tiff_has_the_axes_that_napari_gives_it(project, shape, how):
    path = image(project.folder / "a.tif", shape, **how)
    viewer, _, told = back(project, note(path, shape=list(shape)))
    assert told == ""
    (layer,) = viewer.layers
    np.testing.assert_array_equal(np.asarray(layer.data), tifffile.imread(path))
    assert layer.metadata[FILE] == str(path)


def test_channel_of_a_stack_comes_back(project):
    path = image(project.folder / "a.tif", (4, 2, *SHAPE), metadata={"axes": "ZCYX"})
    noted = note(path, "a channel 1", shape=[4, *SHAPE], channel=[1, 1])
    viewer, _, told = back(project, noted)
    assert told == ""
    (layer,) = viewer.layers
    np.testing.assert_array_equal(np.asarray(layer.data), tifffile.imread(path)[:, 1])
    assert tuple(layer.metadata[CHANNEL]) == (1, 1)


def test_channel_that_was_opened_lazily_comes_back(project):
    path = image(project.folder / "a.tif", (4, 2, *SHAPE), ome=True, metadata={"axes": "ZCYX"})
    ((_, options, _),) = lazy_layers(path)
    opened = Viewer()
    for number, name in enumerate(options["name"]):
        data = tifffile.imread(path)[:, number]
        opened.add_image(data, name, rgb=False, metadata=options["metadata"][number])
    provenance.note_images(project.notes, opened.layers, opened.layers[1])
    again = Viewer()
    chosen = provenance.bring_back(again, LayerNames(), project, lambda _files: True)
    assert [layer.name for layer in again.layers] == ["a channel 0", "a channel 1"]
    np.testing.assert_array_equal(np.asarray(chosen.data), tifffile.imread(path)[:, 1])


def odd_tiff(path, how):
    """A stack whose stored numbers are not what is shown."""
    values = np.arange(4 * 600, dtype=np.uint16).reshape(4, *SHAPE).astype(np.uint8)
    tifffile.imwrite(path, values, **how)
    return path, values


ODD = [
    pytest.param({"photometric": "miniswhite"}, id="white"),
    pytest.param(
        {"photometric": "palette", "colormap": np.arange(768).reshape(3, 256).astype("u2") * 85},
        id="palette",
    ),
    pytest.param(
        {"photometric": "minisblack", "extratags": [(274, 3, 1, 6, True)]}, id="turned"
    ),
]  # fmt: skip


@pytest.mark.parametrize("how", ODD)
def test_stack_that_our_reader_finishes_is_finished_plane_by_plane(project, how):
    path, _ = odd_tiff(project.folder / "a.tif", how)
    shown = np.stack([plane.read() for plane in open_images(path)])
    viewer, _, told = back(project, note(path, shape=list(shown.shape)))
    assert told == ""
    np.testing.assert_array_equal(np.asarray(viewer.layers[0].data), shown)


def test_stack_that_our_reader_of_folders_opened_comes_back_as_a_stack(project):
    path, values = odd_tiff(project.folder / "a.tif", {"photometric": "minisblack"})
    ((data, options, _),) = lazy_layers(project.folder)
    viewer = Viewer()
    viewer.add_image(data, options["name"], metadata=options["metadata"])
    viewer.layers[0].source = SimpleNamespace(path=str(project.folder), sample=None)
    notes = {}
    provenance.note_images(notes, viewer.layers, None)
    again, _, told = back(project, *notes["annotate"]["images"])
    assert told == ""
    np.testing.assert_array_equal(np.asarray(again.layers[0].data), values)
    assert again.layers[0].metadata == {FILES: [str(path)]}


@pytest.mark.parametrize("how", ODD)
def test_stack_that_napari_read_comes_back_in_its_stored_numbers(project, how):
    path, values = odd_tiff(project.folder / "a.tif", how)
    viewer = Viewer()
    viewer.add_image(values, "a")
    viewer.layers[0].source = SimpleNamespace(path=str(path), sample=None)
    for _ in range(2):  # also where it was brought back before
        notes = {}
        provenance.note_images(notes, viewer.layers, None)
        viewer, _, told = back(project, *notes["annotate"]["images"])
        assert told == ""
        np.testing.assert_array_equal(np.asarray(viewer.layers[0].data), values)


def test_older_note_of_stored_numbers_is_known_by_its_shape(project):
    path, values = odd_tiff(project.folder / "a.tif", ODD[1].values[0])
    viewer, _, _ = back(project, note(path, shape=list(values.shape)))
    np.testing.assert_array_equal(np.asarray(viewer.layers[0].data), values)


def test_image_of_another_shape_than_it_had_is_told(project):
    path = image(project.folder / "a.tif")
    viewer, _, told = back(project, note(path, shape=[4, *SHAPE]))
    assert viewer.layers == []
    assert told.startswith("a: ")


def test_what_is_noted_of_an_image_of_ours_brings_it_back(project):
    paths = [image(project.folder / f"{name}.tif") for name in "ab"]
    viewer, _, _ = back(project, note(paths[0]), note(name="both", files=paths))
    notes = {}
    provenance.note_images(notes, viewer.layers, viewer.layers[1])
    assert json.loads(json.dumps(notes)) == notes
    again, _, _ = back(project, *notes["annotate"]["images"])
    assert [layer.name for layer in again.layers] == ["a", "both"]
    assert again.layers[1].metadata[FILES] == [str(path) for path in paths]
    assert provenance.files_of(again.layers[0]) == paths[:1]


def test_slices_that_a_job_wrote_stand_in_for_what_is_gone(project):
    for number in range(2):
        image(project.images_folder / f"a[{number}].tif")
    viewer, _, told = back(project, note(project.folder / "gone.tif"))
    assert told == ""
    assert viewer.layers[0].data.shape == (2, *SHAPE)


def test_list_of_folders_is_read_once_for_many_images(project, tmp_path, monkeypatch):
    paths = [image(tmp_path / "data" / f"{n}.tif") for n in range(5)]
    trusted_files.remember(paths[:1])
    read, known = [], trusted_files.read_json
    monkeypatch.setattr(trusted_files, "read_json", lambda *given: read.append(1) or known(*given))
    viewer, _, _ = back(project, *(note(path, path.stem) for path in paths))
    assert len(viewer.layers) == 5
    assert len(read) <= 2  # to know, and to note


def test_spelling_that_a_disk_takes_for_the_same_is_the_same_folder(tmp_path, monkeypatch):
    trusted_files.remember([tmp_path / "Data" / "a.tif"])
    assert not trusted_files.allows(tmp_path / "data" / "b.tif", None)
    assert not trusted_files.allows(tmp_path / "data" / "b.tif", tmp_path / "DATA")
    monkeypatch.setattr("os.path.normcase", lambda path: str(path).lower())
    assert trusted_files.allows(tmp_path / "data" / "b.tif", None)
    trusted_files.file().unlink()
    assert trusted_files.allows(tmp_path / "data" / "b.tif", tmp_path / "DATA")


def test_damaged_list_of_folders_is_an_empty_one(project, tmp_path):
    trusted_files.remember([tmp_path / "a.tif"])
    assert trusted_files.folders() == [str(tmp_path)]
    trusted_files.file().write_text("{")
    assert trusted_files.folders() == []
    trusted_files.file().write_text('{"a": 1}')
    assert trusted_files.folders() == []


def test_oldest_folders_are_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(trusted_files, "MOST", 2)
    for name in "abc":
        trusted_files.remember([tmp_path / name / "x.tif"])
    assert trusted_files.folders() == [str(tmp_path / "b"), str(tmp_path / "c")]


def test_a_large_image_comes_back_as_it_was_opened(project, monkeypatch):
    monkeypatch.setattr("napari_samic.core.types.LARGE_PX", 100)
    path, values = project.folder / "a.tif", np.arange(600, dtype=np.uint8).reshape(20, 30)
    tifffile.imwrite(path, values, tile=(16, 16), photometric="minisblack")
    ((data, options, _),) = lazy_layers(project.folder)
    viewer = Viewer()
    viewer.add_image(data, options["name"], options["rgb"], options["metadata"])
    notes = {}
    provenance.note_images(notes, viewer.layers, None)
    again, _, told = back(project, *notes["annotate"]["images"])
    assert told == ""
    assert isinstance(again.layers[0].data, list)
    np.testing.assert_array_equal(np.asarray(again.layers[0].data[0]), values)

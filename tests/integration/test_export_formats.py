"""Label images to what other tools read, and back: the same labels."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image as PillowImage
from roifile import ROI_TYPE, ImagejRoi, roiread
from skimage.draw import polygon2mask
from skimage.measure import regionprops
from toys import hidden_files

from napari_samic.core.errors import FormatError, InputError, OutputError
from napari_samic.core.label_objects import LabelObjects, ObjectRecord
from napari_samic.export.coco import coco_tree
from napari_samic.export.geojson import geojson_tree
from napari_samic.export.imagej_roi import imagej_rois, write_roi_set
from napari_samic.export.label_png import write_label_png
from napari_samic.export.ome_zarr import write_ome_zarr
from napari_samic.export.polygons import polygons, signed_area
from napari_samic.export.regionprops import COLUMNS, INTENSITIES, measurements, table_columns
from napari_samic.io.images import open_images
from napari_samic.io.masks import read_labels
from napari_samic.io.outlines import decode, rle
from napari_samic.io.writers import write_csv

RNG = np.random.default_rng(3)


def picture(mask: list[str]) -> np.ndarray:
    return np.array([[c == "#" for c in row] for row in mask])


SHAPES = [
    pytest.param(picture(["#"]), id="one_pixel"),
    pytest.param(picture(["####"]), id="a_row"),
    pytest.param(picture(["###", "#.#", "###"]), id="hole"),
    pytest.param(picture(["##.", "#.#", "###"]), id="hole_that_touches_the_outside"),
    pytest.param(picture(["#.", ".#"]), id="two_parts_that_touch"),
    pytest.param(picture(["#.#", "...", "##."]), id="parts"),
    pytest.param(picture(["#####", "#.#.#", "##.##", "#.#.#", "#####"]), id="holes_that_touch"),
    pytest.param(picture(["#####", "#...#", "#.#.#", "#...#", "#####"]), id="island_in_a_hole"),
    pytest.param(RNG.random((20, 17)) < 0.6, id="noise"),
    pytest.param(np.zeros((3, 4), bool), id="nothing"),
]


def drawn(rings: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre is inside: even-odd, as every reader of polygons with holes does."""
    out = np.zeros(shape, bool)
    for ring in rings:
        out ^= polygon2mask(shape, np.asarray(ring, float)[:, ::-1] - 0.5)
    return out


@pytest.mark.parametrize("mask", SHAPES)
def test_outline_drawn_again_is_the_mask(mask: np.ndarray) -> None:
    parts = [drawn(rings, mask.shape) for rings in polygons(mask)]
    np.testing.assert_array_equal(np.sum([np.zeros(mask.shape), *parts], axis=0), mask)


@pytest.mark.parametrize("mask", SHAPES)
def test_rings_are_simple_and_run_the_right_way(mask: np.ndarray) -> None:
    for rings in polygons(mask):
        assert [signed_area(ring) > 0 for ring in rings] == [True] + [False] * (len(rings) - 1)
        for ring in rings:
            assert len({tuple(p) for p in ring}) == len(ring)
            bends = np.diff(np.vstack([ring, ring[:1]]), axis=0)
            assert all((bends == 0).sum(1) == 1)  # along the edges of pixels
    assert sum(signed_area(r) for rings in polygons(mask) for r in rings) == mask.sum()


@pytest.mark.parametrize("mask", SHAPES)
def test_runs_decoded_are_the_mask(mask: np.ndarray) -> None:
    found = json.loads(json.dumps(rle(mask)))
    np.testing.assert_array_equal(decode(found), mask)


def test_runs_go_down_the_columns_and_begin_with_the_ground() -> None:
    mask = picture(["#..", "##."])
    assert rle(mask) == {"counts": [0, 2, 1, 1, 2], "size": [2, 3]}


def test_runs_that_do_not_fill_the_image_are_refused() -> None:
    with pytest.raises(FormatError, match="runs for 3 pixels, expected 4"):
        decode({"counts": [1, 2], "size": [2, 2]})


def labelled(**changes: Any) -> LabelObjects:
    labels = np.zeros((24, 31), np.int32)
    labels[2:9, 3:12] = 1
    labels[4:6, 5:8] = 0
    labels[15:20, 20:31] = 3
    labels[11:13, 1:3] = labels[13:15, 3:5] = 7
    about = {1: ObjectRecord(2, 0.75), 3: ObjectRecord(1, 0.5)}
    values = {"file_name": "a.png", "about": about, "classes": {2: "polyp"}} | changes
    return LabelObjects("a", labels, **values)


def from_coco(tree: dict[str, Any], image: int = 1) -> np.ndarray:
    (size,) = [(i["height"], i["width"]) for i in tree["images"] if i["id"] == image]
    out = np.zeros(size, np.int32)
    for one in tree["annotations"]:
        if one["image_id"] == image:
            out[decode(one["segmentation"])] = one["label"]
    return out


def test_coco_gives_the_labels_back() -> None:
    image = labelled()
    np.testing.assert_array_equal(from_coco(coco_tree([image])), image.labels)


def test_coco_has_what_its_format_asks_for() -> None:
    tree = coco_tree([labelled(), labelled()])
    assert set(tree) == {"info", "licenses", "images", "annotations", "categories"}
    first = tree["images"][0]
    assert {k: first[k] for k in ("id", "width", "height", "file_name")} == {
        "id": 1, "width": 31, "height": 24, "file_name": "a.png"}  # fmt: skip
    assert [(c["id"], c["name"]) for c in tree["categories"]] == [(1, "class 1"), (2, "polyp")]
    assert [a["id"] for a in tree["annotations"]] == [1, 2, 3, 4, 5, 6]
    one = tree["annotations"][0]
    assert (one["image_id"], one["category_id"], one["iscrowd"]) == (1, 2, 0)
    assert (one["bbox"], one["area"], one["score"]) == ([3, 2, 9, 7], 57, 0.75)
    assert "score" not in tree["annotations"][2]


def test_coco_polygons_cover_their_objects_but_for_holes() -> None:
    image = labelled()
    for one in coco_tree([image], masks="polygons")["annotations"]:
        rings = [np.reshape(flat, (-1, 2)) for flat in one["segmentation"]]
        filled = image.labels == one["label"]
        if one["label"] == 1:
            filled[4:6, 5:8] = True
        np.testing.assert_array_equal(drawn(rings, filled.shape), filled)


def test_coco_of_classes_is_of_crowds() -> None:
    tree = coco_tree([labelled(numbered=False, about={}, classes={3: "tool"})], masks="polygons")
    assert [(a["category_id"], a["iscrowd"]) for a in tree["annotations"]] == [
        (1, 1), (3, 1), (7, 1)]  # fmt: skip
    assert all(isinstance(a["segmentation"], dict) for a in tree["annotations"])


def from_geojson(tree: dict[str, Any]) -> np.ndarray:
    out = np.zeros((tree["image"]["height"], tree["image"]["width"]), np.int32)
    for feature in tree["features"]:
        kind, places = feature["geometry"]["type"], feature["geometry"]["coordinates"]
        for rings in places if kind == "MultiPolygon" else [places]:
            assert all(ring[0] == ring[-1] and len(ring) >= 4 for ring in rings)
            out[drawn([np.array(ring) for ring in rings], out.shape)] = feature["id"]
    return out


def test_geojson_gives_the_labels_back() -> None:
    image = labelled()
    found = from_geojson(json.loads(json.dumps(geojson_tree(image))))
    np.testing.assert_array_equal(found, image.labels)


def test_geojson_says_class_score_and_frame() -> None:
    tree = geojson_tree(labelled())
    assert tree["type"] == "FeatureCollection"
    assert "(0.5, 0.5)" in tree["frame"]
    first, *_, last = tree["features"]
    for_qupath = {"objectType": "annotation", "classification": {"name": "polyp"}}
    own = {"id": 1, "class": 2, "class_name": "polyp", "score": 0.75}
    assert first["properties"] == own | for_qupath
    own = {"id": 7, "class": 1, "class_name": "class 1", "score": None}
    assert last["properties"] == own | for_qupath | {"classification": {"name": "class 1"}}
    assert [f["geometry"]["type"] for f in tree["features"]] == [
        "Polygon", "Polygon", "MultiPolygon"]  # fmt: skip


def from_rois(rois: list[ImagejRoi], shape: tuple[int, int]) -> np.ndarray:
    out = np.zeros(shape, np.int32)
    for roi in rois:
        out[drawn(roi.coordinates(multi=True), shape)] = int(roi.name.rpartition("-")[2])
    return out


@pytest.mark.parametrize("mask", SHAPES)
def test_rois_read_and_drawn_again_are_the_labels(mask: np.ndarray, tmp_path: Path) -> None:
    labels = np.pad(mask, ((70, 5), (130, 2))) * np.int32(9)
    write_roi_set(tmp_path / "a.roi.zip", imagej_rois(LabelObjects("a", labels)))
    with zipfile.ZipFile(tmp_path / "a.roi.zip") as file:
        rois = [ImagejRoi.frombytes(file.read(name)) for name in file.namelist()]
    np.testing.assert_array_equal(from_rois(rois, labels.shape), labels)
    for roi in rois:
        rows, columns = np.nonzero(labels)
        box = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
        assert (roi.top, roi.left, roi.bottom, roi.right) == box


def test_outline_of_one_ring_has_whole_numbers_and_others_are_composites() -> None:
    hole, plain, parts = imagej_rois(labelled())
    assert (hole.composite, plain.composite, parts.composite) == (True, False, True)
    assert (plain.roitype, plain.subpixelresolution) == (ROI_TYPE.TRACED, False)


def test_rois_lie_right_where_16_bits_end(tmp_path: Path) -> None:
    labels = np.zeros((3, 70_000), np.int32)
    labels[:2, 66_000:66_004], labels[1, 40_000:40_003] = 1, 2
    write_roi_set(tmp_path / "a.zip", imagej_rois(LabelObjects("a", labels)))
    np.testing.assert_array_equal(from_rois(roiread(tmp_path / "a.zip"), labels.shape), labels)


def test_rois_say_class_and_place_in_a_stack(tmp_path: Path) -> None:
    image = labelled(classes={2: "a/b"}, about={1: ObjectRecord(2), 3: ObjectRecord(300)})
    lone = list(imagej_rois(image))
    assert [roi.name for roi in lone] == ["a_b-1", "class 300-3", "class 1-7"]
    assert [roi.group for roi in lone] == [2, 0, 1]
    assert {roi.position for roi in lone} == {0}
    stack = {"index": (2, 1), "stack_shape": (5, 4)}
    write_roi_set(tmp_path / "a.zip", imagej_rois(image, **stack, stack_axes="TZ"))
    first = roiread(tmp_path / "a.zip")[0]
    places = (first.position, first.c_position, first.z_position, first.t_position)
    assert (first.name, *places) == ("0010-a_b-1", 10, 0, 2, 3)
    other = next(imagej_rois(image, **stack))
    assert (other.position, other.z_position, other.t_position) == (10, 0, 0)
    channels = next(imagej_rois(image, **stack, stack_axes="CZ"))
    assert channels.position == 1 * 5 + 2 + 1


def test_measurements_are_those_of_the_objects() -> None:
    first, second, third = measurements(labelled())
    assert tuple(first) == COLUMNS
    assert [first[k] for k in ("image", "object", "class_name", "score")] == ["a", 1, "polyp", 0.75]
    assert (second["area_px"], second["area"], second["unit"]) == (55, 55.0, "px")
    assert (second["row"], second["column"]) == (17.0, 25.0)
    assert [second[f"{a}_{e}"] for a in ("row", "column") for e in ("first", "last")] == [
        15, 19, 20, 30]  # fmt: skip
    assert third["score"] is None


@pytest.mark.parametrize(
    ("name", "plane"),
    [
        pytest.param("worms[11]", "11", id="stack"),
        pytest.param("worms[2][0]", "2 0", id="two_axes"),
        pytest.param("worms[s1]", "", id="series"),
        pytest.param("worms", "", id="image"),
    ],
)
def test_measurements_say_the_place_in_a_stack(name: str, plane: str) -> None:
    (row,) = measurements(LabelObjects(name, np.ones((3, 3), np.int32)))
    assert row["plane"] == plane


def test_measurements_know_the_size_of_a_pixel() -> None:
    second = measurements(labelled(), spacing=(2.0, 0.5), unit="micrometer")[1]
    assert (second["area_px"], second["area"], second["unit"]) == (55, 55.0, "micrometer")
    square = measurements(labelled(), spacing=(3.0, 3.0))[1]
    assert (square["area"], square["perimeter"]) == (495.0, 84.0)
    assert "perimeter" not in second
    assert (second["row"], second["column"]) == (17.0, 25.0)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_intensities_are_those_of_scikit_image(channels: tuple[int, ...]) -> None:
    image = labelled()
    pixels = np.random.default_rng(0).integers(0, 60_000, (*image.labels.shape, *channels), "u2")
    rows = measurements(image, pixels=pixels)
    for row, region in zip(rows, regionprops(image.labels, pixels), strict=True):
        for name in INTENSITIES:
            values = np.atleast_1d(getattr(region, name))
            names = [f"{name}-{i}" for i in range(3)] if channels else [name]
            np.testing.assert_allclose([row[n] for n in names], values, rtol=1e-6)
    assert table_columns(rows)[: len(COLUMNS)] == list(COLUMNS)


def test_table_of_an_empty_image_has_its_head(tmp_path: Path) -> None:
    rows = measurements(LabelObjects("a", np.zeros((4, 5), np.int32)))
    write_csv(tmp_path / "m.csv", rows, columns=COLUMNS)
    assert list(csv.reader((tmp_path / "m.csv").open())) == [list(COLUMNS)]


PNGS = [
    pytest.param([0, 1, 2], "P", id="indexed"),
    pytest.param([0, 254], "P", id="last_index"),
    pytest.param([0, 255], "I;16", id="white_of_8_bits"),
    pytest.param([0, 65534], "I;16", id="last"),
    pytest.param([0], "P", id="empty"),
    pytest.param([1, 300], "I;16", id="sixteen_bits"),
]


@pytest.mark.parametrize(("values", "mode"), PNGS)
def test_png_gives_the_labels_back(tmp_path: Path, values: list[int], mode: str) -> None:
    labels = np.resize(np.array(values, np.int32), (5, 7))
    write_label_png(tmp_path / "a.png", labels)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), labels)
    with PillowImage.open(tmp_path / "a.png") as found:
        assert found.mode == mode


def test_png_is_coloured_on_black(tmp_path: Path) -> None:
    write_label_png(tmp_path / "a.png", np.array([[0, 1], [2, 2]]))
    colours = np.array(PillowImage.open(tmp_path / "a.png").convert("RGB"))
    assert colours[0, 0].tolist() == [0, 0, 0]
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) == 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        pytest.param(np.array([[65535]]), "PNG holds 0 to 65534. Use TIFF", id="too_many"),
        pytest.param(np.array([[-1]]), "labels from -1", id="negative"),
        pytest.param(np.ones((2, 2, 2), int), "expected whole numbers \\(H, W\\)", id="stack"),
        pytest.param(np.ones((2, 2)), "expected whole numbers", id="fractions"),
    ],
)
def test_png_refuses_what_it_can_not_hold(tmp_path: Path, labels: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_label_png(tmp_path / "a.png", labels)
    assert not list(tmp_path.iterdir())


def test_ome_zarr_gives_the_labels_back(tmp_path: Path) -> None:
    image = labelled()
    write_ome_zarr(tmp_path / "a.ome.zarr", [image])
    (plane,) = open_images(tmp_path / "a.ome.zarr")
    np.testing.assert_array_equal(plane.read(), image.labels)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.ome.zarr"), image.labels)
    assert not hidden_files(tmp_path)


def test_ome_zarr_of_a_stack_has_its_axes(tmp_path: Path) -> None:
    planes = [LabelObjects(f"s[{t}][{z}]", np.full((4, 5), 10 * t + z, np.int32))
              for t in range(2) for z in range(3)]  # fmt: skip
    write_ome_zarr(tmp_path / "s.zarr", planes, (2, 3), spacing=(0.5, 0.25), unit="micrometer")
    found = open_images(tmp_path / "s.zarr")
    assert [p.stack_shape for p in found] == [(2, 3)] * 6
    assert [int(p.read().max()) for p in found] == [0, 1, 2, 10, 11, 12]
    (scales,) = zarr.open_group(tmp_path / "s.zarr").attrs["ome"]["multiscales"]
    assert [a["name"] for a in scales["axes"]] == ["t", "z", "y", "x"]
    assert scales["axes"][3] == {"name": "x", "type": "space", "unit": "micrometer"}
    assert scales["name"] == "s"
    assert scales["datasets"][0]["coordinateTransformations"] == [
        {"type": "scale", "scale": [1.0, 1.0, 0.5, 0.25]}]  # fmt: skip


@pytest.mark.parametrize(
    ("label", "name"),
    [pytest.param("s[{}]", "s", id="stack"), pytest.param("s[s0][{}]", "s[s0]", id="series")],
)
def test_ome_zarr_is_called_as_its_image(tmp_path: Path, label: str, name: str) -> None:
    planes = [LabelObjects(label.format(z), np.ones((4, 5), np.int32)) for z in range(2)]
    write_ome_zarr(tmp_path / "s.zarr", planes, (2,))
    (scales,) = zarr.open_group(tmp_path / "s.zarr").attrs["ome"]["multiscales"]
    assert scales["name"] == name


def test_ome_zarr_has_what_its_format_asks_for(tmp_path: Path) -> None:
    write_ome_zarr(tmp_path / "a.zarr", [labelled()])
    group = zarr.open_group(tmp_path / "a.zarr")
    ome = group.attrs["ome"]
    assert (ome["version"], group.metadata.zarr_format) == ("0.5", 3)
    assert group["0"].dtype == np.int32  # whole numbers only
    assert group["0"].metadata.dimension_names == ("y", "x")
    colours = ome["image-label"]["colors"]
    assert [c["label-value"] for c in colours] == [1, 3, 7]
    assert all(len(c["rgba"]) == 4 and max(c["rgba"]) <= 255 for c in colours)
    assert ome["image-label"]["properties"][0] == {
        "label-value": 1, "class": "polyp", "score": 0.75}  # fmt: skip


def test_ome_zarr_keeps_what_is_there_unless_overwriting_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write_ome_zarr(path, [labelled()])
    blank = LabelObjects("a", np.zeros((3, 4), np.int32))
    with pytest.raises(OutputError, match="exists already"):
        write_ome_zarr(path, [blank])
    assert read_labels(path).max() == 7
    write_ome_zarr(path, [blank], overwrite=True)
    assert read_labels(path).shape == (3, 4)
    (tmp_path / "mine").mkdir()
    with pytest.raises(OutputError, match="it is no zarr folder"):
        write_ome_zarr(tmp_path / "mine", [blank], overwrite=True)
    assert not hidden_files(tmp_path)


def test_ome_zarr_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ome_zarr(tmp_path / "a.zarr", [labelled()])
    monkeypatch.setattr("napari_samic.export.ome_zarr._describe", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_ome_zarr(tmp_path / "a.zarr", [labelled(about={})], overwrite=True)
    assert read_labels(tmp_path / "a.zarr").max() == 7
    assert not hidden_files(tmp_path)


def test_ome_zarr_refuses_six_axes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="6 axes, OME-Zarr has five at most"):
        write_ome_zarr(tmp_path / "a.zarr", [labelled()], (1, 1, 1, 1))

"""Outlines of COCO and GeoJSON to masks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.draw import polygon2mask

from napari_samic.core.errors import FormatError, InputError
from napari_samic.core.label_objects import LabelObjects, ObjectRecord
from napari_samic.core.types import CroppedMask
from napari_samic.export.coco import coco_tree
from napari_samic.export.geojson import geojson_tree
from napari_samic.io.outlines import (
    mask_of,
    numbers_of_classes,
    objects_of,
    packed,
    polygon,
    read_outlines,
    rle,
    runs,
    unpacked,
)

RNG = np.random.default_rng(0)


def pack(counts: list[int]) -> str:
    """COCO's packed text, written from the format's description."""
    letters = []
    for n, count in enumerate(counts):
        value = count - counts[n - 2] if n > 2 else count
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != -1 if bits & 16 else value != 0
            letters.append(chr((bits | 32 if more else bits) + 48))
    return "".join(letters)


def test_square_on_whole_coordinates_covers_its_pixels_only() -> None:
    found = polygon([2, 3, 6, 3, 6, 5, 2, 5], (8, 9))
    expected = np.zeros((8, 9), bool)
    expected[3:5, 2:6] = True
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("seed", range(5))
def test_polygon_is_that_of_scikit_image(seed: int) -> None:
    corners_xy = np.random.default_rng(seed).uniform(-3, 35, (7, 2))
    found = polygon(corners_xy.ravel().tolist(), (30, 28))
    expected = polygon2mask((30, 28), corners_xy[:, ::-1] - 0.5)
    np.testing.assert_array_equal(found, expected)
    assert found.any()


@pytest.mark.parametrize("seed", range(5))
def test_packed_runs_are_unpacked(seed: int) -> None:
    counts = np.random.default_rng(seed).integers(0, 70_000, 40).tolist()
    assert runs(pack(counts)) == counts


@pytest.mark.parametrize("packed", [False, True])
def test_run_lengths_give_the_mask(packed: bool) -> None:
    mask = RNG.random((11, 7)) > 0.6
    stored: dict[str, Any] = rle(mask)
    if packed:
        stored = {**stored, "counts": pack(stored["counts"])}
    np.testing.assert_array_equal(mask_of(stored, (11, 7)), mask)


def test_polygons_of_one_object_are_joined() -> None:
    found = mask_of([[0, 0, 4, 0, 4, 4, 0, 4], [2, 2, 6, 2, 6, 6, 2, 6]], (8, 8))
    assert found.sum() == 16 + 16 - 4


def test_later_objects_lie_on_top() -> None:
    found = objects_of([[[0, 0, 4, 0, 4, 4, 0, 4]], [[2, 2, 6, 2, 6, 6, 2, 6]]], (8, 8))
    assert (found[0, 0], found[3, 3], found[7, 7]) == (1, 2, 0)
    assert found.dtype == np.int32


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        pytest.param([[0, 0, 1, 1]], "polygon of 4 numbers", id="two_corners"),
        pytest.param([[0, 0, 1, 1, 2, 2, 3]], "polygon of 7 numbers", id="odd"),
        pytest.param({"counts": [64], "size": [8, 7]}, r"for \(8, 7\)", id="size"),
        pytest.param({"counts": [60], "size": [8, 8]}, "60 pixels", id="runs"),
        pytest.param({"counts": "P", "size": [8, 8]}, "end within", id="cut"),
        pytest.param({"counts": "1 3", "size": [8, 8]}, "letter ' '", id="letter"),
        pytest.param(3, "is a int", id="kind"),
    ],
)
def test_damaged_outlines_are_refused(stored: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        mask_of(stored, (8, 8))


@pytest.mark.parametrize("seed", range(3))
def test_mask_that_is_packed_is_that_of_coco_and_comes_back(seed: int) -> None:
    mask = np.random.default_rng(seed).random((9, 12)) > 0.5
    whole = np.zeros((20, 30), bool)
    whole[4:13, 5:17] = mask
    for stored in (mask, whole, np.zeros((3, 4), bool), np.ones((3, 4), bool)):
        text = packed(CroppedMask.of(stored))
        assert text == pack(rle(stored)["counts"])
        np.testing.assert_array_equal(unpacked(text, stored.shape).full(), stored)


LABELS = np.zeros((12, 16), np.int32)
LABELS[1:6, 2:7] = 1
LABELS[3, 4] = 0  # a hole
LABELS[7:11, 1:4] = LABELS[7:11, 9:12] = 2  # in two parts


def labels_of(path: Path, name: str = "a") -> Any:
    return read_outlines(path).images[name].labels((12, 16))


def write(path: Path, tree: Any) -> Path:
    path.write_text(json.dumps(tree))
    return path


@pytest.mark.parametrize("kind", ["coco", "geojson"])
def test_what_was_exported_comes_back(tmp_path: Path, kind: str) -> None:
    about = {1: ObjectRecord(3), 2: ObjectRecord(5)}
    image = LabelObjects("a", LABELS, "a.png", about, {3: "cell", 5: "dirt"})
    tree = coco_tree([image]) if kind == "coco" else geojson_tree(image)
    path = write(tmp_path / f"other.{'json' if kind == 'coco' else kind}", tree)
    np.testing.assert_array_equal(labels_of(path), LABELS)
    assert [o.class_name for o in read_outlines(path).images["a"].objects] == ["cell", "dirt"]
    assert numbers_of_classes([read_outlines(path)]) == {"cell": 3, "dirt": 5}


def feature(ring: list[list[float]], name: str = "", kind: str = "Polygon") -> dict[str, Any]:
    quality = {"classification": {"name": name}} if name else {}
    geometry = {"type": kind, "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, "properties": quality}


SQUARE, LARGE = (
    [[1, 1], [4, 1], [4, 4], [1, 4], [1, 1]],
    [[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]],
)


def test_annotations_of_qupath_are_read(tmp_path: Path) -> None:
    features = [feature(SQUARE, "Tumor"), feature(LARGE), feature(LARGE, "Stroma")]
    path = write(tmp_path / "Slide.ome.tif.geojson", features)
    file = read_outlines(path)
    assert labels_of(path, "slide")[2, 2] == 1  # the smaller one lies on top
    assert [o.class_name for o in file.images["slide"].objects] == ["Tumor", "object", "Stroma"]
    other = read_outlines(write(tmp_path / "b.geojson", [feature(SQUARE, "Necrosis")]))
    numbers = {"Necrosis": 1, "Stroma": 2, "Tumor": 3, "object": 4}
    assert numbers_of_classes([file, other]) == numbers  # the same for all files of a set


def coco(segmentation: Any, **changes: Any) -> dict[str, Any]:
    image = {"id": 1, "file_name": "sub\\a.png", "width": 16, "height": 12}
    note = {"id": 1, "image_id": 1, "category_id": 0, "segmentation": segmentation}
    return {"images": [image], "annotations": [note | changes], "categories": []}


def test_classes_that_begin_at_0_are_numbered_anew(tmp_path: Path) -> None:
    tree = coco([[0, 0, 4, 0, 4, 4]])
    tree["categories"] = [{"id": 0, "name": "cell"}, {"id": 1, "name": "none here"}]
    assert numbers_of_classes([read_outlines(write(tmp_path / "c.json", tree))]) == {"cell": 1}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        pytest.param(coco([[0, 0, 4, 0, 4, 4]], image_id=7), "of image 7, not", id="image"),
        pytest.param(coco([]), r"annotations\[0\]: no outline", id="box_alone"),
        pytest.param(coco([[20, 2, 30, 2, 30, 9]]), "no pixel of it", id="outside"),
        pytest.param(coco([[0.1, 0.1, 0.4, 0.1, 0.4, 0.4]]), "no pixel of it", id="normalized"),
        pytest.param(coco([["x", 0, 4, 0, 4, 4]]), "no list of numbers", id="text"),
        pytest.param(coco({"counts": [5], "size": [3, 3]}), r"for \(3, 3\)", id="run_lengths"),
        pytest.param({"images": [{}], "annotations": []}, "damaged or cut off", id="cut"),
        pytest.param({"type": "Topology"}, "neither COCO nor GeoJSON", id="other"),
        pytest.param([feature(SQUARE, kind="Point")], r"features\[0\]: a Point", id="point"),
    ],
)  # fmt: skip
def test_what_is_no_outline_of_the_image_is_refused(
    tmp_path: Path, tree: Any, message: str
) -> None:
    with pytest.raises((FormatError, InputError), match=message):
        labels_of(write(tmp_path / "a.json", tree))


def test_outlines_of_an_image_of_another_size_are_refused(tmp_path: Path) -> None:
    outlines = read_outlines(write(tmp_path / "c.json", coco([[0, 0, 4, 0, 4, 4]])))
    with pytest.raises(InputError, match=r"c\.json, image a: outlines for \(12, 16\)"):
        outlines.images["a"].labels((24, 32))

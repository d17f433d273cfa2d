"""COCO's outlines to masks."""

from typing import Any

import numpy as np
import pytest
from skimage.draw import polygon2mask

from napari_samic.benchmark.datasets.coco_masks import mask_of, objects_of, polygon, runs
from napari_samic.core.errors import FormatError
from napari_samic.export.coco import rle

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

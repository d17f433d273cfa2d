"""Overlays and contact sheets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_samic.core.errors import InputError
from napari_samic.core.types import Prompts
from napari_samic.export.overlays import contact_sheet, label_color, overlay


def square(side: int = 40) -> np.ndarray:
    labels = np.zeros((side, side), np.int32)
    labels[10:30, 10:30] = 1
    return labels


def test_overlay_tints_objects_and_leaves_the_rest() -> None:
    image = np.full((40, 40, 3), 100, np.uint8)
    out = overlay(image, square())
    assert (out[square() == 0] == 100).all()
    assert (out[20, 20] != 100).any()
    assert tuple(out[10, 20]) == label_color(1)
    assert (image == 100).all()


def test_outline_parts_touching_objects_but_not_the_frame() -> None:
    labels = np.ones((40, 40), np.int32)
    labels[:, 20:] = 2
    out = overlay(np.zeros((40, 40, 3), np.uint8), labels)
    assert tuple(out[5, 19]) == label_color(1)
    assert tuple(out[5, 20]) == label_color(2)
    assert tuple(out[0, 5]) == tuple(out[5, 5]) != label_color(1)


def test_colour_of_a_label_does_not_depend_on_the_others() -> None:
    lone, both = square(), square()
    both[0:5, 0:5] = 7
    image = np.zeros((40, 40, 3), np.uint8)
    np.testing.assert_array_equal(overlay(image, lone)[20, 20], overlay(image, both)[20, 20])


def test_first_twelve_colours_are_far_apart() -> None:
    colours = np.array([label_color(n) for n in range(1, 13)], float)
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + np.eye(12) * 999
    assert apart.min() > 40


def test_truth_is_dashed_in_white_and_black() -> None:
    out = overlay(np.full((40, 40, 3), 100, np.uint8), np.zeros((40, 40), int), truth=square())
    edge = out[10, 10:30]
    assert {tuple(pixel) for pixel in edge.tolist()} == {(0, 0, 0), (255, 255, 255)}


def test_points_are_crosses_coloured_by_sign() -> None:
    prompts = Prompts(np.array([[8.0, 9.0], [30.0, 31.0]]), np.array([True, False]))
    image, empty = np.full((40, 40, 3), 100, np.uint8), np.zeros((40, 40), int)
    out = overlay(image, empty, points=[prompts])
    assert out[8, 9, 1] > out[8, 9, 0]
    assert out[30, 31, 0] > out[30, 31, 1]
    as_array = overlay(image, empty, points=prompts.points_rc[:1])
    np.testing.assert_array_equal(as_array[:20], out[:20])


def test_point_at_the_corner_is_cut_not_wrapped() -> None:
    out = overlay(
        np.full((40, 40, 3), 100, np.uint8), np.zeros((40, 40), int), points=np.array([[0.0, 0.0]])
    )
    assert (out[20:] == 100).all()
    assert (out[0, 0] != 100).any()


@pytest.mark.parametrize("name", ["labels", "truth"])
def test_overlay_names_the_array_of_another_shape(name: str) -> None:
    arrays: dict[str, Any] = {"labels": np.zeros((6, 7), int), name: np.zeros((5, 7), int)}
    with pytest.raises(InputError, match=rf"{name} of \(5, 7\)"):
        overlay(np.zeros((6, 7, 3), np.uint8), **arrays)


def test_contact_sheet_keeps_the_shape_of_its_tiles() -> None:
    wide = np.full((50, 200, 3), (255, 0, 0), np.uint8)
    sheet = contact_sheet([wide] * 5, list("abcde"), columns=4, tile_px=64)
    red = (sheet == (255, 0, 0)).all(axis=-1)
    assert red.sum() == 5 * 64 * 16
    rows = np.flatnonzero(red.any(axis=1))
    assert len(rows) == 2 * 16
    assert red[rows[0]].sum() == 4 * 64


def test_captions_are_drawn_and_cut_to_their_tile() -> None:
    tile = np.zeros((64, 64, 3), np.uint8)
    blank, short, long = (
        contact_sheet([tile], [text], tile_px=64) for text in ("", "name", "a long name " * 20)
    )
    ink = [np.flatnonzero((sheet != blank).any(axis=(0, 2))) for sheet in (short, long)]
    assert 10 < np.ptp(ink[0]) < 45
    assert 45 <= np.ptp(ink[1]) <= 64


@pytest.mark.parametrize(
    ("count", "captions", "columns"),
    [
        pytest.param(0, [], 4, id="none"),
        pytest.param(2, ["a"], 4, id="captions"),
        pytest.param(1, ["a"], 0, id="columns"),
    ],
)
def test_contact_sheet_of_nothing_is_refused(count: int, captions: list[str], columns: int) -> None:
    with pytest.raises(InputError, match=rf"contact sheet: {count} tiles"):
        contact_sheet([np.zeros((9, 9, 3), np.uint8)] * count, captions, columns=columns)


def test_letters_that_the_font_lacks_are_spelled_out() -> None:
    tile = np.zeros((64, 64, 3), np.uint8)
    spelled, plain = (contact_sheet([tile], [text], tile_px=64) for text in ("ä 5 µm", "a 5 um"))
    np.testing.assert_array_equal(spelled, plain)

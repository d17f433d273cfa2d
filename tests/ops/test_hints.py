"""Parts of an embedding, and where a next click would tell most."""

import numpy as np
import pytest

from napari_samic.ops import hints


def three_parts():
    """Ground, a disc on the left, a square on the right: (2, 24, 32)."""
    rows, columns = np.indices((24, 32))
    values = np.zeros((2, 24, 32), np.float32)
    disc = np.hypot(rows - 12, columns - 8) <= 5
    square = (abs(rows - 12) <= 4) & (abs(columns - 24) <= 4)
    values[0][disc] = 1.0
    values[1][square] = 1.0
    values += np.random.default_rng(0).normal(0, 0.01, values.shape).astype(np.float32)
    return values, disc, square


def test_parts_are_found_and_the_largest_comes_first():
    values, disc, square = three_parts()
    cells = hints.parts(values, 3)
    assert cells[0, 0] == 0
    assert len({int(cells[0, 0]), int(cells[12, 8]), int(cells[12, 24])}) == 3
    assert (cells == cells[12, 8]).sum() == disc.sum()
    assert (cells == cells[12, 24]).sum() == square.sum()


def test_even_embedding_is_one_part():
    assert hints.parts(np.ones((4, 6, 7), np.float32)).max() == 0


def test_same_seed_gives_the_same_parts():
    values, _, _ = three_parts()
    np.testing.assert_array_equal(hints.parts(values), hints.parts(values))


def test_every_part_has_its_own_color():
    colors = hints.colors(np.arange(6, dtype=np.int32).reshape(2, 3))
    assert colors.shape == (2, 3, 3)
    assert len(np.unique(colors.reshape(-1, 3), axis=0)) == 6


def test_click_goes_to_the_half_that_the_mask_misses():
    values, disc, _ = three_parts()
    cells = hints.parts(values, 3)
    half = disc.copy()
    half[:, 8:] = False
    row, column = hints.next_point(cells, [half, disc])
    assert disc[int(row), int(column)]
    assert not half[int(row), int(column)]


def test_no_click_where_all_masks_agree_and_fit():
    values, disc, _ = three_parts()
    assert hints.next_point(hints.parts(values, 3), [disc, disc]) is None


@pytest.mark.parametrize("taken", [pytest.param(False, id="free"), pytest.param(True, id="taken")])
def test_without_a_mask_the_largest_inner_region_that_is_free_is_clicked(taken):
    values, disc, square = three_parts()
    cells = hints.parts(values, 3)
    expected, other = (square, disc) if square.sum() > disc.sum() else (disc, square)
    if taken:
        expected, other = other, expected
    row, column = hints.next_point(cells, [], other if taken else None)
    assert expected[int(row), int(column)]

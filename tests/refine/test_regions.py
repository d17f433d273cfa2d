"""What a network saw, to one proposal an object."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import local_maxima, reconstruction

from napari_samic.refine import regions


def seen(*discs, shape=(80, 100)):
    """Maps of discs as a perfect network sees them: inside, and depth by the nearest outline."""
    rows, columns = np.indices(shape)
    inside, depth = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for row, column, radius in discs:
        away = np.hypot(rows - row, columns - column)
        inside[away <= radius] = 0.9
        depth = np.maximum(depth, np.clip(1 - away / radius, 0, 1)).astype(np.float32)
    return inside, depth


def test_discs_that_touch_are_two():
    inside, depth = seen((40, 30, 15), (40, 56, 15))
    assert ndimage.label(inside > 0.5)[1] == 1
    found = regions.propose_regions(inside, depth)
    assert len(found) == 2
    assert not (found[0].region & found[1].region).any()
    middles = sorted(tuple(g.prompts.points_rc[0]) for g in found)
    np.testing.assert_allclose(middles, [(40, 30), (40, 56)], atol=3)


def test_one_disc_with_a_rough_depth_stays_one():
    inside, depth = seen((40, 50, 20))
    rough = depth + np.random.default_rng(0).normal(0, 0.03, depth.shape)
    assert len(regions.propose_regions(inside, rough.astype(np.float32))) == 1


@pytest.mark.parametrize("dent", [0.1, 0.25])
def test_a_dent_in_the_depth_of_one_object_does_not_part_it(dent):
    """A network that learned from few references sees such dents; both tops are equally high."""
    rows, columns = np.indices((80, 120))
    inside = np.where(((rows - 40) / 20) ** 2 + ((columns - 60) / 45) ** 2 < 1, 0.9, 0.0)
    depth = np.clip(3 - 3 * np.hypot((rows - 40) / 20, (columns - 60) / 45), 0, 1)
    depth *= 1 - dent * np.exp(-(((columns - 60) / 8) ** 2))
    assert len(regions.propose_regions(inside.astype(np.float32), depth.astype(np.float32))) == 1


def test_unsplit_they_are_one():
    assert len(regions.propose_regions(*seen((40, 30, 15), (40, 56, 15)), split=False)) == 1


def test_an_object_without_depth_is_kept():
    inside, depth = seen((40, 20, 12), (40, 70, 12))
    depth[:, 50:] = 0
    assert len(regions.propose_regions(inside, depth)) == 2


def test_surest_comes_first_and_asks_by_box_point_and_map():
    inside, depth = seen((40, 25, 12), (40, 70, 12))
    inside[:, 50:] *= 0.7
    first, second = regions.propose_regions(inside, depth, label=4)
    assert first.region[40, 25]
    assert second.region[40, 70]
    assert first.prompts.label == 4
    np.testing.assert_allclose(first.prompts.box_rc, [27.5, 12.5, 52.5, 37.5])
    assert first.mask_prompt[40, 25] == np.float32(0.9)
    assert first.mask_prompt[40, 70] == 0  # the other one's


@pytest.mark.parametrize("blank", [0.0, 0.3])
def test_nothing_above_the_cut_is_no_object(blank):
    empty = np.full((30, 40), blank, np.float32)
    assert regions.propose_regions(empty, empty) == []


def test_all_inside_is_one_object():
    full = np.ones((30, 40), np.float32)
    (found,) = regions.propose_regions(full, full)
    assert found.region.all()


def test_small_ones_are_left_out_and_holes_are_filled():
    inside, depth = seen((40, 30, 15), (10, 90, 2))
    inside[38:42, 28:32] = 0
    (found,) = regions.propose_regions(inside, depth, min_area_px=20)
    assert found.region[40, 30]


def test_mask_prompts_of_a_large_image_are_small_and_lie_where_they_did():
    inside, depth = seen((300, 1500, 90), (300, 600, 90), shape=(700, 2100))
    for proposal in regions.propose_regions(inside, depth):
        assert proposal.mask_prompt.shape == (171, 512)
        row, column = (proposal.prompts.points_rc[0] * 512 / 2100).astype(int)
        assert proposal.mask_prompt[row, column] == pytest.approx(0.9)
        assert proposal.mask_prompt.sum() == pytest.approx(
            0.9 * np.pi * (90 * 512 / 2100) ** 2, rel=0.02
        )


def test_an_object_without_a_sure_pixel_is_left_out_unless_it_is_the_surest():
    inside, depth = seen((40, 25, 12), (40, 70, 12))
    inside[:, 50:] *= 0.7
    assert len(regions.propose_regions(inside, depth, core=0.6)) == 2
    (left,) = regions.propose_regions(inside, depth, core=0.7)
    assert left.region[40, 25]
    (surest,) = regions.propose_regions(inside * 0.7, depth, core=0.9, cut=0.4)
    assert surest.region[40, 25]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("height", [0.02, 0.1, 0.3])
def test_extended_maxima_are_those_of_the_reconstruction(seed, height):
    rng = np.random.default_rng(seed)
    waves = ndimage.gaussian_filter(rng.normal(size=(90, 120)), rng.uniform(1, 9))
    values = ndimage.gaussian_filter(np.clip(waves * rng.uniform(2, 40), 0, 1), rng.uniform(0.5, 3))
    lowered = reconstruction(values - height, values)
    is_clear = values > 1e-6  # where the ground itself is the highest, there is no top
    expected = local_maxima(lowered, connectivity=2) & is_clear
    np.testing.assert_array_equal(regions.extended_maxima(values, height) & is_clear, expected)


def test_ground_alone_has_no_top():
    assert not regions.extended_maxima(np.zeros((9, 9)), 0.3).any()

"""Smoothing, filling, cutting, and what is plausible."""

import maps as drawn
import numpy as np
import pytest

from napari_samic.refine.postprocess import fill_holes, smooth, split
from napari_samic.refine.shape_prior import ShapePrior, elongation

DISC = drawn.disc(24, 30, 10)


def test_smoothing_takes_whiskers_off_and_closes_cracks():
    mask = DISC.copy()
    mask[24, 40:60] = True
    mask[24, 25:35] = False
    out = smooth(mask, 2)
    assert not out[24, 45:].any()
    assert out[24, 25:35].all()
    assert (out ^ DISC).sum() < 12


@pytest.mark.parametrize("radius", [1, 2, 4])
def test_smoothing_leaves_what_is_smooth(radius):
    half = drawn.disc(0, 30, 12)
    assert (smooth(half, radius) == half).mean() > 0.998
    full = np.ones(drawn.SHAPE, bool)
    assert smooth(full, radius).all()
    edge = np.zeros(drawn.SHAPE, bool)
    edge[:, :5] = True
    assert (smooth(edge, radius) == edge).all()


def test_mask_that_smoothing_would_take_away_stays():
    assert (smooth(drawn.line(), 3) == drawn.line()).all()
    assert not smooth(np.zeros(drawn.SHAPE, bool), 3).any()


def test_no_radius_is_no_smoothing_but_a_copy():
    out = smooth(drawn.line(), 0)
    assert (out == drawn.line()).all()


def test_small_holes_are_filled_and_large_ones_stay():
    mask = DISC & ~drawn.disc(24, 26, 1) & ~drawn.disc(24, 33, 3)
    out = fill_holes(mask, 5)
    assert (out == (DISC & ~drawn.disc(24, 33, 3))).all()
    assert (fill_holes(mask, 4) == mask).all()
    assert (fill_holes(mask, 100) == DISC).all()


def test_bay_is_no_hole():
    mask = DISC.copy()
    mask[24, 30:] = False
    assert (fill_holes(mask, 1000) == mask).all()


LEFT, RIGHT = drawn.disc(24, 20, 8), drawn.disc(24, 34, 8)
POINTS = np.array([(24, 18), (24, 36)], float)


def ellipse(angle=0.0):
    rows, columns = np.mgrid[:48, :64]
    y, x = rows - 24, columns - 30
    a, b = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return (a / 20) ** 2 + (b / 8) ** 2 <= 1


def test_touching_discs_come_apart_at_their_neck():
    one, other = split(LEFT | RIGHT, POINTS)
    assert not (one & other).any()
    assert ((one | other) == (LEFT | RIGHT)).all()
    assert (one ^ LEFT).sum() < 0.1 * LEFT.sum()
    assert (other ^ RIGHT).sum() < 0.1 * RIGHT.sum()


@pytest.mark.parametrize("angle", [0.0, 0.4, 0.8])
def test_ellipse_stays_whole_though_it_has_two_points(angle):
    along = 12 * np.array([np.sin(angle), np.cos(angle)])
    points = np.array([24, 30]) + np.array([-along, along])
    assert all((part == ellipse(angle)).all() for part in split(ellipse(angle), points))


def test_two_points_on_one_disc_share_their_part():
    points = np.array([(24, 15), (24, 22), (24, 36)], float)
    one, same, other = split(LEFT | RIGHT, points)
    assert (one == same).all()
    assert one[LEFT].mean() > 0.9
    assert other[RIGHT].mean() > 0.9
    assert not (one & other).any()


def test_points_on_the_same_pixel_share_their_part():
    one, same, other = split(LEFT | RIGHT, np.array([(24, 18), (24, 18.2), (24, 36)]))
    assert (one == same).all()
    assert one[LEFT].mean() > 0.9
    assert not (one & other).any()


def test_parts_that_are_not_plausible_are_not_cut():
    small = LEFT.mean()
    whole = split(LEFT | RIGHT, POINTS, ShapePrior(area_frac=(1.2 * small, 1.0)))
    assert all((part == (LEFT | RIGHT)).all() for part in whole)
    assert (
        split(LEFT | RIGHT, POINTS, ShapePrior(area_frac=(0.5 * small, 1.0)))[0] != LEFT
    ).sum() < 20


@pytest.mark.parametrize("other", [(2, 2), (24, 90), (-3, 5), (24, 18)])
def test_point_elsewhere_cuts_nothing(other):
    parts = split(LEFT | RIGHT, np.array([(24, 18), other], float))
    assert (parts[0] == (LEFT | RIGHT)).all()
    assert parts[1].any() == (other == (24, 18))


def test_piece_without_a_point_goes_to_the_nearer_part():
    crumb = drawn.disc(40, 50, 1)
    one, other = split(LEFT | RIGHT | crumb, POINTS)
    assert not (one & crumb).any()
    assert other[crumb].all()


def references(radii):
    labels = np.zeros((100, 400), np.int32)
    for i, radius in enumerate(radii):
        labels[drawn.disc(50, 30 + 50 * i, radius, labels.shape)] = i + 1
    return labels


def test_limits_are_those_of_the_references_with_margins():
    limits = ShapePrior.of([references([10, 11, 12]), None, references([10])])
    area = 100 * 400
    assert limits.area_frac[0] * area == pytest.approx(np.pi * 100 / 2, rel=0.1)
    assert limits.area_frac[1] * area == pytest.approx(np.pi * 144 * 2, rel=0.1)
    assert limits.elongation == pytest.approx(2, rel=0.05)
    assert 0.75 < limits.solidity < 0.9


def test_few_references_set_no_limits():
    assert ShapePrior.of([references([10, 11])]) == ShapePrior()
    assert ShapePrior.of([references([10, 11, 12])]) != ShapePrior()
    assert ShapePrior().allow(drawn.line())
    assert not ShapePrior().allow(np.zeros(drawn.SHAPE, bool))


def test_one_odd_reference_among_many_sets_no_limit():
    usual = ShapePrior.of([references([10] * 7)] * 6)
    odd = ShapePrior.of([*[references([10] * 7)] * 6, references([24])])
    assert odd.area_frac[1] == pytest.approx(usual.area_frac[1], rel=0.05)


@pytest.mark.parametrize(
    ("mask", "word"),
    [
        pytest.param(drawn.disc(50, 100, 30, (100, 400)), "% of the image", id="large"),
        pytest.param(drawn.disc(50, 100, 4, (100, 400)), "% of the image", id="small"),
        pytest.param(np.pad(np.ones((4, 80), bool), ((0, 96), (0, 320))), "elongation", id="long"),
        pytest.param(
            references([11]).astype(bool) & ~(np.abs(np.arange(400) - 30) < 3), "solidity", id="two"
        ),
        pytest.param(np.zeros((100, 400), bool), "empty", id="empty"),
    ],
)
def test_faults_say_what_is_not_plausible(mask, word):
    limits = ShapePrior.of([references([10, 11, 12, 10, 11, 12])])
    assert not limits.allow(mask)
    assert word in limits.faults(mask)[0]
    assert limits.allow(references([11]) > 0)


def test_elongation_does_not_depend_on_the_direction():
    assert elongation(ellipse(0.5)) == pytest.approx(20 / 8, rel=0.05)
    assert elongation(drawn.dot()) == 1
    assert elongation(np.zeros((3, 3), bool)) == 1

"""From map to prompts."""

from dataclasses import fields

import maps as drawn
import numpy as np
import pytest

from napari_samic.core.errors import InputError
from napari_samic.core.settings import PeakSettings, StrategySettings
from napari_samic.core.types import HeatMap
from napari_samic.ops.peaks import peaks
from napari_samic.refine import strategies
from napari_samic.refine.regions import ThresholdParams, normalized, regions
from napari_samic.refine.strategies import STRATEGIES, propose

SHAPES = [drawn.letter_c, drawn.ring, drawn.line, drawn.dot, drawn.at_border]
POINTED = [s for s in STRATEGIES if s not in ("centroids", "box", "wide_box")]
BOXED = ["box", "wide_box", "curriculum"]
TWO = np.maximum(drawn.bump(20, 20), drawn.bump(24, 32, height=0.9))


def ask(strategy, saliency, label=1):
    return STRATEGIES[strategy](saliency, label, ThresholdParams())


@pytest.mark.parametrize("shape", SHAPES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("strategy", POINTED)
def test_positive_points_lie_on_their_component(strategy, shape):
    region = shape()
    (proposal,) = ask(strategy, drawn.flat(region))
    assert (proposal.region == region).all()
    points = drawn.positives(proposal.prompts)
    assert len(points)
    assert region[tuple(np.rint(points).astype(int).T)].all()


@pytest.mark.parametrize("shape", SHAPES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("strategy", BOXED)
def test_boxes_cover_their_component_and_stay_inside_the_image(strategy, shape):
    region = shape()
    (proposal,) = ask(strategy, drawn.flat(region))
    top, left, bottom, right = proposal.prompts.box_rc
    rows, columns = np.nonzero(region)
    assert top < rows.min() <= rows.max() < bottom
    assert left < columns.min() <= columns.max() < right
    proposal.prompts.check_inside(drawn.SHAPE)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_point_is_given_twice(strategy, shape):
    (proposal,) = ask(strategy, drawn.flat(shape()))
    points = proposal.prompts.points_rc
    assert len(np.unique(points, axis=0)) == len(points)
    proposal.prompts.check_inside(drawn.SHAPE)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_same_map_gives_same_prompts_and_is_left_as_it_was(strategy):
    before = TWO.copy()
    first, second = ask(strategy, TWO), ask(strategy, TWO)
    assert (before == TWO).all()
    assert len(first) == len(second) == 2
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.prompts.points_rc, b.prompts.points_rc)
        np.testing.assert_array_equal(a.region, b.region)


@pytest.mark.parametrize(
    "empty",
    [
        pytest.param(np.zeros(drawn.SHAPE, np.float32), id="zeros"),
        pytest.param(np.full(drawn.SHAPE, 0.7, np.float32), id="constant"),
        pytest.param(0.2 * drawn.bump(20, 20), id="below_the_cut"),
    ],
)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_map_that_shows_nothing_gives_no_guess(strategy, empty):
    assert ask(strategy, empty) == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_class_is_passed_on(strategy):
    assert {g.prompts.label for g in ask(strategy, TWO, label=4)} == {4}


def test_settings_offer_all_strategies():
    spec = next(f for f in fields(StrategySettings) if f.name == "strategy")
    assert sorted(spec.metadata["choices"]) == sorted(STRATEGIES)


def test_centroid_is_the_mean_also_where_that_is_outside():
    (proposal,) = ask("centroids", drawn.flat(drawn.letter_c()))
    mean = np.argwhere(drawn.letter_c()).mean(0)
    np.testing.assert_allclose(proposal.prompts.points_rc, [mean])
    assert not drawn.letter_c()[tuple(np.rint(mean).astype(int))]


def test_centroid_counts_the_hole():
    hole = drawn.disc(24, 34, 4)
    (proposal,) = ask("centroids", drawn.flat(drawn.disc(24, 30, 10) & ~hole))
    np.testing.assert_allclose(proposal.prompts.points_rc, [(24, 30)])


@pytest.mark.parametrize("split", [True, False])
def test_peaks_are_those_of_the_prompter_on_the_same_map(split):
    settings = PeakSettings(split_peaks=split, min_area_frac=0.0, subtract_background=False)
    lone = np.maximum(TWO, drawn.bump(40, 8, 2, 0.6))
    theirs = peaks(HeatMap(lone), drawn.SHAPE, settings, 0.02)
    cut = ThresholdParams.of(settings, drawn.SHAPE, 0.02)
    ours = propose({1: normalized(lone, settings)}, StrategySettings(), cut)
    assert len(ours) == len(theirs) == 2 + split
    away = np.abs(theirs - np.concatenate([g.prompts.points_rc for g in ours])).max()
    assert away < 4  # centroids of what is above the split here, of the whole basin there


def test_touching_components_share_all_their_pixels_along_the_valley():
    one, other = regions(TWO, ThresholdParams())
    assert not (one & other).any()
    assert ((one | other) == (TWO > 0.3)).all()
    assert one[20, 20]
    assert other[24, 32]


def test_unsplit_component_is_one():
    assert len(regions(TWO, ThresholdParams(split=False))) == 1


def test_small_components_are_left_out():
    saliency = np.maximum(drawn.bump(20, 20), drawn.flat(drawn.disc(40, 50, 1)))
    assert len(regions(saliency, ThresholdParams(min_area_px=6))) == 1
    assert len(regions(saliency, ThresholdParams(min_area_px=5))) == 2


def test_map_that_is_not_finite_is_refused():
    with pytest.raises(InputError, match="1 values not finite"):
        regions(np.where(drawn.dot(), np.nan, 0.5).astype(np.float32), ThresholdParams())


def test_normalised_map_loses_its_background_and_reaches_one():
    out = normalized(0.4 + 0.2 * drawn.bump(20, 20), PeakSettings())
    assert out.max() == 1
    assert np.median(out) == 0


def test_wide_box_is_wider_by_its_margin():
    region = drawn.flat(drawn.disc(24, 30, 5))
    (narrow,), (wide,) = ask("box", region), ask("wide_box", region)
    np.testing.assert_allclose(wide.prompts.box_rc - narrow.prompts.box_rc, [-2.2, -2.2, 2.2, 2.2])


def test_medoids_spread_over_a_line():
    (proposal,) = ask("kmedoids", drawn.flat(drawn.line()))
    columns = sorted(proposal.prompts.points_rc[:, 1])
    assert (columns[0] < 15, 17 < columns[1] < 27, columns[2] > 28) == (True, True, True)


def test_rays_go_all_round(monkeypatch):
    monkeypatch.setattr(strategies, "POINTS", 5)
    (proposal,) = ask("rays", drawn.flat(drawn.disc(24, 30, 10)))
    away = proposal.prompts.points_rc - (24, 30)
    np.testing.assert_allclose(away, [(0, 0), (0, 5), (5, 0), (0, -5), (-5, 0)])


def test_soft_mask_is_sure_inside_unsure_outside_and_against_others():
    one, other = ask("mask", TWO)
    assert (one.mask_prompt[one.region] > 0.5).all()
    assert (one.mask_prompt[~one.region] <= 0.5).all()
    assert (one.mask_prompt[other.region] == 0).all()
    assert one.mask_prompt.max() == pytest.approx(1, abs=1e-6)
    assert (one.mask_prompt.dtype, one.mask_prompt.shape) == (np.float32, drawn.SHAPE)


def test_curriculum_goes_from_box_to_points_to_both():
    proposal = ask("curriculum", TWO)[0]
    first, second = proposal.earlier
    assert (len(first.points_rc), first.box_rc is None) == (0, False)
    assert (len(second.points_rc), second.box_rc is None) == (3, True)
    assert (len(proposal.prompts.points_rc), proposal.prompts.box_rc is None) == (3, False)


NEGATIVE = StrategySettings(strategy="negatives")
CROWD = np.max([drawn.bump(r, c, 3) for r in (10, 20, 30) for c in (12, 22, 32)], axis=0)


def test_negatives_lie_on_no_positive_and_not_on_their_own_object(monkeypatch):
    monkeypatch.setattr(strategies, "NEGATIVES", 4)
    proposals = propose({1: CROWD}, NEGATIVE)
    assert len(proposals) == 9
    taken = {tuple(p) for g in proposals for p in np.rint(drawn.positives(g.prompts)).astype(int)}
    for proposal in proposals:
        points = np.rint(proposal.prompts.points_rc[~proposal.prompts.is_foreground]).astype(int)
        assert 1 <= len(points) <= 4
        assert not proposal.region[tuple(points.T)].any()
        assert not taken & {tuple(p) for p in points}


def test_negatives_of_one_class_avoid_the_points_of_another():
    one, other = drawn.flat(drawn.disc(20, 20, 3)), drawn.flat(drawn.disc(20, 28, 3))
    proposals = propose({1: one, 2: other}, NEGATIVE)
    assert [g.prompts.label for g in proposals] == [1, 2]
    for proposal in proposals:
        np.testing.assert_array_equal(proposal.prompts.points_rc[1], [20, 24])


def test_negatives_between_objects_that_touch_lie_on_the_other_one(monkeypatch):
    monkeypatch.setattr(strategies, "NEGATIVES", 1)
    one, other = drawn.disc(24, 30, 8), drawn.disc(24, 30, 8)
    one[:, 30:], other[:, :30] = False, False
    proposals = propose({1: drawn.flat(one), 2: drawn.flat(other)}, NEGATIVE)
    for proposal, across in zip(proposals, (other, one), strict=True):
        (point,) = proposal.prompts.points_rc[~proposal.prompts.is_foreground].astype(int)
        assert across[tuple(point)]
        assert point[1] in (29, 30)  # the first pixel beyond


def test_negative_beyond_a_neighbour_is_not_the_neighbours_point():
    row = {k: drawn.flat(drawn.disc(20, 20 + k, 0)) for k in (1, 2, 3)}
    first = propose(row, NEGATIVE)[0]
    assert [20, 22] not in first.prompts.points_rc.tolist()


def test_rest_of_the_negatives_lies_on_clear_background_apart(monkeypatch):
    monkeypatch.setattr(strategies, "NEGATIVES", 9)
    (proposal,) = propose({1: drawn.bump(24, 30)}, NEGATIVE)
    points = proposal.prompts.points_rc[~proposal.prompts.is_foreground].astype(int)
    assert len(points) >= 3
    assert (drawn.bump(24, 30)[tuple(points.T)] <= 0.15).all()
    gaps = [np.hypot(*(a - b)) for i, a in enumerate(points) for b in points[:i]]
    assert min(gaps) > 7


def test_no_clear_background_gives_no_negative():
    full = 0.29 + 0.71 * drawn.bump(24, 30)
    (proposal,) = propose({1: full.astype(np.float32)}, NEGATIVE)
    assert proposal.prompts.is_foreground.all()

"""Better masks by clicks, and what is dropped."""

import maps as drawn
import numpy as np
import pytest

from napari_samic.core.settings import RefineSettings, StrategySettings
from napari_samic.core.types import Candidates
from napari_samic.refine.prompting import MapAgreement, SelectedMask, query_segmenter
from napari_samic.refine.refinement import iterative_clicks, refine_masks, split_touching, stability
from napari_samic.refine.regions import RegionProposal
from napari_samic.refine.shape_prior import ShapePrior

IMAGE = drawn.picture()
OBJECT = drawn.disc(24, 24, 6) | drawn.disc(24, 33, 4)


class Mended(drawn.Discs):
    """Answers `first` with the clicks drawn into it, or `spoilt` from the second click on."""

    def __init__(self, first, spoilt=None, nibble=4):
        super().__init__(nibble=nibble)
        self.first_mask, self.spoilt = first, spoilt

    def _mask(self, shape, prompts, radius):
        if self.spoilt is not None and len(prompts.points_rc) > 2:
            return self.spoilt.copy()
        mask = self.first_mask.copy()
        for point, sign in zip(prompts.points_rc[1:], prompts.is_foreground[1:], strict=True):
            spot = drawn.disc(*point, self.nibble, shape)
            mask = mask | spot if sign else mask & ~spot
        return mask


def start(mask, heat, region, prompts=None):
    proposal = RegionProposal(prompts or drawn.at(24, 24), region)
    map_agreement = MapAgreement.of(heat, [region])
    logits = drawn.low(mask[None])[0]
    return SelectedMask(
        proposal, mask, 0.9, map_agreement.agreement(0, mask), logits, proposal.prompts
    ), map_agreement


def test_missed_part_is_clicked_and_taken_in():
    found, map_agreement = start(drawn.disc(24, 24, 6), drawn.flat(OBJECT), OBJECT)
    machine = Mended(found.mask)
    better = iterative_clicks(machine, IMAGE, found, map_agreement, 0, rounds=1)
    assert better.agreement > found.agreement
    assert better.prompts.is_foreground.tolist() == [True, True]
    missed = OBJECT & ~found.mask
    assert missed[tuple(better.prompts.points_rc[1].astype(int))]
    assert better.proposal is found.proposal


def test_leak_is_clicked_away():
    leaky = OBJECT | drawn.disc(40, 24, 4)
    found, map_agreement = start(leaky, drawn.flat(OBJECT), OBJECT)
    better = iterative_clicks(Mended(leaky), IMAGE, found, map_agreement, 0, rounds=1)
    assert better.prompts.is_foreground.tolist() == [True, False]
    np.testing.assert_array_equal(better.prompts.points_rc[1], [40, 24])
    assert (better.mask == OBJECT).all()
    assert better.agreement == 1


def test_earlier_logits_are_handed_back():
    found, map_agreement = start(drawn.disc(24, 24, 6), drawn.flat(OBJECT), OBJECT)
    machine = Mended(found.mask)
    iterative_clicks(machine, IMAGE, found, map_agreement, 0, rounds=1)
    ((_, logits, multimask),) = machine.asked
    assert logits is found.logits
    assert not multimask


def test_mask_that_agrees_is_left_alone():
    found, map_agreement = start(OBJECT, drawn.flat(OBJECT), OBJECT)
    machine = Mended(OBJECT)
    assert iterative_clicks(machine, IMAGE, found, map_agreement, 0, rounds=5) is found
    assert not machine.asked


def test_click_that_spoils_the_mask_is_not_kept_and_is_the_last():
    found, map_agreement = start(drawn.disc(24, 24, 4), drawn.flat(OBJECT), OBJECT)
    machine = Mended(found.mask, spoilt=np.ones(drawn.SHAPE, bool), nibble=3)
    better = iterative_clicks(machine, IMAGE, found, map_agreement, 0, rounds=5)
    assert len(machine.asked) == 2
    assert len(better.prompts.points_rc) == 2
    assert found.agreement < better.agreement < 1


@pytest.mark.parametrize("seed", range(20))
def test_clicks_never_lower_the_agreement(seed):
    draw = np.random.default_rng(seed)

    class Moody(drawn.Discs):
        def _mask(self, shape, prompts, radius):
            return drawn.disc(*draw.integers(10, 40, 2), draw.integers(1, 15), shape)

    heat = np.maximum(drawn.bump(24, 24, 6), 0.3 * draw.random(drawn.SHAPE, np.float32))
    found, map_agreement = start(drawn.disc(*draw.integers(15, 35, 2), 7), heat, heat > 0.3)
    better = iterative_clicks(Moody(), IMAGE, found, map_agreement, 0, rounds=6)
    assert better.agreement >= found.agreement
    assert better.agreement == map_agreement.agreement(0, better.mask)


def test_bare_mask_gets_a_point_before_its_click():
    mask = drawn.disc(24, 24, 6)
    boxed = drawn.Prompts(np.zeros((0, 2)), np.zeros(0, bool))
    found, map_agreement = start(mask, drawn.flat(OBJECT), OBJECT, boxed)
    better = iterative_clicks(Mended(mask), IMAGE, found, map_agreement, 0, rounds=1)
    np.testing.assert_array_equal(better.prompts.points_rc[0], [24, 24])


PAIR = [drawn.disc(24, 20, 7), drawn.disc(24, 33, 7)]


def merged():
    """Two objects of which the first one's mask took in both."""
    heat = drawn.flat(PAIR[0] | PAIR[1])
    proposals = [RegionProposal(drawn.at(24, c), r) for c, r in zip((20, 33), PAIR, strict=True)]
    map_agreement = MapAgreement.of(heat, PAIR)
    masks = [PAIR[0] | PAIR[1], PAIR[1]]
    found = [
        SelectedMask(g, m, 0.9, map_agreement.agreement(i, m), None, g.prompts)
        for i, (g, m) in enumerate(zip(proposals, masks, strict=True))
    ]
    return found, map_agreement


def test_mask_that_took_in_a_neighbour_keeps_its_own_part():
    found, map_agreement = merged()
    one, other = split_touching(found, map_agreement)
    assert (one.mask ^ PAIR[0]).sum() <= 15
    assert one.agreement > found[0].agreement
    assert other is found[1]


def test_part_that_is_not_plausible_stays_whole():
    found, map_agreement = merged()
    assert split_touching(found, map_agreement, ShapePrior(area_frac=(0.08, 1.0)))[0] is found[0]


def test_nothing_is_done_by_default():
    found, map_agreement = merged()
    machine = drawn.Discs()
    assert refine_masks(machine, IMAGE, found, map_agreement.values, RefineSettings()) == found
    assert not machine.asked


def test_all_refinements_work_together():
    heat = np.maximum(drawn.bump(14, 14), drawn.bump(32, 46))
    regions = [drawn.disc(14, 14, 6), drawn.disc(32, 46, 6)]
    proposals = [
        RegionProposal(drawn.at(14, 14), regions[0]),
        RegionProposal(drawn.at(32, 46), regions[1]),
    ]
    machine = drawn.Discs()
    found = query_segmenter(machine, IMAGE, proposals, heat, StrategySettings())
    every = RefineSettings(
        split=True, clicks=2, smooth_px=1, fill_px=5, limits=True, min_stability=0.5,
        min_consistency=0.5, min_quality=0.3,
    )  # fmt: skip
    limits = ShapePrior(area_frac=(0.01, 0.2))
    out = refine_masks(machine, IMAGE, found, heat, every, limits=limits, back=lambda mask: 0.9)
    assert [f.proposal for f in out] == proposals


def test_size_that_no_reference_has_is_dropped_only_when_asked_to():
    found, map_agreement = merged()
    narrow = ShapePrior(area_frac=(0.0, 0.06))  # a disc is 0.05 of the image
    settings = RefineSettings(limits=True)
    kept = refine_masks(drawn.Discs(), IMAGE, found, map_agreement.values, settings, limits=narrow)
    assert kept == found[1:]
    kept = refine_masks(
        drawn.Discs(), IMAGE, found, map_agreement.values, RefineSettings(), limits=narrow
    )
    assert kept == found


def test_mask_that_finds_no_reference_back_is_dropped():
    found, map_agreement = merged()
    settings = RefineSettings(min_consistency=0.5)
    kept = refine_masks(
        drawn.Discs(), IMAGE, found, map_agreement.values, settings,
        back=lambda mask: 0.9 if mask[24, 20] else 0.2,
    )  # fmt: skip
    assert kept == found[:1]


def test_unstable_mask_is_dropped_by_its_logits_inside_the_image():
    found, map_agreement = merged()
    sure = drawn.low(found[0].mask[None])[0]
    sure[12:] = 0.5  # padding says nothing
    unsure = np.where(drawn.low(found[1].mask[None])[0] > 0, 0.5, -10).astype(np.float32)
    pair = [
        SelectedMask(f.proposal, f.mask, f.score, f.agreement, logits, f.prompts)
        for f, logits in zip(found, (sure, unsure), strict=True)
    ]
    settings = RefineSettings(min_stability=0.9)
    assert refine_masks(drawn.Discs(), IMAGE, pair, map_agreement.values, settings) == pair[:1]


def test_object_whose_shaken_prompts_disagree_is_dropped():
    found, map_agreement = merged()

    class Nervous(drawn.Discs):
        def answer(self, shape, prompts, multimask):
            row, column = prompts.points_rc[0]
            far = column > 26 and not column.is_integer()
            mask = drawn.disc(40 if far else row, column, 6)[None]
            return Candidates(mask, np.ones(1, np.float32), drawn.low(mask))

    settings = RefineSettings(min_quality=0.67)
    assert refine_masks(Nervous(), IMAGE, found, map_agreement.values, settings) == found[:1]


def test_stability_is_the_overlap_of_two_cuts():
    logits = np.array([[-2, -0.5, 0.5, 2, 2]], np.float32)
    assert stability(logits) == 0.5
    assert stability(np.full((2, 2), -3, np.float32)) == 0

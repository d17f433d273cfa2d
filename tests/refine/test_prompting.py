"""From region proposals to a segmentation."""

import maps as drawn
import numpy as np
import pytest

from napari_samic.core.errors import InputError
from napari_samic.core.settings import SegmentSettings, StrategySettings
from napari_samic.core.types import Candidates, Segmenter
from napari_samic.refine.prompting import AT_ONCE, LogitFrame, MapAgreement, answer, query_segmenter
from napari_samic.refine.regions import RegionProposal
from napari_samic.refine.strategies import STRATEGIES, propose

HEAT = np.maximum(drawn.bump(14, 14), drawn.bump(32, 46))
IMAGE = drawn.picture()


def asked(strategy="peaks", heat=HEAT, segmenter=None, joining=None, **settings):
    chosen = StrategySettings(strategy=strategy, **settings)
    machine = segmenter or drawn.Discs()
    proposals = propose({1: heat}, chosen)
    return answer(machine, IMAGE, proposals, heat, chosen, joining=joining), machine


def test_toy_is_a_segmenter():
    assert isinstance(drawn.Discs(), Segmenter)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_finds_both_objects(strategy):
    result, _ = asked(strategy)
    assert len(result.objects) == 2
    assert {result.labels[14, 14], result.labels[32, 46]} == {1, 2}
    np.testing.assert_allclose(result.scores, 0.9)


def test_surest_mask_is_taken_by_default():
    result, _ = asked()
    assert (result.labels == 1).sum() == drawn.disc(14, 14, 6).sum()


@pytest.mark.parametrize("radius", [3, 6, 10])
def test_agreement_takes_the_mask_that_fits_the_map(radius):
    heat = drawn.flat(drawn.disc(24, 30, radius))
    result, _ = asked(heat=heat, choice="agreement")
    assert ((result.labels == 1) == drawn.disc(24, 30, radius)).all()
    assert result.scores[0] == np.float32({3: 0.5, 6: 0.9, 10: 0.7}[radius])


def test_both_weighs_score_and_agreement():
    heat = drawn.flat(drawn.disc(24, 30, 3))
    sure = drawn.Discs(radii=(3, 4, 10), scores=(0.3, 0.9, 0.2))
    result, _ = asked(heat=heat, segmenter=sure, choice="both")
    assert (result.labels == 1).sum() == drawn.disc(24, 30, 4).sum()
    slight = drawn.Discs(radii=(3, 4, 10), scores=(0.85, 0.9, 0.2))
    result, _ = asked(heat=heat, segmenter=slight, choice="both")
    assert (result.labels == 1).sum() == drawn.disc(24, 30, 3).sum()


def test_curriculum_asks_in_order_and_hands_on_the_logits():
    _, machine = asked("curriculum", joining=SegmentSettings(tell_apart=False))
    kinds = [(p.box_rc is not None, len(p.points_rc), g is not None) for p, g, _ in machine.asked]
    assert kinds == [*[(True, 0, False)] * 2, *[(False, 3, True)] * 2, *[(True, 3, True)] * 2]
    best = drawn.low(np.array([drawn.disc(14, 14, 6)]))[0]
    np.testing.assert_array_equal(machine.asked[2][1], best)


def test_map_becomes_logits_of_the_shape_that_the_segmenter_gives():
    _, machine = asked("mask")
    first, *rest = machine.asked
    assert first[1] is None
    assert {g.shape for _, g, _ in rest} == {(16, 16)}
    given = rest[0][1]
    assert np.abs(given).max() <= 10
    assert given[14 // 4, 14 // 4] > 3  # on the object
    assert given[32 // 4, 46 // 4] < -3  # on the other one
    assert (given[12:] == -10).all()  # padding


def test_single_asks_for_one_mask_unless_the_map_has_a_say():
    _, machine = asked(joining=SegmentSettings(mask_choice="single"))
    assert not any(multimask for *_, multimask in machine.asked)
    _, machine = asked(choice="agreement", joining=SegmentSettings(mask_choice="single"))
    assert all(multimask for *_, multimask in machine.asked)


NEAR = np.maximum(drawn.bump(24, 24, 2), drawn.bump(24, 33, 2))


def test_mask_that_takes_in_a_neighbour_is_asked_for_again():
    machine = drawn.Discs(radii=(12,), scores=(0.9,))
    result, _ = asked(heat=NEAR, segmenter=machine)
    assert len(machine.asked) == 4
    assert all((~p.is_foreground).sum() == 1 for p, *_ in machine.asked[2:])
    assert len(result.objects) == 2
    assert all(p.is_foreground.all() for p in result.objects)


def test_neighbours_stay_one_if_they_are_not_told_apart():
    machine = drawn.Discs(radii=(12,), scores=(0.9,))
    result, _ = asked(heat=NEAR, segmenter=machine, joining=SegmentSettings(tell_apart=False))
    assert len(machine.asked) == 2
    assert len(result.objects) == 1


class Reluctant(drawn.Discs):
    """Less sure of an answer with a negative point."""

    def answer(self, shape, prompts, multimask):
        said = super().answer(shape, prompts, multimask)
        less = 0.5 if not prompts.is_foreground.all() else 1
        return Candidates(said.masks, said.scores * np.float32(less), said.logits)


def test_answer_that_is_less_sure_is_not_taken():
    result, machine = asked(heat=NEAR, segmenter=Reluctant(radii=(12,), scores=(0.9,)))
    assert len(machine.asked) == 4
    assert (result.labels > 0).sum() == drawn.disc(24, 24, 12).sum()


def test_many_objects_are_asked_for_in_parts_and_keep_their_order():
    regions = [drawn.disc(r, c, 0) for r in range(2, 46, 6) for c in range(2, 62, 6)]
    heat = np.max(regions, axis=0).astype(np.float32)
    proposals = [RegionProposal(drawn.at(*np.argwhere(r)[0]), r) for r in regions]
    assert len(proposals) > 2 * AT_ONCE
    found = query_segmenter(drawn.Discs((1, 2, 3)), IMAGE, proposals, heat, StrategySettings())
    assert [f.proposal for f in found] == proposals
    assert all((f.mask & g.region).any() for f, g in zip(found, proposals, strict=True))


def test_no_guess_gives_an_empty_segmentation_without_asking():
    machine = drawn.Discs()
    result = answer(machine, IMAGE, [], HEAT, StrategySettings())
    assert not result.labels.any()
    assert not machine.asked


def test_map_of_another_size_is_refused():
    with pytest.raises(InputError, match=r"map of \(4, 4\) for an image of \(48, 64\)"):
        answer(drawn.Discs(), IMAGE, [], np.zeros((4, 4), np.float32), StrategySettings())


def test_defaults_answer_as_sam_segmenter_does():
    from toy_sam import picture, random_sam

    from napari_samic.models.sam.segmenter import SamSegmenter

    sam = SamSegmenter(random_sam(), name="toy", device="cpu")
    image = picture(drawn.SHAPE)
    proposals = propose({1: HEAT}, StrategySettings())
    ours = answer(sam, image, proposals, HEAT, StrategySettings())
    theirs = sam.segment(image, [g.prompts for g in proposals])
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    np.testing.assert_allclose(ours.scores, theirs.scores)
    masked = StrategySettings(strategy="mask")  # SAM takes the logits, too
    assert len(answer(sam, image, propose({1: HEAT}, masked), HEAT, masked).objects)


def test_agreement_ignores_the_map_of_other_objects():
    one, other = drawn.disc(24, 20, 6), drawn.disc(24, 34, 6)
    both = MapAgreement.of(drawn.flat(one | other), [one, other])
    assert both.agreement(0, one) == 1
    assert both.agreement(1, other) == 1
    assert both.agreement(0, one | other) == pytest.approx(0.5)
    assert both.agreement(0, np.zeros(drawn.SHAPE, bool)) == 0


def test_frame_is_padded_as_sams_unless_the_masks_say_stretched():
    masks = np.zeros((1, 48, 64), bool)
    masks[0, 24:, 32:] = True
    padded = Candidates(masks, np.ones(1, np.float32), drawn.low(masks))
    assert LogitFrame.of(padded).part_hw == (12, 16)
    wide = np.full((1, 16, 16), -1, np.float32)
    wide[0, 8:, 8:] = 1
    assert LogitFrame.of(Candidates(masks, np.ones(1, np.float32), wide)).part_hw == (16, 16)

"""What shaken prompts say."""

import maps as drawn
import numpy as np
import pytest

from napari_samic.core.errors import PromptError
from napari_samic.core.types import Prompts
from napari_samic.refine.uncertainty import Ensemble, ensemble, entropy, perturb_prompts

IMAGE = drawn.picture()
BOX = Prompts(np.zeros((0, 2)), np.zeros(0, bool), np.array([10.0, 10, 30, 40]))


class Stubborn(drawn.Discs):
    def _mask(self, shape, prompts, radius):
        return drawn.disc(24, 30, radius)


@pytest.mark.parametrize("prompts", [drawn.at(24, 30), BOX], ids=["point", "box"])
def test_no_entropy_when_all_members_agree(prompts):
    votes = ensemble(Stubborn(), IMAGE, prompts)
    assert not votes.entropy.any()
    assert (votes.quality, votes.rim_entropy) == (1, 0)
    assert ((votes.mean == 1) == drawn.disc(24, 30, 6)).all()


def test_members_that_differ_have_entropy_at_the_rim_only():
    votes = ensemble(drawn.Discs(), IMAGE, drawn.at(24, 30), jitter_frac=0.1)
    assert 0 < votes.quality < 1
    assert 0 < votes.rim_entropy <= 1
    assert votes.entropy[24, 30] == 0
    assert votes.entropy.max() <= 1
    assert not votes.entropy[drawn.disc(24, 30, 14) == 0].any()


def test_quality_falls_with_the_shaking():
    few, many = (
        ensemble(drawn.Discs(), IMAGE, drawn.at(24, 30), jitter_frac=j) for j in (0.09, 0.4)
    )
    assert few.quality > many.quality
    assert few.rim_entropy < many.rim_entropy


def test_same_seed_gives_the_same_answer():
    one, same, other = (
        ensemble(drawn.Discs(), IMAGE, BOX, jitter_frac=0.1, seed=s).mean for s in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_members_are_counted_and_the_first_is_not_shaken():
    machine = drawn.Discs()
    ensemble(machine, IMAGE, BOX, members=5)
    assert len(machine.asked) == 5
    assert machine.asked[0][0] is BOX
    assert all((p.box_rc != BOX.box_rc).all() for p, *_ in machine.asked[1:])


def test_single_member_is_sure():
    votes = ensemble(drawn.Discs(), IMAGE, BOX, members=1)
    assert (votes.quality, votes.rim_entropy) == (1, 0)


def test_no_member_is_refused():
    with pytest.raises(PromptError, match="0 members"):
        ensemble(drawn.Discs(), IMAGE, BOX, members=0)


@pytest.mark.parametrize(
    "box", [(-0.5, -0.5, 47.5, 63.5), (0, 0, 1, 1), (46.5, 62.5, 47.5, 63.5)], ids=str
)
def test_shaken_prompts_stay_boxes_inside_the_image(box):
    draw = np.random.default_rng(0)
    prompts = Prompts(np.array([(0.0, 63), (47, 0)]), np.array([True, False]), np.array(box))
    for _ in range(200):
        moved = perturb_prompts(prompts, 0.5, (20.0, 20.0), drawn.SHAPE, draw)
        moved.check_inside(drawn.SHAPE)
        assert moved.is_foreground.tolist() == [True, False]


def test_no_jitter_moves_nothing():
    moved = perturb_prompts(BOX, 0.0, (20.0, 20.0), drawn.SHAPE, np.random.default_rng(0))
    np.testing.assert_array_equal(moved.box_rc, BOX.box_rc)


def test_half_and_half_is_one_bit():
    masks = np.array([drawn.disc(24, 20, 5), drawn.disc(24, 40, 5)])
    votes = Ensemble.of(masks)
    assert votes.quality == 0
    assert votes.entropy[24, 20] == votes.entropy[24, 40] == 1
    np.testing.assert_allclose(entropy(np.array([0.25], np.float32)), 0.8112781, rtol=1e-6)


def test_rim_leaves_the_inside_out():
    votes = Ensemble.of(np.array([drawn.disc(24, 30, 8), drawn.disc(24, 30, 10)]))
    assert votes.rim_entropy > 0.4  # half of the rim; of the inside, a third
    assert votes.entropy[votes.mean >= 0.5].mean() < 0.4


def test_empty_members_agree():
    votes = Ensemble.of(np.zeros((3, 8, 8), bool))
    assert (votes.quality, votes.rim_entropy) == (1, 0)

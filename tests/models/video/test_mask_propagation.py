"""What is expected of a carried object, what the segmenter is asked, and what comes of it."""

import numpy as np
import pytest

from napari_samic.core.types import Candidates
from napari_samic.models.video import mask_propagation

SHAPE = (48, 64)
IMAGE = np.zeros((*SHAPE, 3), np.uint8)


def square(row, column, half=8):
    out = np.zeros(SHAPE, bool)
    out[row - half : row + half + 1, column - half : column + half + 1] = True
    return out


class Answering:
    """Answers the masks that it was made with, and notes what it was asked."""

    name = "answering"

    def __init__(self, *masks, scores=None):
        self.masks = np.array(masks)
        self.scores = np.array(scores or [0.9] * len(masks), np.float32)
        self.asked = []

    def candidates(self, image, objects, *, multimask=True, logits=None):
        self.asked.append((objects, logits))
        wide = np.full((len(self.masks), 64, 64), -8, np.float32)
        wide[:, : SHAPE[0]] = np.where(self.masks, 8, -8)
        return [Candidates(self.masks, self.scores, wide[:, ::2, ::2]) for _ in objects]


def expected(mask, number=3, evidence=None):
    labels = np.where(mask, number, 0).astype(np.int32)
    return list(
        mask_propagation.mask_priors(labels, {number: 2}, {} if evidence is None else {2: evidence})
    )


def test_hunch_is_the_carried_mask_where_nothing_else_is_known():
    [prior] = expected(square(20, 30))
    assert (prior.number, prior.label) == (3, 2)
    np.testing.assert_array_equal(prior.odds > 0, square(20, 30)[prior.window])


def test_colours_move_the_outline_and_not_the_core():
    against = np.full(SHAPE, -3.0, np.float32)
    [prior] = expected(square(20, 30), evidence=against)
    assert prior.odds[prior.odds.shape[0] // 2, prior.odds.shape[1] // 2] > 0
    assert (prior.odds > 0).sum() < square(20, 30).sum()


def test_segmenter_is_asked_with_a_box_a_click_and_the_mask():
    segmenter = Answering(square(20, 30))
    mask_propagation.fit_priors(segmenter, IMAGE, expected(square(20, 30)))
    (box, both), logits = segmenter.asked[-1]
    np.testing.assert_array_equal(box.box_rc, [9.5, 19.5, 30.5, 40.5])
    assert len(box.points_rc) == 0
    np.testing.assert_array_equal(both.points_rc, [[20, 30]])
    assert [x.shape for x in logits] == [(32, 32), (32, 32)]
    assert logits[0][10, 15] > 0 > logits[0][10, 28]
    assert (logits[0][24:] == -16).all()  # below the image


def test_of_the_answers_the_score_and_the_overlap_choose():
    near, far = square(21, 31), square(38, 54)
    segmenter = Answering(far, near, scores=[0.99, 0.7])
    [fit] = mask_propagation.fit_priors(segmenter, IMAGE, expected(square(20, 30)))
    labels = mask_propagation.resolve_overlaps([fit], SHAPE)
    assert labels[square(21, 31)].mean() > 3 * 0.95
    assert not labels[far].any()
    assert 0.4 < fit.score < 0.7


def test_answer_that_is_somewhere_else_is_not_listened_to():
    segmenter = Answering(square(36, 46))
    [fit] = mask_propagation.fit_priors(segmenter, IMAGE, expected(square(20, 30)))
    np.testing.assert_array_equal(
        mask_propagation.resolve_overlaps([fit], SHAPE) > 0, square(20, 30)
    )
    assert fit.score < 0.3


def test_pixel_goes_to_the_object_that_more_speaks_for():
    left, right = square(20, 22), square(20, 38)
    labels = np.where(left, 1, np.where(right, 2, 0)).astype(np.int32)
    fits = [
        mask_propagation.MaskFit(h, h.odds, 1.0)
        for h in mask_propagation.mask_priors(labels, {}, {})
    ]
    out = mask_propagation.resolve_overlaps(fits, SHAPE)
    assert (out[20, 22], out[20, 38]) == (1, 2)
    assert (out[left & ~right] == 1).all()


@pytest.mark.parametrize(("odds", "stays"), [(-3.0, False), (-1.0, True)])
def test_object_whose_place_looks_like_ground_is_gone(odds, stays):
    labels = square(20, 30).astype(np.int32)
    out = mask_propagation.without_vanished(labels, {1: 1}, {1: np.full(SHAPE, odds, np.float32)})
    assert out.any() == stays
    assert labels.any()


def test_no_object_asks_nobody():
    segmenter = Answering(square(20, 30))
    assert mask_propagation.fit_priors(segmenter, IMAGE, []) == []
    assert segmenter.asked == []

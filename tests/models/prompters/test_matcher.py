"""Matcher: the same answer each time, made of several masks."""

import numpy as np
import pytest
from toy_backbone import ColourBackbone, discs
from toy_segmenter import ColourSegmenter, colour_at, disc, shown

from napari_samic.core.types import Candidates
from napari_samic.evaluation.metrics import iou
from napari_samic.models.prompters.matcher import Mask, Matcher, distinct_masks, merge_masks

ONE = shown("one", [(14, 44, 1), (44, 14, 2)])
TWO = shown("two", [(44, 44, 1), (14, 20, 2)], seed=1)
TARGET = discs([(40, 16, 1), (20, 44, 2)], radius=10, seed=2)
WIDE = discs([(24, 72, 1), (24, 24, 2)], (48, 96), radius=15, seed=3)


@pytest.mark.parametrize("backbone", [None, ColourBackbone()], ids=["embedding", "backbone"])
@pytest.mark.parametrize("image", [TARGET, WIDE], ids=["square", "wide"])
def test_answer_is_the_object_of_the_same_colour(image, backbone):
    answer = Matcher(ColourSegmenter(), backbone=backbone).propose([ONE, TWO], image).answer
    truth = (image[..., 0] > 180) & (image[..., 2] < 90)
    assert iou(answer.labels, truth) > 0.9


def test_points_lie_on_the_object_only():
    (found,) = Matcher(ColourSegmenter()).propose([ONE], TARGET).objects
    colours = [colour_at(TARGET, p) for p in found.points_rc]
    assert np.mean([c == 1 for c in colours]) > 0.8
    assert 2 not in colours


def test_two_runs_ask_the_same():
    first, second = ColourSegmenter(), ColourSegmenter()
    a, b = (Matcher(s).propose([ONE, TWO], TARGET) for s in (first, second))
    assert len(first.asked) == len(second.asked) > 20
    for (p, *_), (q, *_) in zip(first.asked, second.asked, strict=True):
        np.testing.assert_array_equal(p.points_rc, q.points_rc)
    np.testing.assert_array_equal(a.answer.labels, b.answer.labels)


def test_order_of_references_does_not_matter():
    a, b = (Matcher(ColourSegmenter()).propose(r, TARGET) for r in ([ONE, TWO], [TWO, ONE]))
    np.testing.assert_array_equal(a.objects[0].points_rc, b.objects[0].points_rc)
    np.testing.assert_array_equal(a.heat_map.values, b.heat_map.values)


def test_each_class_has_one_object():
    reference = shown("both", [(14, 44, 1), (44, 14, 2)], asked=(1, 2))
    answer = Matcher(ColourSegmenter()).propose([reference], TARGET).answer
    assert [p.label for p in answer.objects] == [1, 2]
    assert (answer.labels[40, 16], answer.labels[20, 44]) == (1, 2)


def test_nothing_but_empty_masks_is_an_empty_answer():
    class Empty(ColourSegmenter):
        def answer(self, image, prompts, multimask):
            found = super().answer(image, prompts, multimask)
            return Candidates(np.zeros_like(found.masks), found.scores, found.logits)

    assert not Matcher(Empty()).propose([ONE], TARGET).answer.labels.any()


def mask(inside, cells, score=0.9, stability=0.95):
    return Mask(np.packbits(inside), np.asarray(cells, bool), score, stability)


def test_good_masks_are_joined_and_a_bad_one_is_not():
    parts = [disc((8, 8), 2, c, 1) for c in (1, 3, 6)]
    found = [
        mask(parts[0], [1, 0, 0, 0]),
        mask(parts[1], [0, 1, 0, 0]),
        mask(parts[2], [0, 0, 0, 1]),
    ]
    costs = np.array([[0, 0, 0.9, 0.9], [0, 0, 0.9, 0.9]], float)
    union, _ = merge_masks(found, np.array([0, 1]), costs, (8, 8, 3))
    np.testing.assert_array_equal(union, parts[0] | parts[1])


def test_same_mask_counts_once_and_unsure_ones_are_left_out():
    one, other = disc((8, 8), 2, 2, 1), disc((8, 8), 5, 5, 1)
    found = [
        mask(one, [1, 0], 0.8), mask(one, [1, 0], 0.9), mask(other, [0, 1], 0.1),
        mask(other, [0, 1], 0.9, 0.2), mask(one & other, [0, 0]),
    ]  # fmt: skip
    assert distinct_masks(found) == [found[1]]


def test_best_there_is_stays_where_all_are_unsure():
    found = [mask(disc((8, 8), 2, 2, 1), [1, 0], 0.2), mask(disc((8, 8), 5, 5, 1), [0, 1], 0.3)]
    assert distinct_masks(found) == [found[1]]

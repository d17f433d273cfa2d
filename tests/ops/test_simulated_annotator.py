"""The simulated annotator: where it clicks, with which sign, and when it stops."""

import numpy as np
import pytest

from napari_samic.core.errors import PromptError
from napari_samic.core.settings import AnnotateSettings
from napari_samic.core.types import Candidates
from napari_samic.ops import simulated_annotator

SHAPE = (40, 50)
IMAGE = np.zeros((*SHAPE, 3), np.uint8)


def box(top, left, bottom, right):
    mask = np.zeros(SHAPE, bool)
    mask[top:bottom, left:right] = True
    return mask


class Scripted:
    """Answers with one mask and score after another, and remembers what it was asked."""

    name = "scripted"

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def candidates(self, image, objects, *, multimask=True, logits=None):
        [prompts], [earlier] = objects, logits
        self.asked.append((prompts, multimask, earlier))
        masks, scores = self.answers[min(len(self.asked), len(self.answers)) - 1]
        low = np.arange(len(scores), dtype=np.float32)[:, None, None] + 10 * len(self.asked)
        return [Candidates(np.stack(masks), np.array(scores, np.float32), low)]


def annotate(segmenter, truth, **settings):
    return simulated_annotator.annotate_object(
        segmenter, IMAGE, truth, AnnotateSettings(**settings)
    )


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        pytest.param(box(10, 10, 21, 21), (15, 15), id="square"),
        pytest.param(box(3, 7, 4, 8), (3, 7), id="one_pixel"),
        pytest.param(box(0, 0, 9, 9), (4, 4), id="corner_of_the_image"),
        pytest.param(box(20, 0, 23, 50), (21, None), id="strip_over_the_whole_width"),
        pytest.param(box(2, 2, 5, 5) | box(20, 30, 31, 41), (25, 35), id="thicker_of_two_parts"),
    ],
)
def test_inner_maximum_is_farthest_from_the_outline(region, expected):
    row, column = simulated_annotator.inner_maximum(region)
    assert region[int(row), int(column)]
    assert row == expected[0]
    assert expected[1] is None or column == expected[1]


def test_inner_maximum_counts_the_border_of_the_image_as_outline():
    row, column = simulated_annotator.inner_maximum(np.ones(SHAPE, bool))
    assert row in (19, 20)
    assert 19 <= column <= 30


def test_inner_maximum_lies_inside_a_ring():
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    far = np.hypot(rows - 20, columns - 25)
    ring = (far > 8) & (far < 15)
    assert ring[tuple(simulated_annotator.inner_maximum(ring).astype(int))]


def test_empty_region_has_nothing_to_click():
    with pytest.raises(PromptError, match="no inside to click"):
        simulated_annotator.inner_maximum(np.zeros(SHAPE, bool))


def test_instance_ids_give_one_object_an_id():
    truth = box(2, 2, 8, 8) * 1 + box(20, 2, 28, 8) * 1 + box(10, 20, 18, 30) * 5
    masks = list(simulated_annotator.objects_of(truth))
    assert [int(m.sum()) for m in masks] == [36 + 48, 80]


def test_mask_of_one_value_gives_one_object_a_component():
    truth = 255 * (box(2, 2, 8, 8) | box(8, 8, 10, 10) | box(20, 2, 28, 8))
    assert [int(m.sum()) for m in simulated_annotator.objects_of(truth)] == [
        36 + 4,
        48,
    ]  # corners touch


def test_objects_that_are_too_small_are_left_out():
    truth = box(0, 0, 4, 4) * 1 + box(10, 10, 13, 15) * 2
    assert [int(m.sum()) for m in simulated_annotator.objects_of(truth, 16)] == [16]
    assert len(simulated_annotator.prompts_of(truth, AnnotateSettings(min_object_px=15))) == 2
    assert simulated_annotator.prompts_of(truth, AnnotateSettings(min_object_px=17)) == ()


def test_small_spots_get_a_click_and_specks_beside_a_large_object_none():
    spots = box(0, 0, 3, 3) * 1 + box(10, 10, 12, 13) * 2
    assert len(simulated_annotator.prompts_of(spots)) == 2
    assert len(simulated_annotator.prompts_of(spots + box(20, 20, 40, 40) * 3)) == 1
    assert simulated_annotator.prompts_of(0 * spots) == ()


def test_plain_prompts_are_one_positive_click_an_object():
    first, second = simulated_annotator.prompts_of(
        box(10, 10, 21, 21) * 1 + box(30, 30, 35, 35) * 2
    )
    assert first.points_rc.tolist() == [[15, 15]]
    assert second.points_rc.tolist() == [[32, 32]]
    assert first.is_foreground.tolist() == second.is_foreground.tolist() == [True]


def test_next_click_is_positive_where_something_is_missing():
    truth = box(10, 10, 21, 31)
    point, positive = simulated_annotator.next_click(box(10, 10, 21, 20), truth)
    assert positive
    assert truth[tuple(point.astype(int))]
    assert point[0] == 15
    assert 25 <= point[1] <= 26


def test_next_click_is_negative_where_there_is_too_much():
    truth = box(10, 10, 21, 20)
    point, positive = simulated_annotator.next_click(box(10, 10, 21, 31), truth)
    assert not positive
    assert point[0] == 15
    assert 24 <= point[1] <= 26


def test_next_click_goes_to_the_largest_of_all_errors():
    truth = box(0, 0, 10, 10) | box(30, 30, 36, 36)
    mask = box(0, 0, 10, 10) | box(20, 0, 29, 9)  # misses 36 pixels, adds 81
    point, positive = simulated_annotator.next_click(mask, truth)
    assert (point.tolist(), positive) == ([24, 4], False)
    mask = box(0, 0, 10, 10) | box(20, 0, 25, 5)  # adds 25
    point, positive = simulated_annotator.next_click(mask, truth)
    assert positive
    assert truth[tuple(point.astype(int))]
    assert point[0] > 30


def test_next_click_weighs_components_and_not_their_sum():
    truth = box(0, 0, 4, 4) | box(0, 10, 4, 14) | box(0, 20, 4, 24)  # three times 16 missing
    assert (
        simulated_annotator.next_click(box(30, 0, 35, 5), truth)[1] is False
    )  # 25 too many in one piece


def test_no_click_when_all_is_right():
    truth = box(1, 2, 9, 9)
    assert simulated_annotator.next_click(truth, truth) is None


def test_first_click_is_the_objects_deepest_point():
    truth = box(10, 10, 21, 21)
    segmenter = Scripted(([truth], [0.9]))
    done = annotate(segmenter, truth)
    assert done.prompts.points_rc.tolist() == [[15, 15]]
    assert done.prompts.is_foreground.tolist() == [True]
    assert done.ious == (1.0,)
    assert done.scores == pytest.approx((0.9,))


def test_later_clicks_correct_the_mask_and_give_its_logits_back():
    truth, half = box(10, 10, 21, 31), box(10, 10, 21, 20)
    segmenter = Scripted(([half], [0.8]), ([truth], [0.9]))
    done = annotate(segmenter, truth)
    (_, ambiguous, nothing), (second, multimask, logits) = segmenter.asked
    assert (ambiguous, nothing, multimask) == (False, None, False)
    assert logits.item() == 10  # of the first answer
    assert second.is_foreground.tolist() == [True, True]
    assert second.points_rc[1, 1] in (25, 26)
    assert done.ious == pytest.approx((110 / 231, 1.0))
    assert done.mask.sum() == truth.sum()


def test_clicks_stop_at_the_target():
    truth, nearly = box(0, 0, 10, 10), box(0, 0, 10, 9)
    assert len(annotate(Scripted(([nearly], [0.5])), truth, target_iou=0.9).scores) == 1
    assert len(annotate(Scripted(([nearly], [0.5])), truth, target_iou=0.91).scores) > 1


def test_clicks_stop_when_the_confidence_saturates():
    truth, half = box(0, 0, 10, 10), box(0, 0, 10, 5)
    answers = [([half], [s]) for s in (0.3, 0.6, 0.605, 0.61, 0.9)]
    done = annotate(Scripted(*answers), truth)
    assert done.scores == pytest.approx((0.3, 0.6, 0.605, 0.61))
    assert len(done.prompts.points_rc) == 4


def test_one_small_change_is_not_yet_saturation():
    truth, half = box(0, 0, 10, 10), box(0, 0, 10, 5)
    answers = [([half], [s]) for s in (0.3, 0.305, 0.6, 0.605)]
    done = annotate(Scripted(*answers), truth, max_clicks=4)
    assert len(done.scores) == 4


def test_clicks_stop_when_they_are_used_up():
    truth, half = box(0, 0, 10, 10), box(0, 0, 10, 5)
    answers = [([half], [0.1 * k]) for k in range(1, 9)]
    done = annotate(Scripted(*answers), truth, max_clicks=5)
    assert len(done.scores) == len(done.ious) == len(done.prompts.points_rc) == 5


def test_every_object_of_an_image_is_annotated_alone():
    truth = box(0, 0, 10, 10) * 1 + box(20, 20, 31, 31) * 2 + box(38, 48, 40, 50) * 3
    segmenter = Scripted(([box(0, 0, 10, 10)], [0.9]), ([box(20, 20, 31, 31)], [0.8]))
    first, second = simulated_annotator.annotate_image(segmenter, IMAGE, truth)
    assert first.ious == second.ious == (1.0,)
    assert [len(p.points_rc) for p, _, _ in segmenter.asked] == [1, 1]
    assert [logits for _, _, logits in segmenter.asked] == [None, None]


def test_mask_without_a_large_enough_object_is_refused():
    with pytest.raises(PromptError, match="without an object of at least 16 pixels"):
        simulated_annotator.annotate_image(Scripted(), IMAGE, box(0, 0, 3, 3).astype(np.int32))


def test_clicks_that_made_the_mask_worse_are_undone():
    truth, good, bad = box(4, 4, 24, 34), box(6, 4, 24, 34), box(14, 4, 24, 34)
    segmenter = Scripted(([bad], [0.3]), ([good], [0.6]), ([bad], [0.9]))
    found = annotate(segmenter, truth, max_clicks=3)
    assert (len(found.ious), found.kept, len(found.prompts.points_rc)) == (3, 2, 2)
    assert (found.mask == good).all()

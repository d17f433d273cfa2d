"""Masks of single objects to one label image."""

import numpy as np
import pytest

from napari_samic.core.errors import InputError
from napari_samic.core.types import HeatMap, Prompts, Segmentation
from napari_samic.ops.label_fusion import add_rival_clicks, join, rejoined


def disc(label=1):
    return Prompts(np.array([[1.0, 1.0]]), np.array([True]), label=label)


def click(row, column):
    return Prompts(np.array([[row, column]], float), np.array([True]))


def block(rows, columns, shape=(6, 8)):
    mask = np.zeros(shape, bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


LEFT, MIDDLE, RIGHT = block((0, 6), (0, 4)), block((1, 5), (2, 6)), block((0, 6), (5, 8))


def test_higher_score_wins_on_overlap_whatever_the_order():
    one = join([LEFT, MIDDLE], [0.4, 0.9], [disc(), disc()])
    other = join([MIDDLE, LEFT], [0.9, 0.4], [disc(), disc()])
    assert (one.labels[MIDDLE] == 2).all()
    assert (one.labels[LEFT & ~MIDDLE] == 1).all()
    assert (other.labels[MIDDLE] == 1).all()


def test_first_object_wins_among_equal_scores():
    joined = join([LEFT, MIDDLE], [0.5, 0.5], [disc(), disc()])
    assert (joined.labels[LEFT] == 1).all()


def test_numbers_follow_the_order_of_objects():
    objects = [disc(3), disc(1), disc(2)]
    joined = join([RIGHT, LEFT, block((2, 3), (4, 5))], [0.1, 0.9, 0.5], objects)
    assert joined.labels[0, 7] == 1
    assert joined.labels[0, 0] == 2
    assert joined.labels[2, 4] == 3
    assert joined.objects == tuple(objects)
    np.testing.assert_allclose(joined.scores, [0.1, 0.9, 0.5])


@pytest.mark.parametrize(
    "lost", [pytest.param(block((0, 0), (0, 0)), id="empty"), pytest.param(MIDDLE, id="hidden")]
)
def test_object_without_pixels_is_dropped_and_numbers_stay_consecutive(lost):
    objects = [disc(), disc(), disc()]
    cover = block((0, 6), (0, 6))
    joined = join([lost, cover, block((0, 6), (6, 8))], [0.2, 0.8, 0.7], objects)
    assert set(np.unique(joined.labels)) == {1, 2}
    assert joined.objects == (objects[1], objects[2])
    np.testing.assert_allclose(joined.scores, [0.8, 0.7])


def test_union_carries_the_class_of_the_winner():
    joined = join([LEFT, MIDDLE, RIGHT], [0.5, 0.9, 0.6], [disc(7), disc(2), disc(7)],
                  instances=False)  # fmt: skip
    assert (joined.labels[MIDDLE] == 2).all()
    assert (joined.labels[(LEFT | RIGHT) & ~MIDDLE] == 7).all()
    assert len(joined.objects) == 3


def test_objects_below_the_least_score_are_dropped():
    joined = join([LEFT, RIGHT], [0.3, 0.6], [disc(), disc()], min_score=0.5)
    assert (joined.labels == RIGHT).all()
    np.testing.assert_allclose(joined.scores, [0.6])


def test_score_equal_to_the_least_is_kept():
    assert len(join([LEFT], [0.5], [disc()], min_score=0.5).objects) == 1


def test_of_two_near_equal_masks_the_higher_score_is_kept_when_asked():
    nearly = LEFT.copy()
    nearly[0, 4] = True
    objects = [disc(), disc()]
    assert len(join([nearly, LEFT], [0.3, 0.9], objects).objects) == 2
    joined = join([nearly, LEFT], [0.3, 0.9], objects, duplicate_iou=0.8)
    assert joined.objects == (objects[1],)
    assert (joined.labels == LEFT).all()


def test_touching_and_partly_overlapping_masks_are_not_duplicates():
    joined = join([LEFT, MIDDLE, RIGHT], [0.9, 0.8, 0.7], [disc()] * 3, duplicate_iou=0.8)
    assert len(joined.objects) == 3


def test_two_empty_masks_are_no_error_when_duplicates_are_sought():
    nothing = block((0, 0), (0, 0))
    joined = join([nothing, nothing], [0.9, 0.8], [disc()] * 2, duplicate_iou=0.8)
    assert not joined.labels.any()


def test_no_object_gives_background_of_the_shape():
    joined = join([], [], [], shape=(3, 4))
    assert joined.labels.shape == (3, 4)
    assert joined.score == 0.0
    assert joined.objects == ()


def test_everything_below_the_least_score_gives_background():
    assert not join([LEFT], [0.1], [disc()], min_score=0.5).labels.any()


def test_heat_map_is_passed_on_and_arguments_are_left_alone():
    heat_map = HeatMap(np.zeros((6, 8)))
    before = LEFT.copy()
    joined = join([LEFT], [1.0], [disc()], heat_map=heat_map)
    assert joined.heat_map is heat_map
    assert (before == LEFT).all()


@pytest.mark.parametrize(
    ("masks", "scores", "objects", "shape", "match"),
    [
        pytest.param([LEFT], [0.5, 0.5], [disc()], None, "1 masks, 2 scores", id="scores"),
        pytest.param([LEFT], [0.5], [], None, "0 objects", id="objects"),
        pytest.param([], [], [], None, "no shape", id="no_shape"),
        pytest.param([LEFT], [0.5], [disc()], (3, 3), "mask 1 has shape", id="shape"),
        pytest.param([LEFT, LEFT[:2]], [0.5] * 2, [disc()] * 2, None, "mask 2", id="unequal"),
    ],
)
def test_what_does_not_belong_together_is_refused(masks, scores, objects, shape, match):
    with pytest.raises(InputError, match=match):
        join(masks, scores, objects, shape=shape)


def test_click_inside_a_surer_mask_is_dropped():
    masks = np.zeros((3, 6, 6), bool)
    masks[0, :, :3] = True
    masks[1, 2, 2:5] = True  # clicked at (2, 2), inside the first
    masks[2, 4:, 4:] = True
    objects = [click(1, 1), click(2, 2), click(5, 5)]
    joined = join(masks, [0.9, 0.5, 0.4], objects, drop_covered=True)
    assert [o.points_rc.tolist() for o in joined.objects] == [[[1, 1]], [[5, 5]]]
    assert joined.labels[2, 4] == 0
    assert len(join(masks, [0.9, 0.5, 0.4], objects).objects) == 3
    assert len(join(masks, [0.4, 0.5, 0.9], objects, drop_covered=True).objects) == 3


def test_object_with_a_click_outside_a_surer_mask_stays():
    masks = np.zeros((2, 6, 6), bool)
    masks[0, :, :3] = True
    masks[1, 2, 2:5] = True
    both = Prompts(np.array([[2.0, 2.0], [2.0, 4.0]]), np.array([True, True]))
    joined = join(masks, [0.9, 0.5], [click(1, 1), both], drop_covered=True)
    assert len(joined.objects) == 2


def test_mask_over_anothers_click_gets_it_as_a_negative_one():
    masks = [np.ones((20, 30), bool), block((0, 4), (20, 30), (20, 30))]
    asked = add_rival_clicks(masks, [click(10, 5), click(2, 25)])
    assert list(asked) == [0]
    np.testing.assert_array_equal(asked[0].points_rc, [[10, 5], [2, 25]])
    np.testing.assert_array_equal(asked[0].is_foreground, [True, False])


def test_clicks_on_the_same_place_and_boxes_are_no_rivals():
    whole = np.ones((20, 30), bool)
    box = Prompts(np.zeros((0, 2)), np.zeros(0, bool), np.array([1.0, 1.0, 9.0, 9.0]))
    assert add_rival_clicks([whole] * 3, [click(10, 5), click(11, 7), box]) == {}
    both = Prompts(np.array([[2.0, 2.0], [10.0, 20.0]]), np.array([True, True]))
    away = np.zeros((20, 30), bool)
    assert add_rival_clicks([whole, away], [both, click(11, 21)]) == {}


def test_only_the_three_nearest_rivals_are_told():
    objects = [click(10, 5), *(click(10, 5 + 5 * k) for k in (5, 4, 3, 2, 1))]
    away = [np.zeros((20, 40), bool)] * 5
    asked = add_rival_clicks([np.ones((20, 40), bool), *away], objects)
    assert asked[0].points_rc[1:, 1].tolist() == [10, 15, 20]


def numbered():
    labels = np.zeros((6, 8), np.int32)
    labels[:, :3], labels[:, 3:5], labels[:, 6:] = 1, 2, 3
    return Segmentation(labels, np.array([0.9, 0.2, 0.6]), (disc(4), disc(2), disc(4)))


def test_a_finished_result_is_joined_again_by_score():
    found = rejoined(numbered(), min_score=0.5)
    np.testing.assert_array_equal(found.labels[0], [1, 1, 1, 0, 0, 0, 2, 2])
    np.testing.assert_allclose(found.scores, [0.9, 0.6])
    assert [p.label for p in found.objects] == [4, 4]


def test_a_finished_result_is_joined_again_to_classes():
    found = rejoined(numbered(), instances=False)
    np.testing.assert_array_equal(found.labels[0], [4, 4, 4, 2, 2, 0, 4, 4])
    assert len(found.objects) == 3


def test_an_object_without_a_pixel_goes():
    found = numbered()
    hidden = Segmentation(np.where(found.labels == 2, 0, found.labels), found.scores, found.objects)
    assert len(rejoined(hidden).objects) == 2


def test_numbers_without_objects_are_refused():
    found = numbered()
    with pytest.raises(InputError, match="labels 0 to 3 and 2 scores for 2 objects"):
        rejoined(Segmentation(found.labels, found.scores[:2], found.objects[:2]))

"""The forest on cells: probabilities, pieces of them, and no segmenter where masks are given."""

import numpy as np
import pytest
from toy_backbone import ColourBackbone, discs
from toy_segmenter import ColourSegmenter, disc, shown

from napari_samic.core.types import HeatMap
from napari_samic.evaluation.metrics import iou
from napari_samic.models.features.patches import PatchFeatures
from napari_samic.models.prompters.random_forest import (
    Forest,
    components_of,
    per_class,
    sample_cells,
)

ONE = shown("one", [(14, 44, 1), (44, 14, 2)])
TWO = shown("two", [(44, 44, 1), (14, 20, 2)], seed=1)
TARGET = discs([(40, 16, 1), (20, 44, 2)], radius=10, seed=2)
WIDE = discs([(24, 72, 1), (24, 24, 2)], (48, 96), radius=15, seed=3)


def forest(segmenter=None, **more):
    return Forest(segmenter, backbone=ColourBackbone(), trees=10, **more)


@pytest.mark.parametrize("image", [TARGET, WIDE], ids=["square", "wide"])
def test_answer_is_the_object_of_the_same_colour(image):
    answer = forest().propose([ONE, TWO], image).answer
    truth = (image[..., 0] > 180) & (image[..., 2] < 90)
    assert iou(answer.labels, truth) > 0.45
    assert not answer.labels[image[..., 2] > 200].any()


def test_each_class_has_its_own_pieces():
    both = [shown(f"r{i}", [(14, 44, 1), (44, 14, 2)], asked=(1, 2), seed=i) for i in range(2)]
    answer = forest().propose(both, TARGET).answer
    kinds = {p.label: p for p in answer.objects}
    assert sorted(kinds) == [1, 2]
    for label, at in ((1, (40, 16)), (2, (20, 44))):
        assert answer.objects[answer.labels[at] - 1].label == label


def test_two_pieces_are_two_objects_with_point_and_box_inside():
    values = np.zeros((20, 30), np.float32)
    values[2:6, 2:6], values[10:15, 20:29] = 0.75, 0.875
    found = components_of({3: values}, HeatMap(values))
    assert found.labels.max() == 2
    assert found.scores.tolist() == [0.75, 0.875]
    for k, prompts in enumerate(found.objects, start=1):
        row, column = prompts.points_rc[0].astype(int)
        assert found.labels[row, column] == k
        assert prompts.label == 3
    np.testing.assert_array_equal(found.objects[0].box_rc, [1.5, 1.5, 5.5, 5.5])


def test_pixel_of_two_classes_belongs_to_the_likelier():
    low, high = np.full((4, 4), 0.6, np.float32), np.full((4, 4), 0.7, np.float32)
    found = components_of({1: low, 2: high}, HeatMap(high))
    assert [p.label for p in found.objects] == [2]


def test_nothing_above_the_cut_is_no_object():
    values = np.full((4, 4), 0.4, np.float32)
    found = components_of({1: values}, HeatMap(values))
    assert not found.labels.any()
    assert found.objects == ()


def test_order_of_references_does_not_matter():
    a, b = (forest().propose(r, TARGET).heat_map.values for r in ([ONE, TWO], [TWO, ONE]))
    np.testing.assert_array_equal(a, b)


def test_seed_is_another_forest():
    a, b = (forest(seed=s).propose([ONE, TWO], TARGET).heat_map.values for s in (0, 1))
    assert np.abs(a - b).max() > 0


def test_as_many_cells_of_the_object_as_of_the_rest_are_learned():
    look = PatchFeatures(ColourBackbone(), WIDE, disc(WIDE.shape[:2], 24, 72, 20).astype(np.int32))
    inputs, answers = sample_cells([look], (1,), np.random.default_rng(0), most=4)
    assert np.bincount(answers).tolist() == [4, 4]
    assert inputs.shape == (8, 3 * 4 + 3)


def test_many_references_share_the_budget():
    assert per_class(1, (1,)) == 300
    assert per_class(100, (1,)) == 60
    assert per_class(100_000, (1, 2)) == 1


def test_reference_of_clicks_alone_is_answered_by_the_segmenter():
    clicked = shown("clicks", [(14, 44, 1), (44, 14, 2)], masked=False)
    segmenter = ColourSegmenter()
    assert forest(segmenter).propose([clicked], TARGET).heat_map.values.max() > 0.3
    assert segmenter.segmented == 1

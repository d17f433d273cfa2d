"""PerSAM: where it points, what it asks, and what it does when nothing comes back."""

import numpy as np
import pytest
from toy_backbone import ColourBackbone, discs
from toy_sam import picture, random_sam
from toy_segmenter import ColourSegmenter, colour_at, disc, shown

from napari_samic.core.errors import PromptError
from napari_samic.core.types import Candidates, Prompts, Reference
from napari_samic.evaluation.metrics import iou
from napari_samic.models.prompters.persam import Persam, cascade
from napari_samic.models.sam.segmenter import SamSegmenter
from napari_samic.ops.shape import box_of

ONE = shown("one", [(14, 44, 1), (44, 14, 2)])
TWO = shown("two", [(44, 44, 1), (14, 20, 2)], seed=1)
TARGET = discs([(40, 16, 1), (20, 44, 2)], radius=10, seed=2)
WIDE = discs([(24, 72, 1), (24, 24, 2)], (48, 96), radius=15, seed=3)


@pytest.mark.parametrize("backbone", [None, ColourBackbone()], ids=["embedding", "backbone"])
@pytest.mark.parametrize("image", [TARGET, WIDE], ids=["square", "wide"])
def test_positive_point_lies_in_the_object_of_the_same_colour(image, backbone):
    proposal = Persam(ColourSegmenter(), backbone=backbone).propose([ONE], image)
    (found,) = proposal.objects
    assert [colour_at(image, p) == 1 for p in found.points_rc] == [True, False]
    assert found.is_foreground.tolist() == [True, False]


@pytest.mark.parametrize("image", [TARGET, WIDE], ids=["square", "wide"])
def test_answer_is_the_object(image):
    answer = Persam(ColourSegmenter()).propose([ONE, TWO], image).answer
    truth = (image[..., 0] > 180) & (image[..., 2] < 90)
    assert iou(answer.labels, truth) > 0.95


def test_map_is_highest_in_the_object():
    values = Persam(ColourSegmenter()).propose([ONE], TARGET).heat_map.values
    assert values.shape == (64, 64)
    assert 0 <= values.min() < values.max() <= 1
    inside = disc((64, 64), 40, 16, 6)
    assert values[inside].min() > values[~disc((64, 64), 40, 16, 14)].max()


def test_each_class_has_one_object():
    reference = shown("both", [(14, 44, 1), (44, 14, 2)], asked=(1, 2))
    proposal = Persam(ColourSegmenter()).propose([reference], TARGET)
    assert [p.label for p in proposal.objects] == [1, 2]
    assert [colour_at(TARGET, p.points_rc[0]) for p in proposal.objects] == [1, 2]
    assert proposal.answer.labels[40, 16] == 1
    assert proposal.answer.labels[20, 44] == 2


def test_order_of_references_does_not_matter():
    a, b = (Persam(ColourSegmenter()).propose(refs, TARGET) for refs in ([ONE, TWO], [TWO, ONE]))
    np.testing.assert_array_equal(a.heat_map.values, b.heat_map.values)


def test_second_reference_counts():
    alone, both = (
        Persam(ColourSegmenter()).propose(refs, TARGET).heat_map.values
        for refs in ([ONE], [ONE, shown("other", [(30, 30, 3)], asked=(3,), masked=True)])
    )
    assert np.abs(alone - both).max() > 1e-3


def test_reference_of_clicks_alone_is_answered_by_the_segmenter():
    reference = shown("clicks", [(14, 44, 1), (44, 14, 2)], masked=False)
    (found,) = Persam(ColourSegmenter()).propose([reference], TARGET).objects
    assert colour_at(TARGET, found.points_rc[0]) == 1


def test_object_smaller_than_a_cell_is_still_a_target():
    image = discs([(20, 20, 1)], radius=1)
    reference = Reference("small", image, (), disc((64, 64), 20, 20, 1).astype(np.int32))
    Persam(ColourSegmenter()).propose([reference], TARGET)


def test_references_without_an_object_are_refused():
    empty = Reference("empty", TARGET, (), np.zeros((64, 64), np.int32))
    with pytest.raises(PromptError, match="no reference shows an object"):
        Persam(ColourSegmenter()).propose([empty], TARGET)


def test_cascade_gives_back_logits_then_the_box():
    segmenter = ColourSegmenter()
    asked = Prompts(np.array([[40, 16], [60, 2.0]]), np.array([True, False]))
    cascade(segmenter, TARGET, [asked])
    first, second, third = segmenter.asked
    assert (first[1], first[2]) == (False, None)
    assert (second[1], second[0].box_rc) == (True, None)
    assert second[2].shape == (64, 64)
    np.testing.assert_array_equal(third[0].box_rc, [29.5, 5.5, 50.5, 26.5])
    np.testing.assert_array_equal(third[0].points_rc, asked.points_rc)


class Failing(ColourSegmenter):
    """Empty masks from the n-th question on."""

    def __init__(self, start):
        super().__init__()
        self.start = start

    def answer(self, image, prompts, multimask):
        found = super().answer(image, prompts, multimask)
        if len(self.asked) < self.start:
            return found
        return Candidates(np.zeros_like(found.masks), found.scores, found.logits)


@pytest.mark.parametrize(("start", "found"), [(1, 0), (2, 1), (3, 1)])
def test_empty_masks_are_guarded(start, found):
    answer = Persam(Failing(start)).propose([ONE], TARGET).answer
    assert answer.labels.max() == found


def test_box_has_the_outer_edges_of_the_pixels():
    mask = np.zeros((6, 6), bool)
    mask[1:3, 2] = True
    np.testing.assert_array_equal(box_of(mask), [0.5, 1.5, 2.5, 2.5])
    assert box_of(np.zeros((6, 6), bool)) is None


def test_sam_is_guided_and_guidance_can_be_left_out():
    segmenter = SamSegmenter(random_sam(), name="toy", device="cpu")
    image = picture((48, 64))
    reference = Reference("r", image, (), disc((48, 64), 20, 30, 12).astype(np.int32))
    with_it, without = (Persam(segmenter, guide=g) for g in (True, False))
    assert (with_it.guides, without.guides) == (True, False)
    assert with_it.propose([reference], picture((48, 64), 1)).answer is not None
    assert not Persam(ColourSegmenter()).guides

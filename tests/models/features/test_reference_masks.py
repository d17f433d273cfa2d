"""Masks of references: given or asked for, their classes, and what is remembered of them."""

import numpy as np
import pytest
from toy_backbone import clicks, discs
from toy_segmenter import ColourSegmenter, disc, shown

from napari_samic.core.errors import PromptError
from napari_samic.core.types import Prompts, Reference
from napari_samic.models.features.reference_masks import (
    FewShotCache,
    ReferenceMaskCache,
    classes_of,
    in_order,
    mask_of,
)

PLACES = [(14, 44, 1), (44, 14, 2)]


def test_instance_has_the_class_of_the_click_in_it():
    found = mask_of(shown("a", PLACES, asked=(1, 2)))
    assert found.classes == (1, 2)
    assert found.by_class[14, 44] == 1
    assert found.by_class[44, 14] == 2
    assert found.by_class[0, 0] == 0


def test_parts_of_a_mask_of_one_value_are_objects_of_their_own():
    both = disc((64, 64), 14, 44, 8) | disc((64, 64), 44, 14, 8)
    reference = Reference("a", discs(PLACES), clicks(PLACES), both.astype(np.int32) * 255)
    found = mask_of(reference)
    assert (found.by_class[14, 44], found.by_class[44, 14]) == (1, 2)


def test_mask_without_any_click_is_of_class_one():
    found = mask_of(Reference("a", discs(PLACES), (), shown("a", PLACES, asked=(1, 2)).mask))
    assert found.classes == (1, 1)


def test_unclicked_instance_is_left_out_where_there_are_several_classes():
    whole = shown("a", [*PLACES, (50, 50, 3)], asked=(1, 2, 3))
    found = mask_of(Reference("a", whole.image, whole.objects[:2], whole.mask))
    assert found.classes == (1, 2)
    assert found.by_class[50, 50] == 0


def test_box_alone_says_the_class():
    whole = shown("a", PLACES, asked=(1, 2))
    box = Prompts(np.zeros((0, 2)), np.zeros(0, bool), np.array([6, 36, 22, 52.0]), label=7)
    assert mask_of(Reference("a", whole.image, (box, whole.objects[1]), whole.mask)).classes == (
        7,
        2,
    )


def test_clicks_without_a_mask_are_answered_once():
    segmenter, reference = ColourSegmenter(), shown("a", PLACES, asked=(1, 2), masked=False)
    masks = ReferenceMaskCache(segmenter)
    assert masks.of(reference) is masks.of(reference)
    assert segmenter.segmented == 1
    assert masks.of(reference).by_class[44, 14] == 2


@pytest.mark.parametrize(
    ("reference", "segmenter", "told"),
    [
        pytest.param(
            Reference("a", discs([]), ()), ColourSegmenter(), "neither a mask nor", id="nothing"
        ),
        pytest.param(shown("a", PLACES, masked=False), None, "no segmenter", id="nobody_to_ask"),
    ],
)
def test_what_can_not_be_known_is_said(reference, segmenter, told):
    with pytest.raises(PromptError, match=f"a: .*{told}"):
        mask_of(reference, segmenter)


def test_empty_masks_show_nothing_to_look_for():
    empty = Reference("a", discs([]), (), np.zeros((64, 64), np.int32))
    with pytest.raises(PromptError, match="all their masks are empty"):
        classes_of([mask_of(empty)])


def test_order_is_that_of_names_then_content():
    a, b, c = shown("b", PLACES), shown("a", PLACES, seed=1), shown("a", PLACES, seed=2)
    assert in_order([a, b, c]) == in_order([c, a, b])
    assert in_order([a, b, c])[2] is a


def test_same_references_in_another_order_are_learned_once():
    made = []
    shots = FewShotCache(lambda references: made.append(references) or len(made))
    pair = [shown("b", PLACES), shown("a", PLACES)]
    assert shots.of(pair) == shots.of(pair[::-1]) == 1
    assert [r.name for r in made[0]] == ["a", "b"]
    assert shots.of(pair[:1]) == 2


def test_default_references_are_used_when_none_are_given():
    pair = (shown("a", PLACES), shown("b", PLACES))
    assert FewShotCache(lambda references: references, pair).of() == pair


def test_no_reference_at_all_is_said():
    with pytest.raises(PromptError, match="no reference"):
        FewShotCache(len).of()

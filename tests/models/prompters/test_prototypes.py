"""Nearest neighbours: a map with a background, and only cells that agree there and back."""

import numpy as np
import pytest
import torch
from toy_backbone import ColourBackbone, discs
from toy_segmenter import ColourSegmenter, colour_at, disc, shown

from napari_samic.models.prompters.feature_bank import ReferenceFeatures
from napari_samic.models.prompters.prototypes import Prototypes, cycle_consistent_cells

ONE = shown("one", [(14, 44, 1), (44, 14, 2)])
TWO = shown("two", [(44, 44, 1), (14, 20, 2)], seed=1)
TARGET = discs([(40, 16, 1), (20, 44, 2)], radius=10, seed=2)
WIDE = discs([(24, 72, 1), (24, 24, 2)], (48, 96), radius=15, seed=3)


@pytest.mark.parametrize("backbone", [None, ColourBackbone()], ids=["embedding", "backbone"])
@pytest.mark.parametrize("image", [TARGET, WIDE], ids=["square", "wide"])
def test_points_lie_in_the_object_of_the_same_colour(image, backbone):
    proposal = Prototypes(ColourSegmenter(), backbone=backbone).propose([ONE, TWO], image)
    assert {colour_at(image, p.points_rc[0]) for p in proposal.objects} == {1}
    assert proposal.answer is None


def test_map_tells_the_object_from_all_else():
    values = Prototypes(ColourSegmenter()).propose([ONE], TARGET).heat_map.values
    assert values.shape == (64, 64)
    assert 0 <= values.min() < values.max() <= 1
    assert values[disc((64, 64), 40, 16, 6)].min() > 0.6
    assert values[~disc((64, 64), 40, 16, 15)].max() < 0.5


def test_two_objects_of_a_class_give_two_points():
    image = discs([(14, 14, 1), (46, 46, 1), (14, 46, 2)], radius=9, seed=5)
    found = Prototypes(ColourSegmenter()).propose([ONE], image).objects
    assert len(found) == 2


def test_each_class_has_points_of_its_own():
    reference = shown("both", [(14, 44, 1), (44, 14, 2)], asked=(1, 2))
    found = Prototypes(ColourSegmenter()).propose([reference], TARGET).objects
    assert {(p.label, colour_at(TARGET, p.points_rc[0])) for p in found} == {(1, 1), (2, 2)}


def test_order_of_references_does_not_matter():
    a, b = (Prototypes(ColourSegmenter()).propose(r, TARGET) for r in ([ONE, TWO], [TWO, ONE]))
    np.testing.assert_array_equal(a.heat_map.values, b.heat_map.values)


def cells(*vectors):
    return torch.nn.functional.normalize(torch.tensor(vectors, dtype=torch.float32), dim=1)


def page(features, owner):
    return ReferenceFeatures(features, {}, torch.tensor(owner))


def test_one_sided_match_is_dropped():
    # the last cell's best is the object's, which itself wants the first: far away, another side
    seen = cells([1, 0], [0, 1], [0, 1], [0, 1], [0.75, 0.66]).T.reshape(2, 1, 5)
    reference = page(cells([1, 0], [0, 1]), [1, 0])
    agreed = cycle_consistent_cells([reference], seen)
    assert agreed.tolist() == [[1, 1, 1, 1, 1]]  # first and last lie on one side
    other = page(cells([0.97, 0.24], [1, 0], [0, 1]), [1, 2, 0])
    assert cycle_consistent_cells([other], seen).tolist() == [[1, 1, 1, 1, 0]]


def test_match_that_ends_nearby_counts_on_either_side():
    seen = cells([1, 0], [0.75, 0.66], [0, 1]).T.reshape(2, 1, 3)
    other = page(cells([0.97, 0.24], [1, 0], [0, 1]), [1, 2, 0])
    assert cycle_consistent_cells([other], seen).tolist() == [[1, 1, 1]]


def test_map_is_zero_where_cells_do_not_agree(monkeypatch):
    from napari_samic.models.prompters import prototypes

    monkeypatch.setattr(
        prototypes, "cycle_consistent_cells", lambda pages, seen: torch.zeros(seen.shape[1:])
    )
    prompter = Prototypes(ColourSegmenter())
    assert prompter.propose([ONE], TARGET).heat_map.values.max() == 0
    assert Prototypes(ColourSegmenter(), cycle=False).propose([ONE], TARGET).objects

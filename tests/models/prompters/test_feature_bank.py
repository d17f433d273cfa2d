"""References as cells: classes of cells, which are near, and how many are kept."""

import numpy as np
import pytest
import torch
from toy_backbone import ColourBackbone, discs
from toy_segmenter import ColourSegmenter, shown

from napari_samic.models.features.reference_masks import ReferenceMaskCache, in_order
from napari_samic.models.prompters import feature_bank
from napari_samic.models.prompters.feature_bank import PatchEmbedder, build

BOTH = shown("both", [(14, 44, 1), (44, 14, 2)], asked=(1, 2))


def look(references, backbone=None):
    return build(
        in_order(references), ReferenceMaskCache(), PatchEmbedder(ColourSegmenter(), backbone)
    )


def test_cells_belong_to_the_class_that_covers_them():
    known = look([BOTH])
    owner = known.references[0].owner.reshape(16, 16)
    assert (owner[14 // 4, 44 // 4], owner[44 // 4, 14 // 4], owner[0, 0]) == (1, 2, 0)
    assert known.classes == (1, 2)


@pytest.mark.parametrize("backbone", [None, ColourBackbone()], ids=["embedding", "backbone"])
def test_cells_have_length_one_and_leave_the_padding_out(backbone):
    sight = PatchEmbedder(ColourSegmenter(), backbone)
    image = discs([(24, 72, 1)], (48, 96), radius=15)
    cells = sight.cells(image, sight.center([image]))
    assert cells.shape[1] * 2 == cells.shape[2]
    torch.testing.assert_close(cells.norm(dim=0), torch.ones(cells.shape[1:]))


def test_large_embedding_is_brought_to_few_cells():
    sight = PatchEmbedder(ColourSegmenter())
    image = np.zeros((200, 400, 3), np.uint8)
    assert sight.cells(image, sight.center([image])).shape[1:] == (18, 37)


def test_nearest_page_is_that_of_the_likest_picture():
    red, blue = shown("a", [(30, 30, 1)]), shown("b", [(30, 30, 2)], asked=(2,))
    known = look([red, blue])
    sight = PatchEmbedder(ColourSegmenter())
    seen = sight.cells(discs([(40, 20, 2)], radius=10, seed=9), known.center)
    assert known.nearest(seen, 1)[0] is known.references[1]
    assert known.nearest(seen, 5, 1) == [known.references[0]]


def test_of_many_references_every_nth_is_kept(monkeypatch):
    monkeypatch.setattr(feature_bank, "KEPT", 2)
    known = look([shown(f"r{i}", [(20, 20 + i, 1)], seed=i) for i in range(5)])
    assert len(known.references) == 2

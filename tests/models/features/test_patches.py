"""Cells of an image: what they show of a mask, and padding that never counts."""

import numpy as np
import pytest
import torch
from toy_backbone import ColourBackbone, discs
from toy_segmenter import ColourSegmenter, disc

from napari_samic.core.errors import ModelError
from napari_samic.models.features.patches import (
    PatchFeatures,
    center_of,
    covered_cells,
    on_grid,
    segmenter_embedding,
    to_image,
)

WIDE = (48, 96)


def look(shape=WIDE, places=((24, 72, 1), (24, 24, 2))):
    labels = np.zeros(shape, np.int32)
    for row, column, label in places:
        labels[disc(shape, row, column, 15)] = label
    return PatchFeatures(ColourBackbone(), discs(places, shape, radius=15), labels)


def test_class_covers_its_own_cells():
    one, two = (look().inside(k) for k in (1, 2))
    assert one.shape == (4, 8)
    assert one[:, 4:].any()
    assert not one[:, :4].any()
    torch.testing.assert_close(one, two.flip(1))


def test_all_classes_together_cover_both():
    assert (look().inside() == (look().inside(1) | look().inside(2))).all()


def test_object_smaller_than_a_cell_has_its_fullest_cell():
    mask = np.zeros((64, 64), bool)
    mask[9:12, 9:12] = True
    found = on_grid(mask, (8, 8))
    assert found.nonzero().tolist() == [[1, 1]]


def test_empty_mask_has_no_cell():
    assert not covered_cells(torch.zeros(4, 4)).any()


def test_mean_leaves_the_padding_out():
    grey = PatchFeatures(ColourBackbone(), np.full((32, 64, 3), 200, np.uint8))
    expected = torch.tensor([200 / 128 - 1] * 3 + [0.3])
    for mean in grey.means():
        torch.testing.assert_close(mean.flatten(), expected)


def test_described_cells_have_length_one_and_no_padding():
    found = look()
    cells = found.descriptors(center_of([found]))
    assert cells.shape[1:] == (4, 8)
    torch.testing.assert_close(cells.norm(dim=0), torch.ones(4, 8))


def test_product_of_described_cells_is_the_mean_cosine_of_the_levels():
    found = look()
    centre = center_of([found])
    cells = found.descriptors(centre)
    finest = found.unit(centre)[0][:, :4, :]
    same = torch.einsum("chw,c->hw", cells[:4] * 3**0.5, finest[:, 2, 6])
    assert same[2, 6] == pytest.approx(1, abs=1e-5)


def test_grid_with_and_without_padding_is_the_same_picture():
    found = look()
    whole = found.cover(1)[0]
    np.testing.assert_allclose(
        found.to_image(whole)[:40], found.to_image(found.cropped(whole))[:40], atol=1e-6
    )


def test_map_over_the_image_has_its_size():
    assert to_image(torch.rand(5, 7), (30, 60, 3)).shape == (30, 60)


def test_segmenter_without_an_embedding_is_named():
    class Blind:
        name = "blind"

    with pytest.raises(ModelError, match="blind: does not show its embedding"):
        segmenter_embedding(Blind(), np.zeros((8, 8, 3), np.uint8))


def test_embedding_is_the_segmenters_own():
    image = discs([(14, 44, 1)])
    assert segmenter_embedding(ColourSegmenter(), image).shape == (4, 16, 16)

"""Drawn scenes: same seed same pixels, every kind can be drawn, truth tells kinds apart."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import regionprops

from napari_samic.core.errors import InputError
from napari_samic.sample_data import synthetic

RED = synthetic.ObjectKind("ellipse", "smooth", (0.9, 0.1, 0.1), (1.0, 0.2, 0.2))
BLUE = synthetic.ObjectKind("star", "fine", (0.1, 0.1, 0.9), (0.2, 0.2, 1.0))
GREY = synthetic.Ground("coarse", (0.4, 0.4, 0.4), (0.6, 0.6, 0.6))


def rng(seed=0):
    return np.random.default_rng(seed)


def draw(seed=0, kinds=(RED, BLUE), counts=(3, 3), **options):
    return synthetic.draw(rng(seed), kinds, counts, GREY, side=96, **options)


def test_same_seed_draws_the_same_scene_and_another_does_not():
    first, again, other = draw(3), draw(3), draw(4)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.ids, again.ids)
    assert not np.array_equal(first.image, other.image)


def test_ids_number_the_objects_of_their_kinds():
    scene = draw(1, overlap=0.0)
    assert scene.image.shape == (96, 96, 3)
    assert scene.image.dtype == np.uint8
    assert scene.ids.dtype == np.int32
    assert sorted(np.unique(scene.ids)) == list(range(len(scene.kinds) + 1))
    redness = scene.image[..., 0].astype(int) - scene.image[..., 2]
    for k, kind in enumerate(scene.kinds, start=1):
        inside = ndimage.binary_erosion(scene.ids == k, iterations=2)
        assert (np.median(redness[inside]) > 0) == (kind == 0)


@pytest.mark.parametrize("kind", [0, 1])
def test_truth_keeps_only_one_kind_and_counts_from_one(kind):
    scene = draw(2)
    truth = scene.truth(kind)
    of_kind = np.isin(scene.ids, np.flatnonzero(scene.kinds == kind) + 1)
    assert 1 <= (scene.kinds == kind).sum() < len(scene.kinds)
    assert np.array_equal(truth > 0, of_kind)
    assert np.unique(truth).tolist() == list(range(truth.max() + 1))
    assert truth.dtype == np.int32


def test_truth_skips_objects_that_are_hidden_altogether():
    ids = np.array([[0, 1, 3, 3]], np.int32)  # object 2 lies under object 3
    scene = synthetic.Scene(np.zeros((1, 4, 3), np.uint8), ids, np.array([0, 0, 0]))
    assert scene.truth().tolist() == [[0, 1, 2, 2]]


def test_truth_of_an_absent_kind_is_empty():
    assert not draw(0).truth(7).any()


@pytest.mark.parametrize("name", synthetic.TEXTURES)
def test_every_texture_varies_within_zero_and_one(name):
    field = synthetic.texture(rng(), name, 48, 6.0)
    assert field.shape == (48, 48)
    assert field.dtype == np.float32
    assert field.min() >= 0
    assert field.max() <= 1
    assert np.ptp(field) > 0.02


@pytest.mark.parametrize("name", synthetic.OUTLINES)
def test_every_outline_is_one_piece_of_about_its_radius(name):
    for seed in range(5):
        mask = synthetic.outline(rng(seed), name, 12.0)
        assert mask.shape[0] == mask.shape[1]
        assert set(np.unique(mask)) == {0.0, 1.0}
        assert ndimage.label(mask, np.ones((3, 3)))[1] == 1
        reach = np.hypot(*(np.argwhere(mask > 0) - mask.shape[0] // 2).T).max()
        assert 6 < reach <= 12 * 1.35 * 2**0.5
    assert (ndimage.binary_fill_holes(mask) != mask).any() == (name == "ring")


@pytest.mark.parametrize("name", synthetic.OUTLINES)
def test_every_outline_can_be_drawn(name):
    scene = draw(0, [replace(RED, outline=name)], [4])
    assert scene.truth().max() >= 2


def test_unknown_texture_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"texture 'plaid': expected one of smooth, .*gradient"):
        synthetic.texture(rng(), "plaid", 8, 2.0)


def test_unknown_outline_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"outline 'heart': expected one of blob, .*ring"):
        draw(0, [replace(RED, outline="heart")], [1])


def least_solidity(**options):
    """Of crowded ellipses: what hides a part of another leaves it hollow."""
    scenes = [draw(seed, [RED], [14], **options) for seed in range(4)]
    return min(o.solidity for scene in scenes for o in regionprops(scene.ids) if o.area > 20)


def test_without_overlap_no_object_hides_another():
    assert least_solidity(overlap=0.0) > 0.9
    assert least_solidity(overlap=0.9) < 0.8


def test_overlap_lets_objects_cover_each_other():
    apart, piled = (draw(6, counts=(15, 15), overlap=share) for share in (0.0, 0.9))
    assert len(piled.kinds) > len(apart.kinds)


def test_faint_draws_colors_towards_the_ground():
    gone, same = synthetic.faint(RED, GREY, 0.0), synthetic.faint(RED, GREY, 1.0)
    assert gone.color == pytest.approx(GREY.color)
    assert gone.accent == pytest.approx(GREY.accent)
    assert same.color == pytest.approx(RED.color)
    assert replace(gone, color=RED.color, accent=RED.accent) == RED


def test_random_kinds_and_grounds_can_be_drawn():
    for seed in range(10):
        source = rng(seed)
        kind = synthetic.random_kind(source, small=seed % 2 == 0)
        scene = synthetic.draw(source, [kind], [3], synthetic.random_ground(source), side=64)
        assert min(kind.color) >= 0
        assert max(kind.color) <= 1
        assert scene.image.std() > 0

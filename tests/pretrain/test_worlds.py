import sys
from pathlib import Path

import numpy as np
import pytest

from napari_samic.core.errors import InputError

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository root, where pretrain lies
from pretrain import worlds

SIDE = 96


def picture(world, family_seed, seed=0):
    family = worlds.family(np.random.default_rng(family_seed), world)
    return worlds.draw(np.random.default_rng(seed), family, SIDE)


@pytest.mark.parametrize("world", worlds.WORLDS)
def test_the_same_seeds_draw_the_same_picture(world):
    first, second = picture(world, 1), picture(world, 1)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


@pytest.mark.parametrize("world", worlds.WORLDS)
def test_a_picture_has_numbered_instances_of_some_size(world):
    for seed in range(4):
        image, ids = picture(world, seed, seed)
        assert (image.shape, image.dtype) == ((SIDE, SIDE, 3), np.uint8)
        assert (ids.shape, ids.dtype) == ((SIDE, SIDE), np.uint16)
        area = np.bincount(ids.ravel())[1:]
        assert area.size >= 1
        assert area.min() >= 12 * (SIDE / 256) ** 2


@pytest.mark.parametrize("world", ["endoscopy", "brightfield", "histology"])
def test_a_family_keeps_its_palette(world):
    means = np.array([[picture(world, f, s)[0].mean((0, 1)) for s in (0, 1)] for f in range(6)])
    hues = means / means.sum(-1, keepdims=True)  # (6, 2, 3): brightness may change
    apart = np.abs(hues[:, None, 0] - hues[None, :, 1]).sum(-1)  # (6, 6)
    assert np.diag(apart).mean() < 0.6 * apart[~np.eye(6, dtype=bool)].mean()


def test_unknown_world_names_the_known_ones():
    with pytest.raises(InputError, match="'mars': expected one of endoscopy, em"):
        worlds.family(np.random.default_rng(0), "mars")

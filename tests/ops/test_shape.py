"""Numbers about the shape of masks."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import regionprops

from napari_samic.core.label_objects import cutouts
from napari_samic.ops.shape import border_share, pieces, solidity, without_holes


def disc(radius, side=200):
    rows, columns = np.indices((side, side))
    return np.hypot(rows - side // 2, columns - side // 2) <= radius


def cross(width=6, side=90):
    mask = np.zeros((side, side), bool)
    middle = slice(side // 2 - width // 2, side // 2 + width // 2)
    mask[middle] = mask[:, middle] = True
    return mask


@pytest.mark.parametrize(
    "mask", [pytest.param(disc(40), id="disc"), pytest.param(cross(), id="cross")]
)
def test_solidity_is_near_that_of_scikit_image(mask):
    (region,) = regionprops(mask.astype(int))
    assert solidity(mask) == pytest.approx(region.solidity, abs=0.03)


def test_large_mask_has_the_solidity_of_a_small_one():
    assert solidity(np.kron(cross(), np.ones((9, 9), bool))) == pytest.approx(
        solidity(cross()), abs=0.02
    )


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(np.zeros((4, 4), bool), id="empty"),
        pytest.param(np.ones((1, 1), bool), id="one_pixel"),
        pytest.param(np.ones((1, 30), bool), id="line"),
    ],
)
def test_small_masks_are_solid(mask):
    assert solidity(mask) == 1.0


def test_crumbs_are_no_pieces():
    mask = np.zeros((40, 40), bool)
    mask[:20, :20] = True
    mask[30, 30] = True
    assert pieces(mask) == 1
    mask[24:34, 24:34] = True
    assert pieces(mask) == 2


def test_border_share_is_of_all_four_sides():
    labels = np.zeros((10, 20), np.int32)
    labels[:, :5] = 1
    labels[4:6, 8:12] = 2
    left, inner = cutouts(labels)
    assert border_share(left, labels.shape) == pytest.approx((10 + 4 + 4) / 56)
    assert border_share(inner, labels.shape) == 0.0
    assert border_share(next(cutouts(np.ones((3, 3), np.int32))), (3, 3)) == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_holes_are_what_the_ground_does_not_reach(seed):
    waves = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(40, 50)), 1.5)
    mask = waves > 0.05
    np.testing.assert_array_equal(without_holes(mask), ndimage.binary_fill_holes(mask))

"""Registration: a disc that moved and bent is found again."""

import numpy as np
import pytest
from scipy import ndimage

from napari_samic.core.types import Prompts, Reference
from napari_samic.evaluation.metrics import iou
from napari_samic.models.prompters.registration import (
    Registration,
    correlation,
    register,
    to_gray,
    warp_objects,
)


def slice_of(shape=(96, 120), centre=(48, 60), radii=(20, 20), seed=0, shift=(0, 0)):
    """A grainy ground that moves with a bright ellipse, and the ellipse's mask."""
    grain = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 1, (160, 160)), 4)
    ground = 100 + 25 * np.roll(grain / grain.std(), shift, (0, 1))[: shape[0], : shape[1]]
    rows, columns = np.indices(shape)
    row, column = centre[0] + shift[0], centre[1] + shift[1]
    inside = ((rows - row) / radii[0]) ** 2 + ((columns - column) / radii[1]) ** 2 <= 1
    image = np.where(inside, ground + 90, ground)
    smooth = ndimage.gaussian_filter(image, 1).clip(0, 255).astype(np.uint8)
    return np.repeat(smooth[..., None], 3, 2), inside.astype(np.int32)


def reference(name="a", **how):
    image, mask = slice_of(**how)
    return Reference(name, image, (), mask)


def found_mask(proposal):
    return proposal.heat_map.values > 0.5


@pytest.mark.parametrize(
    ("how", "least"),
    [
        pytest.param({}, 0.95, id="same"),
        pytest.param({"shift": (9, -12)}, 0.9, id="shifted"),
        pytest.param({"radii": (23, 17)}, 0.88, id="bent"),
        pytest.param({"shift": (9, -12), "radii": (22, 18)}, 0.87, id="shifted_and_bent"),
    ],
)
def test_moved_disc_is_found(how, least):
    image, truth = slice_of(**how)
    proposal = Registration(None).propose([reference()], image)
    assert iou(found_mask(proposal), truth) > least
    (found,) = proposal.objects
    rows, columns = (np.flatnonzero(truth.any(axis)) for axis in (1, 0))
    expected = [rows[0], columns[0], rows[-1], columns[-1]]
    np.testing.assert_allclose(found.box_rc, expected, atol=5)
    assert truth[tuple(found.points_rc[0].astype(int))]


def test_bending_is_more_than_shifting():
    image, truth = slice_of(shift=(9, -12), radii=(26, 15))
    still = reference().mask
    moved = np.roll(still, (9, -12), (0, 1))
    found = found_mask(Registration(None).propose([reference()], image))
    assert iou(found, truth) > iou(moved, truth) + 0.02 > iou(still, truth) + 0.02


def test_reference_of_the_highest_correlation_is_taken():
    other = reference("0", seed=5, centre=(30, 30))
    image, truth = slice_of(shift=(3, 3))
    for pair in ([other, reference("b")], [reference("b"), other]):
        assert iou(found_mask(Registration(None).propose(pair, image)), truth) > 0.85


def test_objects_keep_their_classes_and_those_gone_are_left_out():
    image, mask = slice_of()
    mask = mask.copy()
    mask[0:4, 100:118] = 2
    places = [Prompts(np.array([p], float), np.array([True]), label=k) for k, p in
              ((4, (48, 60)), (9, (1, 110)))]  # fmt: skip
    two = Reference("two", image, tuple(places), mask)
    assert [p.label for p in Registration(None).propose([two], image).objects] == [4, 9]
    gone, _ = slice_of(shift=(-14, 0))
    assert [p.label for p in Registration(None).propose([two], gone).objects] == [4]


def test_image_of_another_size_is_registered():
    image, truth = slice_of()
    large = np.kron(image, np.ones((2, 2, 1), np.uint8))
    proposal = Registration(None).propose([reference()], large)
    assert iou(found_mask(proposal), np.kron(truth, np.ones((2, 2), int))) > 0.93


def test_flat_picture_leaves_everything_in_its_place():
    flat = np.full((96, 120, 3), 90, np.uint8)
    proposal = Registration(None).propose([reference()], flat)
    assert iou(found_mask(proposal), reference().mask) > 0.95


def test_field_never_makes_the_pictures_less_alike():
    a, b = (to_gray(slice_of(seed=s)[0]) for s in (0, 7))
    field = register(a, b)
    there = ndimage.map_coordinates(a, np.indices(a.shape) + field, order=1, mode="nearest")
    assert correlation(there, b) >= correlation(a, b)


def test_still_field_copies_the_numbers():
    numbers = np.arange(12, dtype=np.int32).reshape(3, 4)
    np.testing.assert_array_equal(warp_objects(numbers, np.zeros((2, 3, 4)), (3, 4)), numbers)


def test_correlation_of_a_flat_picture_is_none():
    assert correlation(np.ones((4, 4)), np.eye(4)) == 0

"""A drawn volume and a drawn time series with known truth: objects keep their numbers."""

import numpy as np
import pytest
from scipy import ndimage

from napari_samic.core.types import ImagePlane, Prompts, Segmentation, run_job
from napari_samic.pipeline.linking import ObjectLinker
from napari_samic.pipeline.runner import PlaneResult

SHAPE = (64, 96)


def volume(depth=12):
    """(Z, H, W) numbers: a tube that leans, and three ellipsoids, two over one another."""
    planes, rows, columns = np.indices((depth, *SHAPE))
    out = np.zeros((depth, *SHAPE), np.int32)
    tube = (rows - 16) ** 2 + (columns - 12 - 5 * planes) ** 2 <= 8**2
    for number, (plane, row, column) in enumerate(
        [(1, 48, 20), (10, 48, 24), (6, 46, 70)], start=2
    ):
        inside = ((planes - plane) / 3.2) ** 2 + ((rows - row) / 9) ** 2
        out[inside + ((columns - column) / 9) ** 2 <= 1] = number
    out[tube] = 1
    return out


def pixels(truth):
    """An image whose objects differ from the ground, which has some grain."""
    grain = np.random.default_rng(0).normal(0, 12, SHAPE)
    gray = np.clip(90 + grain + 90 * (truth > 0), 0, 255).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=-1)


def renumbered(plane, seed):
    """Each plane has numbers of its own, in no order: what a segmenter answers."""
    parts = np.unique(plane[plane > 0])
    order = np.random.default_rng(seed).permutation(len(parts)) + 1
    table = np.zeros(int(plane.max(initial=0)) + 1, np.int32)
    table[parts] = order
    labels = table[plane]
    objects = tuple(Prompts(np.zeros((1, 2)), np.array([True])) for _ in parts)
    return Segmentation(labels, np.ones(len(parts), np.float32), objects)


def linked(truth, *, which="stacks", numbered=True):
    """Labels (Z, H, W) as the label file of a stack has them."""
    shape = (len(truth),) if which == "stacks" else ()
    answers = iter([renumbered(plane, seed) for seed, plane in enumerate(truth)])
    linker = ObjectLinker(lambda *_: PlaneResult(next(answers), "", numbered=numbered), which)
    out = []
    for z, plane in enumerate(truth):
        of = ImagePlane(
            "volume" if shape else f"file{z}", (z,) if shape else (), lambda: None, shape
        )
        out.append(run_job(linker(of, pixels(plane))).labels)
    return np.stack(out)


def pairs(labels, truth):
    """Every number beside the true one, over the pixels of the objects."""
    inside = truth > 0
    return set(zip(labels[inside].tolist(), truth[inside].tolist(), strict=True))


@pytest.mark.parametrize("which", ["stacks", "always"])
def test_object_of_a_volume_has_a_single_number(which):
    truth = volume()
    found = pairs(linked(truth, which=which), truth)
    assert len(found) == len({number for number, _ in found}) == 4


def test_body_keeps_its_number_where_it_is_much_smaller():
    rows, columns = np.indices(SHAPE)
    discs = [(14, 32, 48), (15, 33, 48), (15, 32, 48), (3, 24, 40)]
    truth = np.stack([(rows - y) ** 2 + (columns - x) ** 2 <= r**2 for r, y, x in discs]).astype(
        int
    )
    truth[:3, (rows - 32) ** 2 + (columns - 70) ** 2 <= 6**2] = 2  # touches it where it is large
    assert pairs(linked(truth), truth) == {(1, 1), (2, 2)}


def test_object_that_is_missing_once_is_taken_up_again():
    truth = volume()
    truth[6][truth[6] == 1] = 0
    found = pairs(linked(truth), truth)
    assert len(found) == 4


def test_object_that_is_missing_twice_is_another():
    truth = volume()
    truth[5:7][truth[5:7] == 1] = 0
    found = pairs(linked(truth), truth)
    assert len([number for number, true in found if true == 1]) == 2


def test_object_that_hardly_meets_its_last_place_is_carried_along_the_flow():
    ground = np.random.default_rng(1).normal(size=(SHAPE[0], 4 * SHAPE[1]))
    ground = ndimage.gaussian_filter(ground, 2)
    truth, images = np.zeros((5, *SHAPE), np.int32), []
    rows, columns = np.indices(SHAPE)
    for t in range(5):
        view = ground[:, 8 * t : 8 * t + SHAPE[1]]  # the whole field moves to the left
        truth[t][(rows - 32) ** 2 + (columns - 80 + 8 * t) ** 2 <= 6**2] = 1
        truth[t][(rows - 12) ** 2 + (columns - 76 + 8 * t) ** 2 <= 6**2] = 2
        gray = np.clip(110 + 400 * view + 60 * (truth[t] > 0), 0, 255).astype(np.uint8)
        images.append(np.repeat(gray[..., None], 3, axis=-1))
    answers = iter([renumbered(plane, seed) for seed, plane in enumerate(truth)])
    linker = ObjectLinker(lambda *_: PlaneResult(next(answers), ""), "stacks")
    labels = [
        run_job(linker(ImagePlane("t", (t,), lambda: None, (5,)), image)).labels
        for t, image in enumerate(images)
    ]
    assert len(pairs(np.stack(labels), truth)) == 2


def test_another_position_starts_anew():
    truth = np.stack([volume(4), volume(4)])
    answers = iter([renumbered(plane, seed) for seed, plane in enumerate(truth.reshape(8, *SHAPE))])
    linker = ObjectLinker(lambda *_: PlaneResult(next(answers), ""), "stacks")
    numbers = [
        run_job(linker(ImagePlane("s", at, lambda: None, (2, 4)), pixels(truth[at]))).numbers
        for at in np.ndindex(2, 4)
    ]
    assert numbers[0] == numbers[4]


def test_classes_stay_classes():
    truth = (volume() > 0).astype(np.int32)
    np.testing.assert_array_equal(linked(truth, numbered=False), truth)

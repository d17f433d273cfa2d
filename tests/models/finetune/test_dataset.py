"""References as an object network looks at them."""

import numpy as np
import pytest
from toy_references import sample

from napari_samic.core.errors import TrainingError
from napari_samic.models.finetune import dataset, network


def references(samples, labels=(1,), side_px=256, seed=0):
    return dataset.ReferenceDataset(samples, labels, side_px, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("shape", "radius", "side"),
    [
        pytest.param((300, 400), 60, 256, id="large_objects_at_the_smallest_side"),
        pytest.param((1000, 1000), 20, 1024, id="small_objects_need_more"),
        pytest.param((1000, 1000), 2, 1024, id="tiny_ones_get_the_largest"),
        pytest.param((200, 200), 3, 256, id="never_far_above_the_image"),
    ],
)
def test_side_follows_the_objects_size(shape, radius, side):
    assert dataset.choose_input_size([sample(shape=shape, discs=[(100, 100, radius)])]) == side


def test_no_object_is_refused():
    with pytest.raises(TrainingError, match="no reference has an object"):
        dataset.choose_input_size([sample(discs=())])


def test_depth_is_one_in_the_middle_of_each_object_and_low_where_they_touch():
    labels = np.zeros((20, 41), np.int32)
    labels[2:18, 2:20], labels[2:18, 20:39] = 1, 2
    depth = dataset.normalized_distance_transform(labels)
    assert depth[labels == 1].max() == depth[labels == 2].max() == 1
    assert depth[10, 19] < 0.2
    assert depth[10, 20] < 0.2
    assert not depth[labels == 0].any()


def test_looks_carry_the_object_with_its_maps():
    x, truth, there = references([sample()]).sample_batch(16)
    assert x.shape == (16, 3, 256, 256)
    assert truth.shape == (16, 2, 256, 256)
    inside = truth[:, 0] > 0.9
    red = (x[:, 0] - x[:, 2])[inside].mean() - (x[:, 0] - x[:, 2])[
        (there[:, 0] > 0) & ~inside
    ].mean()
    assert red > 60
    assert float(truth[:, 1].max()) > 0.9
    assert not truth[:, 1][truth[:, 0] == 0].any()


def test_what_is_off_the_image_is_grey_and_marked():
    x, truth, there = references([sample()]).sample_batch(16)
    off = there[:, 0] == 0
    assert off.any()
    assert (x.transpose(0, 1)[:, off] == network.GRAY.view(3, 1)).all()
    assert not truth.transpose(0, 1)[:, off].any()


def test_classes_have_maps_of_their_own():
    two = sample(discs=[(60, 40, 25), (60, 120, 25)], classes=(1, 7))
    _, truth, _ = references([two], labels=(1, 7)).sample_batch(8)
    first, second = truth[:, 0] > 0.9, truth[:, 1] > 0.9
    assert first.any()
    assert second.any()
    assert not (first & second).any()


def test_every_reference_comes_before_one_comes_again():
    samples = [sample(str(i), discs=[(60, 80, 50)], classes=(i,)) for i in range(1, 6)]
    _, truth, _ = references(samples, labels=range(1, 6)).sample_batch(10)
    shown = truth[:, :5].amax((2, 3)).argmax(1)  # which class of each look
    assert sorted(shown[:5].tolist()) == sorted(shown[5:].tolist()) == list(range(5))


def test_small_objects_are_looked_at_in_windows_that_show_them():
    small = sample(shape=(1000, 1000), discs=[(150, 850, 12)])
    _, truth, _ = references([small], side_px=1024).sample_batch(16)
    assert truth.shape[-2:] == (dataset.WINDOW_PX, dataset.WINDOW_PX)
    with_object = (truth[:, 0].amax((1, 2)) > 0.9).sum()
    assert with_object >= 6


def test_same_seed_gives_the_same_looks():
    first, again, other = (references([sample()], seed=s).sample_batch(4)[0] for s in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()

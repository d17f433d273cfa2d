"""The packaged sample sets: the same pixels every time, truth from 1, references flagged."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import regionprops

from napari_samic.core.errors import InputError
from napari_samic.sample_data import samples


@pytest.fixture(scope="module")
def sets():
    return {name: samples.sample_set(name) for name in samples.NAMES}


@pytest.mark.parametrize("name", samples.NAMES)
def test_every_call_gives_the_same_pixels(sets, name):
    again = samples.sample_set(name)
    assert len(again) == len(sets[name])
    for a, b in zip(sets[name], again, strict=True):
        assert (a.name, a.is_reference) == (b.name, b.is_reference)
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.truth, b.truth)


@pytest.mark.parametrize(
    ("name", "count", "references"),
    [pytest.param("cells", 24, 6, id="cells"), pytest.param("coins", 6, 2, id="coins")],
)
def test_the_first_few_are_references(sets, name, count, references):
    flags = [s.is_reference for s in sets[name]]
    assert flags == [True] * references + [False] * (count - references)
    assert len({s.name for s in sets[name]}) == count


@pytest.mark.parametrize("name", samples.NAMES)
def test_truth_numbers_its_objects_from_one(sets, name):
    for sample in sets[name]:
        assert sample.image.dtype == np.uint8
        assert sample.image.shape == (*sample.truth.shape, 3)
        assert sample.truth.dtype == np.int32
        values = np.unique(sample.truth)
        assert values.tolist() == list(range(len(values)))
        assert len(values) >= 4, f"{sample.name} has fewer than three objects"


def test_truth_of_cells_leaves_the_distractors_out(sets):
    """Cells are blue-violet; debris is greenish, fibres and ground reddish."""
    for sample in sets["cells"]:
        image = sample.image.astype(float)
        violet = image[..., 2] - image[..., 1]
        inside = ndimage.binary_erosion(sample.truth > 0, iterations=3)
        for number in np.unique(sample.truth[inside]):
            assert violet[inside & (sample.truth == number)].mean() > 15
        assert violet[sample.truth == 0].mean() < 10


def test_each_coin_is_whole_and_in_one_window(sets):
    coins = [region for s in sets["coins"] for region in regionprops(s.truth)]
    assert len(coins) == 24
    for coin in coins:  # what is cut has another area than the ellipse of its moments
        ellipse = np.pi / 4 * coin.axis_major_length * coin.axis_minor_length
        assert coin.area == pytest.approx(ellipse, rel=0.01)


def test_coins_lie_where_the_photograph_is_bright(sets):
    for sample in sets["coins"]:
        grey = sample.image[..., 0].astype(float)
        rim = ndimage.binary_dilation(sample.truth > 0, iterations=4) & (sample.truth == 0)
        assert grey[sample.truth > 0].mean() > grey[rim].mean() + 15


def test_unknown_set_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="sample set 'moons': expected one of cells, coins"):
        samples.sample_set("moons")

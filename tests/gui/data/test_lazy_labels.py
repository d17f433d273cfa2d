"""Label files of a stack as one array: read when looked at, painted on."""

import numpy as np
import pytest

from napari_samic.gui.data import lazy_labels
from napari_samic.gui.data.lazy_labels import LabelStack

SHAPE = (4, 5)


class Files:
    """Planes on disk, and which were read."""

    def __init__(self, *planes):
        self.planes = {index: np.full(SHAPE, value, np.int32) for index, value in planes}
        self.read = []

    def __call__(self, index):
        self.read.append(index)
        return self.planes.get(index)


def stack(files=None, edits=None, stack_shape=(20,)):
    edits = [] if edits is None else edits
    return LabelStack(stack_shape, SHAPE, files or Files(((1,), 7)), edits.append)


def test_only_what_is_looked_at_is_read_and_once():
    files = Files(((1,), 7))
    made = stack(files)
    assert files.read == []
    assert made[1].max() == 7
    assert made[1, 2:, :3].shape == (2, 3)
    assert made[2].max() == 0
    assert files.read == [(1,), (2,)]


def test_few_planes_are_kept_however_long_the_stack(monkeypatch):
    monkeypatch.setattr(lazy_labels, "KEPT", 3)
    files = Files()
    made = stack(files)
    for i in range(20):
        made.plane((i,))
    for i in (17, 18, 19):
        made.plane((i,))
    assert len(files.read) == 20
    made.plane((16,))
    assert len(files.read) == 21


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(np.s_[3], id="plane"),
        pytest.param(np.s_[-1, 1], id="from_the_end"),
        pytest.param(np.s_[1:3], id="range"),
        pytest.param(np.s_[:, 2, 3], id="across"),
        pytest.param(np.s_[..., 2:], id="dots"),
        pytest.param((np.array([1, 1, 4]), np.array([0, 3, 2]), np.array([4, 0, 2])), id="places"),
        pytest.param(np.s_[::2, ::2, ::2], id="steps"),
    ],
)
def test_it_is_indexed_as_an_array(key):
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 9, (6, *SHAPE)).astype(np.int32)
    made = LabelStack((6,), SHAPE, lambda index: whole[index])
    np.testing.assert_array_equal(made[key], whole[key])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param(np.s_[2], 5, id="plane"),
        pytest.param(np.s_[-1, 1:3], np.arange(5), id="part_of_a_plane"),
        pytest.param(np.s_[0:1, 1:4, 2:4], np.arange(6).reshape(1, 3, 2), id="as_a_brush_does"),
        pytest.param(np.s_[1:4, 2, 3], np.array([7, 8, 9]), id="across"),
        pytest.param(np.s_[..., 1], 3, id="dots"),
        pytest.param((np.array([1, 4]), np.array([0, 3]), np.array([4, 0])), 6, id="places"),
    ],
)
def test_it_is_painted_as_an_array(key, value):
    whole = np.zeros((6, *SHAPE), np.int32)
    made = LabelStack((6,), SHAPE, lambda _index: None)
    whole[key] = value
    made[key] = value
    np.testing.assert_array_equal(np.asarray(made), whole)


def test_two_stack_axes_and_none():
    whole = np.arange(2 * 3 * 20, dtype=np.int32).reshape(2, 3, *SHAPE)
    made = LabelStack((2, 3), SHAPE, lambda index: whole[index])
    np.testing.assert_array_equal(made[1, 2], whole[1, 2])
    np.testing.assert_array_equal(made[:, 1], whole[:, 1])
    np.testing.assert_array_equal(np.asarray(made), whole)
    lone = LabelStack((), SHAPE, lambda _index: whole[0, 0])
    np.testing.assert_array_equal(lone[1:3], whole[0, 0, 1:3])
    lone[np.array([1]), np.array([2])] = 99
    assert lone[1, 2] == 99


def test_painted_planes_are_told_and_stay_until_they_are_saved(monkeypatch):
    monkeypatch.setattr(lazy_labels, "KEPT", 1)
    edits = []
    made = stack(edits=edits)
    made[np.array([0, 0, 1]), np.array([1, 2, 3]), np.array([1, 2, 3])] = np.array([4, 5, 6])
    assert edits == [(0,), (1,)]
    for i in range(2, 10):
        made.plane((i,))
    made.forget()
    assert (made[0, 1, 1], made[0, 2, 2], made[1, 3, 3], made[1, 0, 0]) == (4, 5, 6, 7)
    written = made.painted[0,]
    made[0, 0, 0] = 3  # painted again while it was being written
    made.saved((0,), written)
    assert made[0, 0, 0] == 3
    made.saved((0,), made.painted[0,])
    assert list(made.painted) == [(1,)]


def test_what_it_gives_can_be_changed_without_harm():
    made = stack()
    made[1][:] = 0
    assert made[1].max() == 7

"""Discs that move: where they went, where they may be, and which is which."""

import numpy as np
import pytest

from napari_samic.core.errors import InputError
from napari_samic.models.video import optical_flow

SHAPE = (96, 128)


def disc(row, column, radius=10, shape=SHAPE):
    rows, columns = np.indices(shape)
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def ground(shape=SHAPE, seed=0):
    """Smooth noise, so that there is something to see everywhere."""
    from scipy import ndimage

    noise = np.random.default_rng(seed).normal(size=(*shape, 3))
    smooth = ndimage.gaussian_filter(noise, (2, 2, 0))
    return (128 + 60 * smooth / smooth.std()).clip(0, 255).astype(np.uint8)


def labels_of(*places):
    out = np.zeros(SHAPE, np.int32)
    for number, (row, column) in places:
        out[disc(row, column)] = number
    return out


@pytest.mark.parametrize("scale", [1, 3], ids=["as_it_is", "reduced"])
@pytest.mark.parametrize("shift", [(0, 3), (-4, 2), (12, -17)], ids=["right", "up", "far"])
def test_flow_recovers_a_shift_of_the_whole(shift, scale):
    picture = np.kron(ground(), np.ones((scale, scale, 1), np.uint8))
    moved = tuple(scale * s for s in shift)
    field = optical_flow.flow(picture, np.roll(picture, moved, (0, 1)))
    inner = field[:, 25 * scale : -25 * scale, 25 * scale : -25 * scale]
    found = np.median(inner.reshape(2, -1), axis=1)
    assert found == pytest.approx([-m for m in moved], abs=0.5 * scale)


def test_flow_follows_an_object_over_a_ground_that_stays():
    before, after = ground(), ground()
    shade = ground(seed=5) // 2 + 100
    before[disc(40, 50, 14)] = shade[disc(48, 64, 14)]
    after[disc(42, 53, 14)] = shade[disc(48, 64, 14)]
    field = optical_flow.flow(before, after)
    assert np.median(field[:, disc(42, 53, 8)], axis=1) == pytest.approx([-2, -3], abs=0.7)
    assert np.abs(field[:, :20]).mean() < 0.3


def test_equal_frames_do_not_move():
    assert not optical_flow.flow(ground(), ground()).any()


def test_frames_of_two_sizes_cannot_follow_each_other():
    with pytest.raises(InputError, match=r"\(96, 128, 3\) and \(96, 120, 3\)"):
        optical_flow.flow(ground(), ground()[:, :120])


def test_carried_mask_moves_against_the_field():
    field = np.zeros((2, *SHAPE), np.float32)
    field[0], field[1] = -5, 8  # what is here now was 5 rows above and 8 columns to the right
    out = optical_flow.warp_labels(labels_of((1, (40, 60)), (7, (60, 30))), field)
    assert np.array_equal(out, labels_of((1, (45, 52)), (7, (65, 22))))
    assert out.dtype == np.int32


def test_what_comes_in_from_outside_is_background():
    field = np.full((2, *SHAPE), -20, np.float32)
    out = optical_flow.warp_labels(np.ones(SHAPE, np.int32), field)
    assert not out[:20].any()
    assert not out[:, :20].any()
    assert out[20:, 20:].all()


def test_prior_is_one_on_the_object_and_falls_off():
    values = optical_flow.prior(labels_of((2, (48, 64))))
    assert values[disc(48, 64)].min() == 1
    assert values.dtype == np.float32
    row = values[48, 74:]
    assert (np.diff(row) <= 0).all()
    assert row[-1] < 0.01


def test_prior_without_an_object_is_blank():
    assert not optical_flow.prior(np.zeros(SHAPE, np.int32)).any()


def test_motion_decides_between_two_equal_peaks_and_hides_neither():
    values = np.zeros((24, 32), np.float32)
    values[12, 8] = values[12, 24] = 0.8
    expected = optical_flow.prior(labels_of((1, (48, 32))))
    out = optical_flow.motion_consistent(values, expected, floor=0.25)
    assert out[12, 8] == pytest.approx(0.8, abs=0.01)
    assert out[12, 24] == pytest.approx(0.2, abs=0.01)


def test_identity_is_kept_when_two_objects_pass_close_by():
    first_new, known = 3, labels_of((1, (40, 30)), (2, (62, 98)))
    for step in range(1, 18):
        here = labels_of((1, (62, 98 - 4 * step)), (2, (40, 30 + 4 * step)))  # numbered anyhow
        field = np.zeros((2, *SHAPE), np.float32)
        field[1, :51], field[1, 51:] = -4, 4
        known, first_new = optical_flow.link_objects(
            [optical_flow.warp_labels(known, field)], here, first_new=first_new
        )
    assert known[40, 98] == 1
    assert known[62, 30] == 2
    assert first_new == 3


def test_newcomer_gets_a_number_that_nobody_ever_had():
    known, first_new = optical_flow.link_objects(
        [labels_of((4, (40, 30)))], labels_of((1, (41, 31)), (2, (70, 90))), first_new=9
    )
    assert (known[41, 31], known[70, 90], first_new) == (4, 9, 10)
    gone, first_new = optical_flow.link_objects(
        [labels_of((4, (40, 30)))], labels_of((1, (41, 31))), first_new=first_new
    )
    again, first_new = optical_flow.link_objects(
        [gone], labels_of((1, (41, 31)), (2, (70, 90))), first_new=first_new
    )
    assert (again[70, 90], first_new) == (10, 11)


def test_pairs_are_chosen_for_the_best_sum_and_not_one_by_one():
    """The first object overlaps both; it leaves the better one to the object that needs it."""
    old, new = np.zeros((10, 60), np.int32), np.zeros((10, 60), np.int32)
    old[:, 0:20], old[:, 20:40] = 1, 2
    new[:, 8:26], new[:, 26:44] = 1, 2
    known, _ = optical_flow.link_objects([old], new, first_new=3)
    assert (known[0, 10], known[0, 30]) == (1, 2)


def test_little_overlap_is_another_object():
    known, _ = optical_flow.link_objects(
        [labels_of((1, (40, 30)))], labels_of((1, (40, 44))), first_new=2
    )
    assert known.max() == 2


def test_frame_without_objects_has_no_numbers():
    known, first_new = optical_flow.link_objects(
        [labels_of((1, (40, 30)))], np.zeros(SHAPE, np.int32), first_new=2
    )
    assert not known.any()
    assert first_new == 2

"""Which colours speak for an object."""

import numpy as np
import pytest

from napari_samic.models.video import color_model

MASK = np.zeros((40, 60), bool)
MASK[10:30, 15:35] = True


def picture(inside=(200, 40, 40), outside=(60, 120, 60)):
    return np.where(MASK[..., None], inside, outside).astype(np.uint8)


def test_object_speaks_for_itself_in_another_picture():
    there = picture()[:, ::-1].copy()
    found = color_model.color_log_odds(there, color_model.counts(picture(), MASK))
    mask = MASK[:, ::-1]
    assert found[mask].mean() > 2
    assert found[~mask].mean() < -2
    assert np.abs(found).max() <= color_model.MOST


def test_colour_that_is_on_both_sides_says_nothing():
    same = picture(outside=(200, 40, 40))
    found = color_model.color_log_odds(same, color_model.counts(same, MASK))
    assert np.abs(found).max() < 0.05


def test_shares_add_up_to_one():
    seen = color_model.counts(picture(), MASK)
    assert seen.shape == (2, 16, 16, 16)
    assert seen.sum((1, 2, 3)) == pytest.approx(1)


@pytest.mark.parametrize("mask", [MASK & False, MASK | True], ids=["empty", "full"])
def test_one_side_alone_says_nothing(mask):
    assert not color_model.color_log_odds(picture(), color_model.counts(picture(), mask)).any()

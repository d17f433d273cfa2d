"""J and F of DAVIS: which frames, objects and sequences count."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from napari_samic.benchmark.davis import VideoScore, object_scores
from napari_samic.core.errors import InputError
from napari_samic.evaluation.metrics import boundary_f, iou

TRUTH = np.zeros((40, 40), np.int32)
TRUTH[10:30, 10:30] = 1
HALF = TRUTH.copy()
HALF[20:] = 0
NONE = np.zeros_like(TRUTH)
BOTH = TRUTH.copy()
BOTH[:5] = 2

RIGHT, WRONG, SOME = (TRUTH, TRUTH), (NONE, TRUTH), (HALF, TRUTH)


def test_frames_are_averaged_without_the_first() -> None:
    found = object_scores([WRONG, SOME, RIGHT])[1]
    assert found.j == pytest.approx((0.5 + 1) / 2)
    assert found.f == pytest.approx((boundary_f(HALF, TRUTH) + 1) / 2)


def test_objects_are_scored_by_number() -> None:
    found = object_scores([(BOTH, BOTH), (TRUTH, BOTH)])
    assert {n: s.j for n, s in found.items()} == {1: 1, 2: 0}


def test_lone_object_may_be_predicted_in_parts() -> None:
    parts = TRUTH.copy()
    parts[20:] *= 7
    assert object_scores([RIGHT, (parts, TRUTH)])[1].j == 1


def test_object_that_left_is_rightly_not_found() -> None:
    assert object_scores([RIGHT, (NONE, NONE)])[1] == VideoScore(1, 1)
    assert iou(NONE, NONE) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: object_scores([RIGHT]), "of 1 frames, expected 2", id="short"),
        pytest.param(
            lambda: object_scores([(TRUTH, NONE), RIGHT]), "no object in the first", id="empty"
        ),
    ],
)
def test_what_makes_no_sense_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()

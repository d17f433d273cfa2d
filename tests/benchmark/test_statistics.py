"""Intervals, paired comparisons, and what a confidence is worth."""

import doctest
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from napari_samic.benchmark import statistics
from napari_samic.benchmark.statistics import (
    bootstrap_interval,
    paired_difference,
    risk_coverage,
    share_of_bad,
)
from napari_samic.core.errors import InputError

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(0.7, 0.1, 400)


def test_examples_of_the_docstrings_hold() -> None:
    assert doctest.testmod(statistics).failed == 0


def test_interval_is_that_of_a_normal_mean() -> None:
    found = bootstrap_interval(NORMAL)
    half = 1.96 * NORMAL.std() / 20
    assert found.mean == pytest.approx(NORMAL.mean())
    assert [found.low, found.high] == pytest.approx(
        [NORMAL.mean() - half, NORMAL.mean() + half], abs=0.1 * half
    )


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    draws = RNG.normal(0.0, 1.0, (200, 60))
    found = [bootstrap_interval(row, resamples=300) for row in draws]
    assert 0.88 < np.mean([f.low < 0 < f.high for f in found]) < 0.99


def test_one_seed_gives_one_interval() -> None:
    assert bootstrap_interval(NORMAL, seed=3) == bootstrap_interval(NORMAL, seed=3)
    assert bootstrap_interval(NORMAL, seed=3) != bootstrap_interval(NORMAL, seed=4)


def test_difference_between_seeds_widens_nothing() -> None:
    names = [f"p{n:03}" for n in range(200)] * 2
    found = bootstrap_interval([*NORMAL[:200], *(NORMAL[:200] + 10)], names)
    alone = bootstrap_interval(NORMAL[:200])
    assert found.mean == pytest.approx(alone.mean + 5)
    assert found.high - found.low == pytest.approx(alone.high - alone.low)


def test_seeds_that_share_images_say_no_more_than_one() -> None:
    names = [f"p{n:03}" for n in range(400)] * 9
    one, many = bootstrap_interval(NORMAL), bootstrap_interval(np.tile(NORMAL, 9))
    shared = bootstrap_interval(np.tile(NORMAL, 9), names)
    assert many.high - many.low == pytest.approx((one.high - one.low) / 3, rel=0.15)
    assert [shared.low, shared.high] == pytest.approx([one.low, one.high])


def test_a_unit_counts_once_however_much_it_has() -> None:
    found = bootstrap_interval([0.0, 0.0, 0.0, 1.0], ["a", "a", "a", "b"])
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)


def test_pairs_tell_apart_what_means_do_not() -> None:
    better = NORMAL + RNG.normal(0.01, 0.005, 400)
    found = paired_difference(better, NORMAL)
    alone = bootstrap_interval(NORMAL)
    assert alone.low < better.mean() < alone.high
    assert 0.009 < found.low < found.mean < found.high < 0.011
    assert found.p < 1e-6
    assert found.n == 400


def test_changing_sides_changes_the_sign() -> None:
    other = RNG.permutation(NORMAL)
    one, two = paired_difference(NORMAL, other), paired_difference(other, NORMAL)
    assert (one.won, one.lost) == (two.lost, two.won)
    assert one.mean == pytest.approx(-two.mean)
    assert one.p == pytest.approx(two.p)


def test_p_is_that_of_the_exact_signed_ranks() -> None:
    found = paired_difference([1.0, 2.0, 3.0, 4.0, 5.0], np.zeros(5))
    assert found.p == pytest.approx(2 / 2**5)


def test_equal_methods_win_and_lose_nothing() -> None:
    found = paired_difference(NORMAL, NORMAL)
    assert (found.mean, found.low, found.high) == (0, 0, 0)
    assert (found.won, found.lost, found.p) == (0, 0, 1)


def test_images_of_all_seeds_are_ranked_once() -> None:
    a, b = np.tile(NORMAL[:6] + 0.1, 3), np.tile(NORMAL[:6], 3)
    found = paired_difference(a, b, list("abcdef") * 3)
    assert (paired_difference(a, b).n, found.n) == (18, 6)
    assert found.p == pytest.approx(2 / 2**6)


def test_perfect_confidence_reaches_the_best_area() -> None:
    risk = RNG.random(50)
    found = risk_coverage(-risk, risk)
    assert found.aurc == pytest.approx(found.best)
    assert risk_coverage(risk, risk).aurc > found.best + 0.3
    assert found.coverage[[0, -1]].tolist() == [1 / 50, 1]
    assert found.risk[-1] == pytest.approx(risk.mean())


def test_confidence_that_says_nothing_gives_the_mean_risk_in_any_order() -> None:
    risk = RNG.random(50)
    for order in (risk, np.sort(risk)):
        found = risk_coverage(np.ones(50), order)
        assert found.risk == pytest.approx(np.full(50, risk.mean()))


def test_least_sure_fifth_holds_the_bad_ones() -> None:
    iou = np.r_[np.full(10, 0.2), np.full(90, 0.8)]
    assert share_of_bad(iou, iou) == statistics.BadShare(0.5, 0.1, 5.0)
    assert share_of_bad(-iou, iou).share == 0
    assert share_of_bad(np.ones(100), iou).ratio == pytest.approx(1)


def test_bad_is_below_and_the_first_are_rounded_up() -> None:
    assert share_of_bad([1, 2, 3, 4, 5, 6], [0.5, 0.4, 0.9, 0.9, 0.9, 0.9]).share == 0.5
    assert share_of_bad(np.arange(100), np.r_[np.zeros(7), np.ones(93)], first=0.07).share == 1
    assert np.isnan(share_of_bad([1, 2], [0.9, 0.9]).ratio)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: bootstrap_interval([]), "finite numbers", id="none"),
        pytest.param(lambda: bootstrap_interval([1.0, np.nan]), "finite numbers", id="nan"),
        pytest.param(lambda: bootstrap_interval(np.ones((2, 2))), r"\(2, 2\)", id="axes"),
        pytest.param(lambda: bootstrap_interval([1.0], resamples=0), "0 resamples", id="resamples"),
        pytest.param(lambda: bootstrap_interval([1.0], ["a", "b"]), "1 values and 2", id="units"),
        pytest.param(
            lambda: paired_difference([1.0, 2.0], [1.0]), r"\(2,\) and \(1,\)", id="pairs"
        ),
        pytest.param(lambda: risk_coverage([1.0], [1.0, 2.0]), r"\(1,\) and \(2,\)", id="lengths"),
        pytest.param(lambda: share_of_bad([1.0], [np.inf]), "finite", id="infinite"),
        pytest.param(lambda: share_of_bad([1.0], [1.0], first=0), "first is 0", id="first"),
    ],
)
def test_values_that_make_no_sense_are_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()

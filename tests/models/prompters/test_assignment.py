"""Cells matched there and back, subsets of them, and what it costs to move one heap to another."""

import numpy as np
import pytest

from napari_samic.models.prompters.assignment import (
    MANY,
    cycle_consistent_matches,
    subsets,
    transport,
)


def test_one_sided_match_is_dropped():
    likeness = np.array([[0.9, 0.1, 0.2], [0.3, 0.8, 0.2], [0.2, 0.95, 0.1]])
    inside = np.array([True, True, False])  # the background wants the second's
    assert cycle_consistent_matches(likeness, inside).tolist() == [0]


def test_all_are_kept_where_nothing_survives_the_way_back():
    likeness = np.array([[0.5, 0.1], [0.9, 0.2]])
    assert cycle_consistent_matches(likeness, np.array([True, False])).tolist() == [0]


def test_best_half_of_many_is_kept_most_alike_first():
    n = MANY + 10
    likeness = np.diag(np.linspace(0.5, 1.0, n))
    found = cycle_consistent_matches(likeness, np.ones(n, bool))
    assert found.tolist() == list(range(n - 1, n // 2 - 1, -1))


def test_few_points_give_all_subsets_of_each_size():
    found = subsets(6, np.random.default_rng(0), least=4, most=6, tries=30)
    assert len(found) == 15 + 6
    assert len({tuple(f) for f in found}) == len(found)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_fewer_points_than_a_subset_are_asked_for_together(count):
    found = subsets(count, np.random.default_rng(0), least=4, most=6, tries=30)
    assert [f.tolist() for f in found] == [list(range(count))]


def test_many_points_give_random_subsets_of_the_seed():
    first, same, other = (
        [f.tolist() for f in subsets(20, np.random.default_rng(s), least=4, most=6, tries=30)]
        for s in (0, 0, 1)
    )
    assert first == same != other
    assert 40 < len(first) <= 60
    assert {len(f) for f in first} == {4, 5}


def test_moving_a_heap_onto_itself_is_nearly_free_and_elsewhere_dear():
    places = np.linspace(0, 1, 12)
    costs = np.abs(places[:, None] - places)
    assert transport(costs) < 0.05
    assert transport(costs + 0.7) == pytest.approx(transport(costs) + 0.7, abs=1e-6)


def test_unequal_heaps_have_the_exact_cost_in_a_plain_case():
    assert transport(np.array([[0.0, 1.0]])) == pytest.approx(0.5)


def test_transport_is_finite_where_all_is_far():
    assert np.isfinite(transport(np.array([[1.0, 1.0], [0.0, 1.0]])))

"""Objects paired one to one, few or very many; `test_metrics` tries single cases."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from napari_samic.evaluation.matching import match_objects, sparse_object_ious


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("iou_threshold", [0.0, 0.2, 0.5])
def test_pairs_are_those_of_the_whole_table(seed, iou_threshold):
    rng = np.random.default_rng(seed)
    a, b = (np.kron(rng.integers(0, 5, (6, 6)), np.ones((2, 2), int)) for _ in "ab")
    b[rng.random(b.shape) < 0.2] = 7
    ious = sparse_object_ious(a, b).toarray()
    fits = (ious >= iou_threshold) & (ious > 0)
    at = linear_sum_assignment(fits * (1 + ious / 100), maximize=True)
    matches = match_objects(a, b, iou_threshold=iou_threshold)
    assert matches.n_matched == fits[at].sum()
    assert matches.mean_iou == pytest.approx(ious[at][fits[at]].mean() if fits[at].any() else 0)


def test_forty_thousand_objects_are_matched():
    labels = np.kron(np.arange(1, 40_001).reshape(200, 200), np.ones((2, 2), int))
    assert match_objects(labels, np.roll(labels, 1, 1), iou_threshold=0.3).n_matched == 40_000

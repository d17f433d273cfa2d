import doctest

import numpy as np
import pytest
from skimage.morphology import dilation, disk

from napari_samic.core.errors import InputError
from napari_samic.evaluation import metrics
from napari_samic.evaluation.matching import Matches, match_objects, sparse_object_ious
from napari_samic.evaluation.metrics import (
    boundary_f,
    clicks_to,
    dice,
    fb_iou,
    image_scores,
    iou,
    summarize,
)

EMPTY = np.zeros((20, 30), bool)


def box(row0, row1, column0, column1, shape=(20, 30), label=1):
    out = np.zeros(shape, np.int32)
    out[row0:row1, column0:column1] = label
    return out


SQUARE = box(5, 15, 5, 15)  # 100 px
SHIFTED = box(5, 15, 10, 20)  # 50 px in common


def test_example_in_the_docstring_runs():
    assert doctest.testmod(metrics).failed == 0


def test_half_shifted_square_by_hand():
    assert iou(SQUARE, SHIFTED) == pytest.approx(50 / 150)
    assert dice(SQUARE, SHIFTED) == pytest.approx(100 / 200)
    assert fb_iou(SQUARE, SHIFTED) == pytest.approx((50 / 150 + 450 / 550) / 2)


@pytest.mark.parametrize("score", [iou, dice, boundary_f])
def test_two_empty_masks_agree_and_one_empty_mask_does_not(score):
    assert score(EMPTY, EMPTY) == 1.0
    assert score(EMPTY, SQUARE) == 0.0
    assert score(SQUARE, EMPTY) == 0.0
    assert score(SQUARE, SQUARE) == 1.0


def test_full_against_empty_mask_is_zero_though_neither_has_a_boundary():
    assert boundary_f(~EMPTY, EMPTY) == 0.0
    assert boundary_f(~EMPTY, ~EMPTY) == 1.0


def test_labels_and_masks_score_alike():
    assert iou(SQUARE * 7, SHIFTED > 0) == iou(SQUARE, SHIFTED)


def test_iou_takes_a_whole_data_set():
    stack = np.stack([SQUARE, SHIFTED])
    assert iou(stack, np.stack([SHIFTED, SHIFTED])) == pytest.approx(150 / 250)


def davis_f(a, b, tolerance_frac):
    """The published definition, with its dilations, written out again."""

    def edge(m):
        e, s, se = (np.zeros_like(m) for _ in range(3))
        e[:, :-1], s[:-1], se[:-1, :-1] = m[:, 1:], m[1:], m[1:, 1:]
        out = (m ^ e) | (m ^ s) | (m ^ se)
        out[-1] = m[-1] ^ e[-1]
        out[:, -1] = m[:, -1] ^ s[:, -1]
        out[-1, -1] = False
        return out

    radius = int(np.ceil(tolerance_frac * np.linalg.norm(a.shape)))
    edge_a, edge_b = edge(a), edge(b)
    precision = (edge_a & dilation(edge_b, disk(radius))).sum() / edge_a.sum()
    recall = (edge_b & dilation(edge_a, disk(radius))).sum() / edge_b.sum()
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("tolerance_frac", [0.008, 0.03, 0.1])
@pytest.mark.parametrize("seed", range(5))
def test_boundary_f_is_that_of_davis(seed, tolerance_frac):
    rng = np.random.default_rng(seed)
    blobs = rng.random((2, 8, 11)) > 0.7
    a, b = blobs.repeat(5, axis=1).repeat(5, axis=2)
    b = np.roll(b | a, 2, axis=1)
    found = boundary_f(a, b, tolerance_frac=tolerance_frac)
    assert found == pytest.approx(davis_f(a, b, tolerance_frac), abs=1e-12)


def test_shift_within_the_tolerance_costs_nothing_on_the_boundary():
    a = box(50, 150, 50, 150, (300, 400))  # 0.008 * 500 = 4 px
    assert boundary_f(a, np.roll(a, 4, axis=1)) == 1.0
    assert boundary_f(a, np.roll(a, 5, axis=1)) < 1.0


def test_ious_of_objects_list_every_pair():
    prediction = box(0, 4, 0, 4) + box(10, 14, 0, 4, label=9)
    truth = box(0, 4, 2, 6, label=5) + box(10, 14, 0, 4, label=2)
    # objects in the order of their numbers: truth 2, truth 5
    ious = sparse_object_ious(prediction, truth).toarray()
    np.testing.assert_allclose(ious, [[0, 8 / 24], [1, 0]])


def test_objects_are_counted_at_half_overlap():
    prediction = box(0, 4, 0, 4) + box(10, 14, 0, 4, label=2) + box(0, 4, 20, 24, label=3)
    truth = box(0, 4, 1, 5) + box(10, 14, 3, 7, label=2)
    found = match_objects(prediction, truth)
    assert (found.n_predicted, found.n_true, found.n_matched) == (3, 2, 1)
    assert found.precision == pytest.approx(1 / 3)
    assert found.recall == pytest.approx(1 / 2)
    assert found.f1 == pytest.approx(2 / 5)
    assert found.mean_iou == pytest.approx(12 / 20)


def test_exactly_half_overlap_is_a_pair():
    assert match_objects(box(0, 2, 0, 2), box(0, 2, 0, 4)).n_matched == 1


def test_objects_apart_are_no_pair_at_any_threshold():
    assert match_objects(box(0, 2, 0, 2), box(9, 12, 9, 12), iou_threshold=0.0).n_matched == 0


def test_split_object_is_matched_once():
    truth = box(0, 10, 0, 10)
    prediction = box(0, 6, 0, 10) + box(6, 10, 0, 10, label=2)
    found = match_objects(prediction, truth)
    assert (found.n_predicted, found.n_matched) == (2, 1)


def test_more_pairs_beat_one_better_pair():
    # greedy would take A-1 (9/13) and leave B without a partner
    truth = box(0, 1, 0, 12, (1, 40)) + box(0, 1, 12, 16, (1, 40), label=2)
    prediction = box(0, 1, 3, 13, (1, 40)) + box(0, 1, 0, 3, (1, 40), label=2)
    ious = sparse_object_ious(prediction, truth).toarray()
    np.testing.assert_allclose(ious, [[9 / 13, 1 / 13], [3 / 12, 0]])
    found = match_objects(prediction, truth, iou_threshold=0.05)
    assert found.n_matched == 2
    assert found.mean_iou == pytest.approx((1 / 13 + 3 / 12) / 2)


def test_permuted_numbers_do_not_matter():
    rng = np.random.default_rng(0)
    truth = np.kron(np.arange(1, 13).reshape(3, 4), np.ones((6, 6), int))
    numbers = np.concatenate([[0], rng.permutation(12) + 1])
    found = match_objects(numbers[truth], truth)
    assert found == Matches(12, 12, 12, 1.0)


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        pytest.param(EMPTY, EMPTY, (1, 1, 1, 1), id="both_empty"),
        pytest.param(EMPTY, SQUARE, (0, 0, 0, 0), id="nothing_found"),
        pytest.param(SQUARE, EMPTY, (0, 0, 0, 0), id="nothing_there"),
        pytest.param(box(0, 2, 0, 2), box(9, 12, 9, 12), (0, 0, 0, 0), id="apart"),
        pytest.param(SQUARE, SQUARE, (1, 1, 1, 1), id="same"),
    ],
)
def test_object_scores_at_their_ends(prediction, truth, expected):
    found = match_objects(prediction, truth)
    assert (found.precision, found.recall, found.f1, found.mean_iou) == expected


@pytest.mark.parametrize(
    ("curve", "target", "cap", "expected"),
    [
        pytest.param([0.9], 0.85, 20, 1, id="first"),
        pytest.param([0.5, 0.85], 0.85, 20, 2, id="at_the_target"),
        pytest.param([0.5, 0.95, 0.6], 0.90, 20, 2, id="falls_again"),
        pytest.param([0.5, 0.6], 0.90, 20, 20, id="never"),
        pytest.param([], 0.90, 20, 20, id="no_click"),
        pytest.param([0.1, 0.2, 0.9], 0.90, 2, 2, id="beyond_the_cap"),
    ],
)
def test_clicks_to_a_target(curve, target, cap, expected):
    assert clicks_to(curve, target, cap=cap) == expected


@pytest.mark.parametrize(
    ("curve", "cap"),
    [
        pytest.param([0.5, np.nan], 20, id="nan"),
        pytest.param([[0.5]], 20, id="two_axes"),
        pytest.param([0.5], 0, id="cap"),
    ],
)
def test_unfit_click_curves_are_refused(curve, cap):
    with pytest.raises(InputError, match=r"expected \(N,\) finite numbers"):
        clicks_to(curve, 0.9, cap=cap)


PAIRWISE = [iou, dice, fb_iou, boundary_f, match_objects, sparse_object_ious, image_scores]


@pytest.mark.parametrize("score", PAIRWISE)
@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        pytest.param(EMPTY, EMPTY.T, r"prediction of \(20, 30\) against .* \(30, 20\)", id="shape"),
        pytest.param(EMPTY, EMPTY * 0.5, "truth is float64, expected bool", id="float"),
        pytest.param(SQUARE * -1, SQUARE, "prediction has label -1", id="negative"),
    ],
)
def test_arrays_that_are_no_masks_are_refused(score, prediction, truth, message):
    with pytest.raises(InputError, match=message):
        score(prediction, truth)


def test_boundary_needs_one_plane():
    stack = np.stack([SQUARE, SQUARE])
    with pytest.raises(InputError, match=r"\(2, 20, 30\), expected \(H, W\)"):
        boundary_f(stack, stack)


def test_image_scores_hold_every_score():
    row = image_scores(SQUARE, SHIFTED)
    assert row["iou"] == iou(SQUARE, SHIFTED)
    assert row["dice"] == dice(SQUARE, SHIFTED)
    assert row["boundary_f"] == boundary_f(SQUARE, SHIFTED)
    assert row["fb_iou"] == fb_iou(SQUARE, SHIFTED)
    assert (row["object_precision"], row["object_recall"], row["object_f1"]) == (0, 0, 0)
    assert (row["n_predicted"], row["n_true"], row["n_matched"]) == (1, 1, 0)
    assert row["matched_iou"] == 0
    assert all(type(value) is float for value in row.values())


def test_summary_averages_images_and_pools_objects():
    three = box(0, 4, 0, 4) + box(0, 4, 8, 12, label=2) + box(0, 4, 16, 20, label=3)
    rows = [image_scores(SQUARE, SHIFTED), image_scores(three, three)]
    out = summarize(rows)
    assert list(out)[:3] == ["miou", "dice", "n"]
    assert out["n"] == 2
    assert out["miou"] == pytest.approx((1 / 3 + 1) / 2)
    assert out["boundary_f"] == pytest.approx((rows[0]["boundary_f"] + 1) / 2)
    assert out["object_precision"] == pytest.approx(3 / 4)  # the mean of images would be 1/2
    assert out["object_f1"] == pytest.approx(3 / 4)
    assert out["matched_iou"] == 1.0
    assert (out["n_predicted"], out["n_true"], out["n_matched"]) == (4, 4, 3)


def test_summary_averages_further_keys_where_they_are():
    rows = [{**image_scores(SQUARE, SQUARE), "seconds": 2.0}, image_scores(SQUARE, SQUARE)]
    assert summarize(rows)["seconds"] == 2.0


def test_summary_of_no_image_is_refused():
    with pytest.raises(InputError, match="no image to score"):
        summarize([])

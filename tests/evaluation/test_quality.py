"""Which results are doubtful, and why; which image would teach most."""

import numpy as np
import pytest

from napari_samic.evaluation.quality import ResultFeatures, rank_outliers, suggest_next_image

USUAL = [ResultFeatures(f"u{i}", 0.9, 30, 100.0) for i in range(5)]


def told(one, usual=USUAL):
    return {d.name: d.text for d in rank_outliers([*usual, one])}["x"]


@pytest.mark.parametrize(
    ("one", "text"),
    [
        pytest.param(ResultFeatures("x", 0.9, 2, 100.0), "2 objects, others have 30", id="few"),
        pytest.param(ResultFeatures("x", 0.9, 1, 100.0), "1 object, others have 30", id="one"),
        pytest.param(ResultFeatures("x", 0.9, 90, 100.0), "90 objects, others have 30", id="many"),
        pytest.param(ResultFeatures("x", None, 0, 0.0), "no object, others have 30", id="empty"),
        pytest.param(
            ResultFeatures("x", 0.42, 30, 100.0), "confidence 0.42, others have 0.90", id="unsure"
        ),
        pytest.param(
            ResultFeatures("x", 0.9, 30, 20.0), "objects of 20 px, others have 100 px", id="small"
        ),
        pytest.param(
            ResultFeatures("x", 0.9, 30, 900.0), "objects of 900 px, others have 100 px", id="large"
        ),
        pytest.param(
            ResultFeatures("x", 0.9, 30, 100.0, 0.3), "references disagree (0.30)", id="disagree"
        ),
        pytest.param(ResultFeatures("x", 0.86, 28, 120.0), "nothing unusual", id="usual"),
        pytest.param(
            ResultFeatures("x", 0.9, 30, 100.0, largest_px=900),
            "large object: 900 px, others have 100 px",
            id="leak",
        ),
        pytest.param(
            ResultFeatures("x", 0.9, 30, 900.0, largest_px=1700),
            "objects of 900 px, others have 100 px",
            id="all_large_is_told_once",
        ),
        pytest.param(
            ResultFeatures("x", 0.9, 30, 100.0, solidity=0.6),
            "ragged object: solidity 0.60, usual 1.00",
            id="ragged",
        ),
        pytest.param(
            ResultFeatures("x", 0.9, 30, 100.0, pieces=3), "object in 3 pieces", id="pieces"
        ),
        pytest.param(
            ResultFeatures("x", 0.9, 30, 100.0, border=0.4),
            "object along 40 % of the border",
            id="border",
        ),
        pytest.param(
            ResultFeatures("x", 0.5, 2, 100.0),
            "2 objects, others have 30; confidence 0.50, others have 0.90",
            id="weightiest_first",
        ),
    ],
)
def test_doubt_is_told_in_words(one, text):
    assert told(one) == text


@pytest.mark.parametrize("score", [0.3, 0.55, 0.69])
def test_low_confidence_is_told_where_all_are_as_low(score):
    some = [ResultFeatures(f"u{i}", score, 30, 100.0) for i in range(5)]
    assert told(ResultFeatures("x", score, 30, 100.0), some) == f"low confidence {score:.2f}"


def test_size_and_shape_are_those_of_the_references_where_they_are_known():
    leaking = [
        ResultFeatures(f"u{i}", 0.9, 3, 150.0, largest_px=900, solidity=0.5) for i in range(4)
    ]
    assert rank_outliers(leaking)[0].text == "large object: 900 px, others have 150 px"
    model = ResultFeatures("r", 1.0, 3, 100.0, largest_px=140, solidity=0.95)
    (one, *_) = rank_outliers(leaking, [model])
    assert one.text == (
        "ragged object: solidity 0.50, usual 0.95; large object: 900 px, references have 100 px"
    )
    (one, *_) = rank_outliers(
        leaking, [ResultFeatures("r", 1.0, 3, 100.0, largest_px=2000, solidity=0.5)]
    )
    assert one.text == "nothing unusual"  # references have large ones too


def test_what_all_results_have_is_no_doubt():
    some = [ResultFeatures(f"u{i}", 0.9, 3, 100.0, solidity=0.5, border=0.5) for i in range(4)]
    assert {d.text for d in rank_outliers(some)} == {"nothing unusual"}


def test_leaking_mask_comes_before_a_sound_one():
    some = [*USUAL, ResultFeatures("leak", 0.95, 30, 100.0, largest_px=3000, solidity=0.5)]
    assert rank_outliers(some)[0].name == "leak"


def test_most_doubtful_comes_first():
    some = [*USUAL, ResultFeatures("low", 0.6, 30, 100.0), ResultFeatures("none", None, 0, 0.0),
            ResultFeatures("few", 0.9, 8, 100.0)]  # fmt: skip
    assert [d.name for d in rank_outliers(some)][:3] == ["none", "few", "low"]


def test_equal_ones_keep_their_order_and_values_are_shares():
    found = rank_outliers([*USUAL, ResultFeatures("x", 3.0, 1, 1.0, -2.0)])
    assert [d.name for d in found] == ["x", "u0", "u1", "u2", "u3", "u4"]
    assert all(0 <= d.value <= 1 for d in found)


def test_empty_images_are_no_wonder_where_most_are_empty():
    empty = [ResultFeatures(f"e{i}", None, 0, 0.0) for i in range(3)]
    assert told(ResultFeatures("x", None, 0, 0.0), empty) == "no object"


def test_results_without_confidence_are_judged_by_their_objects():
    some = [ResultFeatures(f"u{i}", None, 10, 9.0) for i in range(3)]
    assert told(ResultFeatures("x", None, 1, 9.0), some) == "1 object, others have 10"


def test_nothing_to_judge():
    assert rank_outliers([]) == []


PLACES = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.1]])


def test_suggested_is_what_is_least_like_the_known_ones():
    assert suggest_next_image(PLACES, np.array([[1.0, 0.0]]), [0.5] * 4) == [3]
    assert suggest_next_image(PLACES, np.array([[1.0, 0.0], [-1.0, 0.0]]), [0.5] * 4) == [2]


def test_doubt_decides_between_equally_strange_ones():
    mirrored = np.array([[0.0, 1.0], [0.0, -1.0]])
    known = np.array([[1.0, 0.0]])
    assert suggest_next_image(mirrored, known, [0.1, 0.9]) == [1]
    assert suggest_next_image(mirrored, known, [0.9, 0.1]) == [0]


def test_second_suggestion_is_unlike_the_first():
    known = np.array([[1.0, 0.0]])
    twins = np.array([[-1.0, 0.0], [-1.0, 0.01], [0.0, 1.0]])
    assert suggest_next_image(twins, known, [0.5] * 3, count=2) == [0, 2]


def test_length_of_a_feature_does_not_count():
    assert suggest_next_image(
        np.array([[5.0, 0.1], [0.1, 0.1]]), np.array([[1.0, 0.0]]), [0.5] * 2
    ) == [1]


def test_without_references_and_without_images():
    assert suggest_next_image(PLACES, np.zeros((0, 2)), [0.1, 0.2, 0.9, 0.3]) == [2]
    assert suggest_next_image(np.zeros((0, 2)), PLACES, []) == []
    assert sorted(suggest_next_image(PLACES, PLACES, [1.0] * 4, count=9)) == [0, 1, 2, 3]

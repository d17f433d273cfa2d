"""The benchmark of an encoder's features: its scores and its likeness, on toys."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import toy_backbone as toy

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))
features = importlib.import_module("features")


def picture(places, *, asked=1, shape=(64, 64), radius=10, seed=0):
    """Discs of several classes; only those of the class asked for are the truth."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.int32)
    for number, (row, column, label) in enumerate(places, 1):
        if label == asked:
            labels[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = number
    name = f"p{seed}"
    return features.Picture(name, toy.discs(places, shape, radius=radius, seed=seed), labels)


PICTURES = [
    picture([(14, 44, 1), (44, 14, 2)], seed=1),
    picture([(44, 44, 1), (14, 20, 2)], seed=2),
    picture([(40, 16, 1), (20, 44, 2)], seed=3),
]
WIDE = picture([(24, 72, 1), (24, 24, 2)], shape=(48, 96), radius=15, seed=4)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        pytest.param([[3, 4], [1, 2]], 1.0, id="object_above"),
        pytest.param([[5, 5], [5, 5]], 0.5, id="constant"),
        pytest.param([[1, 2], [3, 4]], 0.0, id="object_below"),
        pytest.param([[4, 2], [3, 1]], 0.75, id="one_of_four_pairs_wrong"),
    ],
)
def test_auc_counts_pairs_in_order(score, expected):
    assert features.auc(score, [[1, 1], [0, 0]]) == expected


def test_auc_without_both_classes_is_no_number():
    assert np.isnan(features.auc([1.0, 2.0], [1, 1]))


def test_interval_leaves_out_what_is_no_number():
    assert features.interval([0.5, float("nan"), 0.5]) == "0.500 (0.500-0.500)"


@pytest.mark.parametrize("target", [PICTURES[2], WIDE], ids=["square", "padded"])
def test_likeness_separates_the_object_from_another_of_its_kind(target):
    looks = [features.look_at(toy.ColourBackbone(), p) for p in (PICTURES[0], target)]
    centre = features.center_of(looks)
    front, _ = features.prototypes(looks[0], centre)
    found = features.cosines(looks[1], front, centre)[0]
    assert features.auc(looks[1].cropped(found), features.truth_of(looks[1])) > 0.95


def test_missing_set_is_named_and_skipped(tmp_path, capsys):
    features.main(["--set", "cvc", "--data", str(tmp_path)])
    assert capsys.readouterr().out == f"skipped: {tmp_path / 'cvc-clinicdb'} is not here\n"

"""What a comparison tells beside the IoU."""

import doctest
import math
from dataclasses import replace

import pytest

from napari_samic.benchmark import summary
from napari_samic.benchmark.report import ImageScore
from napari_samic.benchmark.summary import markdown

GOOD = ImageScore("polyps", 0, 5, "SAMIC", "p0", 0.9, 0.95, 0.8, 1.0, 0.9, 0.5)
BAD = ImageScore("polyps", 0, 5, "SAMIC", "p1", 0.1, 0.15, 0.2, 0.0, 0.1, 1.5)
TEN = [BAD, *(replace(GOOD, image=f"p{n}") for n in range(2, 11))]


def test_examples_of_the_docstrings_hold():
    assert doctest.testmod(summary).failed == 0


def test_means_and_bad_ones_are_of_one_method_on_one_set_with_one_number_of_shots():
    others = [replace(BAD, method="PerSAM"), replace(BAD, shots=1), replace(BAD, set="cells")]
    found = summary.measures([GOOD, BAD, *others])
    assert [(m.set, m.shots, m.method) for m in found] == [
        ("polyps", 5, "SAMIC"), ("polyps", 5, "PerSAM"), ("polyps", 1, "SAMIC"),
        ("cells", 5, "SAMIC"),
    ]  # fmt: skip
    first = found[0]
    told = (first.dice, first.boundary_f, first.object_f1, first.seconds, first.bad)
    assert told == pytest.approx((0.55, 0.5, 0.5, 1.0, 0.5))


def test_confidence_that_knows_the_bad_one_shows_it_first():
    [found] = summary.measures(TEN)
    assert (found.bad, found.bad_first) == pytest.approx((0.1, 0.5))
    assert found.bad_ratio == pytest.approx(5)
    assert found.aurc == pytest.approx(found.aurc_best)
    [fooled] = summary.measures([replace(r, score=1 - r.score) for r in TEN])
    assert fooled.bad_ratio == 0
    assert fooled.aurc > found.aurc


def test_without_a_confidence_there_is_no_trust_and_no_column():
    found = summary.measures([replace(r, score=math.nan) for r in (GOOD, BAD)])
    assert math.isnan(found[0].aurc)
    assert "AURC" not in markdown(found)
    assert "AURC" in markdown([*found, *summary.measures(TEN)])


def test_sequences_count_the_same_however_long_they_are():
    long = [replace(GOOD, image=f"cat/{n}") for n in range(9)]
    groups = {r.image: "cat" for r in long} | {"p1": "dog"}
    [found] = summary.measures([*long, BAD], groups)
    assert found.j_and_f == pytest.approx(((0.9 + 0.8) / 2 + (0.1 + 0.2) / 2) / 2)


def test_classes_count_the_same_however_many_images_they_have():
    cats = [replace(GOOD, image=f"c{n}", label="cat", both=8.0, either=10.0) for n in range(9)]
    dogs = [
        replace(BAD, image=f"d{n}", label="dog", both=b, either=20.0) for n, b in ((0, 2), (1, 6))
    ]
    [found] = summary.measures([*cats, *dogs])
    assert found.class_iou == pytest.approx((0.8 + 8 / 40) / 2)
    assert "class IoU" in markdown([found])
    assert "class IoU" not in markdown(summary.measures(cats))  # the same as no class
    assert math.isnan(summary.measures([*cats, *TEN])[0].class_iou)  # pixels not counted

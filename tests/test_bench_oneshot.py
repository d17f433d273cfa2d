"""The benchmark of few references: its scores, its draws and its plain ways, on toys."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_samic.contracts import Prompts

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "benchmarks"), str(ROOT / "tests" / "models")]
oneshot = importlib.import_module("oneshot")
features = importlib.import_module("features")
toy = importlib.import_module("toy_backbone")
ColourSegmenter = importlib.import_module("toy_segmenter").ColourSegmenter


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


def bench():
    return oneshot.Bench(ColourSegmenter(), toy.ColourBackbone())


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


def test_references_and_targets_are_never_the_same_picture():
    references, targets = oneshot.drawn(30, 0, 20, 200, 0)
    assert sorted(references + targets) == list(range(30))


def test_draw_depends_on_the_seed_alone():
    assert oneshot.drawn(90, 0, 20, 40, 3) == oneshot.drawn(90, 0, 20, 40, 3)
    assert oneshot.drawn(90, 0, 20, 40, 3) != oneshot.drawn(90, 0, 20, 40, 4)


def test_more_references_keep_the_first_ones_and_the_targets():
    few, many = oneshot.drawn(90, 0, 5, 40, 0), oneshot.drawn(90, 0, 20, 40, 0)
    assert few == (many[0][:5], many[1])


def test_references_of_another_set_are_drawn_from_all_of_it():
    references, targets = oneshot.drawn(10, 50, 50, 10, 0)
    assert sorted(references) == list(range(50))
    assert sorted(targets) == list(range(10))


@pytest.mark.parametrize("target", [PICTURES[2], WIDE], ids=["square", "padded"])
def test_likeness_separates_the_object_from_another_of_its_kind(target):
    looks = [features.look_at(toy.ColourBackbone(), p) for p in (PICTURES[0], target)]
    centre = features.centre_of(looks)
    front, _ = features.prototypes(looks[0], centre)
    found = features.cosines(looks[1], front, centre)[0]
    assert features.auc(looks[1].cropped(found), features.truth_of(looks[1])) > 0.95


def test_grid_brought_to_the_image_leaves_the_padding_out():
    look = features.look_at(toy.ColourBackbone(), WIDE)
    found = look.to_image(look.cover()[0]) > 0.5
    assert oneshot.iou(found, WIDE.truth) > 0.6


@pytest.mark.parametrize("target", [PICTURES[2], WIDE], ids=["square", "padded"])
def test_nearest_neighbour_finds_the_object(target):
    mask = oneshot.nearest(bench(), PICTURES[:2])(target)
    assert oneshot.iou(mask, target.truth) > 0.9


@pytest.mark.parametrize("target", [PICTURES[2], WIDE], ids=["square", "padded"])
def test_forest_finds_the_object(target):
    mask = oneshot.forest(bench(), PICTURES[:2], trees=10)(target)
    assert oneshot.iou(mask, target.truth) > 0.45
    assert not (mask & (target.image[..., 2] > 200)).any()  # the other disc


def test_untrained_prompter_is_centred_on_its_references():
    ours = bench()
    for p in PICTURES[:2]:
        clicks = (Prompts(np.argwhere(p.truth).mean(0)[None], np.array([True])),)
        ours.annotated[p.name] = oneshot.Reference(p.name, p.image, clicks, p.labels)
    work, _ = oneshot.samic(ours, PICTURES[:2], train=False)
    assert [r.name for r in work.prompter.references] == ["p1", "p2"]
    means = features.centre_of([features.look_at(ours.backbone, p) for p in PICTURES[:2]])
    np.testing.assert_allclose(work.prompter.centre[0][0][0], means[0], atol=2e-3)


def test_table_has_a_line_for_each_k_and_the_bounds_below():
    row = {"iou": 0.5, "dice": 0.6, "empty": 0.0, "fit_s": 1.0, "predict_s": 2.0}
    rows = [{**row, "shots": k, "method": oneshot.SAMIC} for k in (0, 5)]
    rows.append({**row, "iou": 0.7, "shots": 5, "method": oneshot.SAMIC})
    rows.append({**row, "shots": None, "method": oneshot.ALL})
    lines = oneshot.table(rows).splitlines()
    assert lines[2] == "| 0 (one-shot) | **0.500**, Dice 0.600, 0% empty, 1 + 2 s |"
    assert lines[3].startswith("| 5 | **0.600** ± 0.141, ")
    assert lines[-1].startswith("- everything: **0.500**")


def test_missing_set_is_named_and_skipped(tmp_path, capsys):
    oneshot.main(["--set", "cvc", "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert capsys.readouterr().out == f"skipped: {tmp_path / 'cvc-clinicdb'} is not here\n"
    assert not (tmp_path / "out").exists()

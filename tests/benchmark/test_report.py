"""Results to tables: what is compared with what, and files that read back."""

import csv
import doctest
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_samic.benchmark import report
from napari_samic.benchmark.report import ImageScore, cells, markdown, read_results, write_report
from napari_samic.benchmark.statistics import paired_difference
from napari_samic.core.errors import FormatError, InputError, OutputError


def results(
    method: str, gain: float = 0.0, *, count: int = 20, seeds: int = 2, shots: int = 5
) -> list[ImageScore]:
    """The same images for every method; `gain` moves all of them about."""
    out = []
    for seed in range(seeds):
        values = np.random.default_rng(seed).uniform(0.3, 0.7, count)
        noise = np.random.default_rng(99).normal(gain, 0.01, count) if gain else np.zeros(count)
        out += [
            ImageScore(
                "polyps", seed, shots, method, f"p{n}", float(v), float(v) / 2, 0.8, 0.7, 0.9, 0.1
            )
            for n, v in enumerate(values + noise)
        ]
    return [replace(r, label="polyp", both=3.0, either=4.0) for r in out]


A, B = results("SAMIC", 0.05), results("PerSAM")


def test_examples_of_the_docstrings_hold() -> None:
    assert doctest.testmod(report).failed == 0


def test_cell_has_mean_images_and_seeds() -> None:
    (found,) = cells(B)
    assert found.value.mean == pytest.approx(np.mean([r.iou for r in B]))
    assert found.value.low < found.value.mean < found.value.high
    assert (found.images, found.seeds, found.difference) == (40, 2, None)


def test_difference_is_paired_by_seed_and_image_in_any_order() -> None:
    one, other = cells([*A, *reversed(B)], baseline="PerSAM")
    assert other.difference is None
    expected = paired_difference(*([r.iou for r in x] for x in (A, B)), [r.image for r in A])
    assert one.difference is not None
    assert one.difference.mean == pytest.approx(expected.mean)
    assert one.difference.p == pytest.approx(expected.p)
    assert one.difference.low > 0


def test_only_images_that_both_have_are_compared() -> None:
    found = cells([*A[:7], *B], baseline="PerSAM")[0]
    assert (found.images, found.difference.n) == (7, 7)  # type: ignore[union-attr]


def test_without_a_common_image_there_is_no_difference() -> None:
    other = [replace(r, image="else") for r in A[:1]]
    assert cells([*other, *B], baseline="PerSAM")[0].difference is None


def test_measure_may_be_dice() -> None:
    assert cells(B, measure="dice")[0].value.mean == pytest.approx(cells(B)[0].value.mean / 2)


def test_images_are_ranked_once_however_many_seeds_have_them() -> None:
    again = [replace(r, image=f"{r.image} again 2") for r in (*A, *B)]
    found = cells([*A, *B, *again], baseline="PerSAM")[0]
    assert (found.images, found.seeds, found.difference.n) == (80, 2, 20)  # type: ignore[union-attr]


def test_frames_of_a_video_are_drawn_together() -> None:
    videos = {f"p{n}": "cat" if n else "dog" for n in range(20)}
    [found] = cells(B, units=videos)
    cat, dog = ([r.iou for r in B if videos[r.image] == name] for name in ("cat", "dog"))
    assert found.value.mean == pytest.approx((np.mean(cat) + np.mean(dog)) / 2)
    assert found.value.low == pytest.approx(min(np.mean(cat), np.mean(dog)))


def test_shots_and_sets_are_columns_and_methods_rows() -> None:
    one = results("SAMIC", shots=1)
    text = markdown(cells([*A, *B, *one, replace(one[0], set="a|b")], baseline="PerSAM"))
    lines = text.splitlines()
    assert lines[0] == r"| method | polyps, 5 shots | polyps, 1 shot | a\|b, 1 shot |"
    assert lines[1] == "|---|---|---|---|"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| SAMIC", "| PerSAM"]
    assert lines[3].endswith(" |  |  |")


@pytest.mark.parametrize(
    ("gain", "bold"), [pytest.param(0.05, True, id="clear"), pytest.param(1e-9, False, id="not")]
)
def test_difference_is_bold_where_its_interval_leaves_out_0(gain: float, bold: bool) -> None:
    text = markdown(cells([*results("SAMIC", gain), *B], baseline="PerSAM"))
    assert ("; **+0.0" in text) == bold


def test_files_say_what_the_cells_say(tmp_path: Path) -> None:
    found = write_report(tmp_path / "out", [*A, *B], baseline="PerSAM")
    tree = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert (tree["measure"], tree["baseline"]) == ("iou", "PerSAM")
    assert tree["cells"][0]["value"]["mean"] == found[0].value.mean
    assert tree["cells"][1]["difference"] is None
    assert (tmp_path / "out" / "summary.md").read_text(encoding="utf-8") == markdown(found)
    with (tmp_path / "out" / "images.csv").open(encoding="utf-8") as file:
        assert next(csv.reader(file)) == [
            "set", "seed", "shots", "method", "image", "iou", "dice", "boundary_f", "object_f1",
            "score", "seconds", "label", "both", "either",
        ]  # fmt: skip


def test_images_are_read_back_as_they_were(tmp_path: Path) -> None:
    odd = replace(A[0], method='a, "b"', image="two\nlines")
    write_report(tmp_path, [*A[1:], odd])
    assert read_results(tmp_path / "images.csv") == [*A[1:], odd]


def test_tables_of_before_are_read(tmp_path: Path) -> None:
    write_report(tmp_path, A[:2])
    with (tmp_path / "images.csv").open(encoding="utf-8") as file:
        old = [row[:-3] for row in csv.reader(file)]
    with (tmp_path / "old.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(old)
    found = read_results(tmp_path / "old.csv")
    assert [(r.image, r.seconds, r.label) for r in found] == [("p0", 0.1, ""), ("p1", 0.1, "")]


def test_of_few_units_no_difference_is_bold() -> None:
    few, more = ([*results("SAMIC", 0.05, count=n), *results("PerSAM", count=n)] for n in (5, 6))
    assert "**" not in markdown(cells(few, baseline="PerSAM"))
    assert "**" in markdown(cells(more, baseline="PerSAM"))


def test_results_without_the_measure_are_left_out() -> None:
    (found,) = cells([*A[:3], *(replace(r, dice=float("nan")) for r in A[3:])], measure="dice")
    assert found.images == 3


def test_what_was_not_measured_stays_so(tmp_path: Path) -> None:
    write_report(tmp_path, [replace(A[0], score=float("nan"))])
    assert np.isnan(read_results(tmp_path / "images.csv")[0].score)


def test_nothing_is_written_where_one_file_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "summary.md").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match=r"summary\.md: exists already"):
        write_report(tmp_path, A)
    assert [p.name for p in tmp_path.iterdir()] == ["summary.md"]
    write_report(tmp_path, A, overwrite=True)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: cells([]), "no result to report", id="none"),
        pytest.param(lambda: cells([A[0], A[0]]), "SAMIC: two results of 'p0'", id="twice"),
        pytest.param(
            lambda: cells(A, baseline="x"), r"baseline 'x'\. There are: SAMIC", id="baseline"
        ),
        pytest.param(lambda: cells(A, measure="f"), "measure is 'f'", id="measure"),  # type: ignore[arg-type]
    ],
)
def test_results_that_make_no_sense_are_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("set,seed", "set,seeds", "expected set, seed, shots", id="columns"),
        pytest.param("polyps,0,5", "polyps,0,five", "line 2: .*five", id="number"),
        pytest.param("polyps,0,5,SAMIC", "polyps,0", "line 2", id="short"),
    ],
)
def test_damaged_table_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    write_report(tmp_path, A[:1])
    path = tmp_path / "images.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(FormatError, match=message):
        read_results(path)

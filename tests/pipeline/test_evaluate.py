"""Predictions against ground truth."""

import json

import numpy as np
import pytest
import tifffile
from toys import scene, write_image, write_scenes

from napari_samic import pipeline
from napari_samic.core.errors import InputError, OutputError
from napari_samic.core.types import run_job
from napari_samic.io.writers import write_labels


def evaluate(**options):
    return run_job(pipeline.evaluate(**options))


@pytest.fixture
def folder(tmp_path):
    """Truth of three images; predictions of two, one perfect, one with one of two objects."""
    write_scenes(tmp_path, 3)
    write_labels(tmp_path / "out" / "p0.tif", scene(0)[1])
    write_labels(tmp_path / "out" / "p1.tif", scene(1)[1] == 1)
    return tmp_path


def test_figures_have_the_promised_keys(folder):
    outcome = evaluate(
        predictions=folder / "out", truth=folder / "masks", out=folder / "metrics.json"
    )
    figures = json.loads((folder / "metrics.json").read_text())
    assert figures == json.loads(json.dumps(outcome.figures))
    assert (figures["n"], figures["unscored"]) == (2, 1)
    assert figures["miou"] == pytest.approx((1 + 0.5) / 2, abs=0.01)
    assert figures["dice"] == pytest.approx((1 + 2 / 3) / 2, abs=0.01)
    assert (figures["object_precision"], figures["object_recall"]) == (1, 0.75)
    assert figures["object_f1"] == pytest.approx(6 / 7)
    assert set(figures["images"]) == {"p0", "p1"}


def test_nothing_is_written_without_a_name(folder):
    outcome = evaluate(predictions=folder / "out", truth=folder / "masks")
    assert outcome.out is None
    assert sorted(p.name for p in folder.iterdir()) == ["images", "masks", "out"]


def test_binary_truth_falls_into_components(folder):
    write_image(folder / "masks" / "p0.png", (scene(0)[1] > 0).astype(np.uint8) * 255)
    figures = evaluate(predictions=folder / "out", truth=folder / "masks").figures
    assert figures["images"]["p0"]["n_true"] == 2
    assert figures["images"]["p0"]["n_matched"] == 2


@pytest.mark.parametrize("white", [1, 255])
def test_predictions_of_one_value_fall_into_components(tmp_path, white):
    write_scenes(tmp_path, 2)
    for k in range(2):
        write_image(tmp_path / "out" / f"p{k}.png", (scene(k)[1] > 0).astype(np.uint8) * white)
    outcome = evaluate(predictions=tmp_path / "out", truth=tmp_path / "masks")
    assert outcome.figures["object_f1"] == 1
    line = f"predictions: mask values: 2 values: 0 ground, {white} object."
    assert line in outcome.notices


def test_results_of_ours_are_numbers_of_objects(folder):
    (folder / "out" / "p0.tif").unlink()
    write_labels(folder / "out" / "p1.tif", scene(1)[1] > 0, overwrite=True)
    (folder / "out" / "prompts.json").write_text("{}")
    outcome = evaluate(predictions=folder / "out", truth=folder / "masks")
    assert outcome.figures["images"]["p1"]["n_predicted"] == 1


def test_predictions_in_doubt_are_numbers_and_told(folder):
    for k in range(2):
        (folder / "out" / f"p{k}.tif").unlink()
        write_image(folder / "out" / f"p{k}.png", scene(k)[1].astype(np.uint8) + 1)
    outcome = evaluate(predictions=folder / "out", truth=folder / "masks")
    assert outcome.figures["images"]["p0"]["n_predicted"] == 3
    line = outcome.notices[-1]
    assert "none is 0" in line


def test_predictions_without_truth_are_named(folder):
    for name in ("p1.png", "p2.png"):
        (folder / "masks" / name).unlink()
    outcome = evaluate(predictions=folder / "out", truth=folder / "masks")
    assert outcome.notices[0].endswith(": p1.")


def test_palettes_of_labels_are_no_picture(folder):
    colours = np.random.default_rng(0).integers(0, 1 << 16, (3, 256), np.uint16)
    for place in ("out/p0.tif", "masks/p0.tif"):
        (folder / place).with_suffix(".png").unlink(missing_ok=True)
        tifffile.imwrite(folder / place, scene(0)[1], photometric="palette", colormap=colours)
    outcome = evaluate(predictions=folder / "out", truth=folder / "masks")
    assert outcome.figures["images"]["p0"]["iou"] == 1


def test_pictures_among_the_predictions_are_left_out(folder):
    write_image(folder / "out" / "overlay.png", scene(0)[0])
    (folder / "out" / "scores.csv").write_text("image\n")
    assert evaluate(predictions=folder / "out", truth=folder / "masks").figures["n"] == 2


def test_stack_is_scored_plane_by_plane(tmp_path):
    pages = np.stack([scene(i)[1] for i in range(3)])
    write_labels(tmp_path / "out" / "t.tif", pages.astype(np.int32))
    (tmp_path / "truth").mkdir()
    tifffile.imwrite(tmp_path / "truth" / "t_mask.tif", pages, photometric="minisblack")
    figures = evaluate(predictions=tmp_path / "out", truth=tmp_path / "truth").figures
    assert (list(figures["images"]), figures["miou"]) == (["t[0]", "t[1]", "t[2]"], 1.0)


def test_image_that_does_not_fit_is_told_and_the_others_scored(folder):
    write_labels(folder / "out" / "p2.tif", np.zeros((5, 5), np.int32))
    outcome = evaluate(predictions=folder / "out", truth=folder / "masks")
    assert outcome.figures["n"] == 2
    line = outcome.failures["p2"]
    assert line.startswith("p2.png:")
    assert "(48, 60)" in line
    assert "(5, 5)" in line


def test_two_predictions_of_one_name_are_refused(folder):
    write_image(folder / "out" / "p0.png", scene(0)[1])
    with pytest.raises(InputError, match="both called 'p0'"):
        evaluate(predictions=folder / "out", truth=folder / "masks")


def test_nothing_in_common_is_told(folder):
    write_labels(folder / "others" / "z.tif", scene(0)[1])
    with pytest.raises(InputError, match="no mask for z"):
        evaluate(predictions=folder / "others", truth=folder / "masks")


def test_all_bad_is_an_error_with_its_reason(folder):
    (folder / "bad").mkdir()
    (folder / "bad" / "p0.tif").write_bytes(b"no")
    with pytest.raises(InputError, match=r"nothing scored: p0\.tif: can't be read"):
        evaluate(predictions=folder / "bad", truth=folder / "masks")


def test_existing_figures_are_kept_and_nothing_is_computed(folder):
    out = folder / "metrics.json"
    out.write_text("mine")
    job = pipeline.evaluate(predictions=folder / "out", truth=folder / "masks", out=out)
    with pytest.raises(OutputError, match="exists already"):
        next(job)
    assert out.read_text() == "mine"
    evaluate(predictions=folder / "out", truth=folder / "masks", out=out, overwrite=True)
    assert json.loads(out.read_text())["n"] == 2


@pytest.mark.parametrize("name", ["p0.png", "new.TIF"])
def test_figures_are_not_called_as_an_image(folder, name):
    before = (folder / "masks" / "p0.png").read_bytes()
    with pytest.raises(InputError, match=rf"{name}: has the ending of an image"):
        evaluate(
            predictions=folder / "out", truth=folder / "masks", out=folder / "masks" / name,
            overwrite=True,
        )  # fmt: skip
    assert (folder / "masks" / "p0.png").read_bytes() == before


def test_figures_replace_no_table_of_the_predictions(folder):
    table = folder / "out" / "scores.csv"
    table.write_text("image,score\n")
    with pytest.raises(InputError, match=r"scores\.csv: is an input, too"):
        evaluate(predictions=folder / "out", truth=folder / "masks", out=table, overwrite=True)
    assert table.read_text() == "image,score\n"

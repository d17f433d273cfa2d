"""Accepting and exporting as steps of a recipe: the same files again, to the last byte."""

import hashlib
import re
import shutil

import numpy as np
import pytest
import tifffile
from toys import SHAPE

from napari_samic import pipeline, recipes
from napari_samic.core.errors import FormatError, InputError
from napari_samic.core.settings import ExportSettings
from napari_samic.core.types import run_job
from napari_samic.io.masks import read_labels
from napari_samic.io.reviews import Verdict, save_review
from napari_samic.io.text_files import sha256_of

HOW = ExportSettings(
    png=True, ome_zarr=True, coco=True, geojson=True, roi=True, table=True, prompt_file=True
)


def tree(folder):
    """Hash of each file; of prompts without the folder of the images, which is that of a copy."""
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(
            re.sub(rb'"file": ".*/', b"", p.read_bytes())
        ).hexdigest()
        for p in folder.rglob("*")
        if p.is_file()
    }


def wipe(folder):
    """Remove all results, so that a replay in place makes them anew."""
    for name in ("annotated", "labels", "kept", "out"):
        shutil.rmtree(folder / name)
    for name in ("discs.pt", "m.json"):
        (folder / name).unlink()


def record(folder):
    """One image accepted, one painted by hand; all exported."""
    (folder / "reviewed" / "edits").mkdir(parents=True)
    painted = np.zeros(SHAPE, np.int32)
    painted[3:9, 4:20] = 2
    tifffile.imwrite(folder / "reviewed" / "edits" / "q4.tif", painted)
    sha256 = sha256_of(folder / "reviewed" / "edits" / "q4.tif")
    review = folder / "reviewed" / "review.json"
    save_review(review, {"q3": Verdict("accepted"),
                         "q4": Verdict("edited", "", "q4.tif", sha256)})  # fmt: skip
    path = folder / "recipe.yaml"
    run_job(recipes.recorded(pipeline.accept, path)(
        folder / "labels", review=review, edits=folder / "reviewed" / "edits", out=folder / "kept",
    ))  # fmt: skip
    run_job(
        recipes.recorded(pipeline.export, path)(folder / "kept", out=folder / "out", settings=HOW)
    )
    return folder


@pytest.fixture
def finished(original, tmp_path):
    """The whole project with its results, accepted and exported."""
    return record(shutil.copytree(original, tmp_path / "finished"))


def replay(folder, **options):
    return run_job(recipes.replay(folder / "recipe.yaml", **options))


def test_steps_name_the_review_the_edits_and_what_came_out(finished):
    *_, kept, exported = recipes.load_recipe(finished / "recipe.yaml").steps
    assert kept.inputs == {"results": "labels", "review": "reviewed/review.json",
                           "edits": "reviewed/edits"}  # fmt: skip
    assert (kept.data["review"].files, kept.data["edits"].files) == (1, 1)
    assert (kept.out, kept.results.files) == ("kept", 2)
    assert exported.inputs == {"results": "kept"}
    assert exported.settings == {"png": True, "ome_zarr": True, "coco": True, "geojson": True,
                                 "roi": True, "table": True, "prompt_file": True}  # fmt: skip
    assert exported.results.files == len(tree(finished / "out")) - 1  # prompts name a folder


@pytest.mark.parametrize("is_elsewhere", [False, True], ids=["in_place", "out"])
def test_replay_gives_the_same_files(finished, tmp_path, is_elsewhere):
    before = {name: tree(finished / name) for name in ("labels", "kept", "out")}
    out = tmp_path / "again" if is_elsewhere else finished
    if not is_elsewhere:
        wipe(finished)
    outcome = replay(finished, out=out if is_elsewhere else None, strict=True)
    assert [r["same_labels"] for r in outcome.figures["steps"]] == [
        True, None, True, None, True, True]  # fmt: skip
    for name in ("kept", "out"):
        for found in (now := tree(out / name), before[name]):
            found.pop("ledger.sqlite", None)  # of a prompter that took another time to train
        assert now == before[name]
    kept = before["labels"]
    assert {k: v for k, v in tree(out / "labels").items() if k.endswith(".tif")} == {
        k: v for k, v in kept.items() if k.endswith(".tif")}  # fmt: skip


def test_other_images_are_exported_without_the_review(finished, tmp_path):
    new = tmp_path / "new"
    new.mkdir()
    shutil.copy(finished / "more" / "q3.png", new / "z.png")
    outcome = replay(finished, images=new, out=tmp_path / "again")
    rows = outcome.figures["steps"]
    assert rows[4]["left_out"].startswith("its review")
    assert rows[5]["inputs"]["results"]["path"] == str(tmp_path / "again" / "labels")
    labels = read_labels(tmp_path / "again" / "labels" / "z.tif")
    np.testing.assert_array_equal(read_labels(tmp_path / "again" / "out" / "z.tif"), labels)
    assert not (tmp_path / "again" / "kept").exists()


def test_changed_review_is_told(finished):
    wipe(finished)
    save_review(finished / "reviewed" / "review.json", {"q3": Verdict("accepted")}, overwrite=True)
    with pytest.warns(UserWarning, match=r"step 5 \(accept\): review has other contents"):
        outcome = replay(finished)
    assert outcome.figures["steps"][4]["same_labels"] is False


def test_changed_edit_stops_the_replay(finished):
    wipe(finished)
    tifffile.imwrite(finished / "reviewed" / "edits" / "q4.tif", np.ones(SHAPE, np.int32))
    with (
        pytest.warns(UserWarning, match="edits has other contents"),
        pytest.raises(InputError, match=r"step 5 \(accept\): .*q4.tif: is not what was reviewed"),
    ):
        replay(finished)


def test_formats_can_be_changed(finished, tmp_path):
    changes = {"export.png": "false", "export.unit": "micrometer", "pixel_width": "0.5"}
    replay(finished, set=changes, out=tmp_path / "again")
    names = {p.suffix for p in (tmp_path / "again" / "out").iterdir()}
    assert names == {".tif", ".zarr", ".json", ".geojson", ".zip", ".csv"}
    assert "micrometer" in (tmp_path / "again" / "out" / "measurements.csv").read_text()


def test_faulty_steps_are_refused_with_their_place(finished):
    path = finished / "recipe.yaml"
    text = path.read_text()
    path.write_text(text.replace("png: true", "png: perhaps").replace("review:", "verdicts:", 1))
    with pytest.raises(FormatError, match=r"step 5 \(accept\): unknown verdicts in inputs") as told:
        replay(finished)
    assert "png is 'perhaps'" in str(told.value)


def test_shell_has_the_same_options(finished, shell, tmp_path):
    ran = shell("accept", "--results", finished / "labels", "--review",
                finished / "reviewed" / "review.json", "--edits", finished / "reviewed" / "edits",
                "--out", tmp_path / "kept", "--record", tmp_path / "r.yaml")  # fmt: skip
    assert (ran.code, ran.complaints) == (0, [])
    assert ran.out.startswith("1 accepted, 1 edited")
    ran = shell("export", "--results", tmp_path / "kept", "--out", tmp_path / "out", "--no-tiff",
                "--coco", "--record", tmp_path / "r.yaml")  # fmt: skip
    assert (ran.code, ran.complaints) == (0, [])
    assert "2 images in 1 file" in ran.out
    assert tree(tmp_path / "out").keys() == {"coco.json"}
    ran = shell("run", tmp_path / "r.yaml", "--out", tmp_path / "again")
    assert (ran.code, ran.out.count("same labels as recorded")) == (0, 2)
    assert tree(tmp_path / "again" / "out") == tree(tmp_path / "out")


def test_shell_tells_errors_in_one_line(finished, shell, tmp_path):
    ran = shell("export", "--results", finished / "labels", "--out", tmp_path / "o", "--no-tiff")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert ran.err.startswith("error: no format")
    ran = shell("accept", "--results", finished / "labels", "--review", tmp_path / "none.json",
                "--out", tmp_path / "o")  # fmt: skip
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    ran = shell("export", "--results", finished / "labels", "--out", finished / "out")
    assert ran.code == 3
    assert "exists already" in ran.err
    assert "--overwrite" in ran.err

"""Results reviewed and exported: what is kept, what is refused, and that nothing is lost."""

import csv
import json
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import zarr
from roifile import roiread
from toys import SHAPE, hidden_files, scene

from napari_samic import pipeline
from napari_samic.core.errors import FormatError, InputError, OutputError
from napari_samic.core.label_objects import ObjectRecord
from napari_samic.core.settings import ExportSettings, SegmentSettings
from napari_samic.core.types import PixelSize, Prompts, run_job
from napari_samic.io.images import pixel_size
from napari_samic.io.masks import read_labels
from napari_samic.io.outlines import decode
from napari_samic.io.prompts import ImagePrompts, PromptFile, load_prompts, save_prompts
from napari_samic.io.reviews import Verdict, load_review, save_review
from napari_samic.io.text_files import sha256_of
from napari_samic.io.writers import write_csv
from napari_samic.pipeline.accept import COLUMNS
from napari_samic.pipeline.results.ledger import Ledger, Provenance
from napari_samic.pipeline.results.reader import read_results

EVERYTHING = ExportSettings(
    png=True, ome_zarr=True, coco=True, geojson=True, roi=True, table=True, prompt_file=True
)


def point(row, column, label=1):
    return Prompts(np.array([[row, column]], float), np.array([True]), None, label)


def write_results(folder, names=("a", "b", "c"), pictures=None):
    """As `segment` leaves them: two objects each, of classes 1 and 2."""
    folder.mkdir()
    images, rows = [], []
    for i, name in enumerate(names):
        labels = scene(i)[1].astype(np.int32)
        tifffile.imwrite(folder / f"{name}.tif", labels)
        objects = (point(12 + i, 14), point(32, 40 - i, 2))
        file = f"{pictures}/{name}.tif" if pictures else f"/pictures/{name}.png"
        images.append(ImagePrompts(name, file, SHAPE, "", objects, (0.9, 0.7)))
        rows += [
            {"image": name, "image_score": 0.8, "object": k, "class": k, "score": s,
             "area_px": int((labels == k).sum())}
            for k, s in ((1, 0.9), (2, 0.7))
        ]  # fmt: skip
    save_prompts(folder / "prompts.json", PromptFile(tuple(images), "tiny"))
    write_csv(folder / "scores.csv", rows, columns=COLUMNS)
    return folder


@pytest.fixture
def results(tmp_path):
    return write_results(tmp_path / "results")


@pytest.fixture
def names(tmp_path):
    """A prompt file that names the classes."""
    save_prompts(tmp_path / "names.json", PromptFile((), "tiny", None, {1: "disc", 2: "polyp"}))
    return tmp_path / "names.json"


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        pytest.param({}, ["micrometer", "px", "micrometer"], id="of_each_file"),
        pytest.param({"unit": "px"}, ["px"] * 3, id="given"),
    ],
)
def test_lengths_are_in_the_unit_of_the_image(tmp_path, how, expected):
    pixels = np.zeros(SHAPE, np.uint8)
    sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 500, "PhysicalSizeYUnit": "nm",
             "PhysicalSizeXUnit": "nm", "axes": "YX"}  # fmt: skip
    (tmp_path / "pictures").mkdir()
    files = {name: tmp_path / "pictures" / f"{name}.tif" for name in "abc"}
    tifffile.imwrite(files["a"], pixels, ome=True, metadata=sizes)
    tifffile.imwrite(files["b"], pixels, resolution=(72, 72), resolutionunit="INCH")
    tifffile.imwrite(
        files["c"], pixels, imagej=True, resolution=(0.5, 0.25), metadata={"unit": "um"}
    )
    results = write_results(tmp_path / "results", pictures=tmp_path / "pictures")
    settings = ExportSettings(tiff=False, table=True, **how)
    run_job(pipeline.export(results, out=tmp_path / "out", settings=settings))
    rows = table(tmp_path / "out" / "measurements.csv")[::2]
    assert [row["unit"] for row in rows] == expected
    pixel = {"px": 1.0, "micrometer": 8.0}[expected[2]]
    assert float(rows[2]["area"]) == pytest.approx(int(rows[2]["area_px"]) * pixel)


@pytest.mark.parametrize("how", ["ome", "imagej"])
def test_planes_of_an_exported_volume_are_as_far_apart_as_those_of_the_image(tmp_path, how):
    pixels, labels = np.zeros((3, 1, *SHAPE), np.uint8), np.ones((3, *SHAPE), np.int32)
    sizes = {"imagej": {"spacing": 0.6, "unit": "um"},
             "ome": {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 0.6}}  # fmt: skip
    image, results = tmp_path / "v.ome.tif", tmp_path / "results"
    tifffile.imwrite(
        image, pixels, **{how: True}, resolution=(2, 2), photometric="minisblack",
        metadata={"axes": "ZCYX", **sizes[how]},
    )  # fmt: skip
    results.mkdir()
    tifffile.imwrite(results / "v.tif", labels, photometric="minisblack", metadata={"axes": "ZYX"})
    prompts = [ImagePrompts(f"v[{z}]", str(image), SHAPE, "", (), ()) for z in range(3)]
    save_prompts(results / "prompts.json", PromptFile(tuple(prompts), "tiny"))
    settings = ExportSettings(tiff=False, ome_zarr=True)
    run_job(pipeline.export(results, out=tmp_path / "out", settings=settings))
    assert pixel_size(tmp_path / "out" / "v.ome.zarr") == PixelSize(0.5, 0.5, 0.6)


def test_stack_that_is_linked_in_part_is_told_and_not_measured_as_a_whole(tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    labels = np.ones((2, *SHAPE), np.int32)
    tifffile.imwrite(results / "v.tif", labels, photometric="minisblack", metadata={"axes": "ZYX"})
    runs = {"v[0]": {"memory": {"link": "stacks"}}, "v[1]": {"memory": {"link": "never"}}}
    made = {name: Provenance(run, "v.tif", "", {}) for name, run in runs.items()}
    with closing(Ledger(results)) as ledger:
        ledger.store(made)
    settings = ExportSettings(table=True)
    outcome = run_job(pipeline.export(results, out=tmp_path / "out", settings=settings))
    assert any("not measured as a whole" in notice for notice in outcome.notices)
    assert len(table(tmp_path / "out" / "measurements.csv")) == 2
    assert not (tmp_path / "out" / "measurements_3d.csv").exists()


def test_exported_time_series_has_its_axis_and_no_volumes(shell, prompter, tmp_path):
    frames = np.stack([scene(i)[0] for i in range(3)])
    tifffile.imwrite(
        tmp_path / "t.ome.tif", frames, photometric="rgb",
        metadata={"axes": "TYXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25},
    )  # fmt: skip
    made, out = tmp_path / "made", tmp_path / "out"
    segment = ("segment", tmp_path / "t.ome.tif", "--prompter", prompter, "--out")
    assert shell(*segment, made, "--link", "stacks").code == 0
    run_job(pipeline.export(made, out=out, settings=EVERYTHING))
    with tifffile.TiffFile(out / "t.tif") as exported:
        assert exported.series[0].axes == "TYX"
        np.testing.assert_array_equal(exported.asarray(), tifffile.imread(made / "t.tif"))
    assert pixel_size(out / "t.tif") == PixelSize(0.25, 0.5)
    assert zarr.open_group(out / "t.ome.zarr")["0"].metadata.dimension_names == ("t", "y", "x")
    rows = table(out / "measurements_3d.csv")
    assert any(int(row["planes"]) > 1 for row in rows)
    assert {row["volume"] for row in rows} == {""}
    settings = ExportSettings(table=True)
    shell(*segment, tmp_path / "apart")
    run_job(pipeline.export(tmp_path / "apart", out=tmp_path / "tables", settings=settings))
    assert not (tmp_path / "tables" / "measurements_3d.csv").exists()


def table(path):
    return list(csv.DictReader(path.open()))


# --- export


def test_every_format_has_every_object(results, names, tmp_path):
    out = tmp_path / "out"
    outcome = run_job(pipeline.export(results, out=out, classes=names, settings=EVERYTHING))
    assert outcome.done == ("a", "b", "c")
    assert outcome.figures["objects"] == 6
    assert sorted(p.name for p in out.iterdir()) == outcome.figures["files"]
    coco = json.loads((out / "coco.json").read_text())
    rows = table(out / "measurements.csv")
    for number, name in enumerate("abc", start=1):
        labels = read_labels(results / f"{name}.tif")
        for suffix in ("tif", "png", "ome.zarr"):
            np.testing.assert_array_equal(read_labels(out / f"{name}.{suffix}"), labels)
        mine = [a for a in coco["annotations"] if a["image_id"] == number]
        drawn = sum(a["label"] * decode(a["segmentation"]).astype(int) for a in mine)
        np.testing.assert_array_equal(drawn, labels)
        assert [r["class_name"] for r in rows if r["image"] == name] == ["disc", "polyp"]
        features = json.loads((out / f"{name}.geojson").read_text())["features"]
        assert [f["properties"]["score"] for f in features] == [0.9, 0.7]
        assert [r.name for r in roiread(out / f"{name}.roi.zip")] == ["disc-1", "polyp-2"]
    assert coco["images"][0]["file_name"] == "a.png"
    assert load_prompts(out / "prompts.json").classes == {1: "disc", 2: "polyp"}
    assert not hidden_files(tmp_path)


def test_label_tiffs_alone_by_default(results, tmp_path):
    run_job(pipeline.export(results, out=tmp_path / "out"))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.tif", "b.tif", "c.tif"]


def test_results_stay_as_they_are(results, tmp_path):
    before = {p: p.read_bytes() for p in results.iterdir()}
    run_job(pipeline.export(results, out=tmp_path / "out", settings=EVERYTHING))
    assert {p: p.read_bytes() for p in results.iterdir()} == before


def test_same_results_give_the_same_files(results, tmp_path):
    for name in ("one", "two"):
        run_job(pipeline.export(results, out=tmp_path / name, settings=EVERYTHING))
    one, two = (
        {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*")
         if p.is_file()}
        for n in ("one", "two")
    )  # fmt: skip
    assert one == two


def test_files_of_images_that_are_gone_are_named_and_left(results, tmp_path):
    out = tmp_path / "out"
    before = run_job(pipeline.export(results, out=out, settings=EVERYTHING)).notices
    assert not any("b.tif" in line for line in before)
    (out / "notes.txt").write_text("mine")
    (results / "b.tif").unlink()
    before = {p: p.read_bytes() for p in out.rglob("*") if p.name.startswith("b.") and p.is_file()}
    outcome = run_job(pipeline.export(results, out=out, settings=EVERYTHING, overwrite=True))
    line = outcome.notices[-1]
    assert line.endswith(": b.geojson, b.ome.zarr, b.png, b.roi.zip, b.tif.")
    assert {p: p.read_bytes() for p in before} == before


def write_stack(folder, count=3):
    folder.mkdir()
    stack = np.stack([scene(i)[1].astype(np.int32) for i in range(count)])
    tifffile.imwrite(folder / "s.tif", stack, photometric="minisblack")
    images = tuple(
        ImagePrompts(f"s[{i}]", "/pictures/s.tif", SHAPE, "", (point(9, 9),), (0.5,))
        for i in range(count)
    )
    save_prompts(folder / "prompts.json", PromptFile(images, "tiny"))
    return stack


def test_stack_stays_one_file_where_the_format_knows_stacks(tmp_path):
    stack = write_stack(tmp_path / "r")
    out = tmp_path / "out"
    outcome = run_job(pipeline.export(tmp_path / "r", out=out, settings=EVERYTHING))
    assert outcome.done == ("s[0]", "s[1]", "s[2]")
    np.testing.assert_array_equal(tifffile.imread(out / "s.tif"), stack)
    np.testing.assert_array_equal(read_labels(out / "s-0002.png"), stack[2])
    assert {p.name for p in out.iterdir()} >= {"s.ome.zarr", "s-0001.geojson"}
    rois = roiread(out / "s.roi.zip")
    assert [(r.position, r.z_position) for r in rois] == [(k, k) for k in (1, 1, 2, 2, 3, 3)]
    images = json.loads((out / "coco.json").read_text())["images"]
    assert [(i["name"], i["file_name"]) for i in images] == [(f"s[{k}]", "s.tif") for k in range(3)]


def test_stack_of_one_slice_is_found(tmp_path):
    write_stack(tmp_path / "r", 1)
    outcome = run_job(pipeline.export(tmp_path / "r", out=tmp_path / "o"))
    assert outcome.done == ("s[0]",)


def test_values_that_are_classes_are_told_as_such(scenes, prompter, tmp_path):
    run_job(pipeline.segment(
        scenes / "images", prompter=prompter, out=tmp_path / "r", device="cpu",
        settings=SegmentSettings(instances=False)))  # fmt: skip
    how = ExportSettings(tiff=False, coco=True)
    run_job(pipeline.export(tmp_path / "r", out=tmp_path / "o", settings=how))
    found = json.loads((tmp_path / "o" / "coco.json").read_text())["annotations"]
    assert found
    assert {a["iscrowd"] for a in found} == {1}


def refused(job, kind, message):
    with pytest.raises(kind, match=message):
        run_job(job)


def test_folder_without_results_is_refused(results, tmp_path):
    refused(pipeline.export(tmp_path / "no", out=tmp_path / "o"), InputError, "no such folder")
    (tmp_path / "e").mkdir()
    refused(pipeline.export(tmp_path / "e", out=tmp_path / "o"), InputError, "no label file")
    refused(pipeline.export(results, out=results), InputError, "Choose another folder")


@pytest.mark.parametrize("is_link", [False, True], ids=["file", "link"])
@pytest.mark.parametrize("job", ["export", "accept"])
def test_images_of_the_results_are_not_replaced(job, is_link, results, tmp_path):
    image = tmp_path / "pictures" / "b.tif"
    image.parent.mkdir()
    stored_at = tmp_path / "stored.tif" if is_link else image
    tifffile.imwrite(stored_at, scene(1)[0])
    if is_link:
        image.symlink_to(stored_at)
    stored = load_prompts(results / "prompts.json")
    images = tuple(replace(i, file=str(image.parent / f"{i.name}.tif")) for i in stored.images)
    save_prompts(results / "prompts.json", replace(stored, images=images), overwrite=True)
    save_review(tmp_path / "review.json", {"b": Verdict("accepted")})
    options = {"review": tmp_path / "review.json"} if job == "accept" else {}
    with pytest.raises(InputError, match=r"pictures: holds b\.tif, which is given as input"):
        run_job(getattr(pipeline, job)(results, out=image.parent, overwrite=True, **options))
    np.testing.assert_array_equal(tifffile.imread(image), scene(1)[0])


@pytest.mark.parametrize("job", ["export", "accept"])
def test_tables_that_are_given_are_not_replaced(job, results, tmp_path):
    given = tmp_path / "kept" / "prompts.json"
    given.parent.mkdir()
    given.write_bytes((results / "prompts.json").read_bytes())
    save_review(tmp_path / "review.json", {"b": Verdict("accepted")})
    options = {"classes": given, "settings": ExportSettings(prompt_file=True)}
    if job == "accept":
        options = {"review": tmp_path / "review.json", "prompts": given}
    before = given.read_bytes()
    with pytest.raises(InputError, match=r"prompts\.json: is an input, too"):
        run_job(getattr(pipeline, job)(results, out=given.parent, overwrite=True, **options))
    assert given.read_bytes() == before


def test_no_format_is_refused(results, tmp_path):
    how = ExportSettings(tiff=False)
    job = pipeline.export(results, out=tmp_path / "o", settings=how)
    refused(job, InputError, "no format is chosen. Choose one or more of: tiff, png, ome_zarr")


def test_file_in_the_way_is_told_before_anything_is_written(results, tmp_path):
    out = tmp_path / "o"
    out.mkdir()
    (out / "coco.json").write_text("mine")
    how = ExportSettings(coco=True)
    refused(pipeline.export(results, out=out, settings=how), OutputError, "coco.json: exists alrea")
    assert [p.name for p in out.iterdir()] == ["coco.json"]
    run_job(pipeline.export(results, out=out, settings=how, overwrite=True))
    assert len(list(out.iterdir())) == 4


def test_empty_name_is_no_folder_for_results(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="an empty name"):
        run_job(pipeline.export(results, out=""))


def test_numbers_above_those_of_png_are_told_before_anything_is_written(results, tmp_path):
    labels = scene(2)[1].astype(np.int32) * 40_000
    tifffile.imwrite(results / "c.tif", labels)
    with pytest.raises(InputError, match=r"^c: labels up to 80000, PNG holds 0 to 65534"):
        run_job(pipeline.export(results, out=tmp_path / "out", settings=ExportSettings(png=True)))
    assert list((tmp_path / "out").iterdir()) == []


def test_damaged_table_is_refused(results, tmp_path):
    (results / "scores.csv").write_text("image,object\na,one\n")
    refused(pipeline.export(results, out=tmp_path / "o"), FormatError, "scores.csv: not a table of")


def test_label_file_that_no_table_names_is_left_out(results):
    tifffile.imwrite(results / "other.tif", np.ones((4, 4), np.int32))
    assert [one.label for one in read_results(results).images] == ["a", "b", "c"]


def test_results_without_any_object_are_exported(tmp_path):
    folder = tmp_path / "r"
    folder.mkdir()
    tifffile.imwrite(folder / "a.tif", np.zeros(SHAPE, np.int32))
    (folder / "scores.csv").write_text("image,image_score,object\na,0.0,0\n")
    how = ExportSettings(coco=True, geojson=True, png=True, ome_zarr=True, table=True)
    outcome = run_job(pipeline.export(folder, out=tmp_path / "o", settings=how))
    assert (outcome.done, outcome.figures["objects"]) == (("a",), 0)
    assert read_results(folder).images[0].score == 0.0


# --- accept


def write_edit(folder, name, labels):
    folder.mkdir(exist_ok=True)
    tifffile.imwrite(folder / name, labels.astype(np.int32))
    return sha256_of(folder / name)


@pytest.fixture
def review(tmp_path):
    """a accepted, b edited, c rejected."""
    painted = np.zeros(SHAPE, np.int32)
    painted[5:9, 5:9], painted[20:30, 20:22] = 1, 5
    sha256 = write_edit(tmp_path / "edits", "b.tif", painted)
    about = {1: ObjectRecord(2, 0.6), 5: ObjectRecord(1)}
    save_review(tmp_path / "review.json", {
        "a": Verdict("accepted"), "c": Verdict("rejected", "out of focus"),
        "b": Verdict("edited", "by hand", "b.tif", sha256, about)})  # fmt: skip
    return tmp_path / "review.json"


def accept(results, review, tmp_path, **changes):
    given = {"review": review, "edits": tmp_path / "edits", "out": tmp_path / "kept"} | changes
    return pipeline.accept(results, **given)


def test_clean_folder_has_what_is_accepted_and_says_why(results, review, tmp_path):
    outcome = run_job(accept(results, review, tmp_path))
    kept = tmp_path / "kept"
    assert outcome.done == ("a", "b")
    assert outcome.figures == {"accepted": 1, "edited": 1, "rejected": 1, "unreviewed": 0}
    assert sorted(p.name for p in kept.iterdir()) == [
        "a.tif", "b.tif", "prompts.json", "review.json", "scores.csv",
    ]  # fmt: skip
    np.testing.assert_array_equal(read_labels(kept / "a.tif"), read_labels(results / "a.tif"))
    edited = tmp_path / "edits" / "b.tif"
    np.testing.assert_array_equal(read_labels(kept / "b.tif"), read_labels(edited))
    told = load_review(kept / "review.json")
    verdicts = ["accepted", "edited", "rejected"]
    assert [(name, told[name].verdict) for name in told] == list(zip("abc", verdicts, strict=True))
    assert [one.reason for one in told.values()] == ["", "by hand", "out of focus"]
    assert [i.name for i in load_prompts(kept / "prompts.json").images] == ["a", "b"]


def test_table_of_the_edited_is_of_what_was_painted(results, review, tmp_path):
    run_job(accept(results, review, tmp_path))
    rows = [list(row.values()) for row in table(tmp_path / "kept" / "scores.csv")]
    assert rows == [
        ["a", "0.8", "1", "1", "0.9", "149"], ["a", "0.8", "2", "2", "0.7", "149"],
        ["b", "0.6", "1", "2", "0.6", "16"], ["b", "0.6", "5", "1", "", "20"]]  # fmt: skip


def test_accepted_labels_can_be_exported(results, review, tmp_path):
    run_job(accept(results, review, tmp_path))
    how = ExportSettings(tiff=False, table=True)
    run_job(pipeline.export(tmp_path / "kept", out=tmp_path / "o", settings=how))
    rows = table(tmp_path / "o" / "measurements.csv")
    assert [(r["image"], r["object"], r["class"], r["area_px"]) for r in rows] == [
        ("a", "1", "1", "149"), ("a", "2", "2", "149"), ("b", "1", "2", "16"),
        ("b", "5", "1", "20")]  # fmt: skip


def test_moved_points_are_kept(results, review, names, tmp_path):
    moved = ImagePrompts("b", "", SHAPE, "", (point(6, 6),), (0.6,))
    path = tmp_path / "points.json"
    save_prompts(path, PromptFile((moved,), "tiny", None, {2: "polyp"}))
    run_job(accept(results, review, tmp_path, prompts=path))
    found = load_prompts(tmp_path / "kept" / "prompts.json")
    assert found.classes == {2: "polyp"}
    assert [len(i.objects) for i in found.images] == [2, 1]
    assert found.images[1].objects[0].points_rc.tolist() == [[6.0, 6.0]]
    assert found.images[1].file == "/pictures/b.png"


def test_image_without_a_verdict_is_left_out_and_told(results, tmp_path):
    save_review(tmp_path / "r.json", {"a": Verdict("accepted")})
    outcome = run_job(pipeline.accept(results, review=tmp_path / "r.json", out=tmp_path / "kept"))
    assert outcome.figures["unreviewed"] == 2
    assert load_review(tmp_path / "kept" / "review.json")["b"].reason == "not reviewed"


def test_rejected_slices_of_a_stack_are_blank(tmp_path):
    stack = write_stack(tmp_path / "r")
    save_review(tmp_path / "v.json", {"s[0]": Verdict("accepted"), "s[1]": Verdict("rejected")})
    outcome = run_job(
        pipeline.accept(tmp_path / "r", review=tmp_path / "v.json", out=tmp_path / "kept")
    )
    assert outcome.done == ("s[0]",)
    found = tifffile.imread(tmp_path / "kept" / "s.tif")
    np.testing.assert_array_equal(found[0], stack[0])
    assert found.shape == stack.shape
    assert not found[1:].any()


def test_changed_edit_is_refused_before_anything_is_written(results, review, tmp_path):
    write_edit(tmp_path / "edits", "b.tif", np.ones(SHAPE))
    job = accept(results, review, tmp_path)
    refused(job, InputError, r"b\.tif: is not what was reviewed, its hash is another. Restore")
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"edits": None}, "1 images are edited, but no folder of edits is given",
                     id="no_folder"),
        pytest.param({"edits": "elsewhere"}, r"b\.tif: no such file, b was edited", id="no_file"),
    ],
)  # fmt: skip
def test_missing_edits_are_refused(results, review, tmp_path, changes, message):
    refused(accept(results, review, tmp_path, **changes), InputError, message)


def test_edit_of_another_size_is_refused(results, tmp_path):
    sha256 = write_edit(tmp_path / "edits", "b.tif", np.ones((3, 4)))
    verdict = Verdict("edited", "", "b.tif", sha256)
    save_review(tmp_path / "r.json", {"b": verdict})
    refused(accept(results, tmp_path / "r.json", tmp_path), InputError, r"\(3, 4\) for b of \(48")
    assert not (tmp_path / "kept" / "b.tif").exists()


@pytest.mark.parametrize(
    ("verdicts", "message"),
    [
        pytest.param({"z": Verdict("accepted")}, "z not in .*results. Give the folder",
                     id="unknown"),
        pytest.param({"a": Verdict("rejected")}, "nothing is accepted. Accept a result",
                     id="nothing"),
        pytest.param({}, "nothing is accepted", id="empty"),
    ],
)  # fmt: skip
def test_reviews_of_other_results_are_refused(results, tmp_path, verdicts, message):
    save_review(tmp_path / "r.json", verdicts)
    refused(accept(results, tmp_path / "r.json", tmp_path), InputError, message)


def test_slice_that_is_a_file_of_its_own_goes_when_it_is_rejected(tmp_path):
    results = write_results(tmp_path / "results", ("s[0]", "s[1]"))
    for number, verdict in enumerate(("accepted", "rejected")):
        path = tmp_path / f"{number}.json"
        save_review(path, {"s[0]": Verdict(verdict), "s[1]": Verdict("accepted")})
        run_job(pipeline.accept(results, review=path, out=tmp_path / "kept", overwrite=True))
    assert [p.name for p in (tmp_path / "kept").glob("*.tif")] == ["s[1].tif"]


def test_second_review_replaces_the_first_only_when_told(results, review, tmp_path):
    run_job(accept(results, review, tmp_path))
    save_review(tmp_path / "two.json", {"b": Verdict("accepted"), "c": Verdict("accepted")})
    refused(accept(results, tmp_path / "two.json", tmp_path), OutputError, "exists already")
    (tmp_path / "kept" / "mine.tif").write_bytes(b"mine")
    run_job(accept(results, tmp_path / "two.json", tmp_path, overwrite=True))
    names = sorted(p.name for p in (tmp_path / "kept").glob("*.tif"))
    assert names == ["b.tif", "c.tif", "mine.tif"]


def test_accepting_again_removes_the_labels_of_a_series_and_no_others(tmp_path):
    results = write_results(tmp_path / "results", ("cells[s0]", "cells[s1]"))
    out = tmp_path / "kept"
    for verdict in ("accepted", "rejected"):
        verdicts = {"cells[s0]": Verdict(verdict), "cells[s1]": Verdict("accepted")}
        save_review(tmp_path / "review.json", verdicts, overwrite=True)
        run_job(pipeline.accept(results, review=tmp_path / "review.json", out=out, overwrite=True))
        tifffile.imwrite(out / "cells.tif", scene(0)[1])
    assert sorted(p.name for p in out.glob("*.tif")) == ["cells.tif", "cells[s1].tif"]


@pytest.mark.parametrize("name", ["../precious", "/precious"])
def test_earlier_review_of_a_stranger_removes_nothing_elsewhere(results, review, tmp_path, name):
    target = tmp_path / "precious.tif"
    target.write_bytes(b"mine")
    folder = tmp_path / "kept"
    folder.mkdir()
    label = name if name.startswith(".") else str(target.with_suffix(""))
    tree = {"format": "napari-samic/review", "version": 1}
    (folder / "review.json").write_text(
        json.dumps({**tree, "images": {label: {"verdict": "accepted"}}})
    )
    run_job(accept(results, review, tmp_path, overwrite=True))
    assert target.read_bytes() == b"mine"

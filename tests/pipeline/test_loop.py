"""The loop over planes: what is kept, skipped, recorded and left behind."""

import csv
import errno
import json

import numpy as np
import pytest
import tifffile

from napari_samic import export
from napari_samic.contracts import HeatMap, Plane, Prompts, Segmentation, run
from napari_samic.errors import InputError, OutputError
from napari_samic.images import open_images
from napari_samic.normalise import Normalisation
from napari_samic.pipeline import sheet as sheets
from napari_samic.pipeline.loop import Answer, Loop
from napari_samic.pipeline.records import Records
from napari_samic.pipeline.sheet import Sheet
from napari_samic.prompts import load_prompts
from toys import hidden_files, write_image

GREY = Normalisation((0.0,), (255.0,), (0,), 1)
POINT = Prompts(np.array([[2.0, 3.0]]), np.array([True]))


def answer(plane, image, value=1, **more):
    labels = np.zeros(image.shape[:2], np.int32)
    labels[2:5, 2:6] = value
    return Answer(Segmentation(labels, [0.5], (POINT,)), "one object", **more)


@pytest.fixture
def folder(tmp_path):
    """Eight pictures of 10 x 12; the results go to `out` beside them."""
    for i in range(1, 9):
        write_image(tmp_path / "images" / f"p{i + 3}.png", np.full((10, 12), 20 * i, np.uint8))
    (tmp_path / "out").mkdir()
    return tmp_path


def make(folder, work=answer, *, overwrite=False, normalisation=GREY, model="toy", **options):
    out = folder / "out"
    records = Records(out, model, normalisation, overwrite=overwrite)
    sheet = Sheet(out / "overlay.png" if options.pop("overlay", False) else None)
    source = options.pop("source", folder / "images")
    return Loop(open_images(source), work, records, sheet, overwrite, **options)


def rows(folder):
    with (folder / "out" / "scores.csv").open() as file:
        return list(csv.DictReader(file))


def recorded(folder):
    return [i.name for i in load_prompts(folder / "out" / "prompts.json").images]


def labelled(folder):
    return sorted(p.stem for p in (folder / "out").glob("*.tif"))


def assert_consistent(folder):
    """Tables tell of the label files, no more and no less, and nothing is half-written."""
    assert (
        sorted(recorded(folder)) == labelled(folder) == sorted({r["image"] for r in rows(folder)})
    )
    assert not hidden_files(folder / "out")


def test_labels_have_name_and_shape_of_the_image_and_are_int32(folder):
    outcome = run(make(folder).run())
    for name in outcome.done:
        labels = tifffile.imread(folder / "out" / f"{name}.tif")
        assert (labels.dtype, labels.shape, labels.sum()) == (np.int32, (10, 12), 12)
    assert len(outcome.done) == 8
    assert_consistent(folder)


def test_tables_are_in_the_order_that_people_count_in(folder):
    run(make(folder).run())
    assert recorded(folder) == [f"p{i}" for i in range(4, 12)]
    assert [r["image"] for r in rows(folder)] == recorded(folder)


def test_rows_tell_object_class_score_and_area(folder):
    run(make(folder).run())
    wanted = {"image": "p4", "image_score": "0.5", "object": "1", "class": "1", "score": "0.5"}
    assert rows(folder)[0] == wanted | {"area_px": "12"}


def test_union_has_no_area_for_an_object(folder):
    run(make(folder, lambda p, i: answer(p, i, numbered=False)).run())
    assert rows(folder)[0]["area_px"] == ""


def test_image_without_an_object_has_a_row(folder):
    empty = Segmentation(np.zeros((10, 12)), [], ())
    run(make(folder, lambda *_: Answer(empty, "none")).run())
    assert rows(folder)[0]["object"] == "0"
    assert_consistent(folder)


def test_hidden_object_keeps_its_clicks_with_score_0(folder):
    other = Prompts(np.array([[9.0, 9.0]]), np.array([True]))
    run(make(folder, lambda p, i: answer(p, i, objects=(other, POINT))).run())
    image = load_prompts(folder / "out" / "prompts.json").images[0]
    assert (image.scores, len(image.objects)) == ((0.0, 0.5), 2)


def test_second_run_does_only_what_is_missing(folder):
    run(make(folder).run())
    (folder / "out" / "p6.tif").unlink()
    seen = []
    again = run(make(folder, lambda p, i: seen.append(p.label) or answer(p, i)).run())
    assert (seen, again.done, len(again.skipped)) == (["p6"], ("p6",), 7)
    assert_consistent(folder)


def test_overwrite_does_all_again(folder):
    run(make(folder).run())
    again = run(make(folder, lambda p, i: answer(p, i, 7), overwrite=True).run())
    assert (len(again.done), again.skipped) == (8, ())
    assert tifffile.imread(folder / "out" / "p4.tif").max() == 7


def fail_on(name, error):
    def work(plane, image):
        if plane.label == name:
            raise error
        return answer(plane, image)

    return work


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(InputError("odd pixels."), "p5: odd pixels.", id="ours"),
        pytest.param(InputError("p5: odd pixels."), "p5: odd pixels.", id="already_named"),
        pytest.param(InputError("p5 odd."), "p5: p5 odd.", id="named_by_chance"),
        pytest.param(MemoryError(), "p5: needs more memory than there is", id="memory"),
        pytest.param(
            RuntimeError("DefaultCPUAllocator: can't allocate memory"), "p5: needs more", id="torch"
        ),
    ],
)
def test_one_bad_image_does_not_stop_the_others(folder, error, reason):
    outcome = run(make(folder, fail_on("p5", error)).run())
    assert len(outcome.done) == 7
    assert outcome.failures["p5"].startswith(reason)
    (row,) = csv.DictReader((folder / "out" / "failures.csv").open())
    assert (row["image"], row["reason"]) == ("p5", outcome.failures["p5"])
    assert_consistent(folder)


def test_failures_file_goes_after_a_clean_run(folder):
    run(make(folder, fail_on("p5", InputError("odd."))).run())
    run(make(folder).run())
    assert not (folder / "out" / "failures.csv").exists()
    assert len(labelled(folder)) == 8


def test_bug_is_not_hidden_as_a_bad_image(folder):
    with pytest.raises(RuntimeError, match="a bug"):
        run(make(folder, fail_on("p5", RuntimeError("a bug"))).run())
    assert labelled(folder) == ["p4"]
    assert_consistent(folder)


def test_image_that_fails_in_overwriting_keeps_its_older_result(folder):
    run(make(folder).run())
    run(make(folder, fail_on("p5", InputError("odd.")), overwrite=True).run())
    assert len(labelled(folder)) == 8
    assert_consistent(folder)


def test_closing_keeps_what_is_done(folder):
    job = make(folder).run()
    for _ in range(3):
        next(job)
    job.close()
    assert labelled(folder) == ["p4", "p5", "p6"]
    assert_consistent(folder)


@pytest.mark.parametrize("overwrite", [False, True])
def test_interrupt_keeps_what_is_done(folder, overwrite):
    if overwrite:
        run(make(folder).run())
    with pytest.raises(KeyboardInterrupt):
        run(make(folder, fail_on("p6", KeyboardInterrupt()), overwrite=overwrite).run())
    assert len(labelled(folder)) == (8 if overwrite else 2)
    assert_consistent(folder)


def test_interrupt_right_after_a_file_was_written_still_records_it(folder, monkeypatch):
    write = export.write_labels

    def late(path, *args, **kwargs):
        write(path, *args, **kwargs)
        if path.stem == "p5":
            raise KeyboardInterrupt

    monkeypatch.setattr(export, "write_labels", late)
    with pytest.raises(KeyboardInterrupt):
        run(make(folder).run())
    assert labelled(folder) == ["p4", "p5"]
    assert_consistent(folder)


def test_full_disk_stops_and_leaves_no_half_file(folder, monkeypatch):
    write = tifffile.imwrite

    def full(path, *args, **kwargs):
        if len(labelled(folder)) == 2:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, *args, **kwargs)

    monkeypatch.setattr(tifffile, "imwrite", full)
    with pytest.raises(OutputError, match=r"p6\.tif: can't be written: the disk is full"):
        run(make(folder).run())
    assert labelled(folder) == ["p4", "p5"]
    assert_consistent(folder)


# Stacks.


@pytest.fixture
def stack(tmp_path):
    """A stack of three planes beside a lone image."""
    pages = np.stack([np.full((10, 12), v, np.uint8) for v in (10, 90, 200)])
    write_image(tmp_path / "images" / "t.tif", pages)
    write_image(tmp_path / "images" / "u.tif", pages[0])
    (tmp_path / "out").mkdir()
    return tmp_path


def test_stack_gives_a_stack_of_the_same_shape(stack):
    outcome = run(make(stack, heatmaps=True).run())
    assert outcome.done == ("t[0]", "t[1]", "t[2]", "u")
    labels = tifffile.imread(stack / "out" / "t.tif")
    assert (labels.dtype, labels.shape, [int(p.sum()) for p in labels]) == (
        np.int32, (3, 10, 12), [12, 12, 12],
    )  # fmt: skip
    assert recorded(stack) == ["t[0]", "t[1]", "t[2]", "u"]


def test_plane_that_fails_is_blank_and_is_told_again_until_it_is_done(stack):
    first = run(make(stack, fail_on("t[1]", InputError("odd."))).run())
    assert first.failures == {"t[1]": "t[1]: odd."}
    assert [int(p.sum()) for p in tifffile.imread(stack / "out" / "t.tif")] == [12, 0, 12]
    again = run(make(stack).run())
    assert list(again.failures) == ["t[1]"]
    assert "Overwrite" in again.failures["t[1]"]
    assert (stack / "out" / "failures.csv").exists()
    assert run(make(stack, overwrite=True).run()).failures == {}
    assert recorded(stack) == ["t[0]", "t[1]", "t[2]", "u"]


def test_plane_whose_labels_can_not_be_written_has_no_record(stack):
    def work(plane, image):
        return answer(plane, image[:6] if plane.label == "t[1]" else image)

    outcome = run(make(stack, work).run())
    assert "of (6, 12) for a stack of (3,)" in outcome.failures["t[1]"]
    assert outcome.done == ("t[0]", "t[2]", "u")
    assert recorded(stack) == ["t[0]", "t[2]", "u"]


def test_cancelled_stack_is_not_there(stack):
    job = make(stack).run()
    next(job), next(job)
    job.close()
    assert (labelled(stack), recorded(stack)) == ([], [])
    assert not hidden_files(stack / "out")


def test_cancelled_stack_keeps_its_older_file_and_records(stack):
    run(make(stack).run())
    job = make(stack, lambda p, i: answer(p, i, 9), overwrite=True).run()
    next(job), next(job)
    job.close()
    assert tifffile.imread(stack / "out" / "t.tif").max() == 1
    assert recorded(stack) == ["t[0]", "t[1]", "t[2]", "u"]


def test_result_without_records_is_left_alone(stack):
    made_by_hand = np.full((3, 10, 12), 4, np.int32)
    export.write_labels(stack / "out" / "t.tif", made_by_hand)
    outcome = run(make(stack).run())
    assert (outcome.done, outcome.failures) == (("u",), {})
    assert tifffile.imread(stack / "out" / "t.tif").min() == 4


# Heat maps, sheet, earlier results.


def with_map(plane, image):
    heat = HeatMap(np.full(image.shape[:2], 0.25))
    found = answer(plane, image).result
    return Answer(Segmentation(found.labels, found.scores, found.objects, heat), "one object")


def test_heat_maps_lie_in_their_own_folder(stack):
    run(make(stack, with_map, heatmaps=True).run())
    names = sorted(p.name for p in (stack / "out" / "heatmaps").iterdir())
    assert names == ["t-0000.tif", "t-0001.tif", "t-0002.tif", "u.tif"]
    heat = tifffile.imread(stack / "out" / "heatmaps" / "t-0001.tif")
    assert (heat.dtype, heat.shape, float(heat.max())) == (np.float32, (10, 12), 0.25)


def test_sheet_shows_earlier_results_too(folder):
    run(make(folder).run())
    assert not (folder / "out" / "overlay.png").exists()
    run(make(folder, overlay=True).run())
    assert (folder / "out" / "overlay.png").exists()


def test_sheet_keeps_few_and_small_tiles(tmp_path):
    sheet = Sheet(tmp_path / "overlay.png")
    for _ in range(sheets.TILES + 3):
        sheet.add(np.zeros((900, 600, 3), np.uint8), np.zeros((900, 600), np.int32), (), "big")
    assert len(sheet._tiles) == sheets.TILES
    assert sheet._tiles[0].shape == (240, 160, 3)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        pytest.param({"model": "other"}, "holds results of toy", id="model"),
        pytest.param(
            {"normalisation": Normalisation((1.0,), (9.0,), (0,), 1)},
            "holds results of another normalisation",
            id="normalisation",
        ),
    ],
)
def test_results_of_two_kinds_are_not_mixed(folder, changes, found):
    run(make(folder).run())
    with pytest.raises(OutputError, match=found):
        make(folder, **changes)
    run(make(folder, overwrite=True, **changes).run())
    assert_consistent(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("prompts.json", "{}", id="prompts"),
        pytest.param("scores.csv", "a,b\n1,2\n", id="scores"),
    ],
)
def test_tables_of_somebody_else_are_not_written_over(folder, name, content):
    (folder / "out" / name).write_text(content)
    if name == "scores.csv":
        tree = {"format": "napari-samic/prompts", "version": 1, "model": "toy", "classes": {},
                "normalisation": GREY.to_dict(), "images": []}  # fmt: skip
        (folder / "out" / "prompts.json").write_text(json.dumps(tree))
    with pytest.raises(OutputError, match="Choose another folder"):
        make(folder)
    assert (folder / "out" / name).read_text() == content


def test_steps_count_up_to_the_number_of_planes(stack):
    steps = list(make(stack, fail_on("t[1]", InputError("odd."))).run())
    assert [(s.done, s.total) for s in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_plane_without_a_file_is_done(tmp_path):
    plane = Plane("image", (), lambda: np.full((10, 12), 9, np.uint8))
    records = Records(tmp_path, "toy", GREY)
    run(Loop([plane], answer, records, Sheet(None), False).run())
    assert (tmp_path / "image.tif").exists()


def test_steps_bring_results_failures_and_what_was_done_before(folder):
    (folder / "images" / "p5.png").write_bytes(b"no image")
    run(make(folder, source=folder / "images" / "p4.png").run())
    steps = []
    run(make(folder).run(), steps.append)
    assert steps[0].data == {"skipped": 1}
    assert steps[1].data["plane"] == "p5"
    assert steps[1].data["failure"].startswith("p5.png: ")
    assert steps[2].data["plane"] == "p6"
    assert steps[2].data["result"].labels.max() == 1

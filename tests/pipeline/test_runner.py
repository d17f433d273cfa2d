"""The loop over planes: what is kept, skipped, recorded and left behind."""

import csv
import errno
import json
import os
import signal
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image as PilImage
from toys import hidden_files, write_image

from napari_samic.core.errors import InputError, OutputError
from napari_samic.core.types import (
    HeatMap,
    ImagePlane,
    JobProgress,
    LazyImage,
    Prompts,
    Segmentation,
    run_job,
)
from napari_samic.io import files, writers
from napari_samic.io.images import open_images
from napari_samic.io.normalize import Normalization
from napari_samic.io.prompts import load_prompts
from napari_samic.io.text_files import pixels_sha256
from napari_samic.pipeline import contact_sheet as sheets
from napari_samic.pipeline import lookahead
from napari_samic.pipeline.contact_sheet import ContactSheet
from napari_samic.pipeline.results.reader import read_results
from napari_samic.pipeline.results.writer import ResultsWriter, recorded_prompts
from napari_samic.pipeline.runner import BatchRunner, PlaneResult

GREY = Normalization((0.0,), (255.0,), (0,), 1)
RUN = {"job": "test", "settings": {"cut": 0.5}}
POINT = Prompts(np.array([[2.0, 3.0]]), np.array([True]))


def answer(plane, image, value=1, **more):
    labels = np.zeros(image.shape[:2], np.int32)
    labels[2:5, 2:6] = value
    return PlaneResult(Segmentation(labels, [0.5], (POINT,)), "one object", **more)


@pytest.fixture
def folder(tmp_path):
    """Eight pictures of 10 x 12; the results go to `out` beside them."""
    for i in range(1, 9):
        write_image(tmp_path / "images" / f"p{i + 3}.png", np.full((10, 12), 20 * i, np.uint8))
    (tmp_path / "out").mkdir()
    return tmp_path


def make(
    folder, work=answer, *, overwrite=False, normalization=GREY, model="toy", made_by=RUN, **options
):
    out = folder / "out"
    records = ResultsWriter(out, model, normalization, made_by, overwrite=overwrite)
    sheet = ContactSheet(out / "overlay.png" if options.pop("overlay", False) else None)
    source = options.pop("source", folder / "images")
    return BatchRunner(open_images(source), work, records, sheet, **options)


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
    outcome = run_job(make(folder).run())
    for name in outcome.done:
        labels = tifffile.imread(folder / "out" / f"{name}.tif")
        assert (labels.dtype, labels.shape, labels.sum()) == (np.int32, (10, 12), 12)
    assert len(outcome.done) == 8
    assert_consistent(folder)


def test_tables_are_in_the_order_that_people_count_in(folder):
    run_job(make(folder).run())
    assert recorded(folder) == [f"p{i}" for i in range(4, 12)]
    assert [r["image"] for r in rows(folder)] == recorded(folder)


def test_rows_tell_object_class_score_and_area(folder):
    run_job(make(folder).run())
    wanted = {"image": "p4", "image_score": "0.5", "object": "1", "class": "1", "score": "0.5"}
    assert rows(folder)[0] == wanted | {"area_px": "12", "brightness": "20.0"}


def test_union_has_no_area_for_an_object(folder):
    run_job(make(folder, lambda p, i: answer(p, i, numbered=False)).run())
    assert rows(folder)[0]["area_px"] == ""


def test_image_without_an_object_has_a_row(folder):
    empty = Segmentation(np.zeros((10, 12)), [], ())
    run_job(make(folder, lambda *_: PlaneResult(empty, "none")).run())
    assert rows(folder)[0]["object"] == "0"
    assert_consistent(folder)


def test_hidden_object_keeps_its_clicks_with_score_0(folder):
    other = Prompts(np.array([[9.0, 9.0]]), np.array([True]))
    run_job(make(folder, lambda p, i: answer(p, i, objects=(other, POINT))).run())
    image = load_prompts(folder / "out" / "prompts.json").images[0]
    assert (image.scores, len(image.objects)) == ((0.0, 0.5), 2)


def test_second_run_does_only_what_is_missing(folder):
    run_job(make(folder).run())
    (folder / "out" / "p6.tif").unlink()
    seen = []
    again = run_job(make(folder, lambda p, i: seen.append(p.label) or answer(p, i)).run())
    assert (seen, again.done, len(again.skipped)) == (["p6"], ("p6",), 7)
    assert_consistent(folder)


def test_overwrite_does_all_again(folder):
    run_job(make(folder).run())
    again = run_job(make(folder, lambda p, i: answer(p, i, 7), overwrite=True).run())
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
    outcome = run_job(make(folder, fail_on("p5", error)).run())
    assert len(outcome.done) == 7
    assert outcome.failures["p5"].startswith(reason)
    (row,) = csv.DictReader((folder / "out" / "failures.csv").open())
    assert (row["image"], row["reason"]) == ("p5", outcome.failures["p5"])
    assert_consistent(folder)


def test_failures_file_goes_after_a_clean_run(folder):
    run_job(make(folder, fail_on("p5", InputError("odd."))).run())
    run_job(make(folder).run())
    assert not (folder / "out" / "failures.csv").exists()
    assert len(labelled(folder)) == 8


def test_bug_is_not_hidden_as_a_bad_image(folder):
    with pytest.raises(RuntimeError, match="a bug"):
        run_job(make(folder, fail_on("p5", RuntimeError("a bug"))).run())
    assert labelled(folder) == ["p4"]
    assert_consistent(folder)


def test_image_that_fails_in_overwriting_keeps_its_older_result(folder):
    run_job(make(folder).run())
    run_job(make(folder, fail_on("p5", InputError("odd.")), overwrite=True).run())
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
        run_job(make(folder).run())
    with pytest.raises(KeyboardInterrupt):
        run_job(make(folder, fail_on("p6", KeyboardInterrupt()), overwrite=overwrite).run())
    assert len(labelled(folder)) == (8 if overwrite else 2)
    assert sorted(recorded(folder)) == labelled(folder)
    run_job(make(folder).run())
    assert_consistent(folder)


def test_interrupt_right_after_a_file_was_written_still_records_it(folder, monkeypatch):
    write = writers.write_labels

    def late(path, *args, **kwargs):
        write(path, *args, **kwargs)
        if path.stem == "p5":
            raise KeyboardInterrupt

    monkeypatch.setattr(writers, "write_labels", late)
    with pytest.raises(KeyboardInterrupt):
        run_job(make(folder).run())
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
        run_job(make(folder).run())
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
    outcome = run_job(make(stack, heatmaps=True).run())
    assert outcome.done == ("t[0]", "t[1]", "t[2]", "u")
    labels = tifffile.imread(stack / "out" / "t.tif")
    assert (labels.dtype, labels.shape, [int(p.sum()) for p in labels]) == (
        np.int32, (3, 10, 12), [12, 12, 12],
    )  # fmt: skip
    assert recorded(stack) == ["t[0]", "t[1]", "t[2]", "u"]


def test_plane_that_fails_is_blank_and_is_told_again_until_it_is_done(stack):
    first = run_job(make(stack, fail_on("t[1]", InputError("odd."))).run())
    assert first.failures == {"t[1]": "t[1]: odd."}
    assert [int(p.sum()) for p in tifffile.imread(stack / "out" / "t.tif")] == [12, 0, 12]
    again = run_job(make(stack).run())
    assert list(again.failures) == ["t[1]"]
    assert "Overwrite" in again.failures["t[1]"]
    assert (stack / "out" / "failures.csv").exists()
    assert run_job(make(stack, overwrite=True).run()).failures == {}
    assert recorded(stack) == ["t[0]", "t[1]", "t[2]", "u"]


def test_plane_whose_labels_can_not_be_written_has_no_record(stack):
    def work(plane, image):
        return answer(plane, image[:6] if plane.label == "t[1]" else image)

    outcome = run_job(make(stack, work).run())
    assert "(6, 12)" in outcome.failures["t[1]"]
    assert outcome.done == ("t[0]", "t[2]", "u")
    assert recorded(stack) == ["t[0]", "t[2]", "u"]


def test_cancelled_stack_is_not_there_and_goes_on_where_it_stopped(stack):
    job = make(stack).run()
    next(job), next(job)
    job.close()
    assert (labelled(stack), recorded(stack)) == ([], [])
    seen = []
    again = run_job(make(stack, lambda p, i: seen.append(p.label) or answer(p, i, 2)).run())
    assert (seen, again.done) == (["t[2]", "u"], ("t[0]", "t[1]", "t[2]", "u"))
    assert [int(p.max()) for p in tifffile.imread(stack / "out" / "t.tif")] == [1, 1, 2]
    assert recorded(stack) == ["t[0]", "t[1]", "t[2]", "u"]
    assert not hidden_files(stack / "out")


def test_stack_that_was_stopped_after_its_last_plane_is_finished(stack):
    job = make(stack).run()
    for _ in range(3):
        next(job)
    job.close()
    assert labelled(stack) == []
    again = run_job(make(stack).run())
    assert again.done == ("t[0]", "t[1]", "t[2]", "u")
    assert [int(p.max()) for p in tifffile.imread(stack / "out" / "t.tif")] == [1, 1, 1]
    assert recorded(stack) == ["t[0]", "t[1]", "t[2]", "u"]


def test_stopped_stack_of_another_run_leaves_nothing_in_planes_that_fail(stack):
    job = make(stack, lambda p, i: answer(p, i, 9)).run()
    next(job), next(job)
    job.close()
    run_job(make(stack, fail_on("t[0]", InputError("odd.")), made_by={"job": "test"}).run())
    assert [int(p.max()) for p in tifffile.imread(stack / "out" / "t.tif")] == [0, 1, 1]


def test_plane_that_changed_and_fails_is_blank_in_a_stack_that_is_gone_on_with(stack):
    job = make(stack, lambda p, i: answer(p, i, 9)).run()
    next(job), next(job)
    job.close()
    pages = np.stack([np.full((10, 12), v, np.uint8) for v in (11, 90, 200)])
    write_image(stack / "images" / "t.tif", pages)
    run_job(make(stack, fail_on("t[0]", InputError("odd."))).run())
    assert [int(p.max()) for p in tifffile.imread(stack / "out" / "t.tif")] == [0, 9, 1]


def test_planes_before_a_stop_count_in_the_figures(stack):
    job = make(stack).run()
    next(job), next(job)
    job.close()
    loop = make(stack)
    run_job(loop.run())
    assert len(loop.plane_stats) == 4
    assert loop.plane_stats[0].scores == (0.5,)


def test_file_that_was_numbered_anew_is_known_by_its_contents(folder):
    killed(folder, "p9")
    for path in (folder / "out").glob("*.tif"):
        copy = path.with_suffix(".copy")
        copy.write_bytes(path.read_bytes())
        os.utime(copy, (1, 1))
        copy.replace(path)
    assert len(run_job(make(folder).run()).skipped) == 5
    assert_consistent(folder)


def test_killed_overwriting_of_another_kind_is_gone_on_with(folder):
    run_job(make(folder).run())
    other = {"normalization": Normalization((1.0,), (9.0,), (0,), 1)}
    killed(folder, "p9", overwrite=True, **other)
    again = run_job(make(folder, **other).run())
    assert (len(again.skipped), len(again.done), again.failures) == (5, 3, {})
    assert_consistent(folder)


def test_run_that_was_stopped_before_any_result_stands_in_nobodys_way(folder):
    job = make(folder, fail_on("p4", KeyboardInterrupt())).run()
    with pytest.raises(KeyboardInterrupt):
        next(job)
    run_job(make(folder, normalization=Normalization((1.0,), (9.0,), (0,), 1)).run())


def test_newer_version_of_the_package_adds_to_results(folder):
    run_job(make(folder, made_by={**RUN, "version": "0.1"}).run())
    assert len(run_job(make(folder, made_by={**RUN, "version": "0.2"}).run()).skipped) == 8


def test_temporary_file_of_a_run_in_a_folder_below_stays(folder):
    left = folder / "out" / "export" / f".0a{files.TEMP_SUFFIX}"
    left.parent.mkdir()
    left.write_bytes(b"half")
    with files.claimed(folder / "out"):
        pass
    assert left.exists()


def test_stopped_stack_is_begun_anew_where_planes_follow_each_other(stack):
    job = make(stack, chained="planes").run()
    next(job), next(job)
    job.close()
    run_job(make(stack, lambda p, i: answer(p, i, 2), chained="planes").run())
    assert [int(p.max()) for p in tifffile.imread(stack / "out" / "t.tif")] == [2, 2, 2]


def test_plane_of_a_stopped_stack_that_changed_is_done_again(stack):
    job = make(stack).run()
    next(job), next(job)
    job.close()
    pages = np.stack([np.full((10, 12), v, np.uint8) for v in (11, 90, 200)])
    write_image(stack / "images" / "t.tif", pages)
    seen = []
    run_job(make(stack, lambda p, i: seen.append(p.label) or answer(p, i)).run())
    assert seen == ["t[0]", "t[2]", "u"]


def test_cancelled_stack_keeps_its_older_file_and_records(stack):
    run_job(make(stack).run())
    job = make(stack, lambda p, i: answer(p, i, 9), overwrite=True).run()
    next(job), next(job)
    job.close()
    assert tifffile.imread(stack / "out" / "t.tif").max() == 1
    assert recorded(stack) == ["t[0]", "t[1]", "t[2]", "u"]


def test_result_without_records_is_left_alone_and_told(stack):
    made_by_hand = np.full((3, 10, 12), 4, np.int32)
    writers.write_labels(stack / "out" / "t.tif", made_by_hand)
    outcome = run_job(make(stack).run())
    assert (outcome.done, set(outcome.failures)) == (("u",), {"t[0]", "t[1]", "t[2]"})
    assert "no record" in outcome.failures["t[0]"]
    assert tifffile.imread(stack / "out" / "t.tif").min() == 4
    assert run_job(make(stack, overwrite=True).run()).failures == {}


# Killed: no line of Python runs any more.


def change_ledger(folder, statement):
    with closing(sqlite3.connect(folder / "out" / "ledger.sqlite")) as db, db:
        assert db.execute(statement).rowcount > 0


def killed(folder, name, **options):
    """Run in a process that dies in the middle of one image."""
    child = os.fork()
    if not child:

        def dies(plane, image):
            if plane.label == name:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer(plane, image)

        run_job(make(folder, dies, **options).run())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_killed_run_is_read_whole_and_gone_on_with(folder):
    killed(folder, "p9")
    assert [i.label for i in read_results(folder / "out").images] == ["p4", "p5", "p6", "p7", "p8"]
    assert len(recorded_prompts(folder / "out" / "prompts.json").images) == 5
    again = run_job(make(folder).run())
    assert (len(again.skipped), again.done) == (5, ("p9", "p10", "p11"))
    assert_consistent(folder)


def test_killed_twice_loses_nothing(folder):
    killed(folder, "p6")
    killed(folder, "p9")
    assert len(run_job(make(folder).run()).skipped) == 5
    assert_consistent(folder)


def test_killed_overwriting_is_gone_on_with_as_such(folder):
    run_job(make(folder).run())
    other = {**RUN, "settings": {"cut": 0.7}}
    killed(folder, "p9", made_by=other, overwrite=True)
    with pytest.raises(OutputError, match="cut"):
        run_job(make(folder).run())
    again = run_job(make(folder, made_by=other).run())
    assert (len(again.skipped), again.done) == (5, ("p9", "p10", "p11"))
    assert_consistent(folder)


def test_killed_stack_goes_on_where_it_stopped(stack):
    killed(stack, "t[2]")
    seen = []
    run_job(make(stack, lambda p, i: seen.append(p.label) or answer(p, i)).run())
    assert seen == ["t[2]", "u"]
    assert recorded(stack) == ["t[0]", "t[1]", "t[2]", "u"]
    assert not hidden_files(stack / "out")


def test_note_of_a_killed_run_that_was_lost_is_missed(folder):
    killed(folder, "p9")
    change_ledger(folder, "DELETE FROM notes WHERE label = 'p8'")
    again = run_job(make(folder).run())
    assert set(again.failures) == {"p8"}  # labels that nobody answers for
    assert len(again.skipped) == 4


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("UPDATE images SET file = '../mine.tif' WHERE label = 'p5'", id="images"),
        pytest.param(
            """UPDATE notes SET entry = replace(entry, '"p5.tif"', '"../mine.tif"')""", id="notes"
        ),
    ],
)
def test_ledger_of_a_stranger_leads_nowhere(folder, statement):
    run_job(make(folder, source=folder / "images" / "p5.png").run())
    killed(folder, "p6", overwrite=True)
    mine = folder / "mine.tif"
    writers.write_labels(mine, np.full((10, 12), 5))
    change_ledger(folder, statement)
    with pytest.raises(OutputError, match=r"\.\./mine"):
        make(folder)
    assert (tifffile.imread(mine) == 5).all()


# Results that are there, and right no longer.


def test_image_that_changed_is_done_again_and_told(folder):
    run_job(make(folder).run())
    write_image(folder / "images" / "p5.png", np.full((10, 12), 7, np.uint8))
    again = run_job(make(folder).run())
    assert (again.done, len(again.skipped)) == (("p5",), 7)
    assert "p5" in " ".join(again.notices)
    assert run_job(make(folder).run()).notices == ()


def test_another_image_of_that_name_is_refused_before_work_begins(folder):
    run_job(make(folder).run())
    write_image(folder / "else" / "p5.png", np.full((10, 12), 7, np.uint8))
    before = tifffile.imread(folder / "out" / "p5.tif")
    with pytest.raises(OutputError, match="another image"):
        run_job(make(folder, lambda p, i: answer(p, i, 3), source=folder / "else").run())
    assert (tifffile.imread(folder / "out" / "p5.tif") == before).all()


def test_plane_of_a_stack_and_an_image_of_its_name_are_not_mixed_in_two_runs(stack):
    write_image(stack / "else" / "t[1].tif", np.full((10, 12), 30, np.uint8))
    run_job(make(stack, source=stack / "else").run())
    with pytest.raises(OutputError, match=r"t\[1\]\.tif"):
        run_job(make(stack).run())


def test_images_that_differ_in_case_alone_are_not_mixed_in_two_runs(folder):
    run_job(make(folder, source=folder / "images" / "p5.png").run())
    write_image(folder / "else" / "P5.png", np.full((10, 12), 30, np.uint8))
    with pytest.raises(OutputError, match=r"p5\.tif"):
        run_job(make(folder, source=folder / "else").run())


@pytest.mark.parametrize("count", [2, 4], ids=["shrunk", "grown"])
def test_stack_of_another_length_is_done_again(stack, count):
    run_job(make(stack).run())
    pages = np.stack([np.full((10, 12), v, np.uint8) for v in (10, 90, 200, 30)[:count]])
    write_image(stack / "images" / "t.tif", pages)
    again = run_job(make(stack).run())
    assert (len(again.done), again.failures) == (count, {})
    assert tifffile.imread(stack / "out" / "t.tif").shape == (count, 10, 12)
    assert "number of planes" in again.notices[0]
    assert len(recorded(stack)) == count + 1


def test_stack_that_became_a_lone_image_is_done_again(stack):
    run_job(make(stack).run())
    write_image(stack / "images" / "t.tif", np.full((10, 12), 10, np.uint8))
    again = run_job(make(stack).run())
    assert (again.done, recorded(stack)) == (("t",), ["t", "u"])


def test_image_without_scores_is_done_again(folder):
    run_job(make(folder).run())
    lines = (folder / "out" / "scores.csv").read_text().splitlines(keepends=True)
    (folder / "out" / "scores.csv").write_text("".join(x for x in lines if "p5" not in x))
    again = run_job(make(folder).run())
    [line] = again.notices
    assert again.done == ("p5",)
    assert "scores" in line
    assert line.endswith(": p5.")
    assert_consistent(folder)


def test_table_that_a_spreadsheet_saved_with_a_mark_is_read(folder):
    run_job(make(folder).run())
    told = (folder / "out" / "scores.csv").read_text()
    (folder / "out" / "scores.csv").write_text(told, encoding="utf-8-sig")
    assert len(run_job(make(folder).run()).skipped) == 8


def test_long_names_are_done(folder):
    write_image(folder / "images" / f"{'x' * 249}.png", np.full((10, 12), 30, np.uint8))
    assert len(run_job(make(folder).run()).done) == 9
    assert_consistent(folder)


def test_images_that_moved_are_those_that_were_done(folder):
    run_job(make(folder).run())
    (folder / "images").rename(folder / "moved")
    assert len(run_job(make(folder, source=folder / "moved").run()).skipped) == 8


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        pytest.param({"settings": {"cut": 0.7}}, "settings.cut 0.5", id="setting"),
        pytest.param({"settings": {"cut": 0.5, "new": True}}, "settings.new", id="new_setting"),
        pytest.param({"prompter": "0" * 64}, "another prompter", id="prompter"),
        pytest.param({"method": "matcher"}, "matcher", id="method"),
    ],
)
def test_results_of_another_run_are_refused_and_named(folder, changes, named):
    run_job(make(folder).run())
    with pytest.raises(OutputError, match=named):
        run_job(make(folder, made_by={**RUN, **changes}).run())
    assert run_job(make(folder, made_by={**RUN, **changes}, overwrite=True).run()).skipped == ()


@pytest.mark.parametrize("content", [b"", b"II*\0", b"no tiff"], ids=["empty", "cut", "foreign"])
def test_damaged_label_file_is_made_again_and_told(folder, content):
    run_job(make(folder).run())
    (folder / "out" / "p5.tif").write_bytes(content)
    again = run_job(make(folder).run())
    assert again.done == ("p5",)
    assert "damaged" in again.notices[0]
    assert tifffile.imread(folder / "out" / "p5.tif").sum() == 12


def test_label_file_that_somebody_edited_is_not_written_over(folder):
    run_job(make(folder).run())
    writers.write_labels(folder / "out" / "p5.tif", np.full((10, 12), 3), overwrite=True)
    write_image(folder / "images" / "p5.png", np.full((10, 12), 7, np.uint8))
    again = run_job(make(folder).run())
    assert "edited" in again.failures["p5"]
    assert tifffile.imread(folder / "out" / "p5.tif").min() == 3


def test_tables_that_were_deleted_are_missed(folder):
    run_job(make(folder).run())
    for name in ("prompts.json", "scores.csv", "ledger.sqlite"):
        (folder / "out" / name).unlink()
    assert len(run_job(make(folder).run()).failures) == 8


def test_prompts_that_changed_are_answered_again(folder):
    run_job(make(folder, inputs=lambda p: {"prompts": "a"}).run())
    again = run_job(
        make(folder, inputs=lambda p: {"prompts": "b" if p.name == "p5" else "a"}).run()
    )
    [line] = again.notices
    assert again.done == ("p5",)
    assert "prompts" in line
    assert line.endswith(": p5.")


def test_heat_maps_that_were_not_asked_for_before_are_made(folder):
    run_job(make(folder, with_map).run())
    run_job(make(folder, with_map, heatmaps=True).run())
    assert len(list((folder / "out" / "heatmaps").iterdir())) == 8


def test_image_that_can_not_be_read_has_no_chain_done_again(folder):
    (folder / "images" / "p6.png").write_bytes(b"no image")
    assert run_job(make(folder, chained="files").run()).notices == ()
    again = run_job(make(folder, chained="files").run())
    assert (again.done, again.notices) == ((), ())


def test_images_that_hang_on_each_other_are_all_done_again(folder):
    run_job(make(folder, chained="files").run())
    (folder / "out" / "p6.tif").unlink()
    assert len(run_job(make(folder, chained="files").run()).done) == 8


def test_second_run_in_a_folder_is_refused(folder):
    job = make(folder).run()
    with (
        files.claimed(folder / "out"),
        pytest.raises(OutputError, match="another run"),
        files.claimed(folder / "out"),
    ):
        next(job)
    with files.claimed(folder / "out"):
        next(job)
    run_job(job)
    assert not hidden_files(folder / "out")


def test_what_a_killed_writer_left_is_removed(folder):
    (folder / "out" / f".0a{files.TEMP_SUFFIX}").write_bytes(b"half")
    (folder / "out" / f".0b{files.TEMP_SUFFIX}" / "0").mkdir(parents=True)
    with files.claimed(folder / "out"):
        pass
    assert not hidden_files(folder / "out")


# Heat maps, sheet, earlier results.


def with_map(plane, image):
    heat = HeatMap(np.full(image.shape[:2], 0.25))
    found = answer(plane, image).result
    return PlaneResult(Segmentation(found.labels, found.scores, found.objects, heat), "one object")


def test_heat_maps_lie_in_their_own_folder(stack):
    run_job(make(stack, with_map, heatmaps=True).run())
    names = sorted(p.name for p in (stack / "out" / "heatmaps").iterdir())
    assert names == ["t-0000.tif", "t-0001.tif", "t-0002.tif", "u.tif"]
    heat = tifffile.imread(stack / "out" / "heatmaps" / "t-0001.tif")
    assert (heat.dtype, heat.shape, float(heat.max())) == (np.float32, (10, 12), 0.25)


def test_sheet_shows_earlier_results_too(folder):
    run_job(make(folder).run())
    assert not (folder / "out" / "overlay.png").exists()
    run_job(make(folder, overlay=True).run())
    assert (folder / "out" / "overlay.png").exists()


def test_sheet_has_few_and_small_tiles(tmp_path):
    sheet = ContactSheet(tmp_path / "overlay.png")
    for _ in range(sheets.TILES):
        assert sheet.has_room
        sheet.add(np.zeros((900, 600, 3), np.uint8), np.zeros((900, 600), np.int32), (), "big")
    assert not sheet.has_room
    sheet.save()
    rows = sheets.TILES // 6
    with PilImage.open(tmp_path / "overlay.png") as written:
        assert written.width < 7 * sheets.TILE_PX
        assert rows * 240 <= written.height < rows * 300


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        pytest.param({"model": "other"}, "holds results of toy", id="model"),
        pytest.param(
            {"normalization": Normalization((1.0,), (9.0,), (0,), 1)},
            "holds results of another normalisation",
            id="normalisation",
        ),
    ],
)
def test_results_of_two_kinds_are_not_mixed(folder, changes, found):
    run_job(make(folder).run())
    with pytest.raises(OutputError, match=found):
        make(folder, **changes)
    run_job(make(folder, overwrite=True, **changes).run())
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
    plane = ImagePlane("image", (), lambda: np.full((10, 12), 9, np.uint8))
    records = ResultsWriter(tmp_path, "toy", GREY, RUN)
    run_job(BatchRunner([plane], answer, records, ContactSheet(None)).run())
    assert (tmp_path / "image.tif").exists()


def test_steps_bring_results_failures_and_what_was_done_before(folder):
    (folder / "images" / "p5.png").write_bytes(b"no image")
    run_job(make(folder, source=folder / "images" / "p4.png").run())
    steps = []
    run_job(make(folder).run(), steps.append)
    assert steps[0].data == {"phase": "check"}
    assert steps[1].data == {"skipped": 1}
    assert steps[2].data["plane"] == "p5"
    assert steps[2].data["failure"].startswith("p5.png: ")
    assert steps[3].data["plane"] == "p6"
    assert steps[3].data["result"].labels.max() == 1


def test_work_that_is_a_job_tells_how_far_it_is_and_what_is_special(folder):
    def work(plane, image):
        yield JobProgress(0, 2, "tile 1 of 2")
        yield JobProgress(1, 2, "tile 2 of 2")
        return answer(plane, image, remarks=("cut into tiles",))

    steps = []
    result = run_job(make(folder, work).run(), steps.append)
    tiles = [(s.done, s.total, s.message) for s in steps if "tile" in s.message]
    assert tiles[2:4] == [(1, 8, "p5: tile 1 of 2"), (1, 8, "p5: tile 2 of 2")]
    assert result.notices == ("8 images: cut into tiles.",)
    assert len(rows(folder)) == 8


# --- several at once


class Slow:
    """Answers in threads: the first plane waits until a later one is done."""

    def __init__(self, folder):
        self.folder, self.closed = folder, []
        self.later = threading.Event()

    def __call__(self, plane, image):
        return self.job(plane, image)

    def job(self, plane, image):
        try:
            yield JobProgress(0, 1, "looking")
            if plane.label == "p4":
                assert self.later.wait(60)
            if plane.label == "p5":
                self.later.set()
            if plane.label == "p7":
                raise InputError("p7: odd")
            return answer(plane, image, value=int(plane.label[1:]))
        finally:
            self.closed.append(plane.label)


def test_planes_that_are_answered_at_once_are_written_in_their_order(folder):
    work = Slow(folder)
    outcome = run_job(make(folder, work, workers=3).run())
    assert outcome.done == ("p4", "p5", "p6", "p8", "p9", "p10", "p11")
    assert list(outcome.failures) == ["p7"]
    for name in outcome.done:
        assert tifffile.imread(folder / "out" / f"{name}.tif").max() == int(name[1:])
    assert sorted(work.closed) == sorted([*outcome.done, "p7"])
    again = run_job(make(folder, work, workers=3).run())
    assert (again.done, len(again.skipped)) == ((), 7)


def test_cancel_ends_what_is_answered_ahead(folder):
    work = Slow(folder)
    threads = threading.active_count()
    job = make(folder, work, workers=3).run()
    for step in job:
        if step.data.get("plane") == "p4":
            break
    job.close()
    assert threading.active_count() == threads
    assert len(work.closed) == len(set(work.closed)) < 8
    assert [path.name for path in (folder / "out").glob("*.tif")] == ["p4.tif"]
    outcome = run_job(make(folder, work, workers=3).run())
    assert len(outcome.done) + len(outcome.skipped) == 7


def test_large_images_are_answered_one_by_one(folder, monkeypatch):
    monkeypatch.setattr(lookahead, "LARGEST_PX", 10)
    at_once = []

    def job(plane, image):
        at_once.append(threading.current_thread())
        yield JobProgress(0, 1)
        return answer(plane, image)

    run_job(make(folder, job, workers=3).run())
    assert set(at_once) == {threading.current_thread()}


def test_torch_has_its_threads_again_after_a_run(folder):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        counts = []

        def job(plane, image):
            counts.append(torch.get_num_threads())
            yield JobProgress(0, 1)
            return answer(plane, image)

        run_job(make(folder, job, workers=3).run())
        assert set(counts) == {1}
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)


def test_large_image_is_read_in_parts_and_recorded_as_any_other(folder):
    image = np.full((4300, 4100), 40, np.uint8)
    image[4000:4200] = 200
    path = folder / "large" / "a.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, image, tile=(512, 512), compression="zlib")
    kinds = []

    def work(_plane, lazy):
        kinds.append(type(lazy))
        labels = np.zeros(lazy.shape[:2], np.int32)
        labels[3900:4100, 10:20] = 1
        return PlaneResult(Segmentation(labels, [0.5], (POINT,)), "one object")

    run_job(make(folder, work, source=path, overlay=True).run())
    assert kinds == [LazyImage]
    (row,) = rows(folder)
    assert (row["area_px"], row["brightness"]) == ("2000", "120.0")
    (stored,) = load_prompts(folder / "out" / "prompts.json").images
    assert stored.sha256 == pixels_sha256(np.repeat(image[..., None], 3, axis=2))
    assert tifffile.imread(folder / "out" / "a.tif").sum() == 2000
    assert (folder / "out" / "overlay.png").exists()
    assert run_job(make(folder, work, source=path, overlay=True).run()).skipped == ("a",)
    image[7, 7] = 41
    tifffile.imwrite(path, image, tile=(512, 512), compression="zlib")
    assert run_job(make(folder, work, source=path).run()).done == ("a",)
    assert_consistent(folder)

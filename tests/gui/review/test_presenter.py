"""Review without Qt: the queue, verdicts, edits, references, and what is exported."""

import csv
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from discs import Discs, Inline
from lab import listen
from reviewed import SHAPE, disc, labels_of, write_results

from napari_samic import recipes
from napari_samic.core.errors import InputError
from napari_samic.core.label_objects import ObjectRecord
from napari_samic.core.settings import ExportSettings
from napari_samic.core.types import run_job
from napari_samic.evaluation.quality import ResultFeatures, rank_outliers
from napari_samic.gui.data import trusted_files
from napari_samic.gui.data.layer_pixels import FILES, LayerPixels
from napari_samic.gui.data.project import Project
from napari_samic.gui.data.result_files import LabelFiles
from napari_samic.gui.review import editor, jobs, result, scan
from napari_samic.gui.review.editor import ResultEditor
from napari_samic.gui.review.export import ACCEPTED_RESULTS, ALL_RESULTS, Exporter
from napari_samic.gui.review.presenter import ReviewModel
from napari_samic.gui.review.result import ReviewedResult
from napari_samic.gui.review.verdicts import Edit, ReviewDecision, from_notes, to_notes
from napari_samic.gui.session.session import Session
from napari_samic.io.masks import read_labels
from napari_samic.io.prompts import load_prompts
from napari_samic.io.reviews import EDITED, load_review
from napari_samic.io.text_files import sha256_of
from napari_samic.pipeline.results.ledger import Ledger, Provenance


class NoViewer:
    """A viewer without layers: images come from their files."""

    layers = ()


class World:
    def __init__(self, folder, *, opened=None):
        self.runner = Inline()
        self.session = Session(NoViewer(), self.runner)
        self.session.scheduler.segmenter = Discs(radius=4)
        project = opened or Project.create(folder / "project")
        if not opened:
            write_results(project.results_folder, folder / "pictures")
            trusted_files.remember([folder / "pictures" / "a.png"])
        self.session.scheduler.autosaver.begin_project(project)
        self.project = project
        self.review = ReviewModel(self.session)
        self.told = listen(self.review.events, self.review.editor.events)
        self.exporter = Exporter(self.review, lambda: self.review.editor.is_writing)

    def look(self):
        self.review.scan_results()
        self.runner.settle()
        return self

    def go(self, name):
        self.review.show_result(name)
        self.runner.settle()
        return self

    @property
    def reviewed(self):
        return self.review.editor.reviewed

    def verdicts(self):
        return {n: o.verdict for n, o in self.review.decisions.items()}

    def place(self, listed):
        self.review.editor.take_points(listed)
        self.runner.settle()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path).look()
    yield made
    made.session.close()


# --- the queue


def test_most_doubtful_is_shown_first_with_its_reason(world):
    assert [d.name for d in world.review.order] == ["d", "b", "a", "c"]
    assert world.review.current == "d"
    assert world.review.current_flag().text.startswith("no object")
    assert world.reviewed.name == "d"
    assert world.review.picture.shape == (*SHAPE, 3)


def test_images_of_a_foreign_project_are_not_looked_at_unasked(tmp_path, monkeypatch):
    world, seen = World(tmp_path), []
    trusted_files.file().unlink()
    look = Path.stat

    def stat(path, **how):
        seen.append(path)
        return look(path, **how)

    monkeypatch.setattr(Path, "stat", stat)
    world.look().go("b")
    pictures = tmp_path / "pictures"
    assert world.reviewed.name == "b"
    assert world.review.picture is None
    assert str(pictures / "b.png") in world.review.status
    assert not [path for path in seen if path.is_relative_to(pictures)]
    trusted_files.remember([pictures / "other.png"])
    assert world.go("b").review.picture.shape == (*SHAPE, 3)
    world.session.close()


def test_result_comes_with_its_labels_and_points(world):
    world.go("b")
    np.testing.assert_array_equal(world.reviewed.labels, labels_of("b"))
    assert world.reviewed.points == ((1, (10.0, 10.0, True)), (2, (30.0, 40.0, True)))
    assert world.reviewed.about == {1: ObjectRecord(1, 0.6), 2: ObjectRecord(1, 0.6)}


def test_steps_go_along_the_queue_and_stop_at_its_ends(world):
    seen = []
    for by in (-1, 1, 1, 1, 1, -1):
        world.review.move(by)
        world.runner.settle()
        seen.append(world.review.current)
    assert seen == ["d", "b", "a", "c", "c", "a"]


def test_verdict_goes_on_to_the_next_without_one(world):
    world.review.reject("empty")
    world.runner.settle()
    world.go("c").review.accept()
    world.runner.settle()
    assert world.verdicts() == {"d": "rejected", "c": "accepted"}
    assert world.review.current == "b"
    world.review.accept()
    world.runner.settle()
    assert world.review.current == "a"
    world.review.accept()
    assert world.review.status == "Every result has a verdict. Export them."
    assert world.review.counts == {"": 0, "accepted": 3, "edited": 0, "rejected": 1}


def test_answer_for_a_result_that_is_left_comes_too_late(world):
    world.review.show_result("b")
    world.review.show_result("c")
    newest = world.runner.jobs[-1]
    while newest in world.runner.jobs:
        newest.advance()
    world.runner.settle()  # only now the job of "b" goes on
    assert (world.review.current, world.reviewed.name) == ("c", "c")


def test_leaking_mask_is_doubtful_by_the_shape_of_the_references(world, tmp_path):
    labels = labels_of("a")
    labels[5:15, 10:58] = 1  # one object leaks towards the border
    tifffile.imwrite(world.project.results_folder / "a.tif", labels)
    write_results(world.project.references_folder, tmp_path / "more")
    world.look()
    doubt = next(d for d in world.review.order if d.name == "a")
    assert "516 px" in doubt.text
    assert "81 px" in doubt.text
    assert world.review.order.index(doubt) == 1  # after the empty one
    [doubt] = [d for d in world.review.order if d.name == "b"]
    assert doubt.text.startswith("confidence 0.60")


def test_sizes_of_classes_are_not_held_against_those_of_references(world, tmp_path):
    results = world.project.results_folder
    table = (results / "scores.csv").read_text().replace(",81", ",")  # no area: values are classes
    (results / "scores.csv").write_text(table)
    write_results(world.project.references_folder, tmp_path / "more")
    world.look()
    assert world.review.scanned.models == ()


def test_all_above_a_score_are_accepted_but_for_those_with_a_verdict(world):
    world.go("a").review.reject()
    assert world.review.undecided_above(0.7) == ["c"]
    assert world.review.accept_above(0.7) == 1
    assert world.review.decision("c").reason == "confidence from 0.70"
    assert world.verdicts() == {"a": "rejected", "c": "accepted"}


def test_only_label_files_that_changed_are_measured_again(world, monkeypatch):
    measured = []
    cutouts = scan.cutouts
    monkeypatch.setattr(scan, "cutouts", lambda x: measured.append(x.max()) or cutouts(x))
    tifffile.imwrite(world.project.results_folder / "b.tif", labels_of("c"))
    table = world.project.results_folder / "scores.csv"
    table.write_text(table.read_text().replace("a,0.9,", "a,0.4,"))
    world.look()
    assert len(measured) == 1
    assert (world.review.scanned.facts["b"].count, world.review.scanned.facts["a"].score) == (
        1,
        0.4,
    )


def test_score_to_accept_from_is_the_median_of_the_run(world):
    assert world.review.median_score == 0.9
    world.review.scanned.facts["a"] = ResultFeatures("a", 0.579, 2, 81.0)
    world.review.scanned.facts["c"] = ResultFeatures("c", 0.31, 2, 81.0)
    assert world.review.median_score == 0.57  # rounded down, so that it takes the one it is of
    assert world.review.undecided_above(world.review.median_score) == ["b", "a"]
    world.review.clear()
    assert world.review.median_score is None


def test_no_results_is_told(tmp_path):
    made = World(tmp_path)
    for path in made.project.results_folder.iterdir():
        path.unlink()
    made.project.results_folder.rmdir()
    assert made.look().review.status == "No results yet: propagate first."
    with pytest.raises(InputError, match="no results to export"):
        made.exporter.export(ALL_RESULTS, tmp_path / "o", ExportSettings())
    made.session.close()


def test_verdicts_are_there_again_when_the_project_is_opened(world, tmp_path):
    world.go("b").review.reject("blurred")
    world.go("c")
    world.place([(1, (22.0, 33.0, True))])
    world.runner.settle()
    world.session.close()
    other = World(tmp_path, opened=Project.open(tmp_path / "project")).look()
    assert other.verdicts() == {"b": "rejected", "c": "edited"}
    assert (other.review.current, other.reviewed.points) == ("c", ((1, (22.0, 33.0, True)),))
    wanted = np.zeros(SHAPE, np.int32)
    disc(wanted, (22, 33), 1, 2)
    np.testing.assert_array_equal(other.reviewed.labels, wanted)
    other.session.close()


def test_verdict_on_labels_that_changed_since_is_asked_again(world):
    world.go("a").review.accept()
    world.go("b").review.accept()
    tifffile.imwrite(world.project.results_folder / "a.tif", labels_of("c"))
    world.look()
    assert world.verdicts() == {"a": "", "b": "accepted"}
    assert "1 result changed" in world.review.status
    assert "a" in world.review.status.split(": ")[1].split(".")[0]
    world.look()  # as by coming back from another page
    assert "1 result changed" in world.review.status
    world.go("a").review.accept()
    world.review.show_result("b")
    assert "changed" not in world.review.status
    world.look()
    assert "changed" not in world.review.status


def test_damaged_notes_are_left_out():
    good = ReviewDecision("edited", "why", "0", Edit("a.tif", "1", {1: ObjectRecord(2, 0.5)},
                                              ((1, (2.0, 3.0, False)),)))  # fmt: skip
    notes = json.loads(json.dumps(to_notes({"a": good, "b": ReviewDecision()})))
    assert from_notes(notes) == {"a": good}
    assert from_notes({**notes, "x": 3, "y": {"verdict": "maybe"}, "z": {}}) == {"a": good}
    assert from_notes(None) == {}


@pytest.mark.parametrize("file", ["../../x.tif", "/etc/passwd", "..", "a/b.tif", ""])
def test_edit_that_is_no_name_in_the_folder_of_edits_is_left_out(file):
    edit = {"file": file, "sha256": "0" * 64, "objects": {}, "points": []}
    tree = {"verdict": "edited", "reason": "", "of": "", "edit": edit}
    assert from_notes({"a": tree}) == {}


def test_edit_with_a_place_beyond_all_numbers_is_left_out():
    edit = {"file": "a.tif", "sha256": "0", "objects": {}, "points": [[1, 10**400, 1, True]]}
    assert from_notes({"a": {"verdict": "edited", "edit": edit}}) == {}


# --- edits


def test_mask_follows_a_point_that_is_moved(world):
    world.go("b")
    world.place([(1, (15.0, 20.0, True)), world.reviewed.points[1]])
    wanted = np.zeros(SHAPE, np.int32)
    disc(wanted, (15, 20), 1, 2)
    disc(wanted, (30, 40), 2)
    np.testing.assert_array_equal(world.reviewed.labels, wanted)
    assert world.reviewed.about[1].score == pytest.approx(0.6)
    assert world.verdicts() == {"b": "edited"}


def test_new_point_is_a_new_object_unless_it_is_inside_one(world):
    world.go("c")
    world.place([*world.reviewed.points, (result.NEW, (6.0, 6.0, True))])
    assert world.reviewed.points[-1][0] == 2
    assert world.reviewed.labels[6, 6] == 2
    world.place([*world.reviewed.points, (result.NEW, (21.0, 31.0, True))])
    assert world.reviewed.points[-1][0] == 1
    world.place([*world.reviewed.points, (result.NEW, (1.0, 1.0, False))])
    assert world.reviewed.points[-1][0] == 2  # the nearest


def test_new_object_of_a_volume_has_a_number_of_no_other_plane(world):
    run = {"memory": {"follow": "never", "link": "always"}}
    made = {name: Provenance(run, f"{name}.tif", "", {}, False) for name in "abcd"}
    with closing(Ledger(world.project.results_folder)) as ledger:
        ledger.store(made)
    world.look().go("c")
    world.place([*world.reviewed.points, (result.NEW, (6.0, 6.0, True))])
    assert world.reviewed.values == [1, 3]
    world.go("d")
    world.place([(result.NEW, (6.0, 6.0, True))])
    assert world.reviewed.values == [4]


def test_object_without_points_is_gone(world):
    world.go("b")
    world.place(world.reviewed.points[:1])
    assert world.reviewed.values == [1]
    assert world.review.decision("b").edit.objects.keys() == {1}
    world.go("a").go("b")
    assert world.reviewed.boxes.keys() == {1}  # number 2 may be another object's next


def test_late_answer_to_an_older_place_is_dropped(world):
    world.go("c")
    world.review.editor.take_points([(1, (10.0, 10.0, True))])
    world.review.editor.take_points([(1, (30.0, 50.0, True))])
    assert world.review.editor.waiting
    world.runner.settle()
    assert world.reviewed.labels[30, 50] == 1
    assert world.reviewed.labels[10, 10] == 0
    world.review.editor.take_points([(1, (10.0, 10.0, True))])
    world.review.show_result("a")
    world.runner.settle()
    np.testing.assert_array_equal(world.reviewed.labels, labels_of("a"))


def test_painted_labels_are_kept_as_a_file_with_its_hash(world):
    world.go("a")
    labels = world.reviewed.labels.copy()
    labels[0:3, 0:3] = 9
    world.review.editor.take_labels(labels)
    assert world.review.editor.is_writing
    world.runner.settle()
    edit = world.review.decision("a").edit
    path = world.project.folder / "review" / edit.file
    np.testing.assert_array_equal(read_labels(path), labels)
    assert edit.sha256 == sha256_of(path)
    assert edit.objects[9] == ObjectRecord(1)
    assert edit.objects[1] == ObjectRecord(1, 0.9)


def test_what_was_painted_in_propagate_becomes_an_edit(world):
    files = LabelFiles(world.project.results_folder, world.project.notes)
    labels = labels_of("b")
    labels[0:3, 0:3] = 9
    files.keep("b", labels)
    assert "b" in files.protected()
    world.look().go("b")
    assert world.review.editor.reviewed.labels[1, 1] == 9
    assert world.review.decision("b").verdict == EDITED
    assert not files.edit("b").exists()
    assert files.current_file("b") == world.project.folder / "review" / "b.tif"
    np.testing.assert_array_equal(read_labels(files.current_file("b")), labels)
    assert "b" in files.protected()
    world.review.revert()
    world.runner.settle()
    assert files.current_file("b") == world.project.results_folder / "b.tif"


def test_confidence_of_what_was_painted_over_is_not_known_any_more(world):
    world.go("a")
    labels = world.reviewed.labels.copy()
    labels[10, 10] = 0
    world.review.editor.take_labels(labels)
    assert world.reviewed.about == {1: ObjectRecord(1), 2: ObjectRecord(1, 0.9)}


def test_same_labels_are_no_edit(world):
    world.go("a").review.editor.take_labels(labels_of("a"))
    assert world.verdicts() == {}


def test_newest_of_many_strokes_is_what_is_written(world):
    world.go("a")
    for value in (3, 4, 5):
        labels = world.reviewed.labels.copy()
        labels[0, 0] = value
        world.review.editor.take_labels(labels)
    world.runner.settle()
    edit = world.review.decision("a").edit
    assert read_labels(world.project.folder / "review" / "a.tif")[0, 0] == 5
    assert edit.sha256 == sha256_of(world.project.folder / "review" / "a.tif")


def test_revert_takes_edit_and_verdict_back(world):
    world.go("b")
    world.place([])
    world.review.revert()
    world.runner.settle()
    assert world.verdicts() == {}
    np.testing.assert_array_equal(world.reviewed.labels, labels_of("b"))


def test_changes_are_undone_one_by_one_to_what_was_predicted(world):
    world.go("b")
    world.place([(1, (15.0, 20.0, True)), world.reviewed.points[1]])
    moved = world.reviewed
    labels = moved.labels.copy()
    labels[0:3, 0:3] = 9
    world.review.editor.take_labels(labels)
    world.runner.settle()
    world.review.editor.undo()
    world.runner.settle()
    assert world.reviewed is moved
    edit = world.review.decision("b").edit
    path = world.project.folder / "review" / "b.tif"
    np.testing.assert_array_equal(read_labels(path), moved.labels)
    assert edit.sha256 == sha256_of(path)
    world.review.editor.undo()
    world.review.editor.undo()  # there is nothing more
    world.runner.settle()
    np.testing.assert_array_equal(world.reviewed.labels, labels_of("b"))
    assert world.reviewed.points == ((1, (10.0, 10.0, True)), (2, (30.0, 40.0, True)))
    assert world.review.decision("b") == ReviewDecision()
    assert "b" not in world.project.notes["review"]["opinions"]


def test_undone_before_the_mask_came_stays_undone(world):
    world.go("b")
    world.review.editor.take_points([(1, (15.0, 20.0, True)), world.reviewed.points[1]])
    world.review.editor.undo()
    world.runner.settle()
    np.testing.assert_array_equal(world.reviewed.labels, labels_of("b"))
    assert world.verdicts().get("b", "") == ""


def test_undo_asks_again_for_a_mask_that_was_under_way(world):
    world.go("b")
    editor = world.review.editor
    editor.take_points([(1, (15.0, 20.0, True)), world.reviewed.points[1]])
    editor.take_points([world.reviewed.points[0], (2, (30.0, 50.0, True))])  # no mask came yet
    world.runner.settle()
    editor.undo()
    world.runner.settle()
    assert world.reviewed.points[1] == (2, (30.0, 40.0, True))
    assert world.reviewed.labels[15, 20] == 1
    assert world.reviewed.labels[10, 10] == 0
    kept = read_labels(world.project.folder / "review" / "b.tif")
    np.testing.assert_array_equal(kept, world.reviewed.labels)


def test_large_images_keep_fewer_steps(world, monkeypatch):
    monkeypatch.setattr(editor, "KEPT_BYTES", 1)
    world.go("a")
    for value in (3, 4):
        labels = world.reviewed.labels.copy()
        labels[0, 0] = value
        world.review.editor.take_labels(labels)
    assert len(world.review.editor.past) == 1


def test_undo_ends_at_the_edit_that_was_there(world):
    world.go("b")
    world.place(world.reviewed.points[:1])
    world.go("a").go("b")
    kept = world.reviewed.labels
    world.place([])
    world.review.editor.undo()
    world.runner.settle()
    np.testing.assert_array_equal(read_labels(world.project.folder / "review" / "b.tif"), kept)
    assert world.verdicts() == {"b": "edited"}
    world.review.editor.undo()
    np.testing.assert_array_equal(world.reviewed.labels, kept)


def test_verdict_holds_again_once_all_changes_are_undone(world):
    world.go("b").review.reject("blurred")
    world.go("b").place([])
    assert world.verdicts() == {"b": "edited"}
    world.review.editor.undo()
    world.runner.settle()
    assert (world.review.decision("b").verdict, world.review.decision("b").edit) == (
        "rejected",
        None,
    )


def test_only_the_last_changes_can_be_undone_and_the_first_of_them_is_an_edit(world, monkeypatch):
    monkeypatch.setattr(editor, "KEPT", 2)
    world.go("a")
    for value in (3, 4, 5):
        labels = world.reviewed.labels.copy()
        labels[0, 0] = value
        world.review.editor.take_labels(labels)
    for _ in range(3):
        world.review.editor.undo()
    world.runner.settle()
    assert read_labels(world.project.folder / "review" / "a.tif")[0, 0] == 3
    assert world.verdicts() == {"a": "edited"}


def test_rejected_while_it_is_written_stays_rejected(world):
    world.go("a").review.editor.take_labels(labels_of("c"))
    world.review.reject()
    world.runner.settle()
    assert world.verdicts() == {"a": "rejected"}
    world.go("a").review.accept()
    assert world.verdicts() == {"a": "edited"}


def test_points_can_not_be_moved_where_values_are_classes():
    reviewed = ReviewedResult("x", np.ones((4, 4), np.int32), numbered=False)
    one = ResultEditor(Inline(), Discs, lambda *_: None)
    one.show(reviewed, lambda: None)
    with pytest.raises(InputError, match="its values are classes"):
        one.take_points([(0, (1.0, 1.0, True))])
    assert one.reviewed is reviewed


def test_without_a_model_points_stay_and_it_is_told(world):
    world.go("a")
    world.session.scheduler.segmenter = None
    with pytest.raises(InputError, match="model is not loaded"):
        world.review.editor.take_points([])
    assert len(world.reviewed.points) == 2
    assert world.told[-1] == "points"


def test_surer_mask_has_the_pixels_where_two_meet():
    reviewed = ReviewedResult(
        "x",
        np.array([[1, 1, 2, 2, 0]], np.int32),
        {1: ObjectRecord(1, 0.5), 2: ObjectRecord(1, 0.9)},
    )
    mask = np.array([[False, True, True, True, True]])
    assert result.answered(reviewed, 3, mask, 0.7).labels.tolist() == [[1, 3, 2, 2, 3]]
    assert result.answered(reviewed, 2, mask, 0.1).labels.tolist() == [[1, 1, 2, 2, 2]]


# --- what comes of it


def test_reference_has_points_and_masks_and_is_marked(world):
    world.go("a")
    labels = world.reviewed.labels.copy()
    labels[35:39, 2:6] = 7
    world.review.editor.take_labels(labels)
    world.review.make_reference()
    state = world.session.scheduler.state
    annotation = state.annotations["a"]
    assert state.references == ("a",)
    assert [i.label for i in annotation.items] == [1, 1, 1]
    np.testing.assert_array_equal(annotation.labels() > 0, labels > 0)
    assert labels[tuple(int(v) for v in annotation.items[2].points[0][:2])] == 7
    assert annotation.file.endswith("a.png")


def test_annotated_images_stay_references_beside_one_of_a_review(world):
    state = world.session.scheduler.state
    state.open_image("mine", (40, 50))
    state.add_point(10, 12)  # not marked: all that is annotated is learned
    world.go("a").review.make_reference()
    assert set(state.references) == {"mine", "a"}


def test_result_without_objects_is_no_reference(world):
    with pytest.raises(InputError, match="no object to learn from"):
        world.go("d").review.make_reference()


def test_suggested_image_is_shown_and_told(world):
    world.go("a").review.make_reference()
    world.review.suggest()
    world.runner.settle()
    assert world.review.current in ("b", "c", "d")
    assert world.review.status.startswith(f"Annotate {world.review.current} next")


def test_suggestion_is_doubtful_and_unlike_the_references():
    class Eyes:
        name = "eyes"

        def embedding(self, image):
            return np.full((2, 1, 1), 1.0) * np.array(image).reshape(2, 1, 1)

    readers = {"near": lambda: (1, 0.1), "far": lambda: (0, 1), "known": lambda: (1, 0)}
    order = rank_outliers([ResultFeatures(n, 0.9, 3, 9.0) for n in readers])
    assert run_job(jobs.advise(Eyes(), readers, ["known"], order)) == "far"
    with pytest.raises(InputError, match="every image is annotated already"):
        run_job(jobs.advise(Eyes(), readers, list(readers), order))


def test_scores_are_of_the_labels_as_they_are_now(world):
    truths = {name: lambda name=name: labels_of(name) for name in ("a", "b")}
    world.review.score_against(truths)
    world.runner.settle()
    assert (world.review.total["miou"], world.review.total["n"]) == (1.0, 2.0)
    world.go("b")
    world.place([])
    world.review.score_against(truths)
    world.runner.settle()
    assert world.review.scores["b"]["iou"] == 0.0
    assert world.review.total["miou"] == 0.5


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_truth_of_black_grey_and_white_is_read_as_the_shell_reads_it(world, dtype):
    truths = {}
    for name in ("a", "b"):
        wanted = labels_of(name)
        drawn = np.where(wanted > 0, 255, 0)
        drawn[:3] = 128
        truths[name] = lambda drawn=drawn: drawn.astype(dtype)
    world.review.score_against(truths)
    world.runner.settle()
    assert world.review.total["miou"] == 1.0
    assert world.review.scores["b"]["object_f1"] == 1.0
    assert "128 void, 255 object" in world.review.status


def test_truth_that_could_be_this_or_that_is_told(world):
    truths = {name: lambda: np.array([[1, 2], [2, 1]], np.uint8) for name in ("a", "b")}
    world.review.score_against(truths)
    world.runner.settle()
    assert isinstance(world.runner.errors[0], InputError)


def test_truth_of_another_size_is_told(world):
    world.review.score_against({"a": lambda: np.eye(3, dtype=int)})
    world.runner.settle()
    assert isinstance(world.runner.errors[0], InputError)


# --- export


def test_accepted_results_are_exported_and_recorded(world, tmp_path):
    world.go("a").review.accept()
    world.go("b")
    world.place([(1, (15.0, 20.0, True))])
    world.review.reject()
    world.go("c").place([(1, (15.0, 20.0, True))])
    how = ExportSettings(table=True)
    world.exporter.export(ACCEPTED_RESULTS, tmp_path / "out", how)
    world.runner.settle()
    assert world.runner.errors == []
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "a.tif", "c.tif", "measurements.csv"]  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "out" / "measurements.csv").open()))
    assert [(r["image"], r["object"]) for r in rows] == [("a", "1"), ("a", "2"), ("c", "1")]
    steps = recipes.load_recipe(world.project.recipe).steps
    assert [s.do for s in steps] == ["accept", "export"]
    kept = {"review": "review.json", "edits": "edits", "prompts": "prompts.json"}
    kept = {key: f"reviews/1/{name}" for key, name in kept.items()}
    assert steps[0].inputs == {"results": "results", **kept}
    assert "3 objects" in world.exporter.status
    assert "3 files" in world.exporter.status
    assert "1 rejected, 1 without a verdict" in world.exporter.status
    assert world.exporter.settings == how
    moved = load_prompts(world.project.folder / "accepted" / "prompts.json").images[1]
    assert moved.objects[0].points_rc.tolist() == [[15.0, 20.0]]


def test_recorded_export_replays_to_the_same_files(world, tmp_path):
    world.go("a").review.accept()
    world.go("c").place([(1, (15.0, 20.0, True))])
    world.exporter.export(ACCEPTED_RESULTS, tmp_path / "out", ExportSettings(png=True))
    world.runner.settle()
    world.go("c").place([(1, (25.0, 20.0, True))])  # later edits do not spoil what was recorded
    outcome = run_job(recipes.replay(world.project.recipe, out=tmp_path / "again", strict=True))
    assert [row["same_labels"] for row in outcome.figures["steps"]] == [True, True]
    for path in (tmp_path / "out").iterdir():
        again = next((tmp_path / "again").rglob(f"out/{path.name}"))
        assert again.read_bytes() == path.read_bytes()


def test_same_review_is_kept_once_and_another_beside_it(world, tmp_path):
    world.go("a").review.accept()
    for number, name in ((1, "o1"), (1, "o2")):
        world.exporter.export(ACCEPTED_RESULTS, tmp_path / name, ExportSettings())
        world.runner.settle()
        kept = sorted(p.name for p in (world.project.folder / "reviews").iterdir())
        assert kept == [str(number)]
    world.go("b").review.accept()
    world.exporter.export(ACCEPTED_RESULTS, tmp_path / "o3", ExportSettings())
    world.runner.settle()
    assert set(load_review(world.project.folder / "reviews" / "2" / "review.json")) == {"a", "b"}
    assert set(load_review(world.project.folder / "reviews" / "1" / "review.json")) == {"a"}


def test_all_results_can_be_exported_without_a_review(world, tmp_path):
    world.session.scheduler.state.style_class(1, name="cell")
    how = ExportSettings(tiff=False, coco=True)
    world.exporter.export(ALL_RESULTS, tmp_path / "out", how)
    world.runner.settle()
    tree = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert (len(tree["images"]), len(tree["annotations"])) == (4, 5)
    assert tree["categories"][0]["name"] == "cell"
    assert not (world.project.folder / "accepted").exists()


def test_lengths_are_those_of_the_layer(world, tmp_path):
    stack = np.zeros((4, *SHAPE, 3), np.uint8)
    files = [str(tmp_path / "pictures" / f"{name}.png") for name in "abcd"]
    world.session.layer = SimpleNamespace(
        data=stack, name="pictures", rgb=True, multiscale=False, metadata={FILES: files},
        scale=(1.0, 0.5, 0.25), units=("pixel", "micrometer", "micrometer"),
    )  # fmt: skip
    world.session.pixels = LayerPixels([world.session.layer])
    how = ExportSettings(tiff=False, table=True)
    world.exporter.export(ALL_RESULTS, tmp_path / "out", how)
    world.runner.settle()
    rows = list(csv.DictReader((tmp_path / "out" / "measurements.csv").open()))
    assert {row["unit"] for row in rows} == {"micrometer"}
    assert float(rows[0]["area"]) == pytest.approx(int(rows[0]["area_px"]) / 8)
    assert world.exporter.settings == how  # another layer may have another size
    world.exporter.export(ALL_RESULTS, tmp_path / "px", replace(how, unit="px"))
    world.runner.settle()
    row = next(csv.DictReader((tmp_path / "px" / "measurements.csv").open()))
    assert float(row["area"]) == int(row["area_px"])


def test_objects_are_counted_by_class(world):
    world.session.scheduler.state.style_class(1, name="cell")
    assert world.review.class_counts == {"cell": 5}
    world.go("a").review.reject("blurred")
    world.go("c")
    labels = np.array(world.reviewed.labels)
    labels[:5, :5] = 9
    world.review.editor.take_labels(labels)
    world.runner.settle()
    assert world.review.class_counts == {"cell": 4}


def test_objects_of_a_linked_stack_are_counted_as_a_whole_too(world):
    folder = world.project.results_folder
    for i, name in enumerate("ab"):
        for suffix in ("tif",):
            (folder / f"{name}.{suffix}").rename(folder / f"s[{i}].{suffix}")
    for table in ("prompts.json", "scores.csv"):
        text = (folder / table).read_text()
        for i, name in enumerate("ab"):
            text = text.replace(f'"name": "{name}"', f'"name": "s[{i}]"')
            text = text.replace(f"\n{name},", f"\ns[{i}],")
        (folder / table).write_text(text)
    run = {"memory": {"follow": "never", "link": "always"}}
    made = {f"s[{i}]": Provenance(run, f"s[{i}].tif", "", {}, False) for i in range(2)}
    with closing(Ledger(folder)) as ledger:
        ledger.store(made)
    world.session.scheduler.state.style_class(1, name="cell")
    world.look()
    assert world.review.class_counts == {"cell": 5}
    assert world.review.linked_counts == {"cell": 2}


def test_nothing_accepted_is_told(world, tmp_path):
    with pytest.raises(InputError, match="nothing is accepted yet"):
        world.exporter.export(ACCEPTED_RESULTS, tmp_path / "out", ExportSettings())


def test_files_in_the_way_are_told_and_stay(world, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.tif").write_text("mine")
    world.exporter.export(ALL_RESULTS, tmp_path / "out", ExportSettings())
    world.runner.settle()
    assert "a.tif: exists already" in str(world.runner.errors[0])
    assert (tmp_path / "out" / "a.tif").read_text() == "mine"
    assert world.exporter.progress is None
    world.exporter.export(ALL_RESULTS, tmp_path / "out", ExportSettings(), overwrite=True)
    world.runner.settle()
    assert read_labels(tmp_path / "out" / "a.tif").max() == 2


def test_export_that_is_stopped_is_not_recorded(world, tmp_path):
    world.exporter.export(ALL_RESULTS, tmp_path / "out", ExportSettings())
    with pytest.raises(InputError, match="under way already"):
        world.exporter.export(ALL_RESULTS, tmp_path / "out", ExportSettings())
    world.exporter.stop()
    world.runner.settle()
    assert (world.exporter.status, world.exporter.progress) == ("Stopped.", None)
    assert not world.project.recipe.exists()


def test_edit_that_is_being_written_is_waited_for(world, tmp_path):
    world.go("a").review.editor.take_labels(labels_of("c"))
    with pytest.raises(InputError, match="an edit is being written"):
        world.exporter.export(ACCEPTED_RESULTS, tmp_path / "out", ExportSettings())

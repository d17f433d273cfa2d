"""Propagate without Qt and without threads: preview, run, cancel, resume, edits."""

import hashlib
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from discs import Inline
from lab import is_heard, listen
from toys import scene, write_image

import napari_samic
from napari_samic.core.errors import FormatError, InputError, SettingsError
from napari_samic.core.settings import (
    MemorySettings,
    PeakSettings,
    RefineSettings,
    SegmentSettings,
    StrategySettings,
)
from napari_samic.gui.data import lazy_labels, trusted_files
from napari_samic.gui.data.layer_pixels import LayerPixels
from napari_samic.gui.data.project import Project
from napari_samic.gui.propagate.jobs import SegmentOptions
from napari_samic.gui.propagate.presenter import PropagationModel
from napari_samic.gui.session.session import Session
from napari_samic.models.samic.prompter import SamicPrompter
from napari_samic.recipes import load_recipe

COUNT = 4
LOW = PeakSettings(threshold=0.2, min_area_frac=0.0)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))


@pytest.fixture
def session(tmp_path, prompter):
    """A stack of four scenes without a file, in a project with a prompter."""
    project = Project.create(tmp_path / "work")
    shutil.copy(prompter, project.prompter_file)
    session = Session(SimpleNamespace(layers=[]), Inline())
    session.scheduler.autosaver.begin_project(project)
    stack = np.stack([scene(i)[0] for i in range(COUNT)])
    layer = SimpleNamespace(
        data=stack, name="cells", rgb=True, multiscale=False, source=SimpleNamespace(path=None)
    )
    session.layer, session.pixels = layer, LayerPixels([layer])
    session.scheduler.show(session.pixels, (0,))
    session.runner.settle()
    yield session
    session.runner.close()


@pytest.fixture
def of(session):
    of = PropagationModel(session)
    of.heard = listen(of.events, of.store.events)
    session.runner.settle()
    return of


def results(of):
    return of.session.project.results_folder


def made(of):
    return sorted(p.stem for p in results(of).glob("*.tif"))


def begin(of, until):
    """Start a run and let it do so many images."""
    of.run.start()
    job = of.session.runner.jobs[-1]
    while len(of.run.finished) < until:
        job.advance()
    return job


def whole(of):
    of.run.start()
    of.session.runner.settle()


# --- preview


def test_preview_is_what_the_shell_makes_of_the_slice(of, session, tmp_path):
    of.change(SegmentSettings(mask_choice="single"), LOW)
    for index in range(COUNT):
        session.scheduler.show(session.pixels, (index,))
        of.watch(True)
        session.runner.settle()
        assert of.preview.label == f"cells[{index}]"
        tifffile.imwrite(tmp_path / f"seen{index}.tif", np.array(of.preview.result.labels))
    (tmp_path / "images").mkdir()
    for index in range(COUNT):
        write_image(tmp_path / "images" / f"p{index}.png", scene(index)[0])
    napari_samic.segment(
        tmp_path / "images", prompter=session.project.prompter_file, out=tmp_path / "shell",
        settings=SegmentSettings(mask_choice="single"), peaks=LOW, heatmaps=True,
    )  # fmt: skip
    found = 0
    for index in range(COUNT):
        expected = tifffile.imread(tmp_path / "shell" / f"p{index}.tif")
        np.testing.assert_array_equal(tifffile.imread(tmp_path / f"seen{index}.tif"), expected)
        found += expected.max()
    assert found
    heat = tifffile.imread(tmp_path / "shell" / "heatmaps" / "p3.tif")
    np.testing.assert_array_equal(of.preview.result.heat_map.values, heat)


def test_preview_of_a_large_slice_goes_tile_by_tile_and_is_what_the_shell_makes(
    of, session, tmp_path
):
    image = scene(0, shape=(60, 170))[0]
    layer = SimpleNamespace(
        data=image, name="wide", rgb=True, multiscale=False, source=SimpleNamespace(path=None)
    )
    session.layer, session.pixels = layer, LayerPixels([layer])
    session.scheduler.show(session.pixels, ())
    settings = SegmentSettings(tile_px=64)
    of.change(settings, LOW)
    statuses = set()
    of.events.state.connect(lambda: statuses.add(of.preview_status))
    of.watch(True)
    session.runner.settle()
    assert {"Tile 1 of 4 ...", "Tile 4 of 4 ..."} <= statuses
    write_image(tmp_path / "images" / "wide.png", image)
    napari_samic.segment(
        tmp_path / "images", prompter=session.project.prompter_file, out=tmp_path / "shell",
        settings=settings, peaks=LOW,
    )  # fmt: skip
    expected = tifffile.imread(tmp_path / "shell" / "wide.tif")
    np.testing.assert_array_equal(of.preview.result.labels, expected)
    assert expected.max()


def test_heat_map_comes_before_the_masks(of, session):
    of.watch(True)
    job = session.runner.jobs[-1]
    while of.heat is None:
        job.advance()
    assert of.preview is None
    session.runner.settle()
    assert of.preview is not None
    assert not of.preview_status


def test_other_settings_ask_the_network_no_second_time(of, session, monkeypatch):
    asked = []
    maps = SamicPrompter.maps_and_agreement

    def counted(self, references, image):
        asked.append(image)
        return maps(self, references, image)

    monkeypatch.setattr(SamicPrompter, "maps_and_agreement", counted)
    of.watch(True)
    session.runner.settle()
    before = len(of.preview.result.objects)
    of.change(SegmentSettings(instances=False), PeakSettings(threshold=0.99, min_area_frac=50))
    session.runner.settle()
    assert len(of.preview.result.objects) < before
    assert len(asked) == 1
    session.scheduler.show(session.pixels, (1,))
    of.moved()
    of.refresh_preview()
    session.runner.settle()
    assert len(asked) == 2


def test_late_preview_of_a_slice_that_was_left_is_dropped(of, session):
    of.watch(True)
    job = session.runner.jobs[-1]
    while of.heat is None:
        job.advance()
    session.scheduler.show(session.pixels, (2,))
    of.moved()
    assert (of.heat, of.preview) == (None, None)
    of.refresh_preview()
    late, fresh = session.runner.jobs
    late.cancelled = False  # the worst case: the answer was on its way already
    while late in session.runner.jobs:
        late.advance()
    assert of.preview is None
    while fresh in session.runner.jobs:
        fresh.advance()
    assert of.preview.label == "cells[2]"


def test_another_prompter_is_loaded_before_it_is_asked(of, session):
    of.watch(True)
    session.runner.settle()
    session.project.prompter_file.write_bytes(b"no prompter")
    session.events.prompter.emit()
    session.runner.settle()
    assert of.preview is None
    assert isinstance(session.runner.errors[-1], FormatError)


def test_without_a_prompter_the_user_hears_what_to_do(of, session):
    session.project.prompter_file.unlink()
    with pytest.raises(InputError, match="Train one first"):
        of.watch(True)
    with pytest.raises(InputError, match="Train one first"):
        of.run.start()
    assert not of.is_previewing


def test_settings_are_those_of_the_prompter_until_the_user_has_own(of, session):
    assert of.stored == PeakSettings(min_area_frac=0.2)
    of.change(SegmentSettings(), of.stored)
    assert of.options.peaks is None
    of.change(SegmentSettings(min_score=0.3), LOW, RefineSettings(smooth_px=2), method="samic")
    session.runner.settle()
    again = PropagationModel(session)
    assert again.options == of.options == SegmentOptions(
        "samic", SegmentSettings(min_score=0.3), LOW, refine=RefineSettings(smooth_px=2)
    )  # fmt: skip
    stored = Project.open(session.project.folder)
    assert stored.notes["propagate"]["peaks"]["threshold"] == 0.2


# --- presets and methods


def test_preset_sets_everything_and_is_named_until_something_is_changed(of):
    assert of.preset == "default"
    of.change(RefineSettings(smooth_px=3))
    assert of.preset == ""
    of.choose_preset("literal-paper")
    assert of.preset == "literal-paper"
    assert of.options == SegmentOptions("samic", SegmentSettings.paper(), PeakSettings.paper())
    of.choose_preset("default")
    assert of.options == SegmentOptions()


@pytest.mark.parametrize(
    ("method", "groups"),
    [
        pytest.param("prototypes", {"settings": SegmentSettings(min_score=0.2)}, id="method"),
        pytest.param(
            "samic",
            {
                "peaks": LOW,
                "strategy": StrategySettings("kmedoids"),
                "refine": RefineSettings(fill_px=9),
            },
            id="strategy",
        ),
    ],
)
def test_preview_and_run_are_asked_as_the_shell_asks(of, session, tmp_path, method, groups):
    of.change(*groups.values(), method=method)
    of.watch(True)
    session.runner.settle()
    whole(of)
    napari_samic.segment(
        session.project.images_folder,
        prompter=session.project.prompter_file, out=tmp_path / "shell", method=method, **groups,
    )  # fmt: skip
    assert {n: digest(results(of) / f"{n}.tif") for n in made(of)} == {
        p.stem: digest(p) for p in (tmp_path / "shell").glob("*.tif")
    }
    shell = [tifffile.imread(tmp_path / "shell" / f"cells[{i}].tif") for i in range(COUNT)]
    assert np.any(shell)
    np.testing.assert_array_equal(of.preview.result.labels, shell[0])


def test_other_method_is_loaded_before_the_preview_asks_it(of, session):
    of.watch(True)
    session.runner.settle()
    before = of.preview.result
    of.change(method="prototypes")
    session.runner.settle()
    assert not np.array_equal(of.preview.result.heat_map.values, before.heat_map.values)


@pytest.mark.parametrize(
    ("preset", "setting"), [("stack-that-goes-on", "follow"), ("volume", "link")]
)
def test_slices_of_the_layer_belong_together(of, session, tmp_path, preset, setting):
    of.choose_preset(preset)
    whole(of)
    napari_samic.segment(
        session.project.images_folder, prompter=session.project.prompter_file,
        out=tmp_path / "shell", memory=MemorySettings(**{setting: "always"}),
    )  # fmt: skip
    rows = (tmp_path / "shell" / "scores.csv").read_text()
    assert (results(of) / "scores.csv").read_text() == rows
    assert getattr(of.options.memory, setting) == "stacks"
    shown = of.store.stack
    files = [tifffile.imread(path) for path in sorted(results(of).glob("*.tif"))]
    np.testing.assert_array_equal(np.asarray(shown), files)


def test_preview_of_another_depth_is_what_the_run_makes_of_it(of, session):
    deep = np.stack([scene(i, scale=100)[0] for i in range(COUNT)])
    session.layer = SimpleNamespace(**{**vars(session.layer), "data": deep})
    session.pixels = LayerPixels([session.layer])
    session.scheduler.show(session.pixels, (0,))
    session.events.image.emit()
    of.watch(True)
    session.runner.settle()
    assert of.preview is None
    assert "Fit the range" in str(session.runner.errors.pop())
    of.rescale(True)
    session.runner.settle()
    whole(of)
    assert of.preview.result.labels.any()
    np.testing.assert_array_equal(
        of.preview.result.labels, tifffile.imread(results(of) / "cells[0].tif")
    )
    assert PropagationModel(session).options.rescale


def test_stack_of_two_axes_is_not_followed(of, session):
    layer = SimpleNamespace(**{**vars(session.layer), "data": session.layer.data[None]})
    session.layer, session.pixels = layer, LayerPixels([layer])
    of.choose_preset("stack-that-goes-on")
    with pytest.raises(InputError, match="1 x 4"):
        of.run.start()


def test_options_that_cannot_act_together_are_told_before_anything_is_done(of, session):
    whole(of)
    before = stamps(of)
    of.run.again(True)
    of.change(StrategySettings("box"), method="forest")
    assert "forest" in of.fault
    with pytest.raises(SettingsError, match="forest"):
        of.start()
    of.watch(True)
    session.runner.settle()
    assert of.preview is None
    assert not session.runner.errors
    assert stamps(of) == before


def test_method_of_a_package_that_is_gone_is_forgotten(of, session):
    session.project.notes["propagate"] = {"method": "theirs", "settings": {"min_score": 0.5}}
    assert PropagationModel(session).options == SegmentOptions(
        settings=SegmentSettings(min_score=0.5)
    )


# --- the run


def test_run_makes_what_the_shell_makes_byte_for_byte(of, session, tmp_path):
    of.change(SegmentSettings(), LOW)
    whole(of)
    napari_samic.segment(
        session.project.images_folder,
        prompter=session.project.prompter_file, out=tmp_path / "shell",
        peaks=LOW,
    )  # fmt: skip
    names = [f"cells[{i}]" for i in range(COUNT)]
    assert made(of) == names == list(of.run.finished)
    for name in names:
        assert digest(results(of) / f"{name}.tif") == digest(tmp_path / "shell" / f"{name}.tif")
    assert (results(of) / "heatmaps" / "cells[0].tif").is_file()
    (step,) = load_recipe(session.project.recipe).steps
    assert (step.do, step.settings["threshold"]) == ("segment", 0.2)
    assert of.run.status.startswith("4 images done.")


def test_cancel_keeps_what_is_done_and_resume_does_the_rest(of, session):
    begin(of, 2)
    done = {name: digest(results(of) / f"{name}.tif") for name in made(of)}
    stamps = {name: (results(of) / f"{name}.tif").stat().st_mtime_ns for name in done}
    of.run.cancel()
    assert of.run.state == "stopping"
    with pytest.raises(InputError, match="under way"):
        of.run.start()
    session.runner.settle()
    assert (of.run.state, of.run.can_resume) == ("idle", True)
    assert of.run.status == "Stopped: 2 of 4 images have a result."
    assert len(done) == 2
    assert not session.project.recipe.exists()
    whole(of)
    assert len(made(of)) == COUNT
    assert stamps == {n: (results(of) / f"{n}.tif").stat().st_mtime_ns for n in done}
    assert of.run.status.startswith("2 images done, 2 had a result.")
    assert not of.run.can_resume
    assert len(load_recipe(session.project.recipe).steps[0].inputs["images"]) == COUNT


def test_image_that_was_being_done_at_the_cancel_is_counted_by_its_file(of, session):
    job = begin(of, 1)
    of.run.cancel()
    job.cancelled = False  # its step was on its way
    job.advance()
    assert len(of.run.finished) == 1
    assert of.run.status.startswith("Stopping")
    job.cancelled = True
    session.runner.settle()
    assert "2 of 4" in of.run.status


def test_bad_images_are_named_with_the_reason_and_the_rest_is_done(of, session, tmp_path):
    folder = tmp_path / "more"
    for i, side in enumerate((40, 64)):
        write_image(folder / f"q{i}.png", scene(i, (side, side + 8))[0])
    (folder / "bad.png").write_bytes(b"no image")
    of.run.choose(folder)
    whole(of)
    assert made(of) == ["q0", "q1"]
    assert list(of.run.failures) == ["bad"]
    assert of.run.failures["bad"].startswith("bad.png: ")
    assert "1 failed" in of.run.status
    assert tifffile.imread(results(of) / "q1.tif").shape == (64, 72)  # sizes differ
    of.open_folder_image("q1")
    session.runner.settle()
    assert of.folder_image.image.shape == (64, 72, 3)
    np.testing.assert_array_equal(of.folder_image.labels, tifffile.imread(results(of) / "q1.tif"))
    assert trusted_files.allows(folder / "q1.png", session.project.folder)  # Review may show it


def test_several_images_of_one_file_are_done_and_shown_each(of, session, tmp_path):
    several(tmp_path / "more" / "q.tif")
    of.run.choose(tmp_path / "more")
    whole(of)
    assert made(of) == ["q[s0]", "q[s1]"]
    of.open_folder_image("q[s1]")
    session.runner.settle()
    assert of.folder_image.image.shape == (64, 72, 3)
    np.testing.assert_array_equal(
        of.folder_image.labels, tifffile.imread(results(of) / "q[s1].tif")
    )


def several(path):
    """A file with two images of different sizes."""
    path.parent.mkdir(parents=True)
    with tifffile.TiffWriter(path) as file:
        for i, side in enumerate((40, 64)):
            file.write(scene(i, (side, side + 8))[0], photometric="rgb", metadata=None)


def stamps(of):
    return {p.stem: p.stat().st_mtime_ns for p in results(of).glob("*.tif")}


def test_several_images_of_one_file_are_done_again_with_other_settings(of, session, tmp_path):
    several(tmp_path / "more" / "q.tif")
    of.run.choose(tmp_path / "more")
    whole(of)
    of.change(SegmentSettings(min_score=0.9), LOW)
    whole(of)
    assert "Do again what has a result" in of.run.status
    of.run.again(True)
    whole(of)
    assert of.run.status.startswith("2 images done.")
    before = sorted(p.stem for p in (results(of) / "before").glob("*.tif"))
    assert before == ["q[s0]", "q[s1]"]


@pytest.mark.parametrize("verdict", ["accepted", "edited"])
def test_file_with_an_accepted_image_is_not_done_again(of, session, tmp_path, verdict):
    several(tmp_path / "more" / "q.tif")
    write_image(tmp_path / "more" / "p.png", scene(0)[0])
    of.run.choose(tmp_path / "more")
    whole(of)
    before = stamps(of)
    session.project.notes["review"] = {"opinions": {"q[s0]": {"verdict": verdict}}}
    of.run.again(True)
    whole(of)
    assert list(of.run.finished) == ["p"]
    assert {name for name, stamp in stamps(of).items() if stamp == before[name]} == {
        "q[s0]", "q[s1]",
    }  # fmt: skip


def test_stack_with_an_accepted_slice_is_not_done_again(of, session, tmp_path):
    (tmp_path / "more").mkdir()
    stack = np.stack([scene(i)[0] for i in range(2)])
    tifffile.imwrite(tmp_path / "more" / "q.tif", stack, photometric="rgb")
    of.run.choose(tmp_path / "more")
    whole(of)
    session.project.notes["review"] = {"opinions": {"q[1]": {"verdict": "accepted"}}}
    before = stamps(of)
    of.run.again(True)
    whole(of)
    assert "nothing is left" in of.run.status
    assert stamps(of) == before


def test_rest_of_a_file_is_done_beside_its_accepted_image(of, session, tmp_path):
    several(tmp_path / "more" / "q.tif")
    of.run.choose(tmp_path / "more")
    begin(of, 1)
    of.run.cancel()
    session.runner.settle()
    (results(of) / "q[s1].tif").unlink(missing_ok=True)
    assert made(of) == ["q[s0]"]
    before = stamps(of)
    session.project.notes["review"] = {"opinions": {"q[s0]": {"verdict": "accepted"}}}
    whole(of)
    assert list(of.run.finished) == ["q[s1]"]
    assert stamps(of)["q[s0]"] == before["q[s0]"]


def test_stopped_run_counts_images_not_files(of, session, tmp_path):
    several(tmp_path / "more" / "q.tif")
    of.run.choose(tmp_path / "more")
    job = begin(of, 1)
    job.advance()
    of.run.cancel()
    session.runner.settle()
    assert "2 of 2" in of.run.status


def test_one_of_several_images_of_another_file_of_that_name_is_refused(of, session, tmp_path):
    for folder in ("one", "two"):
        several(tmp_path / folder / "q.tif")
        of.run.choose(tmp_path / folder)
        whole(of)
    assert "another image" in of.run.status


def test_image_of_another_folder_with_a_name_that_is_taken_is_refused(of, session, tmp_path):
    for folder in ("one", "two"):
        write_image(tmp_path / folder / "p.png", scene(0)[0])
        of.run.choose(tmp_path / folder)
        whole(of)
    assert "another image of that name" in str(session.runner.errors[-1])


def test_rate_and_time_left_are_told(of, session):
    begin(of, 3)
    progress = of.run.progress
    assert (progress.done, progress.total) == (3, COUNT)
    assert progress.rate > 0
    assert progress.left_s == pytest.approx(1 / progress.rate)
    assert of.run.status.startswith("3 of 4")
    assert of.run.status.endswith(" left")


# --- results and edits


def test_shown_slice_gets_its_labels_while_the_run_goes_on(of, session):
    of.change(SegmentSettings(), LOW)
    session.scheduler.show(session.pixels, (1,))
    assert of.store.stack[1].max() == 0
    assert not of.store.any_here
    begin(of, 2)
    file = results(of) / "cells[1].tif"
    assert of.store.stack[1].max() > 0
    assert of.store.any_here
    np.testing.assert_array_equal(of.store.stack[1], tifffile.imread(file))
    np.testing.assert_array_equal(of.store.stack[0], tifffile.imread(results(of) / "cells[0].tif"))


def test_only_results_of_the_shown_slice_draw_it_anew(of, session):
    session.scheduler.show(session.pixels, (2,))
    of.heard.clear()
    begin(of, 2)
    assert of.heard.count("slice") == 1  # the first: its layer comes
    while len(of.run.finished) < COUNT:
        session.runner.jobs[-1].advance()
    assert of.heard.count("slice") == 2


def test_large_labels_are_read_in_a_job(of, session, monkeypatch):
    of.change(SegmentSettings(), LOW)
    whole(of)
    session.scheduler.show(session.pixels, (1,))
    monkeypatch.setattr(lazy_labels, "LARGE_PX", 100)
    session.events.image.emit()
    assert of.store.stack[1].max() == 0
    of.heard.clear()
    session.runner.settle()
    assert of.heard.count("slice") == 1
    file = results(of) / "cells[1].tif"
    np.testing.assert_array_equal(of.store.stack[1], tifffile.imread(file))
    assert not session.runner.jobs


def test_what_was_painted_survives_every_run_and_session(of, session):
    whole(of)
    ours = digest(results(of) / "cells[2].tif")
    place = (np.array([2, 2]), np.array([3, 4]), np.array([5, 5]))  # as napari's brush gives it
    of.store.stack[place] = 77
    assert "painted" in of.heard
    of.store.keep()
    session.runner.settle()
    assert not of.store.stack.painted
    assert digest(results(of) / "cells[2].tif") == ours
    session.scheduler.show(session.pixels, (2,))
    of.run.again(True)
    whole(of)
    assert list(of.run.finished) == ["cells[0]", "cells[1]", "cells[3]"]
    assert of.store.stack[2, 3, 5] == 77
    assert digest(results(of) / "cells[2].tif") == ours
    session.events.image.emit()  # the layer is opened anew
    assert of.store.stack[2, 4, 5] == 77


def test_painting_on_a_slice_that_a_run_is_about_to_do_is_kept(of, session):
    session.scheduler.show(session.pixels, (3,))
    job = begin(of, 1)
    of.store.stack[3, 10, 10] = 5
    while job in session.runner.jobs:
        job.advance()
    assert of.store.stack[3, 10, 10] == 5
    of.close()  # the session ends before it was written
    assert tifffile.imread(results(of) / "edits" / "cells[3].tif")[10, 10] == 5


def test_accepted_images_are_passed_over(of, session):
    whole(of)
    stamp = (results(of) / "cells[1].tif").stat().st_mtime_ns
    judged = {"cells[1]": {"verdict": "accepted"}, "cells[2]": {"verdict": "rejected"}}
    session.project.notes["review"] = {"opinions": judged}
    of.run.again(True)
    whole(of)
    assert list(of.run.finished) == ["cells[0]", "cells[2]", "cells[3]"]
    assert "Accepted or edited, so left as they are: 1 image." in of.run.status
    assert (results(of) / "cells[1].tif").stat().st_mtime_ns == stamp
    judged |= {f"cells[{i}]": {"verdict": "edited"} for i in (0, 2, 3)}
    whole(of)
    assert "nothing is left" in of.run.status


def test_doing_all_again_can_be_stopped_and_resumed(of, session):
    whole(of)
    of.run.again(True)
    begin(of, 1)
    of.run.cancel()
    session.runner.settle()
    assert made(of) == ["cells[0]"]
    assert len(list((results(of) / "before").glob("*.tif"))) == COUNT
    assert not of.run.anew  # else the first would be done a third time
    whole(of)
    assert list(of.run.finished) == ["cells[1]", "cells[2]", "cells[3]"]


def test_another_project_in_the_middle_of_a_run_gets_nothing_of_it(of, session, tmp_path):
    of.change(SegmentSettings(), LOW)
    job = begin(of, 1)
    before = results(of)
    session.scheduler.autosaver.begin_project(Project.create(tmp_path / "other"))
    assert of.run.state == "stopping"
    job.cancelled = False  # a step was on its way
    job.advance()
    job.cancelled = True
    session.runner.settle()
    assert not results(of).exists()
    assert of.store.stack[1].max() == 0
    assert (of.run.state, of.run.finished, of.run.can_resume) == ("idle", {}, False)
    assert len(list(before.glob("*.tif"))) == 2


def test_closing_leaves_no_listener_and_no_job(of, session):
    begin(of, 1)
    of.close()
    session.runner.settle()
    assert not is_heard(session.events)
    assert not session.runner.jobs
    assert len(made(of)) == 1

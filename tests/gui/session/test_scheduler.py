"""Between state and jobs, run without threads and without Qt."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from discs import Discs, Inline
from lab import listen

from napari_samic.core.errors import InputError, OutputError
from napari_samic.gui.data import autosave, recovery
from napari_samic.gui.data.layer_pixels import LayerPixels
from napari_samic.gui.data.project import Project
from napari_samic.gui.session import jobs
from napari_samic.gui.session.scheduler import PromptScheduler
from napari_samic.gui.state.classes import ClassStyle
from napari_samic.io.prompts import load_prompts


def layer(data, name="cells", rgb=False, multiscale=False, path=None):
    source = SimpleNamespace(path=path)
    return SimpleNamespace(data=data, name=name, rgb=rgb, multiscale=multiscale, source=source)


def pixels(shape=(4, 32, 40), name="cells"):
    return LayerPixels([layer(np.random.default_rng(0).integers(0, 255, shape, np.uint8), name)])


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))


@pytest.fixture
def scheduler(monkeypatch):
    made = {"discs": Discs(), "others": Discs("others", radius=8)}

    def open_model(name):
        yield jobs.JobProgress(0, 0)
        if name not in made:
            raise InputError(f"{name}: no weights.")
        return made[name]

    monkeypatch.setattr(jobs, "open_model", open_model)
    scheduler = PromptScheduler(Inline())
    scheduler.made = made
    yield scheduler
    scheduler.close()


def ready(scheduler, where=(1,)):
    scheduler.choose_model("discs")
    scheduler.show(pixels(), where)
    scheduler.prepare()
    scheduler.runner.settle()


def test_click_before_the_model_is_there_is_answered_once_it_is(scheduler):
    scheduler.show(pixels(), (1,))
    scheduler.state.add_point(10, 12)
    scheduler.runner.settle()
    assert scheduler.state.annotation.item().answer is None
    scheduler.choose_model("discs")
    scheduler.runner.settle()
    assert scheduler.state.annotation.labels()[10, 12] == 1
    assert scheduler.status.startswith("Ready: discs")


def test_first_mask_comes_before_the_candidates(scheduler):
    ready(scheduler)
    scheduler.state.add_point(10, 12)
    told = listen(scheduler.events)
    job = scheduler.runner.jobs[-1]
    job.advance()
    assert told == ["answered"]  # it is drawn at once
    assert len(scheduler.state.annotation.item().answer.masks) == 1
    assert scheduler.state.is_waiting
    scheduler.runner.settle()
    assert len(scheduler.state.annotation.item().answer.masks) == 4


def test_network_whose_single_mask_is_its_first_candidate_is_asked_once(scheduler):
    model = scheduler.made["discs"]
    model.single_is_first, passes = True, []
    answer = model.candidates
    model.candidates = lambda *a, **k: passes.append(k["multimask"]) or answer(*a, **k)
    ready(scheduler)
    scheduler.state.add_point(10, 12)
    scheduler.runner.settle()
    assert passes == [True]
    assert len(scheduler.state.annotation.item().answer.masks) == 3
    assert not scheduler.state.is_waiting


def test_a_question_on_an_encoded_image_is_told_when_it_begins_and_when_it_is_painted(scheduler):
    scheduler.made["discs"].precompute = lambda image: None
    ready(scheduler)
    told = listen(scheduler.events, scheduler.state.events)
    scheduler.state.add_point(10, 12)
    scheduler.runner.settle()
    kept = [what for what in told if what in ("requested", "answer", "answered")]
    assert kept[0] == "requested"
    assert kept[-2:] == ["answer", "answered"]


def test_a_question_that_waits_for_the_encoder_keeps_nothing_still(scheduler):
    scheduler.made["discs"].precompute = lambda image: None
    told = listen(scheduler.events)
    ready(scheduler)
    scheduler.show(scheduler.pixels, (0,))
    scheduler.state.add_point(10, 12)
    scheduler.runner.settle()
    assert "asked" not in told
    assert "answered" in told


def test_fast_clicks_are_not_all_asked_only_the_newest(scheduler):
    ready(scheduler)
    for column in (5, 10, 15, 20):
        scheduler.state.add_point(10, column)
    scheduler.runner.settle()
    assert [len(p.points_rc) for p in scheduler.made["discs"].asked] == [1, 4]
    assert scheduler.state.annotation.labels()[10, 20] == 1


def test_shown_slice_is_encoded_first_then_the_next_two(scheduler):
    seen = []
    scheduler.made["discs"].precompute = lambda image: seen.append(image[..., 0].copy())
    ready(scheduler, (1,))
    stack = scheduler.pixels
    assert [stack.label(i) for i in [(1,), *stack.after((1,))]] == [
        "cells[1]", "cells[2]", "cells[3]",
    ]  # fmt: skip
    assert len(seen) == 3
    np.testing.assert_array_equal(seen[0], stack.image((1,))[..., 0])


def test_click_stops_encoding_ahead_which_goes_on_later(scheduler):
    ready(scheduler)
    scheduler.show(scheduler.pixels, (0,))
    seen = []
    scheduler.made["discs"].precompute = lambda image: seen.append(True)
    scheduler.prepare()
    (ahead,) = scheduler.runner.jobs
    ahead.advance()
    scheduler.state.add_point(10, 12)
    assert ahead.cancelled
    scheduler.runner.settle()
    assert seen == [True]
    assert scheduler.state.annotation.labels()[10, 12] == 1


def test_what_was_read_is_noted_for_the_prompt_file(scheduler):
    ready(scheduler)
    assert len(scheduler.state.annotation.sha256) == 64
    assert scheduler.state.annotation.normalization["channels"] == [0]


def test_what_was_read_ahead_is_noted_once_the_slice_is_shown(scheduler):
    ready(scheduler)
    scheduler.show(scheduler.pixels, (2,))
    assert len(scheduler.state.annotation.sha256) == 64
    assert scheduler.state.annotation.normalization["channels"] == [0]


def test_answer_for_a_slice_that_was_left_is_dropped(scheduler):
    ready(scheduler)
    scheduler.state.add_point(10, 12)
    scheduler.runner.jobs[-1].advance()
    scheduler.state.add_point(20, 12)
    scheduler.show(scheduler.pixels, (2,))
    scheduler.runner.settle()
    assert not scheduler.state.annotation.items
    scheduler.show(scheduler.pixels, (1,))
    scheduler.runner.settle()
    assert scheduler.state.annotation.labels()[20, 12] == 1


def test_changing_the_model_keeps_prompts_and_asks_anew(scheduler):
    ready(scheduler)
    scheduler.state.add_point(16, 20)
    scheduler.runner.settle()
    before = (scheduler.state.annotation.labels() == 1).sum()
    scheduler.choose_model("others")
    scheduler.runner.settle()
    assert (scheduler.state.annotation.labels() == 1).sum() > before
    assert scheduler.state.annotation.item().points == ((16, 20, True),)


def test_model_that_can_not_be_loaded_leaves_the_one_before(scheduler):
    ready(scheduler)
    scheduler.choose_model("vit_h")
    scheduler.runner.settle()
    assert isinstance(scheduler.runner.errors[0], InputError)
    assert "discs answers" in scheduler.status
    scheduler.state.add_point(10, 12)
    scheduler.runner.settle()
    assert scheduler.state.annotation.labels()[10, 12] == 1


def test_model_that_fails_at_a_click_ends_the_waiting(scheduler):
    ready(scheduler)
    scheduler.segmenter.candidates = lambda *_, **__: 1 / 0
    scheduler.state.add_point(10, 12)
    scheduler.runner.settle()
    assert not scheduler.state.is_waiting
    assert isinstance(scheduler.runner.errors[0], ZeroDivisionError)


def test_leaving_the_image_keeps_what_was_annotated(scheduler):
    ready(scheduler)
    scheduler.state.add_point(10, 12)
    scheduler.leave()
    scheduler.runner.settle()
    assert scheduler.state.annotation is None
    assert scheduler.state.annotations["cells[1]"].items


def test_hint_follows_the_slice_and_goes(scheduler):
    ready(scheduler)
    scheduler.show_hint(True)
    scheduler.runner.settle()
    assert scheduler.hint.picture.shape == (32, 40, 3)
    assert scheduler.hint.point_rc is not None
    scheduler.show_hint(False)
    assert scheduler.hint is None


# --- saving


def test_each_change_is_in_the_recovery_file(scheduler):
    ready(scheduler)
    scheduler.state.add_point(10, 12)
    scheduler.runner.settle()
    scheduler.state.add_point(11, 13, False)
    scheduler.runner.settle()
    (image,) = load_prompts(scheduler.autosaver.recovery).images
    assert image.name == "cells[1]"
    assert image.objects[0].is_foreground.tolist() == [True, False]


def test_unsaved_prompts_are_offered_to_the_next_session_and_come_back(scheduler):
    ready(scheduler)
    scheduler.state.add_point(10, 12)
    scheduler.runner.settle()
    assert recovery.leftovers() == []
    scheduler.close()
    (left,) = recovery.leftovers()
    other = PromptScheduler(Inline())
    other.autosaver.restore(left.path)
    other.runner.settle()
    assert other.state.annotations["cells[1]"].items[0].points == ((10, 12, True),)
    assert not left.path.exists()
    assert other.autosaver.recovery.exists()
    other.close()


def test_saved_session_leaves_nothing_to_recover(scheduler, tmp_path):
    ready(scheduler)
    scheduler.state.add_point(10, 12)
    scheduler.runner.settle()
    scheduler.autosaver.save(tmp_path / "out")
    scheduler.runner.settle()
    scheduler.close()
    assert recovery.leftovers() == []
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "cells[1]_labels.tif", "prompts.json",
    ]  # fmt: skip


def test_file_of_a_running_process_is_not_offered(tmp_path):
    folder = recovery.folder()
    folder.mkdir(parents=True)
    (folder / f"{os.getppid()}-00000000.prompts.json").write_text("{}")
    (folder / "999999999-00000000.prompts.json").write_text("{}")
    assert [left.path.name[:9] for left in recovery.leftovers()] == ["999999999"]


def test_save_replaces_nothing(scheduler, tmp_path):
    ready(scheduler)
    scheduler.state.add_point(10, 12)
    scheduler.runner.settle()
    (tmp_path / "prompts.json").write_text("mine")
    scheduler.autosaver.save(tmp_path)
    scheduler.runner.settle()
    assert isinstance(scheduler.runner.errors[0], OutputError)
    assert (tmp_path / "prompts.json").read_text() == "mine"
    assert not list(tmp_path.glob("*.tif"))


def test_nothing_to_save_is_said(scheduler, tmp_path):
    ready(scheduler)
    with pytest.raises(InputError, match="nothing is annotated yet"):
        scheduler.autosaver.save(tmp_path)


def test_project_is_saved_at_each_change_and_opened_again(scheduler, tmp_path):
    ready(scheduler)
    scheduler.autosaver.begin_project(Project.create(tmp_path / "project"))
    scheduler.state.add_point(10, 12)
    scheduler.state.use_as_reference(True)
    nucleus = scheduler.state.add_class("nucleus")
    scheduler.state.style_class(nucleus, color="#102030")
    scheduler.runner.settle()
    assert len(load_prompts(tmp_path / "project" / "prompts.json").images) == 1
    assert not scheduler.autosaver.unsaved
    scheduler.close()
    other = PromptScheduler(Inline())
    other.autosaver.open_project(Project.open(tmp_path / "project"))
    other.runner.settle()
    state = other.state
    assert state.annotations["cells[1]"].items
    assert state.annotations["cells[1]"].normalization == scheduler.state.annotation.normalization
    assert state.references == ("cells[1]",)
    assert state.classes.style(nucleus) == ClassStyle("nucleus", "#102030")
    assert autosave.model_of(other.autosaver.project.notes) == "discs"
    other.close()


def test_nothing_is_left_to_recover_once_a_project_has_the_prompts(scheduler, tmp_path):
    ready(scheduler)
    scheduler.state.add_point(10, 12)
    scheduler.runner.settle()
    assert scheduler.autosaver.recovery.exists()
    scheduler.autosaver.begin_project(Project.create(tmp_path / "project"))
    scheduler.runner.settle()
    assert not scheduler.autosaver.recovery.exists()
    scheduler.close()
    other = PromptScheduler(Inline())
    other.autosaver.open_project(Project.open(tmp_path / "project"))
    other.runner.settle()
    assert other.state.annotations
    assert not other.autosaver.recovery.exists()  # a session that is killed now lost nothing
    other.close()


def test_another_project_begins_without_what_the_first_one_has(scheduler, tmp_path):
    ready(scheduler)
    first, second = (Project.create(tmp_path / name) for name in ("first", "second"))
    scheduler.state.add_point(10, 12)
    scheduler.autosaver.begin_project(first)
    scheduler.runner.settle()
    scheduler.autosaver.begin_project(second)
    scheduler.runner.settle()
    assert not scheduler.state.annotation.items
    assert load_prompts(second.prompts_file).images == ()
    scheduler.state.add_point(20, 12)
    scheduler.runner.settle()
    scheduler.autosaver.open_project(Project.open(first.folder))
    scheduler.runner.settle()
    assert scheduler.state.annotation.items[0].points == ((10, 12, True),)
    assert load_prompts(second.prompts_file).images[0].objects[0].points_rc.tolist() == [[20, 12]]
    assert load_prompts(first.prompts_file).images[0].objects[0].points_rc.tolist() == [[10, 12]]


def test_prompts_that_no_project_has_are_not_lost_to_another(scheduler, tmp_path):
    project = Project.create(tmp_path / "project")
    ready(scheduler)
    scheduler.state.add_point(10, 12)
    scheduler.runner.settle()
    with pytest.raises(OutputError, match="prompts that were not saved"):
        scheduler.autosaver.open_project(project)
    assert scheduler.state.annotation.items


def test_last_click_is_in_the_project_when_the_window_closes_at_once(scheduler, tmp_path):
    ready(scheduler)
    project = Project.create(tmp_path / "project")
    scheduler.autosaver.begin_project(project)
    scheduler.state.add_point(10, 12)
    scheduler.close()
    assert len(load_prompts(project.prompts_file).images) == 1
    assert recovery.leftovers() == []


# --- pixels


def test_prompts_answer_to_the_stem_of_the_file():
    made = LayerPixels([layer(np.zeros((8, 9), np.uint8), "renamed", path="/data/a.ome.tif")])
    assert made.label(()) == "a"


@pytest.mark.parametrize(
    ("data", "rgb", "stack", "shape"),
    [
        pytest.param(np.zeros((8, 9), np.uint16), False, (), (8, 9), id="grey"),
        pytest.param(np.zeros((8, 9, 3), np.uint8), True, (), (8, 9), id="rgb"),
        pytest.param(np.zeros((5, 8, 9, 4), np.uint8), True, (5,), (8, 9), id="rgba_stack"),
        pytest.param(np.zeros((2, 5, 8, 9)), False, (2, 5), (8, 9), id="time_and_depth"),
    ],
)
def test_every_kind_of_layer_gives_rgb(data, rgb, stack, shape):
    made = LayerPixels([layer(data, rgb=rgb)])
    assert (made.stack_shape, made.shape) == (stack, shape)
    image = made.image((0,) * len(stack))
    assert (image.shape, image.dtype) == ((*shape, 3), np.uint8)


def test_channels_become_red_green_and_blue():
    parts = [layer(np.full((3, 8, 9), v, np.uint8)) for v in (1, 2)]
    parts[0].data[:, 0, 0] = 9
    image = LayerPixels(parts).image((0,))
    assert image[0, 0].tolist() == [255, 0, 0]


def test_channels_of_other_shapes_are_refused():
    with pytest.raises(InputError, match="channels of different shapes"):
        LayerPixels([layer(np.zeros((8, 9))), layer(np.zeros((8, 8)))])


def test_multiscale_takes_the_finest_level_that_is_not_huge():
    levels = [np.broadcast_to(np.uint8(0), (n, n)) for n in (16384, 4096, 1024)]
    made = LayerPixels([layer(levels, multiscale=True)])
    assert (made.shape, made.factor) == ((4096, 4096), 4.0)


def test_only_the_wanted_slices_are_read():
    class Lazy:
        shape, dtype, ndim = (500, 8, 9), np.dtype("uint8"), 3

        def __init__(self):
            self.read = []

        def __getitem__(self, index):
            self.read.append(index)
            return np.arange(72, dtype=np.uint8).reshape(8, 9)

    lazy = Lazy()
    made = LayerPixels([layer(lazy)])
    assert lazy.read == []
    made.image((7,))
    made.image((7,))
    assert len(lazy.read) == 8 + 1  # the sample of the normalisation, and the slice, once

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
def desk(monkeypatch):
    made = {"discs": Discs(), "others": Discs("others", radius=8)}

    def open_model(name):
        yield jobs.JobProgress(0, 0)
        if name not in made:
            raise InputError(f"{name}: no weights.")
        return made[name]

    monkeypatch.setattr(jobs, "open_model", open_model)
    desk = PromptScheduler(Inline())
    desk.made = made
    yield desk
    desk.close()


def ready(desk, where=(1,)):
    desk.choose_model("discs")
    desk.show(pixels(), where)
    desk.look()
    desk.runner.settle()


def test_click_before_the_model_is_there_is_answered_once_it_is(desk):
    desk.show(pixels(), (1,))
    desk.state.add_point(10, 12)
    desk.runner.settle()
    assert desk.state.page.item().answer is None
    desk.choose_model("discs")
    desk.runner.settle()
    assert desk.state.page.labels()[10, 12] == 1
    assert desk.status.startswith("Ready: discs")


def test_first_mask_comes_before_the_candidates(desk):
    ready(desk)
    desk.state.add_point(10, 12)
    told = listen(desk.events)
    job = desk.runner.jobs[-1]
    job.advance()
    assert told == ["answered"]  # it is drawn at once
    assert len(desk.state.page.item().answer.masks) == 1
    assert desk.state.is_waiting
    desk.runner.settle()
    assert len(desk.state.page.item().answer.masks) == 4


def test_network_whose_single_mask_is_its_first_candidate_is_asked_once(desk):
    model = desk.made["discs"]
    model.single_is_first, passes = True, []
    answer = model.candidates
    model.candidates = lambda *a, **k: passes.append(k["multimask"]) or answer(*a, **k)
    ready(desk)
    desk.state.add_point(10, 12)
    desk.runner.settle()
    assert passes == [True]
    assert len(desk.state.page.item().answer.masks) == 3
    assert not desk.state.is_waiting


def test_a_question_on_an_encoded_image_is_told_when_it_begins_and_when_it_is_painted(desk):
    desk.made["discs"].precompute = lambda image: None
    ready(desk)
    told = listen(desk.events, desk.state.events)
    desk.state.add_point(10, 12)
    desk.runner.settle()
    kept = [what for what in told if what in ("asked", "answer", "answered")]
    assert kept[0] == "asked"
    assert kept[-2:] == ["answer", "answered"]


def test_a_question_that_waits_for_the_encoder_keeps_nothing_still(desk):
    desk.made["discs"].precompute = lambda image: None
    told = listen(desk.events)
    ready(desk)
    desk.show(desk.pixels, (3,))
    desk._seen.clear()
    desk.state.add_point(10, 12)
    desk.runner.settle()
    assert "asked" not in told
    assert "answered" in told


def test_fast_clicks_are_not_all_asked_only_the_newest(desk):
    ready(desk)
    for column in (5, 10, 15, 20):
        desk.state.add_point(10, column)
    desk.runner.settle()
    assert [len(p.points_rc) for p in desk.made["discs"].asked] == [1, 4]
    assert desk.state.page.labels()[10, 20] == 1


def test_shown_slice_is_encoded_first_then_the_next_two(desk):
    seen = []
    desk.made["discs"].precompute = lambda image: seen.append(image[..., 0].copy())
    ready(desk, (1,))
    stack = desk.pixels
    assert [stack.label(i) for i in [(1,), *stack.after((1,))]] == [
        "cells[1]", "cells[2]", "cells[3]",
    ]  # fmt: skip
    assert len(seen) == 3
    np.testing.assert_array_equal(seen[0], stack.image((1,))[..., 0])


def test_click_stops_encoding_ahead_which_goes_on_later(desk):
    ready(desk)
    desk.show(desk.pixels, (0,))
    seen = []
    desk.made["discs"].precompute = lambda image: seen.append(True)
    desk.look()
    (ahead,) = desk.runner.jobs
    ahead.advance()
    desk.state.add_point(10, 12)
    assert ahead.cancelled
    desk.runner.settle()
    assert seen == [True]
    assert desk.state.page.labels()[10, 12] == 1


def test_what_was_read_is_noted_for_the_prompt_file(desk):
    ready(desk)
    assert len(desk.state.page.sha256) == 64
    assert desk.state.page.normalization["channels"] == [0]


def test_what_was_read_ahead_is_noted_once_the_slice_is_shown(desk):
    ready(desk)
    desk.show(desk.pixels, (2,))
    assert len(desk.state.page.sha256) == 64
    assert desk.state.page.normalization["channels"] == [0]


def test_answer_for_a_slice_that_was_left_is_dropped(desk):
    ready(desk)
    desk.state.add_point(10, 12)
    desk.runner.jobs[-1].advance()
    desk.state.add_point(20, 12)
    desk.show(desk.pixels, (2,))
    desk.runner.settle()
    assert not desk.state.page.items
    desk.show(desk.pixels, (1,))
    desk.runner.settle()
    assert desk.state.page.labels()[20, 12] == 1


def test_changing_the_model_keeps_prompts_and_asks_anew(desk):
    ready(desk)
    desk.state.add_point(16, 20)
    desk.runner.settle()
    before = (desk.state.page.labels() == 1).sum()
    desk.choose_model("others")
    desk.runner.settle()
    assert (desk.state.page.labels() == 1).sum() > before
    assert desk.state.page.item().points == ((16, 20, True),)


def test_model_that_can_not_be_loaded_leaves_the_one_before(desk):
    ready(desk)
    desk.choose_model("vit_h")
    desk.runner.settle()
    assert isinstance(desk.runner.errors[0], InputError)
    assert "discs answers" in desk.status
    desk.state.add_point(10, 12)
    desk.runner.settle()
    assert desk.state.page.labels()[10, 12] == 1


def test_model_that_fails_at_a_click_ends_the_waiting(desk):
    ready(desk)
    desk.segmenter.candidates = lambda *_, **__: 1 / 0
    desk.state.add_point(10, 12)
    desk.runner.settle()
    assert not desk.state.is_waiting
    assert isinstance(desk.runner.errors[0], ZeroDivisionError)


def test_leaving_the_image_keeps_what_was_annotated(desk):
    ready(desk)
    desk.state.add_point(10, 12)
    desk.leave()
    desk.runner.settle()
    assert desk.state.page is None
    assert desk.state.pages["cells[1]"].items


def test_hint_follows_the_slice_and_goes(desk):
    ready(desk)
    desk.show_hint(True)
    desk.runner.settle()
    assert desk.hint.picture.shape == (32, 40, 3)
    assert desk.hint.point_rc is not None
    desk.show_hint(False)
    assert desk.hint is None


# --- saving


def test_each_change_is_in_the_recovery_file(desk):
    ready(desk)
    desk.state.add_point(10, 12)
    desk.runner.settle()
    desk.state.add_point(11, 13, False)
    desk.runner.settle()
    (image,) = load_prompts(desk.keeper.recovery).images
    assert image.name == "cells[1]"
    assert image.objects[0].is_foreground.tolist() == [True, False]


def test_unsaved_prompts_are_offered_to_the_next_session_and_come_back(desk):
    ready(desk)
    desk.state.add_point(10, 12)
    desk.runner.settle()
    assert recovery.leftovers() == []
    desk.close()
    (left,) = recovery.leftovers()
    other = PromptScheduler(Inline())
    other.keeper.restore(left.path)
    other.runner.settle()
    assert other.state.pages["cells[1]"].items[0].points == ((10, 12, True),)
    assert not left.path.exists()
    assert other.keeper.recovery.exists()
    other.close()


def test_saved_session_leaves_nothing_to_recover(desk, tmp_path):
    ready(desk)
    desk.state.add_point(10, 12)
    desk.runner.settle()
    desk.keeper.save(tmp_path / "out")
    desk.runner.settle()
    desk.close()
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


def test_save_replaces_nothing(desk, tmp_path):
    ready(desk)
    desk.state.add_point(10, 12)
    desk.runner.settle()
    (tmp_path / "prompts.json").write_text("mine")
    desk.keeper.save(tmp_path)
    desk.runner.settle()
    assert isinstance(desk.runner.errors[0], OutputError)
    assert (tmp_path / "prompts.json").read_text() == "mine"
    assert not list(tmp_path.glob("*.tif"))


def test_nothing_to_save_is_said(desk, tmp_path):
    ready(desk)
    with pytest.raises(InputError, match="nothing is annotated yet"):
        desk.keeper.save(tmp_path)


def test_project_is_saved_at_each_change_and_opened_again(desk, tmp_path):
    ready(desk)
    desk.keeper.begin_project(Project.create(tmp_path / "project"))
    desk.state.add_point(10, 12)
    desk.state.use_as_reference(True)
    nucleus = desk.state.add_class("nucleus")
    desk.state.style_class(nucleus, colour="#102030")
    desk.runner.settle()
    assert len(load_prompts(tmp_path / "project" / "prompts.json").images) == 1
    assert not desk.keeper.unsaved
    other = PromptScheduler(Inline())
    other.keeper.open_project(Project.open(tmp_path / "project"))
    other.runner.settle()
    state = other.state
    assert state.pages["cells[1]"].items
    assert state.pages["cells[1]"].normalization == desk.state.page.normalization
    assert state.references == ("cells[1]",)
    assert state.classes.style(nucleus) == ClassStyle("nucleus", "#102030")
    assert autosave.model_of(other.keeper.project.notes) == "discs"
    other.close()


def test_another_project_begins_without_what_the_first_one_has(desk, tmp_path):
    ready(desk)
    first, second = (Project.create(tmp_path / name) for name in ("first", "second"))
    desk.state.add_point(10, 12)
    desk.keeper.begin_project(first)
    desk.runner.settle()
    desk.keeper.begin_project(second)
    desk.runner.settle()
    assert not desk.state.page.items
    assert load_prompts(second.prompts_file).images == ()
    desk.state.add_point(20, 12)
    desk.runner.settle()
    desk.keeper.open_project(Project.open(first.folder))
    desk.runner.settle()
    assert desk.state.page.items[0].points == ((10, 12, True),)
    assert load_prompts(second.prompts_file).images[0].objects[0].points_rc.tolist() == [[20, 12]]
    assert load_prompts(first.prompts_file).images[0].objects[0].points_rc.tolist() == [[10, 12]]


def test_prompts_that_no_project_has_are_not_lost_to_another(desk, tmp_path):
    project = Project.create(tmp_path / "project")
    ready(desk)
    desk.state.add_point(10, 12)
    desk.runner.settle()
    with pytest.raises(OutputError, match="prompts that were not saved"):
        desk.keeper.open_project(project)
    assert desk.state.page.items


def test_last_click_is_in_the_project_when_the_window_closes_at_once(desk, tmp_path):
    ready(desk)
    project = Project.create(tmp_path / "project")
    desk.keeper.begin_project(project)
    desk.state.add_point(10, 12)
    desk.close()
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

"""The state of Annotate and its actions, without Qt, threads or models."""

import numpy as np
import pytest
from discs import Discs
from lab import listen

from napari_samic.core.errors import InputError, SettingsError
from napari_samic.gui.data import prompts_io
from napari_samic.gui.state.annotator import AnnotationModel
from napari_samic.gui.state.objects import MaskCandidates
from napari_samic.io.prompts import load_prompts, save_prompts

SHAPE = (40, 50)
IMAGE = np.zeros((*SHAPE, 3), np.uint8)


class Desk:
    """The port: keeps questions until `answer`; a clock that is set by hand."""

    def __init__(self):
        self.questions, self.now = [], 0.0
        self.state = AnnotationModel(self.questions.append, clock=lambda: self.now)
        self.state.set_model("discs")
        self.state.open_image("a", SHAPE)
        self.told = listen(self.state.events)

    def answer(self, request=None, segmenter=None):
        request = request or self.questions.pop(0)
        segmenter = segmenter or Discs()
        answer = MaskCandidates.of(
            segmenter.candidates(IMAGE, [request.prompts], multimask=False)[0], request.model
        )
        for multi in segmenter.candidates(IMAGE, [request.prompts]):
            answer = answer.plus(multi)
        return self.state.receive(request, answer)

    def settle(self):
        while self.questions:
            self.answer()

    def click(self, row, column, positive=True):
        self.state.add_point(row, column, positive)
        self.settle()

    @property
    def item(self):
        return self.state.annotation.item()

    @property
    def labels(self):
        return self.state.annotation.labels()


@pytest.fixture
def desk():
    return Desk()


def test_click_asks_and_its_answer_becomes_the_mask(desk):
    desk.state.add_point(10, 12)
    (request,) = desk.questions
    assert (request.image_name, request.number, request.model) == ("a", 1, "discs")
    np.testing.assert_array_equal(request.prompts.points_rc, [[10, 12]])
    assert desk.labels.max() == 0
    assert desk.answer()
    assert desk.labels[10, 12] == 1
    assert desk.item.score == pytest.approx(0.6)


def test_late_answer_to_an_older_click_is_dropped(desk):
    desk.state.add_point(10, 12)
    desk.state.add_point(30, 40)
    older, newer = desk.questions
    assert not desk.answer(older)
    assert desk.item.answer is None
    assert desk.answer(newer)
    assert desk.labels[30, 40] == 1


def test_mask_of_the_earlier_clicks_stays_until_the_answer_comes(desk):
    desk.click(10, 12)
    desk.state.add_point(30, 40)
    assert desk.labels[10, 12] == 1
    assert desk.state.is_waiting
    desk.settle()
    assert not desk.state.is_waiting


def test_answer_of_the_model_before_is_dropped_and_prompts_are_asked_anew(desk):
    desk.state.add_point(10, 12)
    (old,) = desk.questions
    desk.questions.clear()
    desk.state.set_model("other")
    assert not desk.answer(old)
    (new,) = desk.questions
    assert new.model == "other"
    np.testing.assert_array_equal(new.prompts.points_rc, [[10, 12]])


def test_changing_the_model_keeps_prompts_and_starts_the_confidences_anew(desk):
    desk.click(10, 12)
    desk.click(12, 14)
    assert len(desk.item.scores) == 2
    desk.state.set_model("other")
    assert len(desk.item.points) == 2
    desk.settle()
    assert len(desk.item.scores) == 1
    assert desk.item.answer.model == "other"


def test_changing_the_image_drops_what_is_asked_and_asks_again_on_return(desk):
    desk.state.add_point(10, 12)
    (request,) = desk.questions
    desk.state.open_image("b", SHAPE)
    assert not desk.state.is_wanted(request)
    desk.questions.clear()
    desk.state.open_image("a", SHAPE)
    desk.settle()
    assert desk.labels[10, 12] == 1


def test_each_image_keeps_its_own_objects(desk):
    desk.click(10, 12)
    desk.state.open_image("b", SHAPE)
    assert desk.item is None
    desk.click(5, 5)
    desk.state.open_image("a", SHAPE)
    assert desk.item.points == ((10, 12, True),)


def test_objects_of_an_image_of_another_size_are_set_aside_not_lost(desk):
    desk.click(10, 12)
    desk.state.open_image("a", (20, 20))
    assert desk.item is None
    assert desk.state.annotations["a, 40 x 50"].items
    desk.click(5, 5)
    assert desk.labels.shape == (20, 20)
    desk.state.open_image("a", SHAPE)
    assert desk.item.points == ((10, 12, True),)
    assert sorted(desk.state.annotations) == ["a", "a, 20 x 20"]


def test_new_object_takes_the_next_click(desk):
    desk.click(10, 12)
    desk.state.new_object()
    desk.click(30, 40)
    assert [item.number for item in desk.state.annotation.items] == [1, 2]
    assert (desk.labels[10, 12], desk.labels[30, 40]) == (1, 2)


def test_new_object_twice_leaves_no_gap(desk):
    desk.click(10, 12)
    desk.state.new_object()
    desk.state.new_object()
    desk.click(30, 40)
    assert [item.number for item in desk.state.annotation.items] == [1, 2]


@pytest.mark.parametrize(
    ("by", "order"),
    [pytest.param(1, [1, 2, 3, 1], id="next"), pytest.param(-1, [2, 1, 3, 2], id="previous")],
)
def test_stepping_goes_round(desk, by, order):
    for place in ((5, 5), (15, 15), (25, 25)):
        desk.state.new_object()
        desk.click(*place)
    seen = []
    for _ in order:
        desk.state.step_object(by)
        seen.append(desk.state.annotation.current)
    assert seen == order


def test_deleted_object_comes_back_with_undo_and_its_number_is_not_given_again(desk):
    desk.click(10, 12)
    desk.state.new_object()
    desk.click(30, 40)
    desk.state.delete_object()
    assert desk.labels.max() == 1
    desk.state.new_object()
    desk.click(20, 20)
    assert desk.state.annotation.current == 3
    desk.state.undo()
    desk.state.undo()
    assert [item.number for item in desk.state.annotation.items] == [1, 2]
    assert desk.labels[30, 40] == 2


def test_undo_and_redo_run_through_all_levels_without_asking_again(desk):
    for column in range(5, 45, 4):
        desk.click(20, column)
    for left in range(9, -1, -1):
        desk.state.undo()
        assert len(desk.state.annotation.items and desk.item.points) == left
    assert not desk.state.annotation.items
    for _ in range(10):
        desk.state.redo()
    assert len(desk.item.points) == 10
    assert not desk.questions
    assert desk.labels[20, 41] == 1


def test_new_click_ends_redo(desk):
    desk.click(10, 12)
    desk.click(12, 12)
    desk.state.undo()
    desk.click(14, 12)
    desk.state.redo()
    assert desk.item.points == ((10, 12, True), (14, 12, True))


def test_undo_of_an_unanswered_click_asks_for_the_prompts_before(desk):
    desk.state.add_point(10, 12)
    desk.state.add_point(30, 40)
    desk.questions.clear()
    desk.state.undo()
    (request,) = desk.questions
    assert len(request.prompts.points_rc) == 1


def test_point_is_moved_and_removed(desk):
    desk.click(10, 12)
    desk.state.replace_points([(1, (30, 40, True))])
    desk.settle()
    assert desk.item.points == ((30, 40, True),)
    assert desk.labels[30, 40] == 1
    desk.state.replace_points([])
    assert desk.item is None
    assert desk.labels.max() == 0


def test_box_is_cut_at_the_edge_and_asked(desk):
    desk.state.replace_boxes([(1, (-5, 30, 10, 90))])
    desk.settle()
    assert desk.item.box == (-0.5, 30, 10, 49.5)
    assert desk.labels[5, 40] == 1


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda s: s.add_point(-3, 5), id="point"),
        pytest.param(lambda s: s.replace_boxes([(1, (50, 60, 70, 80))]), id="box"),
        pytest.param(lambda s: s.replace_points([(1, (5, 500, True))]), id="layer"),
    ],
)
def test_prompt_outside_the_image_is_left_out_with_a_word(desk, act):
    act(desk.state)
    assert not desk.state.annotation.items
    assert not desk.questions
    assert "outside the image" in desk.state.message or "inside the image" in desk.state.message


def test_only_negative_clicks_are_kept_but_not_asked(desk):
    desk.state.add_point(10, 12, False)
    assert desk.item.points == ((10, 12, False),)
    assert not desk.questions


def test_points_as_the_layer_has_them_are_one_step_of_undo(desk):
    desk.click(10, 12)
    desk.state.new_object()
    desk.click(30, 40)
    desk.state.replace_points([(1, (11, 12, True)), (2, (30, 40, True)), (2, (31, 30, False))])
    desk.settle()
    assert desk.state.annotation.item(1).points == ((11, 12, True),)
    assert len(desk.state.annotation.item(2).points) == 2
    desk.state.undo()
    assert desk.state.annotation.item(1).points == ((10, 12, True),)
    assert len(desk.state.annotation.item(2).points) == 1


def test_unchanged_points_of_the_layer_are_no_step(desk):
    desk.click(10, 12)
    steps = len(desk.state.annotation.past)
    desk.state.replace_points([(1, (10, 12, True))])
    assert len(desk.state.annotation.past) == steps
    assert not desk.questions


def test_second_box_of_an_object_is_of_the_next(desk):
    desk.state.replace_boxes([(1, (1, 1, 5, 5))])
    desk.state.replace_boxes([(1, (1, 1, 5, 5)), (1, (10, 10, 20, 20))])
    boxes = [item.box for item in desk.state.annotation.items]
    assert boxes == [(1, 1, 5, 5), (10, 10, 20, 20)]
    assert desk.item.number == 2
    desk.state.replace_boxes([])
    assert not desk.state.annotation.items


def test_confidence_is_steady_after_two_clicks_that_change_little(desk):
    seen = []
    for column in (10, 14, 18, 22, 26):
        desk.click(20, column)
        seen.append(desk.item.is_steady())
    assert seen == [False, False, False, False, True]  # 0.6 0.9 0.91 0.912 0.912


def test_masks_are_cycled_round(desk):
    desk.click(20, 20)
    areas = []
    for _ in range(5):
        areas.append(int((desk.labels == 1).sum()))
        desk.state.cycle_mask()
    assert areas[0] == areas[4]
    assert areas[1] < areas[2] < areas[3]


def test_chosen_mask_goes_back_to_the_first_at_the_next_click(desk):
    desk.click(20, 20)
    desk.state.cycle_mask()
    desk.click(22, 20)
    assert desk.item.choice == 0


def test_class_goes_to_the_object_and_to_new_ones_and_is_undone(desk):
    desk.click(10, 12)
    nucleus = desk.state.add_class("nucleus")
    desk.state.set_class(nucleus)
    desk.state.new_object()
    desk.click(30, 40)
    assert [item.label for item in desk.state.annotation.items] == [2, 2]
    desk.state.undo()
    desk.state.undo()
    assert desk.state.annotation.item(1).label == 1


def test_two_classes_can_not_share_a_name(desk):
    desk.state.add_class("nucleus")
    with pytest.raises(SettingsError, match="there is a class 'nucleus' already"):
        desk.state.style_class(1, name="nucleus")


def test_clicks_and_time_are_kept_for_each_object_and_undo_keeps_them(desk):
    desk.click(10, 12)
    for later, column in ((2, 14), (5, 16), (100, 18)):  # the last pause was a coffee
        desk.now += later
        desk.click(10, column)
    desk.state.undo()
    cost = desk.state.annotation.cost(1)
    assert cost.clicks == 4
    assert cost.seconds == pytest.approx(2 + 5 + 30)


def test_reference_counts_once_it_has_an_object(desk):
    desk.state.use_as_reference(True)
    assert desk.state.references == ()
    desk.click(10, 12)
    assert desk.state.references == ("a",)
    desk.state.use_as_reference(False)
    assert desk.state.references == ()


def test_mark_says_which_annotated_images_are_left_out(desk):
    desk.click(10, 12)
    desk.state.open_image("b", SHAPE)
    desk.click(10, 12)
    assert not desk.state.left_out  # none is marked: both are references
    desk.state.use_as_reference(True)
    assert "reference: a." in desk.state.message
    desk.state.open_image("a", SHAPE)
    desk.state.use_as_reference(True)
    assert not desk.state.message


def test_box_beside_the_clicks_of_an_object_is_of_the_next(desk):
    desk.click(10, 12)
    desk.state.replace_boxes([(1, (20, 20, 30, 30))])
    assert [(i.points, i.box) for i in desk.state.annotation.items] == [
        (((10, 12, True),), None),
        ((), (20, 20, 30, 30)),
    ]
    desk.state.undo()
    desk.state.replace_boxes([(1, (5, 5, 15, 20))])
    assert desk.item.box == (5, 5, 15, 20)
    desk.state.replace_boxes([(1, (20, 20, 30, 30))])  # dragging begins no object
    assert [i.box for i in desk.state.annotation.items] == [(20, 20, 30, 30)]


def test_failed_question_stops_the_waiting(desk):
    desk.state.add_point(10, 12)
    desk.state.refuse(desk.questions.pop())
    assert not desk.state.is_waiting
    assert desk.item.points


def test_prompt_file_takes_everything_and_gives_it_back(desk, tmp_path):
    desk.now = 1.0
    desk.click(10, 12)
    desk.state.add_class("nucleus")
    desk.state.new_object()
    desk.state.replace_boxes([(2, (20, 20, 30, 30))])
    desk.click(25, 25, False)
    save_prompts(tmp_path / "p.json", prompts_io.to_file(desk.state, all_items=True))
    other = Desk()
    assert prompts_io.take(other.state, load_prompts(tmp_path / "p.json")) == 1
    other.settle()
    assert other.state.annotation.items[0].points == ((10, 12, True),)
    assert other.state.annotation.items[1].box == (20, 20, 30, 30)
    assert other.state.annotation.items[1].label == 2
    assert other.state.classes.names == {1: "object", 2: "nucleus"}
    assert other.state.annotation.cost().clicks == 3
    assert other.item is None  # the next click is on no object of the file
    np.testing.assert_array_equal(other.labels, desk.labels)


def test_loading_replaces_what_is_there_and_undo_brings_it_back(desk):
    data = prompts_io.to_file(Desk().state, all_items=True)
    desk.click(10, 12)
    data = prompts_io.to_file(desk.state, all_items=True)
    desk.state.delete_object()
    desk.click(30, 40)
    prompts_io.take(desk.state, data)
    desk.settle()
    assert desk.labels[10, 12] > 0
    assert desk.labels[30, 40] == 0
    desk.state.undo()
    assert desk.labels[30, 40] > 0


def test_prompts_of_another_size_are_refused_and_nothing_is_taken(desk):
    other = Desk()
    other.state.annotations.clear()
    other.state.open_image("a", (8, 9))
    other.click(3, 3)
    with pytest.raises(InputError, match="a: 40 x 50 pixels here, its prompts were made on 8 x 9"):
        prompts_io.take(desk.state, prompts_io.to_file(other.state, all_items=True))
    assert not desk.state.annotation.items


def test_object_of_negative_clicks_is_recovered_but_not_given_to_models(desk):
    desk.click(10, 12, False)
    assert len(prompts_io.to_file(desk.state, all_items=True).images) == 1
    assert prompts_io.to_files(desk.state) == {}


def test_images_of_other_normalization_get_a_file_of_their_own(desk):
    desk.click(10, 12)
    desk.state.annotation.normalization = {"low": [0], "high": [9], "channels": [0]}
    desk.state.open_image("b", SHAPE)
    desk.click(10, 12)
    files = prompts_io.to_files(desk.state)
    assert [[i.name for i in f.images] for f in files.values()] == [["a"], ["b"]]
    assert list(files) == ["prompts", "prompts-2"]


def test_where_masks_overlap_the_surer_wins(desk):
    desk.click(20, 20)
    desk.click(20, 21)  # surer: two clicks
    desk.state.new_object()
    desk.click(20, 24)
    assert desk.labels[20, 22] == 1
    assert desk.labels[20, 28] == 2


def where(*rows_columns):
    out = np.zeros(SHAPE, bool)
    out[rows_columns] = True
    return out


def test_painted_pixels_are_taken_from_all_other_objects(desk):
    desk.click(10, 12)
    desk.state.new_object()
    desk.click(30, 40)
    desk.state.paint(2, where(slice(8, 12), slice(0, 50)))
    assert desk.labels[10, 12] == 2
    assert desk.labels[14, 12] == 1  # what is left of the disc
    first, second = desk.state.annotation.items
    assert first.drawn.full()[14, 12]
    assert first.points != ((10, 12, True),)  # it is on the other object now
    assert second.points == ((30, 40, True),)
    desk.state.undo()
    assert desk.labels[10, 12] == 1
    assert [item.drawn for item in desk.state.annotation.items] == [None, None]
    assert not desk.questions


def test_object_that_is_painted_over_is_gone_until_undo(desk):
    desk.click(10, 12)
    desk.state.paint(0, where(slice(0, 40), slice(0, 50)))
    assert not desk.state.annotation.items
    desk.state.undo()
    assert desk.labels[10, 12] == 1


def test_answer_that_comes_after_the_brush_is_dropped(desk):
    desk.state.add_point(10, 12)
    (request,) = desk.questions
    desk.state.paint(1, where(slice(20, 24), slice(20, 24)))
    assert not desk.answer(request)
    assert desk.labels[10, 12] == 0
    assert desk.labels[22, 22] == 1


def test_label_that_no_object_has_becomes_the_next_number(desk):
    desk.click(10, 12)
    desk.state.paint(1_000_000, where(slice(20, 24), slice(20, 24)))
    assert desk.labels[22, 22] == 2


def test_click_on_a_drawn_mask_asks_the_model_and_says_so(desk):
    desk.state.paint(1, where(slice(20, 24), slice(20, 30)))
    assert not desk.questions
    drawn = desk.labels
    desk.click(22, 25)
    assert "undo" in desk.state.message
    assert desk.item.drawn is None
    desk.state.undo()
    assert not desk.state.message
    desk.state.set_model("other")
    np.testing.assert_array_equal(desk.labels, drawn)
    assert not desk.questions  # no model is asked for what was drawn


@pytest.mark.parametrize("by", ["click", "layer", "box"])
def test_prompt_beside_a_drawn_mask_is_of_the_next_object(desk, by):
    desk.state.paint(1, where(slice(20, 24), slice(20, 30)))
    drawn = desk.labels
    if by == "click":
        desk.state.add_point(10, 12)
    elif by == "layer":
        desk.state.replace_points([*((1, p) for p in desk.item.points), (1, (10, 12, True))])
    else:
        desk.state.replace_boxes([(1, (8, 10, 12, 14))])
    desk.settle()
    assert [item.number for item in desk.state.annotation.items] == [1, 2]
    assert desk.labels[10, 12] == 2
    np.testing.assert_array_equal(desk.labels == 1, drawn == 1)


def test_box_around_a_drawn_mask_asks_the_model(desk):
    desk.state.paint(1, where(slice(20, 24), slice(20, 30)))
    desk.state.replace_boxes([(1, (18, 18, 26, 32))])
    assert [item.drawn for item in desk.state.annotation.items] == [None]


def test_drawn_masks_are_saved_with_the_prompts(desk, tmp_path):
    desk.click(10, 12)
    desk.state.paint(2, where(slice(20, 24), slice(20, 30)))
    save_prompts(tmp_path / "p.json", prompts_io.to_file(desk.state, all_items=True))
    other = Desk()
    prompts_io.take(other.state, load_prompts(tmp_path / "p.json"))
    other.settle()
    np.testing.assert_array_equal(other.labels, desk.labels)
    assert [item.drawn is None for item in other.state.annotation.items] == [True, False]


def test_one_click_an_object_needs_no_key_between(desk):
    state = desk.state
    state.one_click = True
    rows = [(1, (5, 5, True))]
    state.replace_points(rows)
    rows += [(state.annotation.current, (20, 20, True))]  # as the layer has it: of the current one
    state.replace_points(rows)
    rows = [(i.number, p) for i in state.annotation.items for p in i.points]
    rows += [(state.annotation.current, (22, 22, False))]  # this one is corrected
    state.replace_points(rows)
    corners = (30.0, 30.0, 36.0, 40.0), (30.0, 2.0, 36.0, 12.0)
    for count in (1, 2):
        listed = [(i.number, i.box) for i in state.annotation.items if i.box is not None]
        state.replace_boxes([*listed, (state.annotation.current, corners[count - 1])])
    assert [(i.points, i.box) for i in state.annotation.items] == [
        (((5, 5, True),), None),
        (((20, 20, True), (22, 22, False)), None),
        ((), corners[0]),
        ((), corners[1]),
    ]
    state.undo()
    assert len(state.annotation.items) == 3
    moved = [(i.number, (p[0] + 1, *p[1:])) for i in state.annotation.items for p in i.points]
    state.replace_points(moved)  # dragging begins no object
    assert len(state.annotation.items) == 3


def test_another_mask_that_was_chosen_is_saved_as_it_is_shown(desk):
    desk.click(10, 12)
    (image,) = prompts_io.to_file(desk.state, all_items=False).images
    assert image.masks == ()  # the model's own answer to these clicks
    desk.state.cycle_mask()
    (image,) = prompts_io.to_file(desk.state, all_items=False).images
    np.testing.assert_array_equal(image.masks[0].full(), desk.labels == 1)

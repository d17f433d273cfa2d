import numpy as np
import pytest

from napari_samic.core.errors import InputError, PromptError
from napari_samic.core.types import (
    Candidates,
    HeatMap,
    ImagePlane,
    JobProgress,
    Prompter,
    Prompts,
    Reference,
    Segmentation,
    Segmenter,
    TrainablePrompter,
    frozen,
    run_job,
)

RGB = np.zeros((6, 8, 3), np.uint8)


def test_what_is_locked_is_not_copied_but_a_view_is():
    out = frozen(np.zeros(4), np.float64)
    assert frozen(out, np.float64) is out
    assert frozen(out, np.float32) is not out
    source = np.zeros(4)
    view = source[:]
    view.setflags(write=False)
    kept = frozen(view, np.float64)
    source[0] = 1
    assert kept[0] == 0


def test_frozen_copies_and_locks():
    source = np.arange(3)
    out = frozen(source, np.float64)
    source[0] = 9
    assert out[0] == 0
    assert out.dtype == np.float64
    with pytest.raises(ValueError, match="read-only"):
        out[0] = 1


def test_prompts_do_not_follow_the_callers_array():
    points = np.array([[1.0, 2.0]])
    prompts = Prompts(points, [True])
    points[0, 0] = 99
    assert prompts.points_rc[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        prompts.points_rc[0, 0] = 5


def test_no_point_has_two_columns():
    prompts = Prompts([], [], [0, 0, 1, 1])
    assert prompts.points_rc.shape == (0, 2)
    assert prompts.is_foreground.dtype == bool


@pytest.mark.parametrize(
    ("points", "signs", "box", "label", "message"),
    [
        pytest.param([(1, 2)], [], None, 1, "1 points but 0 signs", id="signs"),
        pytest.param([(1, np.nan)], [True], None, 1, "not a finite number", id="nan"),
        pytest.param([(1, 2)], [True], None, 0, "label 0: classes count from 1", id="label"),
        pytest.param([], [], [0, 0, 0, 5], 1, "expected row0 < row1", id="flat_box"),
        pytest.param([], [], [0, 5, 5, 0], 1, "expected row0 < row1", id="turned_box"),
        pytest.param([], [], [0, 0, 5], 1, "expected row0 < row1", id="three_numbers"),
        pytest.param([], [], [0, 0, np.inf, 5], 1, "expected row0 < row1", id="endless_box"),
    ],
)
def test_prompts_that_make_no_sense_are_refused(points, signs, box, label, message):
    with pytest.raises(PromptError, match=message):
        Prompts(points, signs, box, label)


@pytest.mark.parametrize(
    ("prompts", "is_empty"),
    [
        pytest.param(Prompts([], []), True, id="nothing"),
        pytest.param(Prompts([(1, 1)], [False]), True, id="negative_only"),
        pytest.param(Prompts([(1, 1)], [True]), False, id="positive"),
        pytest.param(Prompts([], [], [0, 0, 1, 1]), False, id="box"),
    ],
)
def test_empty_prompts_say_nowhere_where_the_object_is(prompts, is_empty):
    assert prompts.is_empty is is_empty


@pytest.mark.parametrize("point", [(-0.5, -0.5), (5.5, 7.5), (0, 0)])
def test_points_up_to_the_pixel_edges_are_inside(point):
    Prompts([point], [True]).check_inside(RGB.shape)


@pytest.mark.parametrize(
    "prompts",
    [
        pytest.param(Prompts([(6, 0)], [True]), id="row"),
        pytest.param(Prompts([(0, -1)], [True]), id="column"),
        pytest.param(Prompts([(1, 1), (0, 8)], [True, False]), id="negative_point"),
        pytest.param(Prompts([], [], [0, 0, 3, 9]), id="box"),
    ],
)
def test_prompts_outside_are_named_with_their_image(prompts):
    with pytest.raises(PromptError, match=r"cat: prompt at row .* outside the image of 6 x 8"):
        prompts.check_inside(RGB.shape, "cat")


def test_heat_map_is_single_precision_and_locked():
    heat_map = HeatMap(np.zeros((3, 4)))
    assert heat_map.values.dtype == np.float32
    assert not heat_map.values.flags.writeable


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(RGB[..., 0], id="grey"),
        pytest.param(RGB.astype(np.uint16), id="uint16"),
        pytest.param(np.zeros((6, 8, 4), np.uint8), id="rgba"),
    ],
)
def test_reference_takes_rgb_only(image):
    with pytest.raises(InputError, match=r"cat: .* expected uint8 \(H, W, 3\)"):
        Reference("cat", image, ())


def test_reference_refuses_a_mask_of_another_size():
    with pytest.raises(InputError, match=r"cat: mask of \(6, 9\) for an image of \(6, 8\)"):
        Reference("cat", RGB, (), np.zeros((6, 9), np.int32))


def test_reference_refuses_prompts_outside():
    with pytest.raises(PromptError, match="cat: prompt at row 7"):
        Reference("cat", RGB, (Prompts([(7, 7)], [True]),))


def test_best_candidate_has_the_highest_score():
    scores = np.array([0.2, 0.9, 0.5], np.float32)
    assert Candidates(np.zeros((3, 1, 1), bool), scores, np.zeros((3, 1, 1), np.float32)).best == 1


def test_segmentation_locks_its_labels_and_averages_its_scores():
    found = Segmentation(np.zeros((2, 2)), np.array([0.5, 1.0]), ())
    assert found.labels.dtype == np.int32
    assert not found.labels.flags.writeable
    assert found.score == 0.75
    assert Segmentation(np.zeros((2, 2)), np.array([]), ()).score == 0.0


def test_planes_of_a_stack_have_their_own_labels():
    assert ImagePlane("cat", (), lambda: RGB).label == "cat"
    assert ImagePlane("film", (3, 0), lambda: RGB).label == "film[3][0]"


def test_nouns_with_arrays_compare_by_identity():
    one, other = HeatMap(np.zeros((2, 2))), HeatMap(np.zeros((2, 2)))
    assert one == one
    assert one != other


def test_run_relays_steps_and_returns_the_result():
    def job():
        yield JobProgress(1, 2, "one")
        yield JobProgress(2, 2, "two")
        return "done"

    seen = []
    assert run_job(job(), seen.append) == "done"
    assert [step.message for step in seen] == ["one", "two"]


def test_run_closes_the_job_when_the_listener_fails():
    closed = []

    def job():
        try:
            yield JobProgress(1, 2)
            yield JobProgress(2, 2)
        finally:
            closed.append(True)

    def listener(step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(job(), listener)
    assert closed == [True]


def test_run_passes_the_jobs_own_error_on():
    def job():
        yield JobProgress(1, 2)
        raise InputError("no")

    with pytest.raises(InputError, match="no"):
        run_job(job())


def test_protocols_tell_who_can_do_what():
    class Proposes:
        name = "p"

        def propose(self, references, image): ...

    class Learns(Proposes):
        def fit(self, references, settings): ...

    assert isinstance(Proposes(), Prompter)
    assert not isinstance(Proposes(), TrainablePrompter)
    assert isinstance(Learns(), TrainablePrompter)
    assert not isinstance(Learns(), Segmenter)

"""Discs that move from frame to frame: followed, kept apart, and only where there is an order."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from napari_samic.core.errors import InputError
from napari_samic.core.settings import MemorySettings, SegmentSettings
from napari_samic.core.types import (
    Candidates,
    ImagePlane,
    Prompts,
    Reference,
    Segmentation,
    run_job,
)
from napari_samic.models.video import optical_flow
from napari_samic.ops.label_fusion import join
from napari_samic.pipeline.video_predictor import FLOOR, VideoPredictor

SHAPE, RED, BLUE = (72, 96), (220, 40, 40), (40, 40, 220)


class ColourSegmenter:
    """Pixels of the clicked colour that hang together; a box without a click asks its middle."""

    name, weights_sha256 = "colour", ""

    def candidates(self, image, objects, *, multimask=True, logits=None):
        return [self.one(image, prompts) for prompts in objects]

    def one(self, image, prompts):
        if len(prompts.points_rc):
            row, column = np.rint(prompts.points_rc[0]).astype(int)
        else:
            row, column = np.rint(prompts.box_rc.reshape(2, 2).mean(0)).astype(int)
        alike = np.abs(image.astype(int) - image[row, column]).max(-1) < 40
        parts, _ = ndimage.label(alike)
        mask = parts == parts[row, column]
        square = np.zeros((max(SHAPE), max(SHAPE)), np.float32)
        square[: SHAPE[0], : SHAPE[1]] = np.where(mask, 8, -8)
        square[SHAPE[0] :] = -8
        return Candidates(mask[None], np.array([0.9], np.float32), square[None, ::3, ::3])

    def segment(self, image, objects, *, settings=None):
        chosen = settings or SegmentSettings()
        answers = [self.one(image, p) for p in objects]
        return join(
            [a.masks[0] for a in answers], [a.scores[0] for a in answers], objects,
            shape=SHAPE, instances=chosen.instances, drop_covered=chosen.drop_covered,
        )  # fmt: skip


def frame(*places, colour=RED):
    """Discs of one colour on a ground with some grain; `places` are (row, column)."""
    grain = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(*SHAPE, 3)), (2, 2, 0))
    image = (128 + 60 * grain).clip(0, 255).astype(np.uint8)
    for row, column in places:
        image[disc(row, column)] = colour
    return image


def disc(row, column, radius=8):
    rows, columns = np.indices(SHAPE)
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def redness(references, image, weights=None):
    """A map that is high on the red discs; what it was asked is noted on itself."""
    redness.asked.append(([r.name for r in references], weights))
    red = np.clip((image[..., 0].astype(float) - image[..., 2]) / 180, 0, 1)
    return {1: optical_flow.resized(ndimage.gaussian_filter(red, 2), (24, 32))}, {}


@pytest.fixture
def follower():
    return made()


def made(**settings):
    import toy_backbone as toy

    prompter = toy.prompter()
    prompter.references = (Reference("mine", frame((20, 20)), click(20, 20)),)
    redness.asked = []
    prompter.maps_and_agreement = redness
    segmenting, floor = settings.pop("segmenting", None), settings.pop("floor", FLOOR)
    memory = MemorySettings(**{"follow": "stacks", **settings})
    return VideoPredictor(prompter, ColourSegmenter(), memory, segmenting, floor=floor)


def click(row, column):
    return (Prompts(np.array([[row, column]], float), np.array([True])),)


def plane(index=(), stack_shape=(), name="stack"):
    return ImagePlane(name, index, lambda: None, stack_shape)


def run_stack(follower, frames, name="stack"):
    shape = (len(frames),)
    return [run_job(follower(plane((i,), shape, name), f)) for i, f in enumerate(frames)]


def alone(follower, image):
    return follower.predictor.segment(image).labels


def test_object_is_followed_with_its_number(follower):
    for step in range(5):
        result = follower.segment(frame((30, 20 + 6 * step)))
        mask = follower.track.labels == 1
        truth = disc(30, 20 + 6 * step)
        assert (mask & truth).sum() / (mask | truth).sum() > 0.85
        assert result.labels.max() == 1
    assert follower.numbers == (1,)


def test_numbers_last_while_two_pass_close_by(follower):
    for step in range(9):
        follower.segment(frame((24, 16 + 8 * step), (44, 80 - 8 * step)))
        if not step:
            first = follower.track.labels[24, 16], follower.track.labels[44, 80]
    assert (follower.track.labels[24, 80], follower.track.labels[44, 16]) == first


def test_newcomer_gets_a_new_number_and_an_old_one_is_never_given_again():
    follower = made(floor=0.8)
    follower.segment(frame((24, 20)))
    follower.segment(frame((24, 22), (50, 70)))
    assert set(follower.numbers) == {1, 2}
    follower.segment(frame((24, 24)))
    follower.segment(frame((24, 26)))
    result = follower.segment(frame((24, 28), (50, 72)))
    assert set(follower.numbers) == {1, 3}
    assert set(np.unique(result.labels)) == {0, 1, 2}


def test_numbers_go_on_after_all_objects_were_gone(follower):
    follower.segment(frame((24, 20)))
    for _ in range(3):
        follower.segment(frame())
    follower.segment(frame((50, 70)))
    assert min(follower.numbers) >= 2


def test_newcomer_that_is_not_like_the_known_is_left_out():
    follower = made(floor=1.0)
    follower.segment(frame((24, 20)))
    image = frame((24, 22))
    image[34:, 40:] = RED  # large, and as red
    follower.segment(image)
    assert follower.numbers == (1,)


def test_first_frame_given_is_followed_and_counts_in_full(follower):
    mask = disc(30, 20).astype(np.int32) * 7
    follower.begin(Reference("first", frame((30, 20)), click(30, 20), mask))
    follower.segment(frame((30, 25)))
    assert follower.numbers == (1,)
    assert follower.track.labels[30, 25] == 1
    assert redness.asked[-1] == (["mine", "first"], (1.0, 1.0))


def test_accepted_frames_become_references(follower):
    for step in range(3):
        follower.segment(frame((30, 20 + 3 * step)))
    names, weights = redness.asked[-1]
    assert names == ["mine", "frame 1", "frame 2"]
    assert weights[0] == 1
    assert weights[1] < weights[2] < 1


def test_first_frame_needs_a_mask(follower):
    with pytest.raises(InputError, match="first: no mask"):
        follower.begin(Reference("first", frame((30, 20)), click(30, 20)))


def test_motion_decides_between_two_alike():
    """Alone, both red discs are found; followed, only the one that was given."""
    follower, image = made(floor=0.1), frame((30, 24), (30, 70))
    follower.begin(Reference("a", frame((30, 20)), click(30, 20), disc(30, 20).astype(np.int32)))
    follower.segment(image)
    assert alone(follower, image)[30, 70] > 0
    assert follower.track.labels[30, 70] == 0
    assert follower.track.labels[30, 24] == 1


def test_frame_without_one_before_is_as_the_worker_does_it(follower):
    image = frame((24, 20), (50, 70))
    np.testing.assert_array_equal(follower.segment(image).labels, alone(follower, image))


def test_unordered_folder_never_uses_memory(follower):
    for i, row in enumerate((20, 30, 40)):
        image = frame((row, 30))
        answer = run_job(follower(plane(name=f"file{i}"), image))
        np.testing.assert_array_equal(answer.result.labels, alone(follower, image))
    assert follower.track is None
    assert all(names in ([], ["mine"]) for names, _ in redness.asked)


def test_stack_that_is_not_to_be_followed_is_not():
    follower = made(follow="never")
    run_stack(follower, [frame((30, 20)), frame((30, 26))])
    follower.segment(frame((30, 30)))
    assert follower.track is None


def test_folder_is_followed_where_the_settings_say_so():
    follower = made(follow="always")
    for i in range(3):
        run_job(follower(plane(name=f"file{i}"), frame((30, 20 + 4 * i))))
    assert redness.asked[-1][0] == ["mine", "frame 1", "frame 2"]


def test_planes_of_a_stack_are_followed_and_objects_keep_their_numbers(follower):
    answers = run_stack(follower, [frame((30, 20 + 4 * i)) for i in range(3)])
    assert redness.asked[-1][0] == ["mine", "frame 1", "frame 2"]
    assert [answer.numbers for answer in answers] == [(1,)] * 3


def test_another_stack_starts_anew(follower):
    run_stack(follower, [frame((30, 20)), frame((30, 24))])
    run_stack(follower, [frame((30, 60))], name="other")
    assert redness.asked[-1][0] in ([], ["mine"])
    assert len(follower.memory.references()[0]) == 1


def test_another_position_of_a_stack_of_stacks_starts_anew(follower):
    shape = (2, 2)
    for index in np.ndindex(shape):
        run_job(follower(plane(index, shape), frame((30, 20 + 3 * index[1]))))
    assert follower.track.first_new == 2
    assert [names for names, _ in redness.asked[-2:]] == [[], ["mine", "frame 1"]]


def test_classes_stay_where_no_instances_are_asked_for():
    follower = made(segmenting=SegmentSettings(instances=False), floor=0.8)
    mask = (disc(24, 20) | disc(50, 70)).astype(np.int32)
    shown = Reference("first", frame((24, 20), (50, 70)), click(24, 20), mask)
    shown = replace(shown, objects=(replace(shown.objects[0], label=1),))
    follower.begin(shown)
    result = follower.segment(frame((24, 22), (50, 68)))
    assert set(np.unique(result.labels)) == {0, 1}
    assert follower.numbers == (1,)
    assert result.labels[50, 68] == 1


def test_a_large_frame_is_followed_as_a_whole_and_that_is_said(follower):
    follower.predictor = replace(follower.predictor, settings=SegmentSettings(tile_px=64))
    seen = [run_job(follower(plane((i,), (2,)), frame((30, 20 + 4 * i)))) for i in range(2)]
    assert [len(answer.result.objects) for answer in seen] == [1, 1]
    assert all("as a whole" in answer.remarks[0] for answer in seen)


def test_a_frame_that_was_drawn_is_gone_on_from_and_objects_keep_their_numbers(follower):
    shape = (4,)

    def drawn(*places):
        labels, objects = np.zeros(SHAPE, np.int32), []
        for number, (row, column) in enumerate(places, start=1):
            labels[disc(row, column)] = number
            objects += click(row, column)
        return Segmentation(labels, np.ones(len(objects)), tuple(objects))

    run_job(follower(plane((0,), shape), frame((30, 20))))
    seen = frame((31, 22), (50, 70))
    # the newcomer comes first in what was drawn, and is the second in the sequence
    numbers = follower.take(plane((1,), shape), seen, drawn((50, 70), (31, 22)))
    assert numbers == (2, 1)
    answer = run_job(follower(plane((2,), shape), frame((32, 24), (50, 68))))
    assert len(answer.result.objects) == 2
    assert follower.track.labels[32, 24] == 1
    assert follower.track.labels[50, 68] == 2
    fresh = made()
    assert fresh.take(plane((0,), shape), seen, drawn((50, 70), (31, 22))) == (1, 2)


def test_objects_keep_their_numbers_in_a_drawn_frame_that_moved_by_more_than_their_size(follower):
    shape, before, after = (3,), ((18, 20), (18, 50), (45, 30)), ((18, 37), (18, 67), (45, 47))
    run_job(follower(plane((0,), shape), frame(*before)))
    labels = sum(n * disc(*place) for n, place in enumerate(reversed(after), start=1))
    objects = tuple(click(*place)[0] for place in reversed(after))
    drawn = Segmentation(labels.astype(np.int32), np.ones(3), objects)
    first = [int(follower.track.labels[place]) for place in before]
    follower.take(plane((1,), shape), np.roll(frame(*before), 17, axis=1), drawn)
    assert [int(follower.track.labels[place]) for place in after] == first

"""Tiles of a large image: where they lie, and objects over their seams."""

import threading
import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from napari_samic.core.errors import InputError, OutputError
from napari_samic.core.types import HeatMap, Prompts, Segmentation, run_job
from napari_samic.pipeline import tiling

SHAPE = (150, 230)


def discs(shape=SHAPE, step=19, radius=7):
    rows, columns = np.indices(shape)
    near = np.hypot(rows % step - step // 2, columns % step - step // 2) <= radius
    return ndimage.label(near)[0]


def answer(truth, cut=None):
    """A segmenter that sees the truth within a window; `cut` hides what it is given."""

    def predict(i, window):
        labels, count = np.zeros(truth[window].shape, np.int32), 0
        objects = []
        for value in np.unique(truth[window]):
            mask = truth[window] == value
            if value and not (cut is not None and cut(i, mask)):
                count += 1
                labels[mask] = count
                at = np.argwhere(mask)
                box = (*(at.min(0) - 0.4), *(at.max(0) + 0.4))
                objects.append(Prompts(at[:1], [True], box, label=1 + int(value) % 2))
        scores = [0.5 + 0.001 * len(objects)] * count
        heat = HeatMap((labels > 0).astype(np.float32))
        return Segmentation(labels, scores, tuple(objects), heat, {1: 0.2 * (i % 2)})

    return predict


def segment(truth, side=64, predict=None, **options):
    windows = tiling.windows(truth.shape, side)
    job = tiling.segment_tiles(predict or answer(truth), truth.shape, windows, **options)
    return run_job(job)


def same_objects(labels, truth):
    pairs = np.unique(np.stack([labels.ravel(), truth.ravel()]), axis=1)
    return len(pairs[0]) == len(set(pairs[0])) == len(set(pairs[1]))


@pytest.mark.parametrize(("shape", "side"), [((150, 230), 64), ((65, 64), 64), ((500, 40), 64)])
def test_tiles_cover_an_image_and_overlap(shape, side):
    seen = np.zeros(shape, int)
    for window in tiling.windows(shape, side):
        assert all(
            n == min(side, length) for n, length in zip(seen[window].shape, shape, strict=True)
        )
        seen[window] += 1
    assert seen.min() == 1
    for first, second in zip(
        *[tiling.windows((1, shape[1]), side)[n:] for n in (0, 1)], strict=False
    ):
        assert first[1].stop - second[1].start >= tiling.OVERLAP * side


@pytest.mark.parametrize(
    ("shape", "reference", "asked", "side"),
    [
        ((3000, 3000, 3), 512, 0, 512),
        ((1000, 1900, 3), 512, 0, None),
        ((3000, 3000), 2000, 0, None),
        ((1000, 1900, 3), 512, 400, 400),
        ((400, 300), 512, 400, None),
    ],
)
def test_an_image_is_cut_if_it_is_large_or_if_asked(shape, reference, asked, side):
    assert tiling.tile_side(shape, reference, asked) == side


def test_objects_smaller_than_the_overlap_keep_their_masks_and_have_one_number_each():
    truth = discs()
    result = segment(truth)
    assert same_objects(result.labels, truth)
    assert len(result.objects) == len(result.scores) == truth.max()


def test_an_object_larger_than_a_tile_has_one_number():
    truth = np.zeros(SHAPE, np.int32)
    truth[20:130, 10:220], truth[30:120, 20:210] = 1, 0  # a frame through all tiles
    truth[60:90, 40:200] = 2
    result = segment(truth)
    assert same_objects(result.labels, truth)
    low, high = result.objects[0].box_rc[:2], result.objects[0].box_rc[2:]
    np.testing.assert_allclose([*low, *high], [19.6, 9.6, 129.4, 219.4])


def test_prompts_are_moved_with_their_tile():
    truth = discs()
    for prompts in segment(truth).objects:
        value = truth[tuple(prompts.points_rc[0].astype(int))]
        at = np.argwhere(truth == value)
        np.testing.assert_allclose(prompts.box_rc, [*(at.min(0) - 0.4), *(at.max(0) + 0.4)])


def test_what_one_tile_misses_comes_from_the_other():
    truth = discs()

    def hides(i, mask):
        return i == 0 and mask[:, -6:].any()  # the next tile sees these whole

    assert same_objects(segment(truth, predict=answer(truth, hides)).labels, truth)


def test_classes_are_values_if_asked():
    truth = discs()
    result = segment(truth, instances=False)
    np.testing.assert_array_equal(result.labels, np.where(truth > 0, 1 + truth % 2, 0))
    assert len(result.objects) == truth.max()


def test_maps_are_put_together_and_agreement_is_their_mean():
    truth = discs()
    result = segment(truth)
    np.testing.assert_array_equal(result.heat_map.values, truth > 0)
    assert 0 < result.agreement[1] < 0.2
    assert segment(truth, has_heat_map=False).heat_map is None


def test_nothing_in_any_tile_is_an_empty_result():
    result = segment(np.zeros(SHAPE, np.int32))
    assert not result.labels.any()
    assert not result.objects


def test_each_tile_is_a_step():
    steps = []
    windows = tiling.windows(SHAPE, 64)
    run_job(tiling.segment_tiles(answer(discs()), SHAPE, windows), steps.append)
    assert [(step.done, step.total) for step in steps] == [(i, 15) for i in range(15)]


@pytest.mark.parametrize("instances", [True, False])
@pytest.mark.parametrize("radius", [7, 9, 40])
def test_labels_kept_in_a_file_are_those_kept_in_memory(tmp_path, radius, instances):
    truth = discs(step=2 * radius + 3, radius=radius)
    shaken = answer(truth, lambda i, mask: mask.sum() % 5 == i % 5)
    kept, stored = (
        segment(truth, predict=shaken, instances=instances, scratch=folder)
        for folder in (None, tmp_path)
    )
    np.testing.assert_array_equal(stored.labels, kept.labels)
    assert kept.labels.max() > 1
    assert stored.scores.tolist() == kept.scores.tolist()
    assert not list(tmp_path.iterdir())


def test_tiles_in_threads_give_what_they_give_one_by_one():
    truth, begun, all_wait = discs(), [], threading.Barrier(2, timeout=20)

    def predict(i, window):
        if i < 2:
            all_wait.wait()  # two at once
        begun.append(i)
        return answer(truth)(i, window)

    together = segment(truth, predict=predict, workers=2)
    alone = segment(truth)
    np.testing.assert_array_equal(together.labels, alone.labels)
    assert together.scores.tolist() == alone.scores.tolist()
    assert len(begun) == 15


def test_fault_in_a_thread_ends_the_job_and_the_next_tiles_are_not_begun():
    begun = []

    def predict(i, window):
        begun.append(i)
        if i == 3:
            raise InputError("broken tile")
        return answer(discs())(i, window)

    with pytest.raises(InputError, match="broken tile"):
        segment(discs(), predict=predict, workers=2)
    assert len(begun) < 15


def test_memory_is_that_of_a_part_of_a_large_image(tmp_path):
    shape, mark = (5000, 5000), np.zeros((1024, 1024), np.int32)
    mark[500:520, 300:700] = 1
    disc = Segmentation(mark, [0.5], (Prompts([[510, 600]], [True]),))
    places = tiling.windows(shape, 1024)
    tracemalloc.start()
    job = tiling.segment_tiles(lambda *_: disc, shape, places, has_heat_map=False, scratch=tmp_path)
    result = run_job(job)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(result.objects) == len(places)
    assert peak < result.labels.nbytes / 2


def test_stopped_job_leaves_no_file(tmp_path):
    windows = tiling.windows(SHAPE, 64)
    job = tiling.segment_tiles(answer(discs()), SHAPE, windows, scratch=tmp_path)
    for _ in range(4):
        next(job)
        assert not list(tmp_path.iterdir())  # not even if the process is killed
    job.close()
    assert not list(tmp_path.iterdir())


def test_disk_that_refuses_is_said(tmp_path):
    with pytest.raises(OutputError, match="nowhere"):
        segment(discs(), scratch=tmp_path / "nowhere")

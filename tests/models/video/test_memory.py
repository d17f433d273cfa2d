"""Which frames are remembered, for how long, and how much they count."""

import numpy as np
import pytest
from toy_backbone import discs

from napari_samic.core.settings import MemorySettings
from napari_samic.core.types import Prompts, Reference
from napari_samic.models.video.memory import FrameMemory, class_table, numbered, prompts_of

IMAGE = discs([(20, 20, 1)])


def labels_of(*places):
    out = np.zeros((64, 64), np.int32)
    for number, row, column in places:
        out[row - 5 : row + 6, column - 5 : column + 6] = number
    return out


def reference(name="mine", mask=None):
    return Reference(name, IMAGE, (Prompts(np.array([[20.0, 20.0]]), np.array([True])),), mask)


def memory(**changes):
    return FrameMemory(MemorySettings(**{"memory_frames": 2, **changes}))


def offer(kept, *, confidence=0.8, agreement=0.9, labels=None):
    shown = labels_of((1, 20, 20)) if labels is None else labels
    return kept.offer(IMAGE, shown, confidence=confidence, agreement=agreement)


def names(kept, own=()):
    return [r.name for r in kept.references(own)[0]]


def test_old_frames_are_dropped():
    kept = memory()
    assert all(offer(kept) for _ in range(4))
    assert names(kept) == ["frame 3", "frame 4"]


@pytest.mark.parametrize(
    "doubt",
    [
        pytest.param({"confidence": 0.49}, id="unsure"),
        pytest.param({"agreement": 0.59}, id="elsewhere"),
        pytest.param({"labels": labels_of()}, id="empty"),
    ],
)
def test_doubtful_frames_are_refused(doubt):
    kept = memory()
    assert not offer(kept, **doubt)
    assert names(kept) == []


def test_own_references_stay_with_full_weight():
    kept, own = memory(), (reference("one"), reference("two"))
    kept.begin(reference("first"))
    for _ in range(5):
        offer(kept)
    shown, weights = kept.references(own)
    assert [r.name for r in shown] == ["one", "two", "first", "frame 4", "frame 5"]
    assert weights == pytest.approx((1, 1, 1, 0.8 * 0.49, 0.8 * 0.7))


def test_refused_frames_make_the_others_older():
    kept = memory()
    offer(kept)
    offer(kept, confidence=0.1)
    assert kept.references()[1] == pytest.approx((0.8 * 0.49,))


def test_first_frame_that_is_an_own_reference_counts_once():
    kept, first = memory(), reference("first")
    kept.begin(first)
    assert names(kept, (first,)) == ["first"]


def test_a_sequence_starts_with_nothing():
    kept = memory()
    kept.begin(reference())
    offer(kept)
    kept.forget()
    assert kept.references() == ((), ())
    offer(kept)
    assert names(kept) == ["frame 1"]


def test_no_frame_is_kept_where_none_is_asked_for():
    kept = memory(memory_frames=0)
    assert not offer(kept)
    assert names(kept) == []


def test_remembered_frame_has_a_click_in_each_object_under_its_class():
    labels = labels_of((1, 20, 20), (4, 40, 50))
    found = {p.label: p.points_rc.tolist() for p in prompts_of(labels, {1: 1, 4: 3})}
    assert found == {1: [[20, 20]], 3: [[40, 50]]}


def test_objects_of_one_class_in_pieces_get_a_click_each():
    assert len(prompts_of(labels_of((1, 20, 20), (1, 40, 50)), {})) == 2


def test_a_speck_that_was_found_is_no_object():
    speck = np.zeros((64, 64), np.int32)
    speck[3, 3:6] = 1
    assert prompts_of(speck, {}) == ()


def test_class_table_knows_background_and_the_unknown():
    assert class_table({2: 5}, labels_of((3, 20, 20))).tolist() == [0, 1, 5, 1]


def test_reference_mask_gives_numbers_and_classes():
    clicks = (
        Prompts(np.array([[20.0, 20.0]]), np.array([True]), label=2),
        Prompts(np.array([[40.0, 50.0]]), np.array([True]), label=1),
    )
    mask = labels_of((9, 20, 20), (9, 40, 50))
    shown = Reference("r", IMAGE, clicks, mask)
    labels, classes = numbered(shown, mask, instances=True)
    assert classes == {labels[20, 20]: 2, labels[40, 50]: 1}
    labels, classes = numbered(shown, mask, instances=False)
    assert (labels[20, 20], labels[40, 50], classes) == (2, 1, {1: 1, 2: 2})


def test_a_click_on_the_very_edge_of_a_reference_is_in_it():
    edge = (Prompts(np.array([[IMAGE.shape[0] - 0.5, 20.0]]), np.array([True]), label=2),)
    mask = np.zeros(IMAGE.shape[:2], np.int32)
    mask[-6:, 10:30] = 7
    mask[:6, 10:30] = 8
    _, classes = numbered(Reference("r", IMAGE, edge, mask), mask, instances=True)
    assert classes == {7: 2, 8: 1}

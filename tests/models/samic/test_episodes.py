"""Views, pairs, features and the choice of references, without any training."""

import numpy as np
import pytest
import torch
from toy_backbone import ColourBackbone, clicks, discs, prompter, reference, references

from napari_samic.core.errors import TrainingError
from napari_samic.core.types import Prompts, Reference
from napari_samic.models.samic import episodes
from napari_samic.models.samic.episodes import FeatureStore, random_shift, shift_features, shift_map
from napari_samic.models.samic.hypercorrelation import prepare_target

TURNS = [(False, True), (True, False), (True, True)]


def marked():
    """4 x 6 picture whose pixel under each click is unique, with a box and a mask."""
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    mask = np.arange(24, dtype=np.int32).reshape(4, 6)
    prompts = Prompts(
        np.array([[0, 1], [3, 5]]), np.array([True, False]), np.array([0.5, 1, 2, 4.25]), label=3
    )
    return Reference("m", image, (prompts,), mask)


@pytest.mark.parametrize(("rows", "columns"), TURNS)
def test_flip_moves_pixels_mask_and_points_together(rows, columns):
    before, after = marked(), episodes.flip(marked(), rows=rows, columns=columns)
    [old], [new] = before.objects, after.objects
    assert new.points_rc.tolist() != old.points_rc.tolist()
    for a, b in zip(old.points_rc.astype(int), new.points_rc.astype(int), strict=True):
        assert np.array_equal(before.image[tuple(a)], after.image[tuple(b)])
        assert before.mask[tuple(a)] == after.mask[tuple(b)]
    assert new.is_foreground.tolist() == [True, False]
    assert new.label == 3


@pytest.mark.parametrize(
    ("rows", "columns", "box"),
    [
        pytest.param(False, True, [0.5, 0.75, 2, 4], id="left_right"),
        pytest.param(True, False, [1, 1, 2.5, 4.25], id="up_down"),
        pytest.param(True, True, [1, 0.75, 2.5, 4], id="both"),
    ],
)
def test_flip_mirrors_the_box(rows, columns, box):
    assert episodes.flip(marked(), rows=rows, columns=columns).objects[0].box_rc.tolist() == box


@pytest.mark.parametrize(("rows", "columns"), TURNS)
def test_flipped_twice_is_the_original(rows, columns):
    before = marked()
    once = episodes.flip(before, rows=rows, columns=columns)
    after = episodes.flip(once, rows=rows, columns=columns)
    assert np.array_equal(after.image, before.image)
    assert np.array_equal(after.mask, before.mask)
    assert np.array_equal(after.objects[0].points_rc, before.objects[0].points_rc)
    assert np.array_equal(after.objects[0].box_rc, before.objects[0].box_rc)


def test_flip_keeps_clicks_on_the_very_edge_inside():
    edge = Prompts(np.array([[-0.5, 5.5], [3.5, -0.5]]), np.array([True, True]))
    flat = Reference("e", marked().image, (edge,))
    found = episodes.flip(flat, rows=True, columns=True).objects[0].points_rc
    assert found.tolist() == [[3.5, -0.5], [-0.5, 5.5]]


def test_views_come_plain_first_and_know_their_source():
    views = episodes.augmented_views(references(2), 4)
    assert [v.source for v in views] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert len({v.reference.image.tobytes() for v in views}) == 8
    first = references(2)[0]
    assert np.array_equal(views[0].reference.image, first.image)
    assert np.array_equal(views[1].reference.image, first.image[:, ::-1])
    assert np.array_equal(views[2].reference.image, first.image[::-1])
    assert len(episodes.augmented_views(references(2), 1)) == 2


def test_partners_are_other_images_of_the_class():
    both, one = reference("a", [(9, 9, 1), (40, 40, 2)], asked=(1, 2)), references(2)
    views = episodes.augmented_views([both, *one], 2)
    found = episodes.support_candidates(views, views[0], 1)
    assert [v.source for v in found] == [1, 1, 2, 2]
    assert episodes.support_candidates(views, views[0], 2) == []


def negative_only():
    return Prompts(np.array([[5.0, 5]]), np.array([False]), label=2)


def test_prompts_that_say_nothing_show_no_class():
    mixed = Reference("x", discs([]), (*clicks([(9, 9, 1)]), negative_only()))
    assert episodes.labels_of(mixed) == (1,)
    assert episodes.augmented_views([mixed], 1)[0].labels == (1,)


def test_references_without_prompts_are_left_out():
    empty = Reference("e", discs([]), (negative_only(),))
    kept = episodes.check_references([*references(2), empty, Reference("n", discs([]), ())])
    assert [r.name for r in kept] == ["r0", "r1"]


def test_reference_listed_twice_is_refused_by_name():
    with pytest.raises(TrainingError, match="r1: listed twice"):
        episodes.check_references([*references(3), references(2)[1]])


@pytest.mark.parametrize(
    ("given", "count"),
    [
        pytest.param([], 0, id="none"),
        pytest.param(references(1), 1, id="one"),
        pytest.param(
            [references(1)[0], reference("b", [(9, 9, 2)], asked=(2,))], 2, id="one_of_each_class"
        ),
    ],
)
def test_fewer_than_two_of_a_class_are_refused(given, count):
    with pytest.raises(TrainingError, match=rf"{count} reference\(s\).* two of one class"):
        episodes.check_references(given)


def split(given, share, seed=0):
    kept, held = episodes.split(given, share, np.random.default_rng(seed))
    assert sorted(r.name for r in [*kept, *held]) == sorted(r.name for r in given)
    return kept, held


@pytest.mark.parametrize(
    ("count", "share", "aside"),
    [(2, 0.5, 0), (3, 0.5, 0), (4, 0.15, 1), (10, 0.3, 3), (10, 0.0, 0), (20, 0.15, 3)],
)
def test_split_keeps_a_share_aside_but_none_below_four(count, share, aside):
    assert len(split(references(count), share)[1]) == aside


@pytest.mark.parametrize("seed", range(6))
def test_an_image_without_an_object_is_not_kept_aside_to_judge(seed):
    empty = Reference("n", discs([]), ())
    assert empty not in split([*references(3), empty], 0.15, seed)[1]


def test_split_depends_on_the_seed():
    found = {split(references(8), 0.15, seed)[1][0].name for seed in range(20)}
    assert len(found) > 3


@pytest.mark.parametrize("seed", range(6))
def test_split_leaves_two_of_every_class_that_it_takes_from(seed):
    a = [reference(f"a{i}", [(9, 9, 1)]) for i in range(2)]
    b = [reference(f"b{i}", [(9, 9, 2)], asked=(2,)) for i in range(3)]
    c = [reference("c", [(9, 9, 3)], asked=(3,))]
    kept, held = split([*a, *b, *c], 0.5, seed)
    assert [r.name[0] for r in held] == ["b"]
    assert {r.name for r in kept} > {"a0", "a1", "c"}


def store(**settings):
    return FeatureStore(prompter(**settings))


def test_features_are_taken_once_and_are_the_backbones():
    kept, [shown] = store(), references(1)
    first = kept.levels(shown)
    passes = kept.prompter.backbone.passes
    again = kept.levels(shown)
    assert kept.prompter.backbone.passes == passes
    plain = ColourBackbone().features(shown.image)
    for a, b, c in zip(first, again, plain, strict=True):
        assert torch.equal(a[0], b[0])
        torch.testing.assert_close(a[0], c[0], atol=1e-3, rtol=1e-3)


def test_features_beyond_memory_are_asked_for_again(monkeypatch):
    monkeypatch.setattr(episodes, "MEMORY_BYTES", 1)
    kept, [shown] = store(), references(1)
    kept.levels(shown)
    passes = kept.prompter.backbone.passes
    kept.levels(shown)
    assert kept.prompter.backbone.passes == passes + 1


def test_features_too_large_for_half_precision_stay_finite(monkeypatch):
    kept, [shown] = store(), references(1)
    huge = [[torch.full((1, 2, 4, 4), v)] for v in (1e6, -1e6, 1.0)]
    monkeypatch.setattr(kept.prompter.backbone, "features", lambda _: huge)
    assert [level[0].unique().item() for level in kept.levels(shown)] == [65504, -65504, 1]


def test_centre_is_the_mean_over_images_without_padding():
    kept = store()
    wide = [
        Reference("a", np.full((32, 64, 3), 192, np.uint8), clicks([(9, 9, 1)])),
        Reference("b", np.full((64, 64, 3), 64, np.uint8), clicks([(9, 9, 1)])),
    ]
    for level in kept.center(episodes.augmented_views(wide, 1)):
        assert level[0].shape == (1, 4, 1, 1)
        found = level[0].flatten().tolist()
        assert found == pytest.approx([0, 0, 0, 0.3], abs=1e-3)


def test_choice_of_few_is_all_of_them():
    given = references(3)
    assert episodes.choose_diverse(store(), given, 3) == tuple(given)


def test_choice_covers_what_looks_different():
    grey = [Reference(f"g{i}", discs([], seed=i), clicks([(9, 9, 1)])) for i in range(5)]
    red = Reference("red", np.full((64, 64, 3), (220, 40, 40), np.uint8), clicks([(9, 9, 1)]))
    chosen = episodes.choose_diverse(store(), [*grey[:3], red, *grey[3:]], 2)
    assert len(chosen) == 2
    assert "red" in {r.name for r in chosen}


def test_choice_keeps_a_class_that_only_one_reference_shows():
    given = references(7)
    rare = Reference("rare", given[0].image, clicks([(20, 20, 4)]))  # looks like the others
    for place in (0, 3, 7):
        mixed = [*given[:place], rare, *given[place:]]
        chosen = episodes.choose_diverse(store(), mixed, 3)
        assert len(chosen) == 3
        assert "rare" in {r.name for r in chosen}


def test_choice_is_larger_where_there_are_more_classes():
    image = references(1)[0].image
    many = [Reference(str(k), image, clicks([(20, 20, 1 + k % 5)])) for k in range(15)]
    chosen = episodes.choose_diverse(store(), many, 3)
    assert sorted(label for r in chosen for label in episodes.labels_of(r)) == [1, 2, 3, 4, 5]


def test_targets_are_moved_with_their_maps():
    made = prompter()
    store, rng = FeatureStore(made), np.random.default_rng(0)
    target, wanted = store.target(references(1)[0]), torch.zeros(1, 64, 64)
    wanted[0, 32, 32] = 1
    found = set()
    for _ in range(20):
        there, answer = random_shift(target, wanted, 0.5, rng)
        row, column = divmod(int(answer[0].argmax()), 64)
        found.add((row, column))
        grid = target.grids[-1]
        shift = ((row - 32) * grid[0] // 64, (column - 32) * grid[1] // 64)
        expected = shift_features(target, shift)
        assert torch.equal(there.vectors[0][-1], expected.vectors[0][-1])
    assert len(found) > 3


def test_a_move_that_loses_the_object_is_not_made():
    store, rng = FeatureStore(prompter()), np.random.default_rng(0)
    target, wanted = store.target(references(1)[0]), torch.zeros(1, 64, 64)
    wanted[0, 0, 0] = 1
    for _ in range(20):
        assert float(random_shift(target, wanted, 0.5, rng)[1].max()) == 1


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (0, -1), (-1, 1)])
def test_moved_target_correlates_where_it_went(shift):
    torch.manual_seed(0)
    levels = [[torch.randn(1, 3, 8, 8)], [torch.randn(1, 3, 4, 4)], [torch.randn(1, 3, 2, 2)]]
    plain = prepare_target(levels)
    there = shift_features(plain, shift)
    by_hand = prepare_target(
        [
            [shift_map(block, shift[0] * block.shape[-2] // 2, shift[1] * block.shape[-1] // 2)]
            for (block,) in levels
        ]
    )
    for a, b in zip(there.vectors[0], by_hand.vectors[0], strict=True):
        assert torch.allclose(a, b)
    assert there.grids == plain.grids


def test_slid_brings_zeros_in():
    x = torch.arange(1.0, 7).reshape(2, 3)
    assert shift_map(x, 1, -1).tolist() == [[0, 0, 0], [2, 3, 0]]
    assert shift_map(x, -1, 1).tolist() == [[0, 4, 5], [0, 0, 0]]

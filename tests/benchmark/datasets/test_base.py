"""Items, data sets, and the episodes that each protocol draws from them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from napari_samic.benchmark.datasets import (
    DataSet,
    DatasetItem,
    Episode,
    base_class_items,
    episodes,
    splits,
)
from napari_samic.core.errors import InputError


def refuse() -> Any:
    raise AssertionError("read before it was asked for")


def item(name: str, label: str = "cat", **more: Any) -> DatasetItem:
    return DatasetItem(name, label, refuse, refuse, **more)


def many(label: str, count: int, **more: Any) -> tuple[DatasetItem, ...]:
    return tuple(item(f"{label}{n}", label, **more) for n in range(count))


FOLDS = {0: ("cat",), 1: ("dog",)}
FOLDED = many("cat", 8) + many("dog", 8)
VIDEO = tuple(item(f"{g}/{n}", g, group=g) for g in ("cow", "bear") for n in range(4))
SETS = [
    pytest.param(DataSet("s", FOLDED, "in_turn", FOLDS), id="in_turn"),
    pytest.param(DataSet("s", FOLDED, "by_class", FOLDS), id="by_class"),
    pytest.param(DataSet("s", FOLDED, "every"), id="every"),
    pytest.param(DataSet("s", FOLDED, "first"), id="first"),
    pytest.param(DataSet("s", many("cat", 40), "share"), id="share"),
    pytest.param(DataSet("s", VIDEO, "video"), id="video"),
]
DRAWN = [p for p in SETS if p.id in ("in_turn", "by_class", "every", "share")]


def spelled(found: Any) -> list[tuple[Any, ...]]:
    return [
        (*(i.name for i in e.targets), "by", *(i.name for i in e.references), e.fold, e.label)
        for e in found
    ]


@pytest.mark.parametrize("data_set", SETS)
@pytest.mark.parametrize("shots", [1, 5])
def test_one_seed_gives_the_same_episodes_and_none_is_read(data_set: DataSet, shots: int) -> None:
    first, again = (spelled(episodes(data_set, shots=shots, seed=3, count=30)) for _ in range(2))
    assert first
    assert first == again


@pytest.mark.parametrize("data_set", DRAWN)
def test_another_seed_gives_other_references(data_set: DataSet) -> None:
    one, two = (spelled(episodes(data_set, seed=s, count=30)) for s in (0, 1))
    assert one != two


@pytest.mark.parametrize("data_set", SETS)
def test_references_are_of_the_label_and_no_targets(data_set: DataSet) -> None:
    for episode in episodes(data_set, shots=5, count=50):
        assert {i.label for i in episode.targets + episode.references} == {episode.label}
        assert not {i.source for i in episode.targets} & {i.source for i in episode.references}


@pytest.mark.parametrize("data_set", [p for p in DRAWN if p.id != "share"])
def test_every_reference_of_an_episode_is_another_image(data_set: DataSet) -> None:
    for episode in episodes(data_set, shots=5, count=50):
        assert len({i.source for i in episode.references}) == 5


@pytest.mark.parametrize("protocol", ["in_turn", "by_class"])
def test_a_fold_has_a_thousand_episodes_of_its_classes(protocol: Any) -> None:
    found = list(episodes(DataSet("s", FOLDED, protocol, FOLDS), fold=1))
    assert len(found) == 1000
    assert {(e.label, e.fold) for e in found} == {("dog", 1)}


def test_in_turn_goes_round_and_round() -> None:
    data_set = DataSet("s", FOLDED, "in_turn", FOLDS)
    found = [e.targets[0].name for e in episodes(data_set, fold=0, count=10)]
    assert found == [*(f"cat{n}" for n in range(8)), "cat0", "cat1"]


def test_by_class_draws_classes_evenly_however_many_images_they_have() -> None:
    items = many("cat", 90) + many("dog", 10)
    data_set = DataSet("s", items, "by_class", {0: ("cat", "dog")})
    dogs = sum(e.label == "dog" for e in episodes(data_set))
    assert 420 < dogs < 580


def test_without_a_fold_all_folds_follow_each_other() -> None:
    data_set = DataSet("s", FOLDED, "by_class", FOLDS)
    assert [e.fold for e in episodes(data_set, count=2)] == [0, 0, 1, 1]


@pytest.mark.parametrize("protocol", ["in_turn", "by_class", "every"])
def test_only_the_tested_part_is_drawn_from(protocol: Any) -> None:
    items = (*many("cat", 5, split="val"), item("learnt", split="train"))
    for episode in episodes(DataSet("s", items, protocol, {0: ("cat",)}), count=40):
        assert {i.split for i in episode.targets + episode.references} == {"val"}


def test_every_item_is_a_target_once() -> None:
    found = [e.targets[0].name for e in episodes(DataSet("s", FOLDED, "every"))]
    assert sorted(found) == sorted(i.name for i in FOLDED)


def test_first_image_shows_the_others() -> None:
    one, two = episodes(DataSet("s", FOLDED, "first"))
    assert [i.name for i in one.references + two.references] == ["cat0", "dog0"]
    assert [i.name for i in one.targets] == [f"cat{n}" for n in range(1, 8)]


def test_a_fifth_of_the_training_images_is_the_pool() -> None:
    items = many("cat", 20, split="train") + many("kitten", 7, split="val")
    items = tuple(DatasetItem(i.name, "cat", refuse, refuse, split=i.split) for i in items)
    (found,) = episodes(DataSet("s", items, "share"), shots=None)
    assert [len(found.references), len(found.targets)] == [4, 7]
    assert {i.split for i in found.references} == {"train"}


def test_fewer_shots_are_the_first_of_the_pool_and_keep_the_targets() -> None:
    data_set = DataSet("s", many("cat", 40), "share")
    (one,), (five,) = (list(episodes(data_set, shots=k, seed=2)) for k in (1, 5))
    assert five.references[:1] == one.references
    assert five.targets == one.targets
    assert len(five.targets) == 32


def test_pool_is_the_permutation_of_the_seed() -> None:
    (found,) = episodes(DataSet("s", many("cat", 40), "share"), shots=None, seed=5)
    order = np.random.default_rng(5).permutation(40)[:8]
    assert [i.name for i in found.references] == [f"cat{n}" for n in order]


def test_an_image_of_two_classes_is_not_reference_of_one_and_target_of_the_other() -> None:
    items = tuple(item(f"{n}:{c}", c, source=str(n)) for n in range(30) for c in ("cat", "dog"))
    found = list(episodes(DataSet("s", items, "share"), shots=None))
    shown = {i.source for e in found for i in e.references}
    assert len(found) == 2
    assert not shown & {i.source for e in found for i in e.targets}


def test_video_shows_the_frame_before_and_gives_the_first() -> None:
    found = spelled(episodes(DataSet("s", VIDEO, "video")))
    assert found[:3] == [
        ("cow/1", "by", "cow/0", None, "cow"),
        ("cow/2", "by", "cow/1", None, "cow"),
        ("cow/3", "by", "cow/2", None, "cow"),
    ]
    assert found[3][0] == "bear/1"


def test_video_shows_as_many_frames_as_there_are() -> None:
    found = list(episodes(DataSet("s", VIDEO, "video"), shots=2))
    assert [len(e.references) for e in found] == [1, 2, 2, 1, 2, 2]
    assert {e.group for e in found} == {"cow", "bear"}


def test_lessons_are_a_seeded_share_without_the_classes_of_the_fold() -> None:
    items = many("cat", 3, split="train") + many("dog", 3, split="train")
    data_set = DataSet("s", (*items, item("v", split="val")), "by_class", FOLDS)
    assert {i.label for i in base_class_items(data_set, 0, share=0.99)} == {"dog"}
    assert {i.split for i in base_class_items(data_set, share=0.99)} == {"train"}
    drawn = [tuple(i.name for i in base_class_items(data_set, seed=s, share=0.5)) for s in range(5)]
    assert {len(names) for names in drawn} == {3}
    assert len(set(drawn)) > 1
    assert drawn[0] == tuple(i.name for i in base_class_items(data_set, share=0.5))


def test_there_are_no_more_lessons_than_memory_takes(monkeypatch) -> None:
    both = [replace(i, name=f"{i.name}b", label="fox") for i in many("dog", 8, split="train")]
    items = (*many("dog", 8, split="train"), *both, *many("cat", 4, split="val"))
    data_set = DataSet("s", items, "every")  # each image shows two classes
    assert len(base_class_items(data_set, share=0.99)) == 16
    monkeypatch.setattr(splits, "MOST", 5)
    found = base_class_items(data_set, share=0.99)
    assert sorted(Counter(i.source for i in found).values()) == [2, 2]  # whole images
    assert found != base_class_items(data_set, share=0.99, seed=1)


def test_there_are_no_lessons_where_references_or_targets_are_all_there_is() -> None:
    items = (*many("cat", 3, split="train"), item("v", split="val"))
    assert base_class_items(DataSet("s", items, "share")) == ()
    assert (
        base_class_items(DataSet("s", many("cat", 3, split="train"), "every")) == ()
    )  # its own targets
    assert base_class_items(DataSet("s", many("cat", 3), "every")) == ()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(
            lambda: episodes(DataSet("s", FOLDED, "by_class", FOLDS), fold=7),
            r"no fold 7\. Its folds are: 0, 1\.",
            id="fold",
        ),
        pytest.param(
            lambda: episodes(DataSet("s", FOLDED, "every"), shots=0), "shots 0", id="none"
        ),
        pytest.param(
            lambda: episodes(DataSet("s", FOLDED, "share"), share=1.5), r"share 1\.5", id="share"
        ),
        pytest.param(
            lambda: list(episodes(DataSet("s", many("cat", 5), "every"), shots=5)),
            r"5 image\(s\) of 'cat', expected 6",
            id="too_few",
        ),
        pytest.param(
            lambda: list(episodes(DataSet("s", many("cat", 10), "share"), shots=3)),
            r"2 reference\(s\) of 'cat' in the pool, expected 3",
            id="small_pool",
        ),
        pytest.param(
            lambda: list(episodes(DataSet("s", many("cow", 5), "in_turn", FOLDS))),
            "no image of the classes to test",
            id="no_class",
        ),
        pytest.param(lambda: DataSet("s", (), "every"), "no image with a mask", id="empty"),
        pytest.param(
            lambda: DataSet("s", (item("a"), item("a")), "every"), "two items", id="twice"
        ),
        pytest.param(
            lambda: Episode((item("a"),), (item("a"),), "cat"),
            "a is both target and reference",
            id="overlap",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_where_selects_by_all_that_is_given() -> None:
    items = (item("a", split="train"), item("b", split="val"), item("c", "dog", split="val"))
    data_set = DataSet("s", items, "every")
    assert [i.name for i in data_set.where(label="cat", split="val")] == ["b"]
    assert (data_set.labels, data_set.splits, data_set.groups) == (
        ("cat", "dog"), ("train", "val"), ())  # fmt: skip

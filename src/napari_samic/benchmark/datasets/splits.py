"""From a data set to its episodes: which references go with which targets.

Sources: HSNet (Min et al., ICCV 2021) for folds and classes, PerSAM (Zhang et al., ICLR 2024) for
the first image of a class, SAMIC for a fifth of the training data and for the frame before.
The same data set, options and seed give the same episodes; nothing is read. Knows no file.

- "in_turn" (Pascal-5i): the fold's items one after the other, round and round, `count` of them.
- "by_class" (COCO-20i): a class of the fold at random, then one of its items, `count` times.
- "every" (FSS-1000): each test item once.
- "first" (PerSeg): the first image of each class shows all others of the class.
- "share" (Kvasir-SEG, TSMU, NWPU): a seeded fifth of the training images is the pool of references.
  Elsewhere, `base_class_items` are a fifth of the training images that show other classes, `MOST`
  at most.
- "video" (DAVIS): frame by frame, with the frames before as references; the first one is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import cycle, islice

import numpy as np

from napari_samic.benchmark.datasets.base import DataSet, DatasetItem, Episode
from napari_samic.core.errors import InputError

SHARE = 0.2
"""Part of the training images that SAMIC learns from."""
COUNT = 1000
"""Episodes of a fold, as in HSNet."""
MOST = 2000
"""Items that are learned from before, at most: a fifth of COCO would take 100 GB of memory."""


def episodes(
    data_set: DataSet,
    *,
    shots: int | None = 1,
    fold: int | None = None,
    seed: int = 0,
    count: int = COUNT,
    share: float = SHARE,
) -> Iterator[Episode]:
    """Draw the episodes of a data set, as its protocol says.

    Parameters
    ----------
    data_set : DataSet
    shots : int or None
        References of each episode; None means the whole pool of "share", and 1 elsewhere. With
        "video" it is how many frames before; with "first" always 1.
    fold : int, optional
        Only this fold; default all, one after the other.
    seed : int
    count : int
        Episodes of each fold, for "in_turn" and "by_class".
    share : float
        Part of the training images that are references, for "share".

    Yields
    ------
    Episode

    Raises
    ------
    InputError
        An unknown fold, a number out of bounds, or a class with too few images.
    """
    _check(data_set, shots, fold, count, share)
    if data_set.protocol == "share":
        return _shared(data_set, shots, seed, share)
    shots = shots or 1
    if data_set.protocol == "video":
        return _video(data_set, shots)
    if data_set.protocol == "first":
        return _first(data_set)
    if data_set.protocol == "every":
        return _every(data_set, shots, seed)
    wanted = data_set.folds if fold is None else [fold]
    draw = _in_turn if data_set.protocol == "in_turn" else _by_class
    return (e for number in wanted for e in draw(data_set, number, shots, seed, count))


def base_class_items(
    data_set: DataSet, fold: int | None = None, *, seed: int = 0, share: float = SHARE
) -> tuple[DatasetItem, ...]:
    """Items that a network learns from before it is shown any reference: a share of "train".

    Without the fold's classes, and `MOST` at most. None where a set has no such part or no other to
    test on, and with "share", whose references are what is learned from.

    Raises
    ------
    InputError
        An unknown fold, or a share out of bounds.
    """
    _check(data_set, 1, fold, 1, share)
    parts = set(data_set.splits)
    if data_set.protocol == "share" or "train" not in parts or not parts & {"test", "val"}:
        return ()
    tested = set() if fold is None else set(data_set.folds[fold])
    candidates = [i for i in data_set.where(split="train") if i.label not in tested]
    items = Counter(i.source for i in candidates)
    drawn = _drawn([i.source for i in candidates], share, seed) if candidates else []
    room = np.cumsum([items[source] for source in drawn]) <= MOST
    chosen = {source for source, fits in zip(drawn, room, strict=True) if fits}
    return tuple(i for i in candidates if i.source in chosen)


def _check(
    data_set: DataSet, shots: int | None, fold: int | None, count: int, share: float
) -> None:
    if fold is not None and fold not in data_set.folds:
        folds = ", ".join(map(str, data_set.folds)) or "none"
        raise InputError(f"{data_set.name}: no fold {fold}. Its folds are: {folds}.")
    if (shots is not None and shots < 1) or count < 1 or not 0 < share < 1:
        msg = (
            f"{data_set.name}: shots {shots}, count {count}, share {share}: "
            "expected at least one of each, and a share between 0 and 1."
        )
        raise InputError(msg)


def _part(data_set: DataSet, *wanted: str) -> tuple[DatasetItem, ...]:
    """Items of the first of these parts that the set has; all items if it has none."""
    for split in wanted:
        if split in data_set.splits:
            return data_set.where(split=split)
    return data_set.items


def _tested(data_set: DataSet, labels: Sequence[str] | None = None) -> dict[str, list[DatasetItem]]:
    """Items of the test part by class, in the order of `labels`."""
    items = _part(data_set, "test", "val")
    out: dict[str, list[DatasetItem]] = {label: [] for label in labels or [i.label for i in items]}
    for item in items:
        if item.label in out:
            out[item.label].append(item)
    return {label: members for label, members in out.items() if members}


def _in_turn(data_set: DataSet, fold: int, shots: int, seed: int, count: int) -> Iterator[Episode]:
    by_label = _tested(data_set, data_set.folds[fold])
    _check_enough(data_set, by_label, shots)
    rng = np.random.default_rng([seed, fold, shots])
    order = [i for i in _part(data_set, "test", "val") if i.label in by_label]
    for target in islice(cycle(order), count):
        yield _episode(target, by_label[target.label], shots, rng, fold)


def _by_class(data_set: DataSet, fold: int, shots: int, seed: int, count: int) -> Iterator[Episode]:
    by_label = _tested(data_set, data_set.folds[fold])
    _check_enough(data_set, by_label, shots)
    rng = np.random.default_rng([seed, fold, shots])
    labels = list(by_label)
    for _ in range(count if labels else 0):
        items = by_label[labels[rng.integers(len(labels))]]
        yield _episode(items[rng.integers(len(items))], items, shots, rng, fold)


def _every(data_set: DataSet, shots: int, seed: int) -> Iterator[Episode]:
    by_label = _tested(data_set)
    _check_enough(data_set, by_label, shots)
    rng = np.random.default_rng([seed, shots])
    for items in by_label.values():
        for target in items:
            yield _episode(target, items, shots, rng, None)


def _episode(
    target: DatasetItem,
    items: Sequence[DatasetItem],
    shots: int,
    rng: np.random.Generator,
    fold: int | None,
) -> Episode:
    others = [item for item in items if item.source != target.source]
    chosen = rng.choice(len(others), shots, replace=False)
    return Episode((target,), tuple(others[i] for i in chosen), target.label, fold, target.group)


def _check_enough(data_set: DataSet, by_label: dict[str, list[DatasetItem]], shots: int) -> None:
    if not by_label:
        raise InputError(f"{data_set.name}: no image of the classes to test. Is the folder whole?")
    for label, items in by_label.items():
        if (count := len({item.source for item in items})) <= shots:
            msg = (
                f"{data_set.name}: {count} image(s) of '{label}', expected {shots + 1} for a "
                f"target and {shots} reference(s). Ask for fewer shots or complete the folder."
            )
            raise InputError(msg)


def _first(data_set: DataSet) -> Iterator[Episode]:
    for label in data_set.labels:
        first, *others = data_set.where(label=label)
        if others:
            yield Episode(tuple(others), (first,), label, group=first.group)


def _shared(data_set: DataSet, shots: int | None, seed: int, share: float) -> Iterator[Episode]:
    """One episode a class; images are divided once for all classes, before any class is asked."""
    learn = _part(data_set, "train")
    pool = _drawn([item.source for item in learn], share, seed)
    tested = _part(data_set, "test", "val")
    place = {source: n for n, source in enumerate(pool)}
    for label in data_set.labels:
        candidates = [i for i in learn if i.label == label and i.source in place]
        references = sorted(candidates, key=lambda item: place[item.source])[:shots]
        targets = tuple(i for i in tested if i.label == label and i.source not in place)
        if shots is not None and targets and len(references) < shots:
            msg = (
                f"{data_set.name}: {len(references)} reference(s) of '{label}' in the pool, "
                f"expected {shots}. Ask for fewer shots or a larger share."
            )
            raise InputError(msg)
        if references and targets:
            yield Episode(targets, tuple(references), label)


def _drawn(sources: Sequence[str], share: float, seed: int) -> list[str]:
    once = list(dict.fromkeys(sources))
    size = max(1, round(share * len(once)))
    return [once[i] for i in np.random.default_rng(seed).permutation(len(once))[:size]]


def _video(data_set: DataSet, shots: int) -> Iterator[Episode]:
    tested = _part(data_set, "test", "val")
    for group in dict.fromkeys(item.group for item in tested):
        frames = [item for item in tested if item.group == group]
        for n in range(1, len(frames)):
            before = tuple(frames[max(0, n - shots) : n])
            yield Episode((frames[n],), before, frames[n].label, group=group)

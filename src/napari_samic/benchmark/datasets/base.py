"""What a data set is made of: items that are read when asked for, and episodes of them.

An item is one image with the truth of one class. Everything is frozen and keeps its order, so that
one seed always means the same episodes. Knows no folder and no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import InputError
from napari_samic.core.types import BoolArray, IntArray
from napari_samic.evaluation.matching import as_instances

Protocol: TypeAlias = Literal["in_turn", "by_class", "every", "first", "share", "video"]
"""How targets and references are chosen: see `splits`."""


@dataclass(frozen=True, eq=False)
class DatasetItem:
    """One image and the truth of one class in it.

    Attributes
    ----------
    name : str
        Unique in its data set.
    label : str
        Name of the class.
    read_image : callable
        Raw pixels, (H, W) or (H, W, C), in the file's own dtype.
    read_truth : callable
        (H, W) int32: numbers of objects, or 0 and 1.
    source : str
        Which image it is: items of one source share their pixels. Default: `name`.
    split : str
        "train", "val" or "test"; "" if the set does not say.
    group : str
        Sequence or region it belongs to, or "".
    read_ignored : callable or None
        (H, W) bool: pixels that no score counts, where the set marks such.
    is_numbered : bool
        Whether the truth numbers objects even where there is one, so that one in parts is scored as
        one; else a single value falls into its parts, as it does where it is learned from.
    """

    name: str
    label: str
    read_image: Callable[[], NDArray[Any]]
    read_truth: Callable[[], IntArray]
    source: str = ""
    split: str = ""
    group: str = ""
    read_ignored: Callable[[], BoolArray] | None = None
    is_numbered: bool = False

    def objects_in(self, truth: IntArray) -> IntArray:
        """(H, W) int32: numbers of the objects in its truth."""
        return np.asarray(truth, np.int32) if self.is_numbered else as_instances(truth)

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", self.source or self.name)


@dataclass(frozen=True, eq=False)
class DataSet:
    """A named list of items, and how the set is to be used.

    Attributes
    ----------
    name : str
    items : tuple of DatasetItem
        In a fixed order; those of a sequence in the order of time.
    protocol : str
        How `splits.episodes` draws from it.
    folds : dict of int to tuple of str
        Classes that are tested in each fold; empty where the set has no folds.
    """

    name: str
    items: tuple[DatasetItem, ...]
    protocol: Protocol
    folds: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.items:
            raise InputError(f"{self.name}: no image with a mask. Check that the folder is whole.")
        seen: set[str] = set()
        for item in self.items:
            if item.name in seen:
                msg = f"{self.name}: two items are called '{item.name}'. Rename one of the files."
                raise InputError(msg)
            seen.add(item.name)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes that occur, in the order of the items."""
        return _once(item.label for item in self.items)

    @property
    def groups(self) -> tuple[str, ...]:
        """Sequences or regions, in the order of the items."""
        return _once(item.group for item in self.items if item.group)

    @property
    def splits(self) -> tuple[str, ...]:
        """Parts that the set is divided into, in the order of the items."""
        return _once(item.split for item in self.items if item.split)

    def where(
        self, *, label: str | None = None, split: str | None = None, group: str | None = None
    ) -> tuple[DatasetItem, ...]:
        """Items of a class, of a part and of a group; None means any."""
        wanted = {"label": label, "split": split, "group": group}
        criteria = {key: value for key, value in wanted.items() if value is not None}
        return tuple(
            item for item in self.items if all(getattr(item, k) == v for k, v in criteria.items())
        )


@dataclass(frozen=True, eq=False)
class Episode:
    """Targets to segment, and the references that show how.

    Attributes
    ----------
    targets, references : tuple of DatasetItem
        Never of the same image.
    label : str
        Class that is asked for.
    fold : int or None
    group : str
        Sequence or region, or "".
    """

    targets: tuple[DatasetItem, ...]
    references: tuple[DatasetItem, ...]
    label: str
    fold: int | None = None
    group: str = ""

    def __post_init__(self) -> None:
        both = {i.source for i in self.targets} & {i.source for i in self.references}
        if both:
            msg = f"{sorted(both)[0]} is both target and reference. Take it out of one of them."
            raise InputError(msg)


def _once(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))

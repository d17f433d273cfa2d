"""Public data sets as they were published: folders to items, items to episodes.

`open(name, folder)` lists the items of a set; `episodes` draws targets and references from it as
the set's own benchmark does, and `base_class_items` what is learned from before. Lists and
outlines are read when a set is opened, pixels and masks when an item is asked. Nothing is fetched.
Knows no model, no torch and no napari.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from napari_samic.benchmark.datasets import (
    coco20i,
    davis,
    fss1000,
    image_mask_pairs,
    nwpu,
    pascal5i,
    perseg,
)
from napari_samic.benchmark.datasets.base import DataSet, DatasetItem, Episode
from napari_samic.benchmark.datasets.splits import base_class_items, episodes
from napari_samic.core.errors import InputError

__all__ = ["DataSet", "DatasetItem", "Episode", "base_class_items", "episodes", "names", "open"]

_READERS: dict[str, Callable[[str | Path, str | None], DataSet]] = {
    "coco-20i": coco20i.read,
    "pascal-5i": pascal5i.read,
    "fss-1000": fss1000.read,
    "perseg": perseg.read,
    "tsmu": image_mask_pairs.read_tsmu,
    "nwpu-vhr10": nwpu.read,
    "nwpu-vhr10-boxes": nwpu.read_boxes,
    "kvasir-seg": image_mask_pairs.read_kvasir,
    "davis-16": davis.read_2016,
    "davis-17": davis.read_2017,
    "davis-flat": davis.read_flat,
    "folder": image_mask_pairs.read_folder,
}


def names() -> tuple[str, ...]:
    """Names that `open` takes."""
    return tuple(_READERS)


def open(name: str, folder: str | Path, *, split: str | None = None) -> DataSet:
    """List the items of a data set that lies in a folder.

    Parameters
    ----------
    name : str
        One of `names()`.
    folder : str or Path
        As its archive unpacks.
    split : str, optional
        Only this part ("train", "val" or "test"), which for COCO and Pascal saves much time.
        Default: all that the folder has.

    Returns
    -------
    DataSet

    Raises
    ------
    InputError
        An unknown name or part, or a folder of another layout; it says what is missing.
    FormatError
        A damaged list or file of outlines.
    """
    if name not in _READERS:
        near = difflib.get_close_matches(name, _READERS, 1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise InputError(f"no data set '{name}'.{hint} There are: {', '.join(_READERS)}.")
    data_set = _READERS[name](folder, split)
    if split is None:
        return data_set
    if split not in data_set.splits:
        parts = ", ".join(data_set.splits) or "none"
        raise InputError(f"{name}: no part '{split}' in {folder}. It has: {parts}.")
    return DataSet(data_set.name, data_set.where(split=split), data_set.protocol, data_set.folds)

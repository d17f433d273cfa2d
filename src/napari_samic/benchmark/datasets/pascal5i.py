"""Pascal-5i: objects of 20 classes in photographs, in four folds of five.

    VOC2012/JPEGImages/2007_000033.jpg
    VOC2012/SegmentationClassAug/2007_000033.png   (0 ground, 1 to 20 classes, 255 not counted)
    VOC2012/ImageSets/Segmentation/val.txt         or HSNet's splits/val/fold0.txt ...

Sources: Everingham et al., IJCV 2010; Hariharan et al., ICCV 2011 (SBD); folds of Shaban et al.,
BMVC 2017, as in HSNet. HSNet's lists (a line is 2007_000033__01: image and class) are taken where
they lie in `splits/{trn,val}`. Without them each mask is looked through once for its classes when
the set is opened, about a minute for all; test images are those of val.txt, the others are "train".
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from napari_samic.benchmark.datasets.base import DataSet, DatasetItem
from napari_samic.benchmark.datasets.layout import (
    by_stem,
    names_in,
    read_class,
    read_equal,
    read_numbers,
    read_raw,
    root_of,
)
from napari_samic.core.errors import FormatError, InputError

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
FOLDS = {fold: CLASSES[5 * fold : 5 * fold + 5] for fold in range(4)}
NOT_COUNTED = 255
_MASKS = "SegmentationClassAug"
_LISTS = {"train": "trn", "val": "val"}


def read(folder: str | Path, split: str | None = None) -> DataSet:
    """Open Pascal-5i.

    Parameters
    ----------
    folder : str or Path
        VOC2012, or a folder that holds it or VOCdevkit/VOC2012.
    split : str, optional
        "train" or "val" looks at that part only.

    Raises
    ------
    InputError
        Another folder; it says what is missing.
    FormatError
        A list with a line of another form.
    """
    inner = ("VOC2012", "VOCdevkit/VOC2012")
    root = root_of(folder, ["JPEGImages", _MASKS], "Pascal-5i", inner)
    parts = [split] if split in _LISTS else list(_LISTS)
    pairs = _listed(root, parts) if (root / "splits").is_dir() else _looked_through(root, parts)
    items = tuple(_item(root, stem, number, part) for part, stem, number in pairs)
    return DataSet("pascal-5i", items, "in_turn", FOLDS)


def _item(root: Path, stem: str, number: int, split: str) -> DatasetItem:
    mask = root / _MASKS / f"{stem}.png"
    return DatasetItem(
        name=f"{stem}:{CLASSES[number - 1]}",
        label=CLASSES[number - 1],
        read_image=partial(read_raw, root / "JPEGImages" / f"{stem}.jpg"),
        read_truth=partial(read_class, mask, number),
        source=stem,
        split=split,
        read_ignored=partial(read_equal, mask, NOT_COUNTED),
    )


def _listed(root: Path, parts: list[str]) -> Iterator[tuple[str, str, int]]:
    """Part, image and class of each line of HSNet's lists."""
    for part in parts:
        seen: set[tuple[str, int]] = set()
        for fold in FOLDS:
            path = root / "splits" / _LISTS[part] / f"fold{fold}.txt"
            for line in names_in(path, "HSNet's list of this fold"):
                pair = _pair(line, path)
                if pair not in seen:
                    seen.add(pair)
                    yield part, *pair


def _pair(line: str, path: Path) -> tuple[str, int]:
    stem, _, number = line.partition("__")
    if not (number.isdigit() and 1 <= int(number) <= len(CLASSES)):
        msg = f"{path}: line '{line}', expected an image and its class, as in 2007_000033__01."
        raise FormatError(f"{msg} Take HSNet's lists.")
    return stem, int(number)


def _looked_through(root: Path, parts: list[str]) -> Iterator[tuple[str, str, int]]:
    """Part, image and class of each mask, from the masks themselves."""
    path = root / "ImageSets" / "Segmentation" / "val.txt"
    if not path.is_file():
        msg = (
            f"{root}: neither splits/val/fold0.txt nor ImageSets/Segmentation/val.txt, which say "
            "what is tested. Add the lists of HSNet or of VOC2012."
        )
        raise InputError(msg)
    tested = set(names_in(path, "the list val.txt of VOC2012"))
    for stem, mask in by_stem(root / _MASKS).items():
        part = "val" if stem in tested else "train"
        if part in parts:
            numbers = read_numbers(mask)
            yield from ((part, stem, int(n)) for n in np.intersect1d(numbers, range(1, 21)))

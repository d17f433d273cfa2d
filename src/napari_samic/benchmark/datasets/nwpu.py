"""NWPU VHR-10: objects of ten classes in aerial images.

    NWPU VHR-10 dataset/positive image set/001.jpg ... 650.jpg
    NWPU VHR-10 dataset/ground truth/001.txt       lines of (x1,y1),(x2,y2),class
    annotations.json in it or beside it            outlines, COCO-style

Sources: Cheng et al., ISPRS Journal 2014 (boxes, classes 1 to 10); outlines by Su et al., IGARSS
2019. "nwpu-vhr10" needs the outlines; "nwpu-vhr10-boxes" fills the boxes instead, which says little
of how good a mask is. Corners are pixels from 0, the last one inside. Images without an object are
left out; one with several classes gives an item for each. The paper names no division: a fifth of
the images are references.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from operator import truediv
from pathlib import Path

import numpy as np

from napari_samic.benchmark.datasets.base import DataSet, DatasetItem
from napari_samic.benchmark.datasets.coco import read_instances
from napari_samic.benchmark.datasets.layout import by_stem, found_in, read_raw, root_of
from napari_samic.core.errors import FormatError, InputError
from napari_samic.core.types import IntArray
from napari_samic.io.text_files import read_text

CLASSES = (
    *("airplane", "ship", "storage tank", "baseball diamond", "tennis court"),
    *("basketball court", "ground track field", "harbor", "bridge", "vehicle"),
)
IMAGES, BOXES = "positive image set", "ground truth"
_NOTES = ("annotations.json", "instances.json", "NWPU_VHR10.json")
_INNER = ("NWPU VHR-10 dataset", "NWPU VHR-10")
_LINE = re.compile(r"\(\s*(\d+)\s*,\s*(\d+)\s*\)\s*,\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)\s*,\s*(\d+)")

Boxes = tuple[tuple[int, int, int, int], ...]
"""x1, y1, x2, y2 of each object."""


def read(folder: str | Path, split: str | None = None) -> DataSet:
    """Open NWPU VHR-10 with the outlines of its objects; it has no parts.

    Parameters
    ----------
    folder : str or Path
        The folder of "positive image set", or one that holds it.

    Raises
    ------
    InputError
        Another folder, or no file of outlines; it says what is missing.
    FormatError
        A damaged file of outlines.
    """
    del split
    root = root_of(folder, [IMAGES], "NWPU VHR-10", _INNER)
    outline_files = [
        p / name for p in (root, root.parent) for name in _NOTES if (p / name).is_file()
    ]
    if not outline_files:
        msg = (
            f"{root}: no file of outlines ({_NOTES[0]}), found {found_in(root)}. Add the "
            "COCO-style annotations, or open 'nwpu-vhr10-boxes', which fills the boxes."
        )
        raise InputError(msg)
    items = read_instances(outline_files[0], partial(truediv, root / IMAGES))
    return DataSet("nwpu-vhr10", tuple(items), "share")


def read_boxes(folder: str | Path, split: str | None = None) -> DataSet:
    """Open NWPU VHR-10 with filled boxes as truth; it has no parts.

    Parameters
    ----------
    folder : str or Path
        The folder of "positive image set" and "ground truth", or one that holds it.

    Raises
    ------
    InputError
        Another folder; it says what is missing.
    FormatError
        A line that is no box.
    """
    del split
    root = root_of(folder, [IMAGES, BOXES], "NWPU VHR-10", _INNER)
    images = by_stem(root / IMAGES)
    items = tuple(item for stem, path in images.items() for item in _items(root, stem, path))
    return DataSet("nwpu-vhr10-boxes", items, "share")


def _items(root: Path, stem: str, path: Path) -> Iterator[DatasetItem]:
    box_file = root / BOXES / f"{stem}.txt"
    if not box_file.is_file():
        return
    for number, boxes in sorted(_boxes(box_file).items()):
        yield DatasetItem(
            name=f"{stem}:{CLASSES[number - 1]}",
            label=CLASSES[number - 1],
            read_image=partial(read_raw, path),
            read_truth=partial(_filled, path, boxes),
            source=stem,
        )


def _boxes(path: Path) -> dict[int, Boxes]:
    """Boxes of each class."""
    out: defaultdict[int, list[tuple[int, int, int, int]]] = defaultdict(list)
    for line in read_text(path, "the box file of this image").splitlines():
        if not line.strip():
            continue
        match = _LINE.match(line.strip())
        if not match or not 1 <= int(match[5]) <= len(CLASSES):
            msg = f"{path}: line '{line.strip()}', expected (x1,y1),(x2,y2),class with 1 to 10."
            raise FormatError(f"{msg} Take a whole copy.")
        x1, y1, x2, y2, number = map(int, match.groups())
        out[number].append((x1, y1, x2, y2))
    return {number: tuple(boxes) for number, boxes in out.items()}


def _filled(path: Path, boxes: Boxes) -> IntArray:
    """Boxes with the numbers 1, 2 ..., (H, W) int32."""
    out = np.zeros(read_raw(path).shape[:2], np.int32)
    for number, (x1, y1, x2, y2) in enumerate(boxes, 1):
        out[y1 : y2 + 1, x1 : x2 + 1] = number
    return out

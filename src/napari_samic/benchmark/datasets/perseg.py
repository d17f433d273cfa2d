"""PerSeg: 40 objects of daily life, five to seven images of each.

    Images/backpack_dog/00.jpg, 01.jpg ...; Annotations/backpack_dog/00.png, 01.png ...

Source: Zhang et al., "Personalize Segment Anything Model with one shot", ICLR 2024. The first image
of an object is its reference, the others are targets; PerSAM's own script scores the first, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from napari_samic.benchmark.datasets.base import DataSet, DatasetItem
from napari_samic.benchmark.datasets.layout import (
    by_stem,
    read_binary,
    read_raw,
    root_of,
    sub_folders,
)
from napari_samic.core.errors import InputError


def read(folder: str | Path, split: str | None = None) -> DataSet:
    """Open PerSeg, which has no parts: `split` changes nothing.

    Parameters
    ----------
    folder : str or Path
        The folder of Images and Annotations, or one that holds it as data or PerSeg.

    Raises
    ------
    InputError
        Another folder, or an object without annotations; it says what is missing.
    """
    del split
    root = root_of(folder, ["Images", "Annotations"], "PerSeg", inner=("data", "PerSeg"))
    items = tuple(i for place in sub_folders(root / "Images") for i in _items(root, place))
    return DataSet("perseg", items, "first")


def _items(root: Path, images: Path) -> Iterator[DatasetItem]:
    root_of(root / "Annotations", [images.name], "PerSeg")
    masks = by_stem(root / "Annotations" / images.name)
    files = by_stem(images)
    if (first := next(iter(files))) not in masks:
        msg = f"{images / first}: the reference has no mask. Complete the folder Annotations."
        raise InputError(msg)
    for stem, path in files.items():
        if stem in masks:
            yield DatasetItem(
                name=f"{images.name}/{stem}",
                label=images.name,
                read_image=partial(read_raw, path),
                read_truth=partial(read_binary, masks[stem]),
            )

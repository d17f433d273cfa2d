"""FSS-1000: ten images of each of 1000 classes.

    fewshot_data/ab_wheel/1.jpg, 1.png ... 10.jpg, 10.png; fewshot_data/zucchini/...
    fss_test_set.txt, or splits/test.txt beside or in it: names of the classes to test

Source: Li et al., "FSS-1000: A 1000-class dataset for few-shot segmentation", CVPR 2020. A class
in no list is for training; without any list every class is tested. Masks are gray at the rim and
are cut at 128, as in HSNet.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from napari_samic.benchmark.datasets.base import DataSet, DatasetItem
from napari_samic.benchmark.datasets.layout import (
    found_in,
    names_in,
    read_binary,
    read_raw,
    sub_folders,
)
from napari_samic.core.errors import InputError
from napari_samic.io.paths import natural_key

_LISTS = {
    "test": ("fss_test_set.txt", "splits/test.txt", "splits/test.text", "test.txt"),
    "val": ("splits/val.txt", "val.txt"),
    "train": ("splits/trn.txt", "trn.txt", "train.txt"),
}


def read(folder: str | Path, split: str | None = None) -> DataSet:
    """Open FSS-1000; a `split` is no faster than all.

    Parameters
    ----------
    folder : str or Path
        The folder of class folders, or one that holds it as fewshot_data, data or FSS-1000.

    Raises
    ------
    InputError
        Another folder; it says what is missing.
    """
    del split
    root = _root(Path(folder).expanduser())
    parts = _parts((root, root.parent))
    default = "train" if parts else ""
    items = tuple(i for p in sub_folders(root) for i in _items(p, parts.get(p.name, default)))
    return DataSet("fss-1000", items, "every")


def _root(folder: Path) -> Path:
    inner = ("", "fewshot_data", "data", "FSS-1000", "FSS-1000/data", "fewshot_data/fewshot_data")
    for name in inner:
        place = folder / name
        if place.is_dir() and any(next(_items(p, ""), None) for p in sub_folders(place)):
            return place
    msg = (
        f"{folder}: not a folder of FSS-1000: no class folder with 1.jpg and 1.png, found "
        f"{found_in(folder)}. Give the folder that holds ab_wheel ... zucchini."
    )
    raise InputError(msg)


def _items(folder: Path, split: str) -> Iterator[DatasetItem]:
    for path in sorted(folder.glob("*.jpg"), key=lambda p: natural_key(p.name)):
        if (mask := path.with_suffix(".png")).is_file():
            yield DatasetItem(
                name=f"{folder.name}/{path.stem}",
                label=folder.name,
                read_image=partial(read_raw, path),
                read_truth=partial(read_binary, mask),
                split=split,
            )


def _parts(places: tuple[Path, ...]) -> dict[str, str]:
    """Part of each class that a list names."""
    out: dict[str, str] = {}
    for part, names in _LISTS.items():
        lists = [place / name for place in places for name in names if (place / name).is_file()]
        for label in names_in(lists[0], "a list of class names") if lists else []:
            out.setdefault(label, part)
    return out

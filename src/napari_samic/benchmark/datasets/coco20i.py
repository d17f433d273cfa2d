"""COCO-20i: objects of 80 classes in photographs, in four folds of 20.

    COCO2014/annotations/instances_val2014.json, instances_train2014.json
    COCO2014/val2014/COCO_val2014_000000000042.jpg ..., COCO2014/train2014/...

Sources: Lin et al., ECCV 2014; folds as in HSNet (Min et al., ICCV 2021): with the 80 classes
sorted by their number, class k is tested in fold k % 4, on val2014. HSNet itself reads label images
made from these annotations, and lists of images; here every image that has the class counts. One
of the two parts may be missing. Crowds are objects like others.
"""

from __future__ import annotations

from functools import partial
from operator import truediv
from pathlib import Path

from napari_samic.benchmark.datasets.base import DataSet, DatasetItem
from napari_samic.benchmark.datasets.coco import class_names, read_instances
from napari_samic.benchmark.datasets.layout import root_of

FOLDS = 4
_PARTS = {"train": "train2014", "val": "val2014"}


def read(folder: str | Path, split: str | None = None) -> DataSet:
    """Open COCO-20i.

    Parameters
    ----------
    folder : str or Path
        COCO2014, or the folder that holds it.
    split : str, optional
        "train" or "val" reads the annotations of that part only; those of train2014 take minutes
        and gigabytes, and the test needs none of them. Default: all that are there.

    Raises
    ------
    InputError
        Another folder; it says what is missing.
    FormatError
        A damaged annotation file.
    """
    parts = [split] if split in _PARTS else list(_PARTS)
    wanted = "|".join(f"annotations/instances_{_PARTS[part]}.json" for part in parts)
    root = root_of(folder, [wanted], "COCO-20i", inner=("COCO2014", "coco"))
    items: list[DatasetItem] = []
    names: list[str] = []
    for part in parts:
        annotation_file = root / "annotations" / f"instances_{_PARTS[part]}.json"
        if annotation_file.exists():
            root_of(root, [_PARTS[part]], "COCO-20i")
            items += read_instances(annotation_file, partial(truediv, root / _PARTS[part]), part)
            names = names or class_names(annotation_file)
    return DataSet("coco-20i", tuple(items), "by_class", folds_of(names))


def folds_of(names: list[str]) -> dict[int, tuple[str, ...]]:
    """Every fourth class, starting at 0, 1, 2 and 3.

    >>> folds_of(["person", "bicycle", "car", "motorcycle", "airplane"])[0]
    ('person', 'airplane')
    """
    return {fold: tuple(names[fold::FOLDS]) for fold in range(FOLDS)}

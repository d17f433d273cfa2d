"""A COCO file of instances to one item for each class in each image.

Source: the COCO data format, https://cocodataset.org/#format-data. The file is read whole when a
set is opened; outlines become masks when an item's truth is asked for. Knows no data set.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from napari_samic.benchmark.datasets.base import DatasetItem
from napari_samic.benchmark.datasets.layout import read_raw
from napari_samic.core.errors import FormatError
from napari_samic.io.outlines import objects_of
from napari_samic.io.text_files import read_json


def read_instances(path: Path, place: Callable[[str], Path], split: str = "") -> list[DatasetItem]:
    """One item for each image and class, by the image's file name, then by the class's number.

    Parameters
    ----------
    path : Path
        The JSON file.
    place : callable
        File name of an image to its path.
    split : str

    Returns
    -------
    list of DatasetItem
        Images without an outline have none. Regions of crowds count as one object each.

    Raises
    ------
    FormatError
        Not JSON, or not of this format.
    """
    tree = read_json(path, "an instances file of COCO's format", dense=True)
    try:
        names = {int(c["id"]): str(c["name"]) for c in tree["categories"]}
        images = sorted(tree["images"], key=lambda image: str(image["file_name"]))
        outlines = _by_image(tree["annotations"])
        return [
            _item(image, names[number], outlines[image["id"]][number], place, split)
            for image in images
            for number in sorted(outlines.get(image["id"], {}))
        ]
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{path}: not a file of COCO's instances ({error!r}). Pick another, or a whole copy."
        raise FormatError(msg) from error


def _by_image(annotations: list[dict[str, Any]]) -> dict[Any, dict[int, list[Any]]]:
    """Outlines by image, then by class."""
    out: defaultdict[Any, defaultdict[int, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for note in annotations:
        if note.get("segmentation"):
            out[note["image_id"]][int(note["category_id"])].append(note["segmentation"])
    return {image: dict(classes) for image, classes in out.items()}


def _item(
    image: dict[str, Any],
    label: str,
    outlines: list[Any],
    place: Callable[[str], Path],
    split: str,
) -> DatasetItem:
    path = place(str(image["file_name"]))
    shape = (int(image["height"]), int(image["width"]))
    return DatasetItem(
        name=f"{path.stem}:{label}",
        label=label,
        read_image=partial(read_raw, path),
        read_truth=partial(objects_of, outlines, shape),
        source=path.stem,
        split=split,
        is_numbered=True,
    )


def class_names(path: Path) -> list[str]:
    """Names of all classes of a COCO file, by their number.

    Raises
    ------
    FormatError
        Not JSON, or not of this format.
    """
    tree = read_json(path, "an instances file of COCO's format", dense=True)
    try:
        return [str(c["name"]) for c in sorted(tree["categories"], key=lambda c: int(c["id"]))]
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{path}: no list of classes ({error!r}). Pick an instances file of COCO's format."
        raise FormatError(msg) from error

"""COCO: label images to one JSON file of object instances.

Source: the COCO data format, https://cocodataset.org/#format-data. Boxes are x, y, width, height
from the image's upper left corner, masks run-length encoded column by column, the ground first; or
polygons, which can't have holes. Where values are classes, an annotation is a crowd.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from napari_samic.core.label_objects import CroppedObject, LabelObjects
from napari_samic.export.polygons import polygons
from napari_samic.io.outlines import rle

Masks = Literal["rle", "polygons"]


class CocoTree:
    """The content of a COCO file, gathered image by image.

    Parameters
    ----------
    masks : {"rle", "polygons"}
        RLE is exact; polygons are what some tools want, and lose holes.
    """

    def __init__(self, masks: Masks = "rle") -> None:
        self._masks = masks
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._classes: dict[int, str] = {}

    def add(self, image: LabelObjects) -> None:
        """Take one label image."""
        height, width = image.labels.shape
        number = len(self._images) + 1
        self._images.append(
            {
                "id": number,
                "width": width,
                "height": height,
                "file_name": image.file_name or image.name,
                "name": image.name,
            }
        )
        self._classes |= {k: image.class_name(k) for k in image.classes}
        for cutout in image.cutouts():
            self._annotations.append(self._annotation(image, number, cutout))

    def _annotation(
        self, image: LabelObjects, number: int, cutout: CroppedObject
    ) -> dict[str, Any]:
        about = image.of(cutout.value)
        self._classes.setdefault(about.label, image.class_name(about.label))
        (row, column), (height, width) = cutout.corner_rc, cutout.inside.shape
        shape = (image.labels.shape[0], image.labels.shape[1])
        as_rle = self._masks == "rle" or not image.numbered
        annotation = {
            "id": len(self._annotations) + 1,
            "image_id": number,
            "category_id": about.label,
            "segmentation": rle(cutout.full(shape)) if as_rle else _flat(cutout),
            "area": int(cutout.inside.sum()),
            "bbox": [column, row, width, height],
            "iscrowd": int(not image.numbered),
            "label": cutout.value,
        }
        return annotation if about.score is None else annotation | {"score": about.score}

    def tree(self) -> dict[str, Any]:
        """All of it, for `write_json`."""
        return {
            "info": {"description": "Labels of napari-samic", "version": "1.0"},
            "licenses": [],
            "images": self._images,
            "annotations": self._annotations,
            "categories": [
                {"id": label, "name": name, "supercategory": ""}
                for label, name in sorted(self._classes.items())
            ],
        }


def coco_tree(images: Iterable[LabelObjects], *, masks: Masks = "rle") -> dict[str, Any]:
    """The content of a COCO file for some images."""
    coco = CocoTree(masks)
    for image in images:
        coco.add(image)
    return coco.tree()


def _flat(cutout: CroppedObject) -> list[list[int]]:
    """Outer rings as x, y, x, y ..."""
    row, column = cutout.corner_rc
    return [
        (rings[0] + np.array([column, row])).ravel().tolist() for rings in polygons(cutout.inside)
    ]

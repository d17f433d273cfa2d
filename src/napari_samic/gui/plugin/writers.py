"""Labels layers to COCO, GeoJSON, ImageJ ROIs and label TIFF, for "Save selected layers".

Speaks napari's writer protocol: paths in, written paths out. The user chose the path in napari's
own dialog, which asks before it replaces a file. Needs no viewer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_samic.core.errors import InputError


def write_labels(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """One labels layer as a compressed int32 TIFF of its shape (several scales: of the first).

    Raises
    ------
    InputError, OutputError
        See `export.write_labels`.
    """
    from napari_samic.io.writers import write_labels as write

    del meta
    write(path, np.asarray(_full(data)), overwrite=True)
    return [path]


def write_coco(path: str, layers: list[tuple[Any, dict[str, Any], str]]) -> list[str]:
    """Labels layers as one COCO file; each slice is an image.

    Raises
    ------
    InputError, OutputError
        Not labels, or a place that can't be written to.
    """
    from napari_samic.export.coco import coco_tree
    from napari_samic.io.writers import write_json

    write_json(path, coco_tree(image for layer in layers for image in _images(*layer[:2])),
               overwrite=True)  # fmt: skip
    return [path]


def write_geojson(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """One labels layer as GeoJSON; a stack becomes a file for each slice.

    Raises
    ------
    InputError, OutputError
        Not labels, or a place that can't be written to.
    """
    from napari_samic.export.geojson import geojson_tree
    from napari_samic.io.writers import write_json

    target, out = Path(path), []
    images = list(_images(data, meta))
    for image in images:
        place = image.name[len(str(meta.get("name", ""))) :] if len(images) > 1 else ""
        file = target.with_name(f"{target.stem}{place}{target.suffix}")
        write_json(file, geojson_tree(image), overwrite=True)
        out.append(str(file))
    return out


def write_rois(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """One labels layer as a zip of ImageJ ROIs, those of a stack with their places.

    Raises
    ------
    InputError, OutputError
        Not labels, or a place that can't be written to.
    """
    from napari_samic.export.imagej_roi import imagej_rois, write_roi_set
    from napari_samic.io.writers import Calibration

    stack_shape = np.shape(_full(data))[:-2]
    stack_axes = Calibration().stack_letters(len(stack_shape))
    planes = zip(np.ndindex(*stack_shape), _images(data, meta), strict=True)
    rois = [
        roi
        for index, image in planes
        for roi in imagej_rois(image, index=index, stack_shape=stack_shape, stack_axes=stack_axes)
    ]
    write_roi_set(path, rois, overwrite=True)
    return [path]


def _images(data: Any, meta: Mapping[str, Any]) -> Iterator[Any]:
    """The slices of a layer, (H, W) each, named as planes are."""
    from napari_samic.core.label_objects import LabelObjects

    name = str(meta.get("name", "labels"))
    whole = _full(data)
    if whole.ndim < 2:
        raise InputError(f"{name}: {whole.ndim} axis, expected rows and columns.")
    for index in np.ndindex(*whole.shape[:-2]):
        yield LabelObjects(name + "".join(f"[{i}]" for i in index), np.asarray(whole[index]))


def _full(data: Any) -> Any:
    """The array of a layer: of several scales the first, which has all pixels."""
    return data[0] if isinstance(data, Sequence) else data

"""GeoJSON: the objects of one label image as polygons with holes.

Source: RFC 7946. Outer rings run counterclockwise and holes clockwise in the numbers as they are
written, each ring ends where it begins. The file says that its positions are pixels (section 4:
another frame by agreement): x to the right, y down, (0, 0) the upper left corner of the image, so
that pixel centers are at half numbers, as in QuPath.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_samic.core.label_objects import CroppedObject, LabelObjects
from napari_samic.export.polygons import Ring, polygons

FRAME = (
    "pixels: x to the right, y down; (0, 0) is the upper left corner of the image, (0.5, 0.5) the "
    "centre of its first pixel"
)


def geojson_tree(image: LabelObjects) -> dict[str, Any]:
    """The content of a GeoJSON file.

    Parameters
    ----------
    image : LabelObjects

    Returns
    -------
    dict
        A FeatureCollection with one Feature for each object; its properties are `id` (the value in
        the labels), `class`, `class_name` and `score` (null if not known), and for QuPath
        `objectType` and `classification`.
    """
    height, width = image.labels.shape
    return {
        "type": "FeatureCollection",
        "name": image.name,
        "image": {"file_name": image.file_name, "width": width, "height": height},
        "frame": FRAME,
        "features": [_feature(image, cutout) for cutout in image.cutouts()],
    }


def _feature(image: LabelObjects, cutout: CroppedObject) -> dict[str, Any]:
    about = image.of(cutout.value)
    return {
        "type": "Feature",
        "id": cutout.value,
        "geometry": geometry(cutout),
        "properties": {
            "id": cutout.value,
            "class": about.label,
            "class_name": image.class_name(about.label),
            "score": about.score,
            "objectType": "annotation",
            "classification": {"name": image.class_name(about.label)},
        },
    }


def geometry(cutout: CroppedObject) -> dict[str, Any]:
    """A Polygon, or a MultiPolygon for an object of several parts."""
    row, column = cutout.corner_rc
    corner = np.array([column, row])
    parts = [[_closed(ring + corner) for ring in rings] for rings in polygons(cutout.inside)]
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": parts[0]}
    return {"type": "MultiPolygon", "coordinates": parts}


def _closed(ring: Ring) -> list[list[int]]:
    places: list[list[int]] = ring.tolist()
    return [*places, places[0]]

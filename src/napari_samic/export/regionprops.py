"""Measurements of the objects of a label image, one row each.

Source: scikit-image's `regionprops_table`, with its names. Lengths are in the unit of the spacing
(pixels if there is none), places always in pixels (row, column).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from napari_samic.core.label_objects import LabelObjects, ranked

SHAPES = (
    "area",
    "perimeter",
    "equivalent_diameter_area",
    "axis_major_length",
    "axis_minor_length",
    "eccentricity",
    "orientation",
    "solidity",
)
COLUMNS = (
    "image", "object", "class", "class_name", "score", "area_px", "row", "column",
    "row_first", "column_first", "row_last", "column_last", *SHAPES, "unit",
)  # fmt: skip
"""Of the table; the last row and column belong to the object."""


def measurements(
    image: LabelObjects, *, spacing: tuple[float, float] = (1.0, 1.0), unit: str = "px"
) -> list[dict[str, Any]]:
    """Measure every object.

    Parameters
    ----------
    spacing : (row, column) float
        Size of a pixel.
    unit : str
        Of the spacing; the area is in its square.

    Returns
    -------
    list of dict
        With `COLUMNS`. `perimeter` is empty where rows and columns are spaced differently:
        scikit-image has none then.
    """
    from skimage.measure import regionprops_table

    values, ranks = ranked(image.labels)
    if not values:
        return []
    names = [n for n in SHAPES if n != "perimeter" or spacing[0] == spacing[1]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the hull of an object of two pixels
        places = regionprops_table(ranks, properties=("area", "centroid", "bbox"))
        shapes = regionprops_table(ranks, spacing=spacing, properties=tuple(names))
    return [_row(image, i, v, places, shapes) | {"unit": unit} for i, v in enumerate(values)]


def _row(
    image: LabelObjects, i: int, value: int, places: dict[str, Any], shapes: dict[str, Any]
) -> dict[str, Any]:
    about = image.of(value)
    return {
        "image": image.name,
        "object": value,
        "class": about.label,
        "class_name": image.class_name(about.label),
        "score": about.score,
        "area_px": int(places["area"][i]),
        "row": _short(places["centroid-0"][i]),
        "column": _short(places["centroid-1"][i]),
        "row_first": int(places["bbox-0"][i]),
        "column_first": int(places["bbox-1"][i]),
        "row_last": int(places["bbox-2"][i]) - 1,
        "column_last": int(places["bbox-3"][i]) - 1,
        **{name: _short(values[i]) for name, values in shapes.items()},
    }


def _short(value: Any) -> float:
    """Seven digits: what a float32 would hold, and the same on every machine."""
    return float(np.format_float_positional(value, precision=7, fractional=False))

"""Measurements of the objects of a label image, one row each.

Source: scikit-image's `regionprops_table`, with its names. Lengths are in the unit of the spacing
(pixels if there is none), places always in pixels (row, column).
"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.label_objects import LabelObjects, ObjectRecord, ranked
from napari_samic.core.types import IntArray

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
    "row_first", "column_first", "row_last", "column_last", *SHAPES, "unit", "plane",
)  # fmt: skip
"""Of the table; the last row and column belong to the object.

`plane` is the place in a stack, by which objects are put in the order of time or depth: "5", or
"0 5" along two axes; empty for an image by itself.
"""
VOLUME_COLUMNS = (
    "image", "object", "class", "class_name", "score", "voxels", "volume", "unit",
    "plane_first", "plane_last", "planes", "plane", "row", "column",
)  # fmt: skip
"""Of the table of objects through planes; the volume is in the cube of the unit."""
INTENSITIES = ("intensity_mean", "intensity_std", "intensity_min", "intensity_max")
"""Of the pixels as the image's file has them; of several channels `intensity_mean-0` and so on."""
_INDEX = re.compile(r"(?:\[\d+\])+$")


def measurements(
    image: LabelObjects,
    *,
    spacing: tuple[float, float] = (1.0, 1.0),
    unit: str = "px",
    pixels: NDArray[Any] | None = None,
) -> list[dict[str, Any]]:
    """Measure every object.

    Parameters
    ----------
    spacing : (row, column) float
        Size of a pixel.
    unit : str
        Of the spacing; the area is in its square.
    pixels : (H, W) or (H, W, C), optional
        Whose intensities are measured.

    Returns
    -------
    list of dict
        With `COLUMNS`, and `INTENSITIES` if there are pixels. `perimeter` is empty where rows and
        columns are spaced differently: scikit-image has none then.
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
    index = _INDEX.search(image.name)
    same = {"unit": unit, "plane": index[0][1:-1].replace("][", " ") if index else ""}
    light = _intensities(ranks, pixels, len(values)) if pixels is not None else {}
    rows = [_row(image, i, v, places, shapes) for i, v in enumerate(values)]
    return [
        row | same | {name: _short(of[i]) for name, of in light.items()}
        for i, row in enumerate(rows)
    ]


def _intensities(
    ranks: IntArray, pixels: NDArray[Any], count: int
) -> dict[str, NDArray[np.float64]]:
    """Columns of `INTENSITIES`: by object, from 1 on."""
    at = np.flatnonzero(ranks)
    numbers = ranks.ravel()[at] - 1
    areas = np.bincount(numbers, minlength=count)
    channels = pixels.reshape(ranks.size, -1)
    columns: dict[str, NDArray[np.float64]] = {}
    for channel in range(channels.shape[1]):
        values = channels[at, channel].astype(np.float64)
        mean = np.bincount(numbers, values, count) / areas
        spread = np.bincount(numbers, (values - mean[numbers]) ** 2, count) / areas
        low, high = np.full(count, np.inf), np.full(count, -np.inf)
        np.minimum.at(low, numbers, values)
        np.maximum.at(high, numbers, values)
        ending = f"-{channel}" if channels.shape[1] > 1 else ""
        figures = (mean, np.sqrt(spread), low, high)
        columns |= {f"{n}{ending}": v for n, v in zip(INTENSITIES, figures, strict=True)}
    return columns


class Volumes:
    """Objects of a stack in which a number is one object through all planes; one row each.

    Axes before the last are stacks of their own.

    Parameters
    ----------
    name : str
        Of the image.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._parts: dict[tuple[tuple[int, ...], int], list[_Part]] = {}
        self._classes: dict[int, str] = {}

    def add(self, image: LabelObjects, index: tuple[int, ...]) -> None:
        """Take the objects of one plane."""
        values, ranks = ranked(image.labels)
        rows, columns = np.nonzero(ranks)
        numbers = ranks[rows, columns] - 1
        sizes, *sums = (
            np.bincount(numbers, weights, len(values)) for weights in (None, rows, columns)
        )
        for i, value in enumerate(values):
            place = (index[-1], float(sums[0][i]), float(sums[1][i]))
            about = image.of(value)
            self._classes[about.label] = image.class_name(about.label)
            part = _Part(about, int(sizes[i]), place)
            self._parts.setdefault((index[:-1], value), []).append(part)

    def rows(
        self, *, spacing: tuple[float, float], depth: float | None, unit: str
    ) -> list[dict[str, Any]]:
        """With `VOLUME_COLUMNS`; no volume where the distance of planes is not known."""
        voxel = math.nan if depth is None else depth * spacing[0] * spacing[1]
        rows = []
        for (head, value), parts in sorted(self._parts.items()):
            voxels = sum(part.size for part in parts)
            planes = [part.place[0] for part in parts]
            scores = [part.about.score for part in parts if part.about.score is not None]
            label = Counter(part.about.label for part in parts).most_common(1)[0][0]
            centroid = {
                "plane": sum(part.place[0] * part.size for part in parts) / voxels,
                "row": sum(part.place[1] for part in parts) / voxels,
                "column": sum(part.place[2] for part in parts) / voxels,
            }
            rows.append({
                "image": self._name + "".join(f"[{i}]" for i in head),
                "object": value,
                "class": label,
                "class_name": self._classes[label],
                "score": _short(np.mean(scores)) if scores else None,
                "voxels": voxels,
                "volume": None if depth is None else _short(voxels * voxel),
                "unit": unit,
                "plane_first": min(planes),
                "plane_last": max(planes),
                "planes": len(planes),
                **{name: _short(of) for name, of in centroid.items()},
            })  # fmt: skip
        return rows


@dataclass(frozen=True, eq=False)
class _Part:
    """What one plane has of an object: pixels, the plane's number, sums of rows and columns."""

    about: ObjectRecord
    size: int
    place: tuple[int, float, float]


def table_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Columns of a table of `measurements`: `COLUMNS`, and those of the intensities there are."""
    return list(dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)]))


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

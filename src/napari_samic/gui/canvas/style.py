"""Colors, corners and frames of our layers: small pure functions for the rooms `layers`.

Must not know the viewer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.gui.state.classes import PALETTE, Classes
from napari_samic.gui.state.objects import Box, Hint

POSITIVE, NEGATIVE = "#2ee66b", "#ff4060"
_HUGE = 4 * 2**30
_FAINT = 0.45
_MOST_COLORS = 2**16 - 1
"""In a table of napari; higher numbers begin anew."""


def frame(image: Any, factor: float) -> dict[str, Any]:
    """Where an image layer is, for a layer in its pixels, or in those of a coarser level."""
    ndim = image.ndim
    fine = np.ones(ndim)
    fine[-2:] = factor
    corner = np.zeros(ndim)
    corner[-2:] = (factor - 1) / 2  # the middle of the first coarse pixel
    shift = np.asarray(image.scale) * corner
    return {
        "scale": np.asarray(image.scale) * fine,
        "translate": np.asarray(image.translate) + shift,
        "rotate": image.rotate,
        "shear": image.shear,
        "affine": image.affine,
        "units": image.units,  # napari wants one unit of all layers, else it shows none
    }


def flat_frame(image: Any, factor: float) -> dict[str, Any]:
    """Scale and place of a flat layer over a slice."""
    whole = frame(image, factor)
    return {name: whole[name][-2:] for name in ("scale", "translate", "units")}


def sparse(shape: tuple[int, ...]) -> Any:
    """Zeros that take memory only where they are written."""
    if np.prod(shape, dtype=float) * 4 <= _HUGE:
        return np.zeros(shape, np.int32)
    import zarr

    chunks = (*(1 for _ in shape[:-2]), *shape[-2:])
    return zarr.create_array(store={}, shape=shape, chunks=chunks, dtype="int32")


def rgba(color: str, alpha: float) -> tuple[float, float, float, float]:
    """#rrggbb to floats."""
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue, alpha


def tint(number: int, label: int, classes: Classes) -> str:
    """Color of an object: that of its class, in one of three shades to tell neighbours apart.

    Where there is a single class whose color nobody chose, each object has its own.
    """
    if classes.is_plain:
        return PALETTE[(number - 1) % len(PALETTE)]
    factor = (1.0, 0.72, 0.86)[(number - 1) % 3]
    red, green, blue = (round(v * 255 * factor) for v in rgba(classes.style(label).color, 1.0)[:3])
    return f"#{red:02x}{green:02x}{blue:02x}"


def palette(labels: dict[int, int], classes: Classes) -> dict[int, str]:
    """Color of each object by number, and of some to come: a new table costs napari 50 ms."""
    count = 16 * (1 + max(labels, default=0) // 16) + 16
    latest = labels[max(labels)] if labels else classes.labels[0]
    return {n: tint(n, labels.get(n, latest), classes) for n in range(1, count)}


def faces(current: NDArray[np.bool_], signs: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Colors of points, (N, 4): by sign, faint unless of the current object."""
    out = np.array([rgba(POSITIVE if s else NEGATIVE, 1.0) for s in signs]).reshape(-1, 4)
    out[:, 3] = np.where(current, 1.0, _FAINT)
    return out


def colormap(colors: dict[int, str]) -> Any:
    """For a Labels layer: color of each number, those left out transparent.

    Napari makes one by a table in half the time of one by a dict, for which it compiles.
    """
    from napari.utils.colormaps import CyclicLabelColormap

    table = np.zeros((min(max(colors), _MOST_COLORS) + 1, 4), np.float32)
    for number, color in colors.items():
        if number <= _MOST_COLORS:
            table[number] = rgba(color, 1.0)
    return CyclicLabelColormap(colors=table)


def heat() -> dict[str, Any]:
    """Colormap and blending of a heat map: where it is low the image shows, dark or bright."""
    from napari.utils.colormaps import Colormap, ensure_colormap

    values = np.linspace(0, 1, 64)
    colors = np.array(ensure_colormap("inferno").map(values))  # (64, 4)
    colors[:, 3] = np.minimum(1.5 * values, 1)
    return {"colormap": Colormap(colors, name="heat"), "blending": "translucent"}


def corners(box: Box, index: tuple[int, ...]) -> NDArray[np.float64]:
    """Of a box, (4, D), in the slice `index`."""
    row0, column0, row1, column1 = box
    around = ((row0, column0), (row0, column1), (row1, column1), (row1, column0))
    return np.array([(*index, *corner) for corner in around], float)


def with_dot(hint: Hint) -> NDArray[np.uint8]:
    """The overlay with a white dot in a black ring."""
    picture = np.array(hint.picture)
    if hint.point_rc is None:
        return picture
    rows, columns = np.ogrid[: picture.shape[0], : picture.shape[1]]
    far = np.hypot(rows - hint.point_rc[0], columns - hint.point_rc[1])
    radius = max(2.0, max(picture.shape[:2]) / 70)
    picture[far <= radius * 1.6] = 0
    picture[far <= radius] = 255
    return picture

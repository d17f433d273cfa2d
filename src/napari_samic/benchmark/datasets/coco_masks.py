"""COCO's outlines to masks: polygons, and run lengths as a list or as a packed text.

Source: the COCO data format, https://cocodataset.org/#format-data. Coordinates are x, y from the
image's upper left corner, so that the first pixel spans 0 to 1 and its center is at 0.5. Knows no
file. NumPy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from napari_samic.core.errors import FormatError
from napari_samic.core.types import BoolArray, IntArray
from napari_samic.export.coco import decode


def polygon(outline_xy: Sequence[float], shape: tuple[int, int]) -> BoolArray:
    """Pixels whose center is inside a polygon, by the even-odd rule.

    Parameters
    ----------
    outline_xy : (2 * N,) float
        x, y, x, y ...; the last corner is joined to the first.
    shape : tuple of int
        Height and width.

    Returns
    -------
    (H, W) bool

    Raises
    ------
    FormatError
        An odd count of numbers, or fewer than three corners.

    Notes
    -----
    pycocotools rounds the outline on a finer grid first, so single pixels of the rim may differ.

    Examples
    --------
    >>> polygon([1, 0, 3, 0, 3, 1, 1, 1], (2, 4)).astype(int).tolist()
    [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    if len(outline_xy) < 6 or len(outline_xy) % 2:
        msg = f"a polygon of {len(outline_xy)} numbers, expected x and y of three corners or more."
        raise FormatError(f"{msg} The file is damaged.")
    height, width = shape
    x0, y0 = np.asarray(outline_xy, np.float64).reshape(-1, 2, 1).transpose(1, 0, 2)  # (E, 1) each
    x1, y1 = np.roll(x0, -1, axis=0), np.roll(y0, -1, axis=0)
    centers = np.arange(height) + 0.5  # (H,)
    edges, rows = np.nonzero((y0 <= centers) != (y1 <= centers))
    rise = (centers[rows] - y0[edges, 0]) / (y1 - y0)[edges, 0]
    crossing_x = x0[edges, 0] + rise * (x1 - x0)[edges, 0]
    columns = np.clip(np.ceil(crossing_x - 0.5), 0, width).astype(int)
    turns = np.zeros((height, width + 1), np.int64)
    np.add.at(turns, (rows, columns), 1)
    return np.asarray(np.cumsum(turns, axis=1)[:, :width] % 2 == 1)


def runs(packed: str) -> list[int]:
    """Run lengths of COCO's packed text: six bits a letter, from the third on as differences.

    Raises
    ------
    FormatError
        A text that ends within a number, or that is no such text.

    Examples
    --------
    >>> runs("13")
    [1, 3]
    """
    out: list[int] = []
    value = shift = 0
    for letter in packed:
        bits = ord(letter) - 48
        if not 0 <= bits < 64:
            raise FormatError(f"run lengths with the letter {letter!r}. The file is damaged.")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        out.append(value + out[-2] if len(out) > 2 else value)
        value = shift = 0
    if shift:
        raise FormatError("run lengths that end within a number. The file is damaged.")
    return out


def mask_of(segmentation: Any, shape: tuple[int, int]) -> BoolArray:
    """Mask of one annotation: polygons, which are joined, or run lengths.

    Parameters
    ----------
    segmentation : list of list of float, or dict with "counts" and "size"
    shape : tuple of int
        Height and width of the image.

    Returns
    -------
    (H, W) bool

    Raises
    ------
    FormatError
        Neither of these, or of another size.
    """
    if isinstance(segmentation, Mapping):
        counts = segmentation.get("counts", [])
        size = tuple(segmentation.get("size", ()))
        if size != tuple(shape):
            raise FormatError(f"run lengths for {size}, expected {shape}. The file is damaged.")
        return decode({"counts": runs(counts) if isinstance(counts, str) else counts, "size": size})
    if not isinstance(segmentation, list):
        kind = type(segmentation).__name__
        raise FormatError(f"a segmentation that is a {kind}, expected polygons or run lengths.")
    out = np.zeros(shape, bool)
    for outline in segmentation:
        out |= polygon(outline, shape)
    return out


def objects_of(segmentations: Sequence[Any], shape: tuple[int, int]) -> IntArray:
    """Number the objects from 1, (H, W) int32; a later one lies over those before it."""
    out = np.zeros(shape, np.int32)
    for number, segmentation in enumerate(segmentations, 1):
        out[mask_of(segmentation, shape)] = number
    return out

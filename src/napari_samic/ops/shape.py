"""Where a mask is, coarser, and what its shape says of it: ragged, in pieces, along the border.

Masks in, numbers out: knows no file and no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_samic.core.label_objects import CroppedObject
from napari_samic.core.types import BoolArray

ROWS = 128
"""Of a larger mask so many rows are looked at for its hull."""
_PART = 0.05
Window = tuple[slice, slice]
"""Rows and columns."""


def bounds(mask: BoolArray) -> Window | None:
    """Smallest window around the True pixels; None if there is none."""
    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def nearest(array: NDArray[Any], size: Sequence[int]) -> NDArray[Any]:
    """Values of an array, (..., H, W), at the middles of `size` cells: (..., h, w).

    >>> nearest(np.arange(16).reshape(4, 4), (2, 1)).tolist()
    [[6], [14]]
    """
    rows, columns = (
        ((np.arange(n) + 0.5) * of / n).astype(int)
        for n, of in zip(size, array.shape[-2:], strict=True)
    )
    return np.asarray(array[..., rows[:, None], columns])


def window_of(mask: BoolArray, margin_px: int = 0) -> Window:
    """As `bounds`, and some more; the whole image if there is none."""
    return around([bounds(mask)], mask.shape, margin_px)


def around(windows: Sequence[Window | None], shape: tuple[int, ...], margin_px: int = 0) -> Window:
    """Smallest window around others; the whole image if there is none."""
    present = [w for w in windows if w is not None]
    if not present:
        return slice(0, shape[0]), slice(0, shape[1])
    rows, columns = (
        slice(
            max(0, min(w[axis].start for w in present) - margin_px),
            min(shape[axis], max(w[axis].stop for w in present) + margin_px),
        )
        for axis in (0, 1)
    )
    return rows, columns


def box_of(mask: BoolArray, margin_frac: float = 0.0) -> Any:
    """Box around a mask, (4,): first row and column, last row and column; None of an empty one.

    Lies on the outer edges of the pixels, wider by `margin_frac` of its sides at each side, and
    ends at the image's edge. Source: Kirillov et al., Segment Anything, ICCV 2023; the margin is
    what the elastic box of SAMRefiner (ICLR 2025) comes to without features.
    """
    if (window := bounds(mask)) is None:
        return None
    first, last = (np.array([getattr(s, end) for s in window]) - 0.5 for end in ("start", "stop"))
    margin = margin_frac * (last - first)
    least, most = -0.5, np.array(mask.shape) - 0.5
    return np.concatenate([np.maximum(first - margin, least), np.minimum(last + margin, most)])


def solidity(inside: BoolArray) -> float:
    """Area over the area of the convex hull: 1 for a disc, less where a mask leaks or branches.

    Parameters
    ----------
    inside : (H, W) bool

    Returns
    -------
    float
        In [0, 1]; 1 for an empty mask.

    Examples
    --------
    >>> corner = np.ones((4, 4), bool)
    >>> corner[1:, 1:] = False
    >>> solidity(np.ones((4, 4), bool)), round(solidity(corner), 2)
    (1.0, 0.61)
    """
    from scipy.spatial import ConvexHull  # slow to import

    rows = np.flatnonzero(inside.any(1))
    if not len(rows):
        return 1.0
    rows = rows[np.linspace(0, len(rows) - 1, min(ROWS, len(rows))).astype(int)]
    first = inside[rows].argmax(1)
    last = inside.shape[1] - inside[rows][:, ::-1].argmax(1)  # one after the last pixel
    corners = [np.stack([r, c], 1) for r in (rows, rows + 1) for c in (first, last)]
    hull = ConvexHull(np.concatenate(corners))
    return min(1.0, float(np.count_nonzero(inside) / hull.volume))


def pieces(inside: BoolArray) -> int:
    """In how many parts a mask is; those below a twentieth of it do not count."""
    parts, _ = ndimage.label(inside, np.ones((3, 3)))
    sizes = np.bincount(parts.ravel())[1:]
    return int(np.count_nonzero(sizes >= _PART * sizes.sum()))


def border_share(cropped: CroppedObject, shape: tuple[int, int]) -> float:
    """Share of the border pixels of an image of `shape` that lie under an object, in [0, 1]."""
    (row, column), inside = cropped.corner_rc, cropped.inside
    height, width = shape
    on_border = np.zeros(inside.shape, bool)
    rows, columns = np.arange(inside.shape[0]) + row, np.arange(inside.shape[1]) + column
    on_border[(rows == 0) | (rows == height - 1)] = True
    on_border[:, (columns == 0) | (columns == width - 1)] = True
    around = max(1, height * width - max(0, height - 2) * max(0, width - 2))
    return float(np.count_nonzero(on_border & inside) / around)


def without_holes(mask: BoolArray) -> BoolArray:
    """The mask with its holes: ground that does not reach the rim.

    The same as `scipy.ndimage.binary_fill_holes`, in a fraction of its time.
    """
    ground, count = ndimage.label(~mask)
    is_hole = np.ones(count + 1, bool)
    for rim in (ground[0], ground[-1], ground[:, 0], ground[:, -1]):
        is_hole[rim] = False
    return np.asarray(mask | is_hole[ground])

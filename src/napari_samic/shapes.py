"""What the shape of a mask says of it: whether it is ragged, in pieces, or along the border.

Masks in, numbers out: knows no file and no model.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull

from napari_samic.contracts import BoolArray
from napari_samic.export.objects import Cutout

ROWS = 128
"""Of a larger mask so many rows are looked at for its hull."""
_PART = 0.05


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


def border_share(one: Cutout, shape: tuple[int, int]) -> float:
    """Share of the border pixels of an image of `shape` that lie under an object, in [0, 1]."""
    (row, column), inside = one.corner_rc, one.inside
    height, width = shape
    on_border = np.zeros(inside.shape, bool)
    rows, columns = np.arange(inside.shape[0]) + row, np.arange(inside.shape[1]) + column
    on_border[(rows == 0) | (rows == height - 1)] = True
    on_border[:, (columns == 0) | (columns == width - 1)] = True
    around = max(1, height * width - max(0, height - 2) * max(0, width - 2))
    return float(np.count_nonzero(on_border & inside) / around)

"""Masks to outlines along the edges of their pixels, with holes; exact, and simple rings.

Frame: x to the right, y down, in pixels; (0, 0) is the corner of the first pixel and (0.5, 0.5) its
center, as COCO and QuPath have it. Drawn again, an outline gives the very mask. Pure NumPy and
SciPy: knows no file.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Ring: TypeAlias = NDArray[np.int64]
"""(N, 2) corners x, y; the first is not repeated."""
_DX, _DY = np.array([1, 0, -1, 0]), np.array([0, 1, 0, -1])
_TURNS = (-1, 0, 1)  # right, straight on, left


def polygons(mask: NDArray[Any]) -> list[list[Ring]]:
    """Outline each part of a mask whose pixels touch along an edge.

    Parameters
    ----------
    mask : (H, W) bool

    Returns
    -------
    list of list of (N, 2) int64
        For each part its outer ring, then its holes. The area by the shoelace formula is positive
        for an outer ring and negative for a hole. No ring meets itself, so a part that touches
        another only at a corner is another polygon.

    Examples
    --------
    >>> polygons(np.ones((1, 2), bool))[0][0].tolist()
    [[0, 0], [2, 0], [2, 1], [0, 1]]
    """
    parts, _ = ndimage.label(mask)  # pixels that touch along an edge
    out = []
    for number, place in enumerate(ndimage.find_objects(parts), start=1):
        corner = np.array([place[1].start, place[0].start])
        rings = [ring + corner for ring in _rings(parts[place] == number)]
        out.append(sorted(rings, key=lambda ring: signed_area(ring) < 0))
    return out


def signed_area(ring: Ring) -> float:
    """Area by the shoelace formula."""
    x, y = ring.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(np.roll(x, -1), y)) / 2


def _rings(part: NDArray[np.bool_]) -> list[Ring]:
    """Outer ring and holes of one part.

    Each edge between a pixel and the ground becomes an arrow with the pixel on its left. Where two
    pixels meet at a corner only, the arrow goes on to the other pixel: both are of one part, so
    what lies between them is a hole that touches the outside there.
    """
    wide = np.pad(part, 1)
    inside = wide[1:-1, 1:-1]
    open_ = (
        inside & ~wide[:-2, 1:-1],  # ground above: along y = row, to the right
        inside & ~wide[1:-1, 2:],  # ground at the right: along x = column + 1, down
        inside & ~wide[2:, 1:-1],
        inside & ~wide[1:-1, :-2],
    )
    starts = ((0, 0), (1, 0), (1, 1), (0, 1))  # of the arrow, from the pixel's first corner
    starts_xy = [
        np.argwhere(edge)[:, ::-1] + start for edge, start in zip(open_, starts, strict=True)
    ]
    corners = np.concatenate(starts_xy)  # (arrows, 2) x, y
    ways = np.repeat(np.arange(4), [len(f) for f in starts_xy])
    follower = _followers(corners, ways, part.shape[1] + 1)
    bends = ways[follower] != ways  # the follower begins at a bend
    return _walk(corners, follower, bends)


def _followers(corners: Ring, ways: Ring, width: int) -> Ring:
    """Which arrow comes after each."""
    spot = corners[:, 1] * width + corners[:, 0]
    index = np.full((spot.max() + width + 2) * 4, -1)
    index[spot * 4 + ways] = np.arange(len(ways))
    ends = spot + _DY[ways] * width + _DX[ways]
    after = np.full(len(ways), -1)
    for turn in _TURNS:
        choice = index[ends * 4 + (ways + turn) % 4]
        after = np.where(after < 0, choice, after)
    return after


def _walk(corners: Ring, follower: Ring, bends: NDArray[np.bool_]) -> list[Ring]:
    after, bent = follower.tolist(), bends.tolist()
    seen = [False] * len(after)
    rings = []
    for first in range(len(after)):
        ring, arrow = [], first
        while not seen[arrow]:
            seen[arrow] = True
            if bent[arrow]:
                ring.append(after[arrow])
            arrow = after[arrow]
        if ring:
            rings.append(corners[np.array(ring[-1:] + ring[:-1])])
    return rings

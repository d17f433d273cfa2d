"""The part of a picture that an instrument sees, without the dark frame around it.

Endoscopes, wells and eyes fill a disc or an octagon of the picture, each instrument another share
of it, so that the same object has another size in the network's input. Without the frame it has
not. Pure NumPy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.types import BoolArray, Image

DARK = 25
"""Pixels whose brightest channel is at most this are dark, of 255."""
EDGE = 0.2
"""A row or column belongs to the frame if less of it is bright."""
FILLED = 0.6
"""What is left must be as bright as this: cells on a dark ground (at most 0.4) have no frame, the
fields of endoscopes, wells, heads and eyes are 0.74 and more."""


def field_of_view(image: Image) -> tuple[slice, slice]:
    """Rows and columns of the field of view; all of them where there is no frame.

    Parameters
    ----------
    image : (H, W, 3) uint8

    Examples
    --------
    >>> image = np.zeros((9, 9, 3), np.uint8)
    >>> image[2:8, 1:7] = 90
    >>> field_of_view(image)
    (slice(2, 8, None), slice(1, 7, None))
    """
    bright: BoolArray = image.max(-1) > DARK
    rows, columns = (_between(bright.mean(axis)) for axis in (1, 0))
    if bright[rows, columns].size and bright[rows, columns].mean() >= FILLED:
        return rows, columns
    return slice(0, image.shape[0]), slice(0, image.shape[1])


def _between(share: NDArray[np.float64]) -> slice:
    """From the first to the last that is bright enough."""
    inner = np.flatnonzero(share >= EDGE)
    return slice(int(inner[0]), int(inner[-1]) + 1) if len(inner) else slice(0, 0)

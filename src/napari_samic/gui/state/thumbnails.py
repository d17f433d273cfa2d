"""Small pictures of images, as lists of the dock show them. Plain Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.types import Image, IntArray
from napari_samic.ops.shape import nearest

SIDE_PX = 92
"""Longest side of a thumbnail."""


@dataclass(frozen=True, eq=False)
class Thumb:
    """An image as the user sees it.

    Attributes
    ----------
    name : str
        Of the image.
    picture : (h, w, 3) uint8
        The image, not brightened.
    objects : int
    overlay : (h, w, 3) uint8
        With its heat map, or what is found in it.
    why : str
        Why there is no picture, if so.
    is_open : bool
        Whether it can be shown in napari.
    """

    name: str
    picture: NDArray[np.uint8]
    objects: int = 0
    overlay: NDArray[np.uint8] | None = None
    why: str = ""
    is_open: bool = True


def small(image: Image) -> NDArray[np.uint8]:
    """An image with its longest side at `SIDE_PX`, each pixel the mean of those under it."""
    from PIL import Image as Pillow

    rows, columns = (max(1, round(n * SIDE_PX / max(image.shape[:2]))) for n in image.shape[:2])
    return np.asarray(Pillow.fromarray(image).resize((columns, rows), Pillow.Resampling.BOX))


def tinted(
    picture: NDArray[np.uint8], labels: IntArray, colors: Mapping[int, tuple[float, ...]]
) -> NDArray[np.uint8]:
    """A thumbnail with labels over it.

    Parameters
    ----------
    picture : (h, w, 3) uint8
    labels : (H, W) int
        Of the whole image.
    colors : dict of int to tuple
        Red, green and blue in [0, 1] of each label.
    """
    near, out = nearest(labels, picture.shape[:2]), picture.astype(float)
    for label, color in colors.items():
        out[near == label] = 0.5 * out[near == label] + 127.5 * np.array(color[:3])
    return out.round().astype(np.uint8)

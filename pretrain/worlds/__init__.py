"""Scene worlds: procedural stand-ins for domains without real images to train on.

Each world draws pictures that look like one way of imaging, with exact instances. A family fixes
what the pictures of one study share: kind of object, palette, ground, optics. Layout, light, count
and size are new in every picture. Lengths are fractions of the side. NumPy, SciPy and Pillow only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pretrain.worlds import cells, em, endoscopy
from pretrain.worlds.brush import Family, Field, Rng, camera

from napari_samic.core.errors import InputError

_MAKERS: dict[str, tuple[Callable[..., Family], Callable[..., tuple[Field, Field]]]] = {
    "endoscopy": (endoscopy.endoscopy_family, endoscopy.draw_endoscopy),
    "em": (em.em_family, em.draw_em),
    "fluorescence": (cells.fluorescence_family, cells.draw_fluorescence),
    "brightfield": (cells.brightfield_family, cells.draw_brightfield),
    "histology": (cells.histology_family, cells.draw_histology),
}
WORLDS = tuple(_MAKERS)


def family(rng: Rng, world: str) -> Family:
    """Draw the parameters that the pictures of one family share; `world` is one of WORLDS."""
    if world not in _MAKERS:
        raise InputError(f"world {world!r}: expected one of {', '.join(WORLDS)}.")
    return _MAKERS[world][0](rng)


def draw(rng: Rng, family: Family, side: int = 512) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Draw one picture of a family.

    Returns
    -------
    image : (side, side, 3) uint8
    ids : (side, side) uint16
        0 is ground, k the visible part of instance k; at least one.
    """
    for _ in range(50):
        rgb, numbers = _MAKERS[family.world][1](rng, family, side)
        area = np.bincount(numbers.ravel())
        keep = (area >= 12 * (side / 256) ** 2) & (np.arange(len(area)) > 0)
        if keep.any():
            ids = np.where(keep, np.cumsum(keep), 0).astype(np.uint16)[numbers]
            return camera(rng, rgb, family), ids
    raise InputError(f"{family.world} at {side} px: no instance of 12 px in 50 tries.")

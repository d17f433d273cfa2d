"""Label images as PNG: indexed colors up to 254 objects, 16 bits above.

In an indexed PNG the numbers are the labels and the colors are for the eye; `masks.read_labels`
reads the numbers of both. Knows no model and no napari.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import InputError
from napari_samic.core.label_objects import checked_labels
from napari_samic.core.types import IntArray
from napari_samic.export.overlays import label_color
from napari_samic.io.files import atomic_file

LARGEST_INDEXED, LARGEST = 254, 65534
"""One below the white of 8 and 16 bits: an image of black and white alone is read as 0 and 1."""


def write_label_png(path: str | Path, labels: NDArray[Any], *, overwrite: bool = False) -> None:
    """Write a label image, (H, W).

    Raises
    ------
    InputError
        Not (H, W) whole numbers from 0 to `LARGEST`.
    OutputError
        Disk full, read-only, or a file in the way.
    """
    from PIL import Image

    checked = checked_labels(labels, str(path))
    if checked.ndim != 2:
        raise InputError(f"{path}: {labels.shape}, expected whole numbers (H, W).")
    check_numbers(checked, str(path))
    if checked.max() <= LARGEST_INDEXED:
        height, width = checked.shape
        picture = Image.frombytes("P", (width, height), checked.astype(np.uint8).tobytes())
        picture.putpalette([0, 0, 0, *(v for k in range(1, 256) for v in label_color(k))])
    else:
        picture = Image.fromarray(np.asarray(checked, np.uint16))
    with atomic_file(path, overwrite=overwrite) as temporary:
        picture.save(temporary, format="PNG")


def check_numbers(labels: IntArray, where: str) -> None:
    """Raise InputError if there are numbers that a PNG can't hold."""
    if (high := int(labels.max())) > LARGEST:
        raise InputError(f"{where}: labels up to {high}, PNG holds 0 to {LARGEST}. Use TIFF.")

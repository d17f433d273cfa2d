"""The contact sheet of a run: overlays of its first images, kept small as they come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from napari_samic.core.types import Image, IntArray, LazyImage, Prompts, every
from napari_samic.export import overlays
from napari_samic.io import writers

TILES = 24
TILE_PX = 240


class ContactSheet:
    """Collects up to `TILES` overlays; without a path it does nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._tiles: list[Image] = []
        self._captions: list[str] = []

    @property
    def has_room(self) -> bool:
        """Whether another tile is wanted."""
        return self._path is not None and len(self._tiles) < TILES

    def add(
        self,
        image: Image | LazyImage,
        labels: IntArray,
        objects: Sequence[Prompts],
        caption: str,
        truth: NDArray[Any] | None = None,
    ) -> None:
        """Draw one tile, if there is room; of an image read part by part without its objects."""
        if self.has_room:
            if isinstance(image, LazyImage):
                step = max(image.shape[:2]) // (2 * TILE_PX)
                image = every(lambda *part: image[part], image.shape, step)
                labels, objects = labels[::step, ::step], ()
                truth = None if truth is None else truth[::step, ::step]
            drawn = overlays.overlay(image, labels, points=objects, truth=truth)
            self._tiles.append(_small(drawn))
            self._captions.append(caption)

    def save(self) -> None:
        """Write the sheet, if there is anything on it.

        Raises
        ------
        OutputError
            The disk refuses.
        """
        if self._path is not None and self._tiles:
            sheet = overlays.contact_sheet(self._tiles, self._captions, columns=6, tile_px=TILE_PX)
            writers.write_png(self._path, sheet, overwrite=True)


def _small(picture: Image) -> Image:
    """At most `TILE_PX` a side: two dozen large overlays would fill the memory."""
    height, width = picture.shape[:2]
    scale = TILE_PX / max(height, width)
    if scale >= 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = PilImage.fromarray(picture).resize(size, PilImage.Resampling.LANCZOS)
    return np.asarray(small)

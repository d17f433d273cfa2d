"""Image files as lazy layers: stacks and folders are opened, and slices read when looked at.

napari reads a TIFF stack as a whole; this reads what is shown. Images of a folder that differ in
size become a layer for each size; a lone large one is shown part by part, from afar by levels of
every fourth pixel and fewer. Speaks napari's layer tuples: needs no viewer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import InputError, SamicError
from napari_samic.core.types import ImagePlane, LazyImage, every, give_back
from napari_samic.gui.data.layer_pixels import CHANNEL, FILES, LEVELS
from napari_samic.io.images import open_images
from napari_samic.io.readers import (
    PILLOW_SUFFIXES,
    TIFF_SUFFIXES,
    deep_channels,
    exif_orientation,
    open_pillow,
    reading,
)

if TYPE_CHECKING:
    from napari.types import LayerData

Kind = tuple[tuple[int, ...], np.dtype[Any]]
COARSER = 4
"""Pixels of a level along one of the next."""
COARSE_PX = 2**25
"""Pixels of the finest level that is held in memory, at most."""


def lazy_layers(
    source: str | Path | Sequence[str | Path], *, tell: Callable[[str], None] | None = None
) -> list[LayerData]:
    """Open files, a folder or a stack; of each file one plane at most is read now.

    Parameters
    ----------
    tell : callable, optional
        Is given a line for all that was guessed or left out.

    Returns
    -------
    list of LayerData
        Lone images as they are; a stack file, and images of one size, as one lazy layer. Channels
        that are not color are layers of their own.

    Raises
    ------
    InputError
        Nothing there, or nothing that can be read.
    """
    given = list(source) if not isinstance(source, str | Path) else source
    planes = open_images(given, strict=False, tell=tell)
    by_file: dict[str, list[ImagePlane]] = {}
    for plane in planes:
        by_file.setdefault(plane.name, []).append(plane)
    name = Path(source).name if isinstance(source, str | Path) else "images"
    faults: list[str] = []
    layers: list[LayerData] = []
    for title, members in _groups(list(by_file.values()), name, faults):
        try:
            layers.append(_layer(members, title, members[0].stack_shape or (len(members),)))
        except SamicError as error:
            faults.append(str(error))
    if not layers:
        raise InputError(faults[0])
    if faults and tell is not None:
        tell(f"{len(faults)} not shown, the first because: {faults[0]}")
    return layers


def _groups(
    files: Sequence[list[ImagePlane]], name: str, faults: list[str]
) -> list[tuple[str, list[ImagePlane]]]:
    """What becomes a layer, under which name: a stack file, a large image, others of one kind."""
    lone = [m[0] for m in files if not (m[0].stack_shape or _has_levels(m[0]))]
    groups = [(m[0].name, m) for m in files if m[0].stack_shape or _has_levels(m[0])]
    by_kind: dict[Kind, list[ImagePlane]] = {}
    for plane in lone:
        try:
            by_kind.setdefault(_kind(plane), []).append(plane)
        except SamicError as error:
            faults.append(str(error))
    for (shape, _), members in by_kind.items():
        size = f" {shape[0]} x {shape[1]}" if len(by_kind) > 1 else ""
        groups.append((f"{name}{size}" if len(members) > 1 else members[0].name, members))
    return groups


def _kind(plane: ImagePlane) -> Kind:
    """Shape and kind of a lone image, by its header where that says it."""
    path = plane.path
    if plane.kind is not None and path is not None and path.suffix.lower() in TIFF_SUFFIXES:
        return plane.kind
    if path is not None and path.suffix.lower() in PILLOW_SUFFIXES:
        with reading(path.name), open_pillow(path) as picture:
            deep = deep_channels(path)
            depth = {"L": (), "RGB": (3,), "RGBA": (4,)}.get(picture.mode) if deep is None else deep
            if depth is not None:
                turn = exif_orientation(picture) if "exif" in picture.info else 1
                sides = (picture.height, picture.width)
                sides = sides[::-1] if turn > 4 else sides
                return (*sides, *depth), np.dtype(np.uint8 if deep is None else np.uint16)
    pixels = plane.read()
    return pixels.shape, pixels.dtype


def _layer(planes: Sequence[ImagePlane], name: str, stack_shape: tuple[int, ...]) -> LayerData:
    import dask
    import dask.array as da

    files = list(dict.fromkeys(str(plane.path) for plane in planes))
    metadata = {FILES: files} if len(files) in (1, len(planes)) else {}
    if len(planes) == 1 and (large := large_layer(planes[0], name, metadata)) is not None:
        return large
    first = planes[0].read()
    is_rgb = first.ndim == 3 and first.shape[2] in (3, 4)
    options: dict[str, Any] = {"name": name, "rgb": is_rgb, "metadata": metadata}
    if first.ndim == 3 and not is_rgb:
        channels = range(first.shape[2])
        options = {
            "channel_axis": -1,
            "name": [f"{name} channel {number}" for number in channels],
            "metadata": [{**metadata, CHANNEL: (-1, number)} for number in channels],
        }
    if len(planes) == 1 and not planes[0].stack_shape:
        return first, options, "image"
    lazy = [
        da.from_delayed(dask.delayed(plane.read, pure=False)(), first.shape, first.dtype)
        for plane in planes
    ]
    return da.stack(lazy).reshape(*stack_shape, *first.shape), options, "image"


def large_layer(
    plane: ImagePlane, name: str, metadata: dict[str, Any]
) -> tuple[list[Any], dict[str, Any], str] | None:
    """A lone plane as levels, the finest read part by part; None if it is read as a whole.

    That is one that is not large, can't be read part by part, or has channels that are not color.
    """
    if plane.read_part is None or plane.kind is None or not _has_levels(plane):
        return None
    shape, dtype = plane.kind
    options = {"name": name, "rgb": len(shape) == 3, "metadata": {**metadata, LEVELS: True}}
    return levels(PartArray(plane.read_part, shape, dtype)), options, "image"


def _has_levels(plane: ImagePlane) -> bool:
    if plane.kind is None or plane.read_part is None or plane.stack_shape or not plane.is_large:
        return False
    shape = plane.kind[0]
    return len(shape) == 2 or shape[2] in (3, 4)


class PartArray:
    """A plane, (H, W) or (H, W, C), of which the rows and columns that are asked for are read.

    Has what napari asks of a layer's data.

    Parameters
    ----------
    read : callable
        Gives the pixels of some rows and columns, which are slices without steps.
    shape : tuple of int
    dtype : dtype
    """

    def __init__(
        self, read: Callable[[slice, slice], NDArray[Any]], shape: tuple[int, ...], dtype: Any
    ) -> None:
        self._read, self.shape, self.dtype = read, shape, np.dtype(dtype)
        self.ndim, self.size = len(shape), math.prod(shape)

    @classmethod
    def of(cls, pixels: NDArray[Any] | LazyImage) -> PartArray:
        """Of a map of a file, which keeps no memory of what was read; or of a lazy image."""
        if isinstance(pixels, LazyImage):
            return cls(pixels.read, pixels.shape, np.uint8)

        def read(rows: slice, columns: slice) -> NDArray[Any]:
            part = np.array(pixels[rows, columns])
            give_back(pixels)
            return part

        return cls(read, pixels.shape, pixels.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        keys = list(key) if isinstance(key, tuple) else [key]
        place = next((i for i, k in enumerate(keys) if k is Ellipsis), len(keys))
        count = len(keys[:place] + keys[place + 1 :])
        keys[place : place + 1] = [slice(None)] * (self.ndim - count)
        bounds, inner = [], []
        for k, n in zip(keys[:2], self.shape[:2], strict=True):
            places = np.arange(n)[k]
            low = min(int(places.min()), n - 2) if places.size else 0  # no image is 1 pixel wide
            high = max(int(places.max()) + 1, low + 2) if places.size else 2
            bounds.append(slice(low, high))
            is_plain = isinstance(k, slice) and places.size and k.step in (None, 1)
            inner.append(
                slice(int(places[0]) - low, int(places[-1]) + 1 - low) if is_plain else places - low
            )
        part = self._read(bounds[0], bounds[1])[(slice(None), slice(None), *keys[2:])]
        return np.asarray(part[:, inner[1]][inner[0]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        del copy
        return np.asarray(self[:, :], dtype)


def levels(image: NDArray[Any] | LazyImage | PartArray) -> list[Any]:
    """Levels for napari, from fine to coarse; reads all of the pixels once, part by part."""
    pixels = image if isinstance(image, PartArray) else PartArray.of(image)
    rows, columns = pixels.shape[:2]
    step = max(COARSER, math.ceil(math.sqrt(rows * columns / COARSE_PX)))
    out: list[Any] = [pixels, every(lambda *part: pixels[part], pixels.shape, step)]
    while out[-1].shape[0] * out[-1].shape[1] > COARSE_PX // COARSER**4:
        out.append(np.ascontiguousarray(out[-1][::COARSER, ::COARSER]))
    return out

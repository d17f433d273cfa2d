"""Image files as lazy layers: stacks and folders are opened, and slices read when looked at.

napari reads a TIFF stack as a whole; this reads what is shown. Images of a folder that differ in
size become a layer for each size. Speaks napari's layer tuples: needs no viewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_samic.contracts import Plane
from napari_samic.gui.pixels import FILES
from napari_samic.images import open_images

if TYPE_CHECKING:
    from napari.types import LayerData

Kind = tuple[tuple[int, ...], np.dtype[Any]]


def lazy_layers(source: str | Path | Sequence[str | Path]) -> list[LayerData]:
    """Open files, a folder or a stack; of each file one plane at most is read now.

    Returns
    -------
    list of LayerData
        Lone images as they are; a stack file, and images of one size, as one lazy layer.

    Raises
    ------
    InputError
        Nothing there, or nothing that can be read.
    """
    planes = open_images(list(source) if not isinstance(source, str | Path) else source)
    by_file: dict[str, list[Plane]] = {}
    for plane in planes:
        by_file.setdefault(plane.name, []).append(plane)
    lone = [members[0] for members in by_file.values() if not members[0].stack_shape]
    stacks = [members for members in by_file.values() if members[0].stack_shape]
    layers = [_layer(members, members[0].name, members[0].stack_shape) for members in stacks]
    name = Path(source).name if isinstance(source, str | Path) else "images"
    for kind, members in _by_size(lone).items():
        several = len(members) > 1
        size = f" {kind[0][0]} x {kind[0][1]}" if len(members) < len(lone) else ""
        title = f"{name}{size}" if several else members[0].name
        layers.append(_layer(members, title, (len(members),) if several else ()))
    return layers


def _by_size(planes: Sequence[Plane]) -> dict[Kind, list[Plane]]:
    found: dict[Kind, list[Plane]] = {}
    for plane in planes:
        found.setdefault(_kind(plane), []).append(plane)
    return found


def _kind(plane: Plane) -> Kind:
    """Shape and kind of a lone image, by its header where that says it."""
    from PIL import Image
    from tifffile import TiffFile

    path = plane.path
    if path is not None and path.suffix.lower() in (".tif", ".tiff"):
        with TiffFile(path) as file:
            series = file.series[0]
            return tuple(int(n) for n in series.shape), np.dtype(series.dtype)
    if path is not None and path.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp"):
        with Image.open(path) as picture:
            depth = {"L": (), "RGB": (3,), "RGBA": (4,)}.get(picture.mode)
            if depth is not None:
                return (picture.height, picture.width, *depth), np.dtype(np.uint8)
    pixels = plane.read()
    return pixels.shape, pixels.dtype


def _layer(planes: Sequence[Plane], name: str, stack_shape: tuple[int, ...]) -> LayerData:
    import dask
    import dask.array as da

    first = planes[0].read()
    options: dict[str, Any] = {"name": name, "rgb": first.ndim == 3 and first.shape[2] in (3, 4)}
    if not stack_shape:
        return first, options, "image"
    lazy = [
        da.from_delayed(dask.delayed(plane.read, pure=False)(), first.shape, first.dtype)
        for plane in planes
    ]
    array = da.stack(lazy).reshape(*stack_shape, *first.shape)
    files = [str(plane.path) for plane in planes]
    if len(set(files)) == len(files):
        options["metadata"] = {FILES: files}
    return array, options, "image"

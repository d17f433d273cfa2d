"""Image files as lazily read arrays: Pillow formats, TIFF, OME-Zarr.

Each opener looks at the header only and answers a `LazyArray`: shape, named axes, and a function
that reads one selection. Files are opened anew for each read, so planes can travel to other
threads and processes. Knows no Plane, no colour and no model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.errors import ImageReadError, InputError, SamicError

PILLOW_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
TIFF_SUFFIXES = (".tif", ".tiff")
ZARR_SUFFIX = ".zarr"
READABLE = (*PILLOW_SUFFIXES, *TIFF_SUFFIXES, ZARR_SUFFIX)
"""Endings that are read, in lower case; case does not matter in the files' names."""

_ZARR_MARKS = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
Selection = tuple[int | slice, ...]


@dataclass(frozen=True, eq=False)
class LazyArray:
    """An array that is read piece by piece.

    Attributes
    ----------
    shape : tuple of int
    axes : str
        One letter an axis, as tifffile has them: Y X the plane, C S channels. Empty: not known.
    take : callable
        Selection (one int or slice an axis) to pixels.
    """

    shape: tuple[int, ...]
    axes: str
    take: Callable[[Selection], NDArray[Any]]


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises into one ImageReadError that names the file."""
    try:
        yield
    except (SamicError, MemoryError):
        raise
    except Exception as error:  # decoders raise anything: SyntaxError, struct.error, KeyError...
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        msg = f"{name}: can't be read ({cause}). Open it elsewhere, export it again or remove it."
        raise ImageReadError(msg) from error


def is_zarr(path: Path) -> bool:
    """Whether `path` is a zarr folder: by its ending, or by its metadata."""
    return path.is_dir() and (
        path.suffix.lower() == ZARR_SUFFIX or any((path / mark).is_file() for mark in _ZARR_MARKS)
    )


def open_file(path: Path) -> LazyArray | None:
    """Header of a TIFF or zarr; None for a Pillow format, which is one plane and is not touched.

    Raises
    ------
    ImageReadError
        The header can't be read.
    """
    if is_zarr(path):
        return open_zarr(path)
    if path.suffix.lower() in TIFF_SUFFIXES:
        return open_tiff(path)
    return None


def read_pillow(path: Path, *, palette_indices: bool = False) -> NDArray[Any]:
    """Read PNG, JPEG or BMP: (H, W) or (H, W, 3 or 4), bool, uint8, uint16, int32 or float32.

    Parameters
    ----------
    palette_indices : bool
        Give the numbers of a palette image instead of its colours, as label masks need it.

    Raises
    ------
    ImageReadError
        Not an image, truncated, or larger than Pillow allows.
    """
    from PIL import Image as PillowImage

    with reading(path.name), PillowImage.open(path) as image:
        image.load()
        if image.mode == "P" and palette_indices:
            return np.array(image)
        wanted = {"P": "RGB", "PA": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "LA": "L", "La": "L"}
        mode = wanted.get(image.mode, image.mode)
        return np.array(image if mode == image.mode else image.convert(mode))


def open_tiff(path: Path) -> LazyArray:
    """First series of a TIFF, OME-TIFF or ImageJ TIFF, at full resolution.

    Raises
    ------
    ImageReadError
        Not a TIFF, or its header is damaged.
    """
    import tifffile

    with reading(path.name), tifffile.TiffFile(path) as file:
        series = file.series[0]
        shape = tuple(int(n) for n in series.shape)
        named = series.axes if all(series.axes.count(a) == 1 for a in "YX") else ""
        return LazyArray(shape, named, partial(_take_tiff, path))


def _take_tiff(path: Path, selection: Selection) -> NDArray[Any]:
    import tifffile

    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        page_shape = series.keyframe.shape
        lead = len(series.shape) - len(page_shape)
        if series.dataoffset is not None:  # one block, also where ImageJ wrote a single page header
            dtype = np.dtype(file.byteorder + series.dtype.char)
            block = file.filehandle.memmap_array(dtype, series.shape, series.dataoffset)
            return np.array(block[selection], dtype=series.dtype)
        if series.shape[lead:] != page_shape or len(series) != math.prod(series.shape[:lead]):
            return np.asarray(series.asarray()[selection])
        numbers = np.arange(len(series)).reshape(series.shape[:lead])[selection[:lead]]
        pages = [_tiff_page(series, int(n)) for n in np.ravel(numbers)]
        whole = np.stack(pages).reshape(np.shape(numbers) + page_shape)
        return np.asarray(whole[(slice(None),) * np.ndim(numbers) + selection[lead:]])


def _tiff_page(series: Any, number: int) -> NDArray[Any]:
    page = series.pages[number]
    if page is None:
        raise ValueError(f"page {number} of {len(series)} is missing")
    return np.asarray(page.asarray())


def open_zarr(path: Path) -> LazyArray:
    """Level 0 of an OME-Zarr image (metadata 0.1 to 0.5), or a bare zarr array without axes.

    Raises
    ------
    ImageReadError
        Not a zarr folder, or a group without an image.
    """
    import zarr

    with reading(path.name):
        node: Any = zarr.open(path, mode="r")
        if not isinstance(node, zarr.Array):
            node, axes = _ome_image(node, path.name)
        else:
            axes = ""
        return LazyArray(tuple(node.shape), axes, lambda selection: np.asarray(node[selection]))


def _ome_image(group: Any, name: str) -> tuple[Any, str]:
    for node in (group, group.get("0")):  # bioformats2raw keeps its first image in "0"
        attributes = dict(getattr(node, "attrs", {}))
        scales = attributes.get("ome", attributes).get("multiscales")
        if scales:
            array = node[scales[0]["datasets"][0]["path"]]
            names = [a if isinstance(a, str) else a["name"] for a in scales[0].get("axes", "tczyx")]
            axes = "".join(_axis_letter(n) for n in names)
            return array, axes if len(axes) == len(array.shape) else ""
    msg = f"{name}: zarr group without OME 'multiscales'. Give the folder of one image or array."
    raise ImageReadError(msg)


def _axis_letter(name: str) -> str:
    letter = name[:1].upper()
    return letter if name.lower() in {"t", "c", "z", "y", "x", "channel"} else "Q"


def check_pixels(pixels: NDArray[Any], name: str) -> NDArray[Any]:
    """Return `pixels` if a model could work on them.

    Parameters
    ----------
    pixels : (H, W) or (H, W, C)
        Bool, whole or floating numbers.
    name : str
        For the message.

    Raises
    ------
    InputError
        Another number of axes, a side below 2 pixels, complex numbers, or NaN and infinity.
    """
    if pixels.ndim not in (2, 3):
        raise InputError(f"{name}: shape {pixels.shape}, expected (H, W) or (H, W, channels).")
    if min(pixels.shape[:2]) < 2 or 0 in pixels.shape:
        found = " x ".join(map(str, pixels.shape))
        msg = f"{name}: {found} pixels, expected at least 2 x 2. Leave it out or check its axes."
        raise InputError(msg)
    if pixels.dtype.kind not in "buif":
        msg = f"{name}: {pixels.dtype} pixels, expected bool, whole or floating numbers."
        raise InputError(msg)
    if pixels.dtype.kind == "f" and not (finite := np.isfinite(pixels)).all():
        bad = int(finite.size - np.count_nonzero(finite))
        msg = (
            f"{name}: {bad} of {pixels.size} values are NaN or infinite. "
            "Replace them first, for instance with numpy.nan_to_num."
        )
        raise InputError(msg)
    return pixels

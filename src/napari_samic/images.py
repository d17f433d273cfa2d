"""Files, folders, stacks and arrays to lazy Planes.

Opening looks at names and headers; pixels are read one plane at a time when a Plane is asked.
One bad file never spoils a folder: its Plane raises when it is read. A data set gets one
`Normalisation` (`normalise.py`), masks are read in `masks.py`; both are to be had from here.
Imports no torch and no Dask: Dask and zarr arrays are known by what they can do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.contracts import Plane
from napari_samic.errors import InputError
from napari_samic.formats import READABLE, LazyArray, Selection
from napari_samic.listing import check_stems, list_source, natural_key, stem_of
from napari_samic.masks import match_by_stem, read_labels, read_mask
from napari_samic.normalise import Normalisation, fit_normalisation, read_rgb
from napari_samic.planes import planes_of_file, split

__all__ = [
    "READABLE",
    "Normalisation",
    "fit_normalisation",
    "match_by_stem",
    "natural_key",
    "open_images",
    "read_labels",
    "read_mask",
    "read_rgb",
    "stem_of",
]


def open_images(source: Any, *, axes: str | None = None) -> list[Plane]:
    """Find the planes of files, folders and arrays; read no pixels yet.

    Parameters
    ----------
    source : str, Path, array, or a list of these
        A file (PNG, JPEG, BMP, TIFF, OME-TIFF), a folder of files (not searched recursively,
        sorted naturally), a glob pattern, an OME-Zarr folder, or a NumPy, Dask or zarr array.
        The first series of a TIFF and the first, full-resolution image of an OME-Zarr are taken.
    axes : str, optional
        One letter an axis, for instance ``"TZCYX"``: Y X the plane, C or S channels, others stack
        axes. Instead of the file's own; needed for unnamed arrays of five axes and more. Without
        it, an unnamed last axis of length 3 or 4 is colour and other leading axes are stacks.

    Returns
    -------
    list of Plane
        ``read()`` gives (H, W) or (H, W, C) in the file's own dtype (bool for 1-bit files); do
        not write to it, as an array's planes share its memory. It raises ImageReadError for a
        file that can't be read, InputError for a side below 2 pixels and for NaN or infinity.

    Raises
    ------
    InputError
        Nothing there, no image among the files, two files of one stem, or axes that do not fit.
    """
    if isinstance(source, list | tuple):
        return _open_list(source, axes)
    if isinstance(source, str | Path):
        return _open_paths(list_source(source), axes)
    return _open_array(source, "image", axes)


def _open_list(sources: list[Any] | tuple[Any, ...], axes: str | None) -> list[Plane]:
    if not sources:
        raise InputError("an empty list of images. Give at least one file, folder or array.")
    arrays = sum(not isinstance(s, str | Path) for s in sources)
    names, places, planes = [], [], []
    for number, source in enumerate(sources):
        if isinstance(source, str | Path):
            files = list_source(source)
            names += [stem_of(path) for path in files]
            places += files
            planes += [plane for path in files for plane in planes_of_file(path, axes)]
        else:
            names.append("image" if arrays == 1 else f"image_{number}")
            places.append(Path(f"array {number} of the list"))
            planes += _open_array(source, names[-1], axes)
    check_stems(names, places)
    return planes


def _open_paths(files: list[Path], axes: str | None) -> list[Plane]:
    check_stems([stem_of(path) for path in files], files)
    return [plane for path in files for plane in planes_of_file(path, axes)]


def _open_array(array: Any, name: str, axes: str | None) -> list[Plane]:
    if not (hasattr(array, "shape") and hasattr(array, "dtype") and hasattr(array, "__getitem__")):
        msg = (
            f"{name}: can't take a {type(array).__name__} as an image. "
            "Give a path, an array, or a list of these."
        )
        raise InputError(msg)
    shape = tuple(int(n) for n in array.shape)
    return split(LazyArray(shape, "", _taker(array)), name, axes=axes)


def _taker(array: Any) -> Callable[[Selection], NDArray[Any]]:
    return lambda selection: np.asarray(array[selection])

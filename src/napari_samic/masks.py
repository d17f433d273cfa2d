"""Label masks: reading them, and finding the mask of each image by its name.

0 is background. Knows no network and writes nothing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.contracts import IntArray, Plane
from napari_samic.errors import InputError
from napari_samic.formats import PILLOW_SUFFIXES, check_pixels, read_pillow
from napari_samic.listing import list_source, stem_of
from napari_samic.planes import open_path, planes_of_file

_SUFFIX = re.compile(r"(_cp)?_(masks?|labels?|seg)$", re.IGNORECASE)
_LOSSY = (".jpg", ".jpeg")


def read_labels(source: str | Path | Plane) -> IntArray:
    """Read a mask: object or class numbers, or black and white.

    Black and white of 8 or 16 bits (0 and 255, 0 and 65535) becomes 0 and 1; of a palette image
    the numbers are read, not the colours.

    Parameters
    ----------
    source : str, Path or Plane
        PNG, BMP, TIFF or OME-Zarr that holds one plane; or one plane of a stack.

    Returns
    -------
    (H, W) int32

    Raises
    ------
    ImageReadError
        The file can't be read.
    InputError
        Colours, fractions, negative numbers, or a stack where one plane is expected.
    """
    plane = source if isinstance(source, Plane) else _only_plane(Path(source))
    path = plane.path
    if path is None or path.suffix.lower() not in PILLOW_SUFFIXES:
        return _to_labels(plane.read(), plane.label, lossy=False)
    pixels = check_pixels(read_pillow(path, palette_indices=True), path.name)
    return _to_labels(pixels, path.name, lossy=path.suffix.lower() in _LOSSY)


def _only_plane(path: Path) -> Plane:
    file = path if path.is_dir() else list_source(path)[0]
    planes = planes_of_file(file, palette_indices=True)
    if len(planes) != 1:
        msg = (
            f"{path.name}: a stack of {len(planes)} planes {planes[0].stack_shape}, expected one "
            "mask. Open it with open_images and read its planes."
        )
        raise InputError(msg)
    return planes[0]


def _to_labels(pixels: NDArray[Any], name: str, *, lossy: bool) -> IntArray:
    flat = _one_channel(pixels, name)
    if flat.dtype.kind == "f" and (flat != np.rint(flat)).any():
        worst = flat[flat != np.rint(flat)][0]
        msg = f"{name}: value {worst:g} in a mask, expected whole numbers. Threshold it first."
        raise InputError(msg)
    low, high = flat.min(), flat.max()
    if low < 0 or high > np.iinfo(np.int32).max:
        msg = f"{name}: values from {low} to {high} in a mask, expected 0 (background) to 2**31-1."
        raise InputError(msg)
    if flat.dtype in (np.uint8, np.uint16):
        white = np.iinfo(flat.dtype).max
        if ((flat == 0) | (flat == white)).all():
            return np.asarray(flat == white, dtype=np.int32)
    if lossy:
        msg = f"{name}: grey values in a JPEG mask, which blurs labels. Export it as PNG or TIFF."
        raise InputError(msg)
    return np.asarray(flat, dtype=np.int32)


def _one_channel(pixels: NDArray[Any], name: str) -> NDArray[Any]:
    if pixels.ndim == 2:
        return pixels
    colours = pixels[..., :3] if pixels.shape[2] in (3, 4) else pixels
    if (colours != colours[..., :1]).any():
        msg = (
            f"{name}: a mask of {pixels.shape[2]} different channels, expected one. "
            "Export label numbers, one grey channel."
        )
        raise InputError(msg)
    return colours[..., 0]


def read_mask(plane: Plane, path: str | Path, *, shape: tuple[int, ...] | None = None) -> IntArray:
    """Read the mask that belongs to `plane`: of a stack, the plane at the same place.

    Parameters
    ----------
    path : str or Path
        From `match_by_stem`. The mask of a stack is a stack of the same shape.
    shape : tuple of int, optional
        (H, W, ...) of the image, which the mask must have too.

    Returns
    -------
    (H, W) int32

    Raises
    ------
    InputError
        A mask of another shape, or one that `read_labels` refuses.
    """
    found = _planes_for(plane, Path(path))
    if len(found) > 1 and _squeezed(found[0].stack_shape) != _squeezed(plane.stack_shape):
        msg = (
            f"{Path(path).name}: mask stack {found[0].stack_shape} for an image stack "
            f"{plane.stack_shape or '(one plane)'} '{plane.name}'. Export both with the same axes."
        )
        raise InputError(msg)
    if len(found) == 1 and int(np.prod(plane.stack_shape)) > 1:
        msg = (
            f"{Path(path).name}: one mask for the stack {plane.stack_shape} '{plane.name}'. "
            "Give a mask stack of the same shape."
        )
        raise InputError(msg)
    place = 0 if len(found) == 1 else int(np.ravel_multi_index(plane.index, plane.stack_shape))
    labels = read_labels(found[place])
    if shape is not None and labels.shape != tuple(shape[:2]):
        msg = (
            f"{Path(path).name}: mask of {labels.shape} for the image {plane.label} of "
            f"{tuple(shape[:2])}. Export the mask at the size of its image."
        )
        raise InputError(msg)
    return labels


def _planes_for(plane: Plane, path: Path) -> list[Plane]:
    """Planes of a mask file: the series of the image, by the axes that were given for it."""
    opened = open_path(path, palette_indices=True)
    found = opened.planes
    if plane.axes and opened.is_guessed:
        without = re.sub("[CS]", "", plane.axes.upper())
        with suppress(InputError):  # a mask has its image's axes, but seldom the channels
            found = planes_of_file(path, without, palette_indices=True)
    if len({mask.name for mask in found}) == 1:
        return found
    series = _file_and_series(plane.name)[1]
    same = [mask for mask in found if mask.name == stem_of(path) + series]
    if not same:
        msg = f"{path.name}: several masks, none for {plane.name}. Export it with the same series."
        raise InputError(msg)
    return same


def _file_and_series(name: str) -> tuple[str, str]:
    """Stem of the file, and the end, [s1], that tells an image from others of its file.

    >>> _file_and_series("cells[s1]"), _file_and_series("cells")
    (('cells', '[s1]'), ('cells', ''))
    """
    found = re.fullmatch(r"(.+)(\[s\d+\])", name)
    return (found[1], found[2]) if found else (name, "")


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n > 1)  # TIFF leaves out axes of length 1


def match_by_stem(
    planes: Sequence[Plane], folder: str | Path, *, require_all: bool = True
) -> dict[str, Path]:
    """Pair planes with the masks of a folder (or pattern) by name without ending.

    cells.tif goes with cells.png, cells_mask.png, cells_label(s).tif, cells_seg.png or
    cells_cp_masks.png; of several images in one file, cells[s1] with cells[s1].png, or with the
    same place in cells.tif. The images themselves may lie in the same folder.

    Parameters
    ----------
    require_all : bool
        Whether images without a mask are an error, or just left out; none at all always is.

    Returns
    -------
    dict of str to Path
        `Plane.label` to file; read with `read_mask`.

    Raises
    ------
    InputError
        Images without a mask (up to five are named), or with two.
    """
    images = {plane.path.resolve() for plane in planes if plane.path is not None}
    files = [path for path in list_source(folder) if path.resolve() not in images]
    wanted = {plane.name for plane in planes}
    same = [path for path in files if stem_of(path) in wanted]
    exact = {stem_of(path): path for path in _unambiguous(same, stem_of)}
    spelled = [path for path in files if _bare(path) in wanted - set(exact)]
    found = {_bare(path): path for path in _unambiguous(spelled, _bare)} | exact
    found |= _of_whole_files(planes, files, found)
    missing = sorted(wanted - set(found))
    if missing and (require_all or not found):
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        msg = (
            f"{folder}: no mask for {', '.join(missing[:5])}{more}. A mask has the name of its "
            "image, with or without _mask, _label or _seg."
        )
        raise InputError(msg)
    return {plane.label: found[plane.name] for plane in planes if plane.name in found}


def _of_whole_files(
    planes: Sequence[Plane], files: Sequence[Path], found: Mapping[str, Path]
) -> dict[str, Path]:
    """Masks of images that share a file, where a mask has the name of that file."""
    shared: dict[str, set[str]] = defaultdict(set)
    for name in {plane.name for plane in planes} - set(found):
        stem, series = _file_and_series(name)
        if series:
            shared[stem].add(name)
    out: dict[str, Path] = {}
    for stem, names in shared.items():
        same = [p for p in files if stem_of(p) == stem] or [p for p in files if _bare(p) == stem]
        for path in _unambiguous(same, _bare)[:1]:
            if len(names) == 1 or planes_of_file(path)[0].name != stem_of(path):
                out |= dict.fromkeys(names, path)
    return out


def _bare(path: Path) -> str:
    return _SUFFIX.sub("", stem_of(path))


def _unambiguous(files: Iterable[Path], name: Any) -> list[Path]:
    seen: dict[str, Path] = {}
    for path in files:
        if (other := seen.setdefault(name(path), path)) != path:
            msg = f"{other.name} and {path.name} are both masks of '{name(path)}'. Remove one."
            raise InputError(msg)
    return list(seen.values())

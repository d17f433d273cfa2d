"""A lazy array with named axes to lazy 2-D Planes.

Y and X span the plane, C and S are its channels, every other axis is a stack axis.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.contracts import Plane
from napari_samic.errors import ImageReadError, InputError
from napari_samic.formats import (
    LazyArray,
    Selection,
    check_pixels,
    open_file,
    read_pillow,
    reading,
)
from napari_samic.listing import stem_of
from napari_samic.textfiles import writable


def planes_of_file(path: Path, axes: str | None = None) -> list[Plane]:
    """Planes of one file.

    A file whose header is damaged, or whose name is no text, gives one Plane that raises when read.

    Raises
    ------
    InputError
        Axes that do not fit, or that have to be given.
    """
    name = stem_of(path)
    if (text := writable(name)) != name:  # no result and no table could be called so
        return [Plane(text, (), partial(_raise_nameless, writable(path.name)), path=path)]
    try:
        lazy = open_file(path)
    except ImageReadError as error:
        return [Plane(name, (), partial(_raise, error), path=path)]
    if lazy is None:
        return [Plane(name, (), partial(_read_flat, path), path=path)]
    return split(lazy, name, path=path, axes=axes)


def _raise(error: ImageReadError) -> NDArray[Any]:
    raise ImageReadError(str(error)) from error


def _raise_nameless(name: str) -> NDArray[Any]:
    raise InputError(f"{name}: the name is not UTF-8. Rename the file.")


def _read_flat(path: Path) -> NDArray[Any]:
    return check_pixels(read_pillow(path), path.name)


def split(
    lazy: LazyArray, name: str, *, path: Path | None = None, axes: str | None = None
) -> list[Plane]:
    """One Plane for each place along the stack axes of `lazy`.

    Parameters
    ----------
    name : str
        Shared by all planes.
    axes : str, optional
        Instead of the axes of the file.

    Raises
    ------
    InputError
        Axes that do not fit the shape, or that have to be given, or no plane at all.
    """
    where = path.name if path is not None else name
    letters = resolve_axes(lazy.shape, axes or lazy.axes, where)
    stack_shape = tuple(
        n for n, axis in zip(lazy.shape, letters, strict=True) if axis not in "YXCS"
    )
    if 0 in stack_shape:
        raise InputError(f"{where}: shape {lazy.shape} holds no plane. Check the file.")
    return [
        Plane(name, index, _reader(lazy, letters, index, where), stack_shape, path)
        for index in np.ndindex(*stack_shape)
    ]


def resolve_axes(shape: tuple[int, ...], axes: str, where: str) -> str:
    """Letters for `shape`: the given ones if they fit, a guess for up to four axes otherwise.

    Without letters: (H, W), (H, W, 3 or 4) colour, (N, H, W) stack, (N, H, W, 3 or 4) stack of
    colour, (N, M, H, W) stack of stacks.

    Raises
    ------
    InputError
        Letters that do not fit, or five axes and more without letters.
    """
    letters = axes.upper()
    if letters:
        fits = len(letters) == len(shape) and all(letters.count(a) == 1 for a in "YX")
        if not fits or any(letters.count(a) > 1 for a in "CS"):
            msg = (
                f"{where}: axes '{axes}' do not fit shape {shape}. Give one letter an axis, with "
                'one Y and one X, at most one C, for instance axes="TZCYX".'
            )
            raise InputError(msg)
        return letters
    if not 2 <= len(shape) <= 4:
        todo = 'Say which is which, for instance axes="TZCYX".' if shape[4:] else "It is no image."
        raise InputError(f"{where}: {len(shape)} axes of lengths {shape} without names. {todo}")
    colour = len(shape) > 2 and shape[-1] in (3, 4)
    return "QQYX"[-len(shape) :] if not colour else "QYXS"[-len(shape) :]


def _reader(
    lazy: LazyArray, axes: str, index: tuple[int, ...], where: str
) -> Callable[[], NDArray[Any]]:
    places = iter(index)
    selection = tuple(slice(None) if axis in "YXCS" else next(places) for axis in axes)
    label = where + "".join(f"[{i}]" for i in index)
    return partial(_read_plane, lazy, selection, "".join(a for a in axes if a in "YXCS"), label)


def _read_plane(lazy: LazyArray, selection: Selection, axes: str, label: str) -> NDArray[Any]:
    with reading(label):
        pixels = np.asarray(lazy.take(selection))
        order = [axes.index(a) for a in "YXCS" if a in axes]
        pixels = pixels.transpose(order)
    if pixels.ndim > 2:
        pixels = pixels.reshape(*pixels.shape[:2], int(np.prod(pixels.shape[2:])))
        pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels  # (H, W) or (H, W, C)
    return check_pixels(pixels, label)

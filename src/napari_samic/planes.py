"""A lazy array with named axes to lazy 2-D Planes.

Y and X span the plane, C and S are its channels, every other axis is a stack axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from napari_samic.contracts import Plane
from napari_samic.errors import ImageReadError, InputError
from napari_samic.formats import (
    INSTRUMENT_SUFFIXES,
    SLIDE_SUFFIXES,
    TIFF_SUFFIXES,
    Images,
    LazyArray,
    Selection,
    check_memory,
    check_pixels,
    is_turned,
    is_zarr,
    open_zarr,
    read_pillow,
    reading,
)
from napari_samic.listing import ending_of, stem_of
from napari_samic.textfiles import is_name, writable
from napari_samic.tiffs import open_tiff
from napari_samic.vendors import open_vendor

_FEW, _MANY = 15, 16
"""An unnamed last axis up to the one, behind two of the other and more, is channels."""
_WORDS = {"Y": "rows", "X": "columns", "C": "channels", "S": "channels"}


@dataclass(frozen=True)
class Opened:
    """Planes of one file.

    Attributes
    ----------
    planes : list of Plane
    remarks : tuple of str
        What was guessed, left out or done to it, each in words that fit any file.
    files : tuple of Path
        All that it was read from, if these are several.
    is_guessed : bool
        The file does not name its axes, and they could be others.
    is_faulty : bool
        Its one plane says why it can't be read, now.
    """

    planes: list[Plane]
    remarks: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    is_guessed: bool = False
    is_faulty: bool = False


def planes_of_file(
    path: Path, axes: str | None = None, *, palette_indices: bool = False
) -> list[Plane]:
    """Planes of one file.

    A file whose header is damaged, or whose name no result can have, gives one Plane that raises
    when read.

    Parameters
    ----------
    palette_indices : bool
        Read numbers as they are stored, as label masks need it, not what they look like.

    Raises
    ------
    InputError
        Axes that do not fit, or that have to be given.
    """
    return open_path(path, axes, palette_indices=palette_indices).planes


def open_path(
    path: Path,
    axes: str | None = None,
    *,
    series: int | None = None,
    palette_indices: bool = False,
) -> Opened:
    """As `planes_of_file`, with what there is to say of it.

    Several images in one file are told apart by their names: NAME[s0], NAME[s1] ...

    Parameters
    ----------
    series : int, optional
        The one to take.

    Raises
    ------
    InputError
        As `planes_of_file`; or no such series.
    """
    name = stem_of(path)
    if fault := _name_fault(path):
        plane = Plane(writable(name), (), partial(_raise, InputError, fault), path=path)
        return Opened([plane], is_faulty=True)
    try:
        images = open_file(path, palette_indices=palette_indices)
    except ImageReadError as error:
        return Opened([unreadable(path, error)], is_faulty=True)
    count = 1 if images is None else len(images.series)
    if not count:
        nothing = ImageReadError(f"{path.name}: holds no image. Export it again or remove it.")
        return Opened([unreadable(path, nothing)], is_faulty=True)
    if series is not None and not 0 <= series < count:
        last = f" (0 to {count - 1})" if count > 1 else ""
        msg = f"{path.name}: series {series} asked for, it has {count}{last}. Choose another."
        raise InputError(msg)
    if images is None:
        read = partial(_read_flat, path, palette_indices=palette_indices)
        turn = ("turned as its EXIF says",) * (not palette_indices and is_turned(path))
        return Opened([Plane(name, (), read, path=path)], turn)
    chosen = [n for n in range(count) if series in (None, n)]
    remarks = list(images.remarks)
    planes: list[Plane] = []
    if count > len(chosen):
        remarks.append(f"{count - 1} of its {count} series are left out")
    elif count > 1:
        remarks.append(f"its {count} series are taken one by one, as NAME[s0]; --series takes one")
    guesses = [text for n in chosen for text in guess_of(images.series[n]) if not axes]
    for n in chosen:
        place = f"[s{n}]" if count > 1 else ""
        planes += split(images.series[n], name + place, path=path, axes=axes, place=place)
    told = tuple(dict.fromkeys([*remarks, *guesses]))
    return Opened(planes, told, images.files, bool(guesses))


def open_file(path: Path, *, palette_indices: bool = False) -> Images | None:
    """Images of a file; None for a Pillow format, which is one plane."""
    ending = ending_of(path)
    if is_zarr(path):
        return open_zarr(path)
    if ending in (*TIFF_SUFFIXES, *SLIDE_SUFFIXES):
        return open_tiff(path, palette_indices=palette_indices)
    if ending in INSTRUMENT_SUFFIXES:
        return open_vendor(path, as_stored=palette_indices)
    return None


def _name_fault(path: Path) -> str:
    """Why no result and no table could be called as a file is; "" if they can."""
    name = stem_of(path)
    if writable(name) != name:
        return f"{writable(path.name)}: the name is not UTF-8. Rename the file."
    if not is_name(name):  # it leads elsewhere, at least on Windows
        todo = "Rename it without : and \\."
        return f"{path.name}: the name is a drive or a folder on other systems. {todo}"
    return ""


def unreadable(path: Path, error: InputError) -> Plane:
    """The plane of a file that can't be opened: it says why when it is read."""
    return Plane(stem_of(path), (), partial(_raise, type(error), str(error)), path=path)


def _raise(kind: type[InputError], message: str) -> NoReturn:
    raise kind(message)


def _read_flat(path: Path, *, palette_indices: bool) -> NDArray[Any]:
    return check_pixels(read_pillow(path, palette_indices=palette_indices), path.name)


def split(
    lazy: LazyArray,
    name: str,
    *,
    path: Path | None = None,
    axes: str | None = None,
    place: str = "",
) -> list[Plane]:
    """One Plane for each place along the stack axes of `lazy`.

    Parameters
    ----------
    name : str
        Shared by all planes.
    axes : str, optional
        Instead of the axes of the file.
    place : str
        Of the image in the file, for messages.

    Raises
    ------
    InputError
        Axes that do not fit the shape, or that have to be given, or no plane at all.
    """
    where = path.name + place if path is not None else name
    letters = resolve_axes(lazy.shape, axes, where) if axes else axes_of(lazy, where)
    stack_shape = tuple(
        n for n, axis in zip(lazy.shape, letters, strict=True) if axis not in "YXCS"
    )
    if 0 in stack_shape:
        raise InputError(f"{where}: shape {lazy.shape} holds no plane. Check the file.")
    kind = _kind_of(lazy, letters)
    return [
        Plane(name, i, _reader(lazy, letters, i, where), stack_shape, path, axes or "", kind)
        for i in np.ndindex(*stack_shape)
    ]


def _kind_of(lazy: LazyArray, letters: str) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
    """Shape and kind of a plane; None where only its pixels tell."""
    kept = "".join(a for a in letters if a in "YXCS")
    shape = tuple(n for n, a in zip(lazy.shape, letters, strict=True) if a in "YXCS")
    if lazy.dtype is None or lazy.finish is not None or kept not in ("YX", "YXS", "YXC"):
        return None
    return None if shape[2:] == (1,) else (shape, lazy.dtype.newbyteorder("="))


def resolve_axes(shape: tuple[int, ...], axes: str, where: str) -> str:
    """The letters of `axes` if they fit `shape`.

    Raises
    ------
    InputError
        They do not.
    """
    letters = axes.upper()
    fits = len(letters) == len(shape) and all(letters.count(a) == 1 for a in "YX")
    if not fits or any(letters.count(a) > 1 for a in "CS"):
        msg = (
            f"{where}: axes '{axes}' do not fit shape {shape}. Give one letter an axis, with "
            'one Y and one X, at most one C, for instance axes="TZCYX".'
        )
        raise InputError(msg)
    return letters


def axes_of(lazy: LazyArray, where: str) -> str:
    """Letters of the file, or a guess for up to four axes that it does not name.

    Without names: (H, W), (H, W, 3 or 4) colour, (N, H, W) stack, (N, H, W, 3 or 4) stack of
    colour, (N, M, H, W) stack of stacks; and channels last where planes would be a few pixels wide.

    Raises
    ------
    InputError
        Letters that do not fit, or five axes and more without letters.
    """
    shape = lazy.shape
    if lazy.axes:
        letters = resolve_axes(shape, lazy.axes, where)
        return letters if _is_named(letters) else _channels_last(shape, letters)
    if not 2 <= len(shape) <= 4:
        todo = 'Say which is which, for instance axes="TZCYX".' if shape[4:] else "It is no image."
        raise InputError(f"{where}: {len(shape)} axes of lengths {shape} without names. {todo}")
    if len(shape) > 2 and shape[-1] in (3, 4):
        return "QYXS"[-len(shape) :]
    return _channels_last(shape, "QQYX"[-len(shape) :])


def _is_named(letters: str) -> bool:
    return bool(letters) and not set(letters) & set("QI")  # so tifffile calls what no one named


def _channels_last(shape: tuple[int, ...], letters: str) -> str:
    """Letters, with the last axis as channels if there were no room for an image otherwise."""
    is_open = len(letters) > 2 and letters[-3:] in ("QYX", "IYX")
    if is_open and shape[-1] <= _FEW and min(shape[-3:-1]) >= _MANY:
        return letters[:-3] + "YXC"
    return letters


def guess_of(lazy: LazyArray) -> tuple[str, ...]:
    """What to say of axes that had to be guessed; nothing where there is no doubt."""
    if _is_named(lazy.axes) or not 2 < len(lazy.shape) < 5 or sum(n > 1 for n in lazy.shape) < 3:
        return ()
    letters = axes_of(lazy, "").replace("I", "Q")
    words = " x ".join(_WORDS.get(letter, "planes") for letter in letters)
    return (f"axes are not named, taken for {words} ({letters}); --axes says otherwise",)


def _reader(
    lazy: LazyArray, axes: str, index: tuple[int, ...], where: str
) -> Callable[[], NDArray[Any]]:
    places = iter(index)
    selection = tuple(slice(None) if axis in "YXCS" else next(places) for axis in axes)
    label = where + "".join(f"[{i}]" for i in index)
    return partial(_read_plane, lazy, selection, "".join(a for a in axes if a in "YXCS"), label)


def _read_plane(lazy: LazyArray, selection: Selection, axes: str, label: str) -> NDArray[Any]:
    with reading(label):
        order = [axes.index(a) for a in "YXCS" if a in axes]
        kept = [n for n, part in zip(lazy.shape, selection, strict=True) if part == slice(None)]
        if lazy.dtype is not None:
            check_memory([kept[place] for place in order], lazy.dtype.itemsize, label)
        pixels = np.asarray(lazy.take(selection)).transpose(order)
        if pixels.ndim > 2:
            pixels = pixels.reshape(*pixels.shape[:2], int(np.prod(pixels.shape[2:])))
            pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels  # (H, W) or (H, W, C)
        if lazy.finish is not None:
            pixels = lazy.finish(pixels)
    return check_pixels(pixels, label)

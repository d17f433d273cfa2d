"""Files, folders, stacks and arrays to lazy planes.

Opening looks at names and headers; pixels are read one plane at a time when a plane is asked. Of an
array with named axes, Y and X span the plane, C and S are its channels, every other axis is a stack
axis. One bad file never spoils a folder: its plane raises when it is read. A data set gets one
`Normalization` (`normalize.py`), masks are read in `masks.py`.
Imports no torch and no Dask: Dask and zarr arrays are known by what they can do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import ImageReadError, InputError, SamicError
from napari_samic.core.types import ImagePlane, PixelSize
from napari_samic.io.paths import Listing, check_stems, ending_of, look, no_files_line, stem_of
from napari_samic.io.readers import (
    INSTRUMENT_SUFFIXES,
    SLIDE_SUFFIXES,
    TIFF_SUFFIXES,
    ImageSet,
    LazyArray,
    Selection,
    check_memory,
    check_pixels,
    has_orientation,
    is_zarr,
    open_zarr,
    read_pillow,
    reading,
    zarr_channel_names,
    zarr_pixel_size,
)
from napari_samic.io.text_files import is_name, writable
from napari_samic.io.tiff import open_tiff, tiff_channel_names, tiff_pixel_size
from napari_samic.io.vendor_formats import open_vendor

_FEW, _MANY = 15, 16
"""An unnamed last axis up to the one, behind two of the other and more, is channels."""
_ALL = slice(None)
_WORDS = {"Y": "rows", "X": "columns", "C": "channels", "S": "channels"}


def open_images(
    source: Any,
    *,
    axes: str | None = None,
    series: int | None = None,
    strict: bool = True,
    tell: Callable[[str], None] | None = None,
) -> list[ImagePlane]:
    """Find the planes of files, folders and arrays; read no pixels yet.

    Parameters
    ----------
    source : str, Path, array, or a list of these
        A file (PNG, JPEG, BMP, TIFF, OME-TIFF; with the extra `formats` CZI, ND2, LIF, DICOM,
        NIfTI), a folder of files (not searched recursively, sorted naturally), a glob pattern, an
        OME-Zarr folder, or a NumPy, Dask or zarr array. Images are taken in full resolution, and
        turned as EXIF or TIFF's Orientation say. Of a file with several images each is opened, as
        NAME[s0], NAME[s1] ...; the files of an OME-TIFF set are opened once, as the first.
    axes : str, optional
        One letter an axis, for instance ``"TZCYX"``: Y X the plane, C or S channels, others stack
        axes. Instead of the file's own; needed for unnamed arrays of five axes and more. Without
        it, an unnamed last axis of length 3 or 4 is color, a short one behind two long ones is
        channels, and other leading axes are stacks.
    series : int, optional
        The one image to take of each file, from 0.
    strict : bool
        Whether a file among others that can't be opened is an error, or raises when it is read.
    tell : callable, optional
        Is given a line for all that was guessed or left out; one for all files alike.

    Returns
    -------
    list of ImagePlane
        ``read()`` gives (H, W) or (H, W, C) in the file's own dtype (bool for 1-bit files); do
        not write to it, as an array's planes share its memory. It raises ImageReadError for a
        file that can't be read, InputError for a side below 2 pixels and for NaN or infinity.

    Raises
    ------
    InputError
        Nothing there, no image among the files, two files of one stem, or axes that do not fit.
    """
    sources = source if isinstance(source, list | tuple) else [source]
    if not sources:
        raise InputError("an empty list of images. Give at least one file, folder or array.")
    is_lone = not isinstance(source, list | tuple)
    arrays = sum(not isinstance(s, str | Path) for s in sources)
    listings = [look(s) if isinstance(s, str | Path) else Listing(()) for s in sources]
    is_strict = strict or sum(len(listing.images) for listing in listings) < 2
    opening = _Opening(axes, series, is_strict)
    for number, (entry, listing) in enumerate(zip(sources, listings, strict=True)):
        if isinstance(entry, str | Path):
            for path in listing.images:
                opening.add(path)
        else:
            name = "image" if is_lone or arrays == 1 else f"image_{number}"
            opening.add_array(entry, name, f"array {number} of the list")
    opening.check()
    if tell is not None:
        for line in [*opening.lines(), *_left_out(listings)]:
            tell(line)
    return opening.planes


class _Opening:
    """Planes of some files and arrays, and what there is to say of them."""

    def __init__(self, axes: str | None, series: int | None, is_strict: bool) -> None:
        self.planes: list[ImagePlane] = []
        self._axes, self._series, self._is_strict = axes, series, is_strict
        self._places: dict[str, list[object]] = {}
        self._known: set[Path] = set()
        self._remarks: dict[str, list[str]] = {}

    def add(self, path: Path) -> None:
        """Open one file, unless it is part of a set that was opened before."""
        if path.resolve() in self._known:
            return
        try:
            opened = open_path(path, self._axes, series=self._series)
        except InputError as error:
            if self._is_strict:
                raise
            opened = OpenedFile([unreadable(path, error)])
        self._known |= {file.resolve() for file in opened.files if file != path}
        for remark in opened.remarks:
            self._note(remark, path.name)
        self._take(opened.planes, path)

    def add_array(self, array: Any, name: str, place: str) -> None:
        """Open one array."""
        lazy = _lazy(array, name)
        for remark in guess_of(lazy) if not self._axes else ():
            self._note(remark, name)
        self._take(split(lazy, name, axes=self._axes), place)

    def _take(self, planes: list[ImagePlane], place: object) -> None:
        self.planes += planes
        for name in dict.fromkeys(plane.name for plane in planes):
            self._places.setdefault(name, []).append(place)

    def _note(self, remark: str, name: str) -> None:
        self._remarks.setdefault(remark, []).append(name)

    def check(self) -> None:
        """Raise InputError if two have one name."""
        pairs = [(name, place) for name, places in self._places.items() for place in places]
        check_stems([name for name, _ in pairs], [place for _, place in pairs])

    def lines(self) -> Iterator[str]:
        """What there is to say, once for all files alike."""
        for remark, names in self._remarks.items():
            who = names[0] if len(names) == 1 else f"{len(names)} files, as {names[0]}"
            yield f"{who}: {remark}."


def _left_out(listings: list[Listing]) -> Iterator[str]:
    """A line for what can't be read among the images, and one for files of other kinds."""
    if no_files := [path for listing in listings for path in listing.no_files]:
        yield no_files_line(dict.fromkeys(no_files))
    others = {path.resolve() for listing in listings for path in listing.others}
    others -= {path.resolve() for listing in listings for path in listing.images}
    if not others:
        return
    counts = Counter(ending_of(path) or "no ending" for path in others)
    kinds = ", ".join(f"{count} {ending}" for ending, count in sorted(counts.items()))
    line = f"{len(others)} file{'s' * (len(others) > 1)} of other kinds left out: {kinds}."
    if any(ending in INSTRUMENT_SUFFIXES for ending in counts):
        line += " Those of instruments are read if they are named, or alone in a folder."
    yield line


def _lazy(array: Any, name: str) -> LazyArray:
    if not (hasattr(array, "shape") and hasattr(array, "dtype") and hasattr(array, "__getitem__")):
        msg = (
            f"{name}: can't take a {type(array).__name__} as an image. "
            "Give a path, an array, or a list of these."
        )
        raise InputError(msg)
    dtype = array.dtype if isinstance(array.dtype, np.dtype) else None
    shape = tuple(int(n) for n in array.shape)
    is_loaded = isinstance(array, np.ndarray)
    return LazyArray(shape, "", _taker(array), dtype, by_part=True, is_loaded=is_loaded)


def _taker(array: Any) -> Callable[[Selection], NDArray[Any]]:
    return lambda selection: np.asarray(array[selection])


@dataclass(frozen=True)
class OpenedFile:
    """Planes of one file.

    Attributes
    ----------
    planes : list of ImagePlane
    remarks : tuple of str
        What was guessed, left out or done to it, each in words that fit any file.
    files : tuple of Path
        All that it was read from, if these are several.
    is_guessed : bool
        The file does not name its axes, and they could be others.
    is_faulty : bool
        Its one plane says why it can't be read, now.
    """

    planes: list[ImagePlane]
    remarks: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    is_guessed: bool = False
    is_faulty: bool = False


def planes_of_file(
    path: Path, axes: str | None = None, *, palette_indices: bool = False
) -> list[ImagePlane]:
    """Planes of one file.

    A file whose header is damaged, or whose name no result can have, gives one plane that raises
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
) -> OpenedFile:
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
        plane = ImagePlane(writable(name), (), partial(_raise, InputError, fault), path=path)
        return OpenedFile([plane], is_faulty=True)
    try:
        images = open_file(path, palette_indices=palette_indices)
    except ImageReadError as error:
        return OpenedFile([unreadable(path, error)], is_faulty=True)
    count = 1 if images is None else len(images.series)
    if not count:
        nothing = ImageReadError(f"{path.name}: holds no image. Export it again or remove it.")
        return OpenedFile([unreadable(path, nothing)], is_faulty=True)
    if series is not None and not 0 <= series < count:
        last = f" (0 to {count - 1})" if count > 1 else ""
        msg = f"{path.name}: series {series} asked for, it has {count}{last}. Choose another."
        raise InputError(msg)
    if images is None:
        read = partial(_read_flat, path, palette_indices=palette_indices)
        turn = ("turned as its EXIF says",) * (not palette_indices and has_orientation(path))
        return OpenedFile([ImagePlane(name, (), read, path=path)], turn)
    chosen = [n for n in range(count) if series in (None, n)]
    remarks = list(images.remarks)
    planes: list[ImagePlane] = []
    if count > len(chosen):
        remarks.append(f"{count - 1} of its {count} series are left out")
    elif count > 1:
        remarks.append(f"its {count} series are taken one by one, as NAME[s0]; --series takes one")
    guesses = [text for n in chosen for text in guess_of(images.series[n]) if not axes]
    for n in chosen:
        place = f"[s{n}]" if count > 1 else ""
        planes += split(images.series[n], name + place, path=path, axes=axes, place=place)
    lines = tuple(dict.fromkeys([*remarks, *guesses]))
    return OpenedFile(planes, lines, images.files, bool(guesses))


def open_file(path: Path, *, palette_indices: bool = False) -> ImageSet | None:
    """Images of a file; None for a Pillow format, which is one plane."""
    ending = ending_of(path)
    if is_zarr(path):
        return open_zarr(path)
    if ending in (*TIFF_SUFFIXES, *SLIDE_SUFFIXES):
        return open_tiff(path, palette_indices=palette_indices)
    if ending in INSTRUMENT_SUFFIXES:
        return open_vendor(path, as_stored=palette_indices)
    return None


def pixel_size(path: Path) -> PixelSize | None:
    """What a file says about the size of its pixels; None if it says nothing, or is not there."""
    with suppress(SamicError, OSError, ValueError):
        if is_zarr(path):
            return zarr_pixel_size(path)
        if ending_of(path) in TIFF_SUFFIXES:
            return tiff_pixel_size(path)
    return None


def channel_names(path: Path) -> tuple[str, ...]:
    """What a file calls its channels; () if it says nothing, or is not there."""
    with suppress(SamicError, OSError, ValueError, AttributeError, TypeError):
        if is_zarr(path):
            return zarr_channel_names(path)
        if ending_of(path) in TIFF_SUFFIXES:
            return tiff_channel_names(path)
    return ()


def stack_axes(path: Path, stack_shape: tuple[int, ...]) -> str:
    """Letters that a file has for its stack axes; "" if it has none, or is of other lengths."""
    with suppress(SamicError, OSError, ValueError):
        images = open_file(path)
        for lazy in images.series if images is not None else ():
            if not _is_named(lazy.axes):
                continue
            pairs = zip(lazy.shape, axes_of(lazy, path.name), strict=True)
            stack = [(n, axis) for n, axis in pairs if axis not in "YXCS"]
            if tuple(n for n, _ in stack) == stack_shape:
                return "".join(axis for _, axis in stack)
    return ""


def _name_fault(path: Path) -> str:
    """Why no result and no table could be called as a file is; "" if they can."""
    name = stem_of(path)
    if writable(name) != name:
        return f"{writable(path.name)}: the name is not UTF-8. Rename the file."
    if not is_name(name):  # it leads elsewhere, at least on Windows
        todo = "Rename it without : and \\."
        return f"{path.name}: the name is a drive or a folder on other systems. {todo}"
    return ""


def unreadable(path: Path, error: InputError) -> ImagePlane:
    """The plane of a file that can't be opened: it says why when it is read."""
    return ImagePlane(stem_of(path), (), partial(_raise, type(error), str(error)), path=path)


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
) -> list[ImagePlane]:
    """One plane for each place along the stack axes of `lazy`.

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
    planes = []
    for i in np.ndindex(*stack_shape):
        read = _PlaneReader(lazy, letters, i, where + "".join(f"[{n}]" for n in i))
        read_part = read if lazy.by_part else None
        planes.append(ImagePlane(name, i, read, stack_shape, path, axes or "", kind, read_part))
    return planes


def _kind_of(lazy: LazyArray, letters: str) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
    """Shape and kind of a plane; None where only its pixels tell."""
    if lazy.dtype is None or lazy.finish is not None:
        return None
    length = dict(zip(letters, lazy.shape, strict=True))
    depth = length.get("C", 1) * length.get("S", 1)
    shape = (length["Y"], length["X"]) + ((depth,) if depth != 1 else ())
    return shape, lazy.dtype.newbyteorder("=")


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

    Without names: (H, W), (H, W, 3 or 4) color, (N, H, W) stack, (N, H, W, 3 or 4) stack of
    color, (N, M, H, W) stack of stacks; and channels last where planes would be a few pixels wide.

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


@dataclass(frozen=True, eq=False)
class _PlaneReader:
    """Reads one plane of an array, or some of its rows and columns."""

    lazy: LazyArray
    axes: str
    index: tuple[int, ...]
    label: str

    def __call__(self, rows: slice = _ALL, columns: slice = _ALL) -> NDArray[Any]:
        places = iter(self.index)
        parts = {"Y": rows, "X": columns, "C": _ALL, "S": _ALL}
        selection = tuple(parts[a] if a in parts else next(places) for a in self.axes)
        kept = [a for a in self.axes if a in parts]
        order = [kept.index(a) for a in "YXCS" if a in kept]
        with reading(self.label):
            if self.lazy.dtype is not None and not self.lazy.is_loaded:
                lengths = dict(zip(self.axes, self.lazy.shape, strict=True))
                shape = [len(range(lengths[a])[parts[a]]) for a in "YXCS" if a in kept]
                check_memory(shape, self.lazy.dtype.itemsize, self.label)
            pixels = np.asarray(self.lazy.take(selection)).transpose(order)
            if pixels.ndim > 2:
                pixels = pixels.reshape(*pixels.shape[:2], int(np.prod(pixels.shape[2:])))
                pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels  # (H, W) or (H, W, C)
            if self.lazy.finish is not None:
                pixels = self.lazy.finish(pixels)
        return check_pixels(pixels, self.label)

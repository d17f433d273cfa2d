"""Files, folders, stacks and arrays to lazy Planes.

Opening looks at names and headers; pixels are read one plane at a time when a Plane is asked.
One bad file never spoils a folder: its Plane raises when it is read. A data set gets one
`Normalisation` (`normalise.py`), masks are read in `masks.py`; both are to be had from here.
Imports no torch and no Dask: Dask and zarr arrays are known by what they can do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.contracts import Plane
from napari_samic.errors import InputError
from napari_samic.formats import INSTRUMENT_SUFFIXES, READABLE, LazyArray, Selection
from napari_samic.listing import (
    Listing,
    check_stems,
    ending_of,
    look,
    natural_key,
    no_files_line,
    stem_of,
)
from napari_samic.masks import match_by_stem, read_labels, read_mask
from napari_samic.normalise import Normalisation, fit_normalisation, read_rgb
from napari_samic.planes import Opened, guess_of, open_path, split, unreadable

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


def open_images(
    source: Any,
    *,
    axes: str | None = None,
    series: int | None = None,
    strict: bool = True,
    tell: Callable[[str], None] | None = None,
) -> list[Plane]:
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
        it, an unnamed last axis of length 3 or 4 is colour, a short one behind two long ones is
        channels, and other leading axes are stacks.
    series : int, optional
        The one image to take of each file, from 0.
    strict : bool
        Whether a file among others that can't be opened is an error, or raises when it is read.
    tell : callable, optional
        Is given a line for all that was guessed or left out; one for all files alike.

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
    sources = source if isinstance(source, list | tuple) else [source]
    if not sources:
        raise InputError("an empty list of images. Give at least one file, folder or array.")
    is_lone = not isinstance(source, list | tuple)
    arrays = sum(not isinstance(s, str | Path) for s in sources)
    listings = [look(s) if isinstance(s, str | Path) else Listing(()) for s in sources]
    is_strict = strict or sum(len(listing.images) for listing in listings) < 2
    opening = _Opening(axes, series, is_strict)
    for number, (one, listing) in enumerate(zip(sources, listings, strict=True)):
        if isinstance(one, str | Path):
            for path in listing.images:
                opening.add(path)
        else:
            name = "image" if is_lone or arrays == 1 else f"image_{number}"
            opening.add_array(one, name, f"array {number} of the list")
    opening.check()
    if tell is not None:
        for line in [*opening.lines(), *_left_out(listings)]:
            tell(line)
    return opening.planes


class _Opening:
    """Planes of some files and arrays, and what there is to say of them."""

    def __init__(self, axes: str | None, series: int | None, is_strict: bool) -> None:
        self.planes: list[Plane] = []
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
            opened = Opened([unreadable(path, error)])
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

    def _take(self, planes: list[Plane], place: object) -> None:
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
    found = Counter(ending_of(path) or "no ending" for path in others)
    kinds = ", ".join(f"{count} {ending}" for ending, count in sorted(found.items()))
    line = f"{len(others)} file{'s' * (len(others) > 1)} of other kinds left out: {kinds}."
    if any(ending in INSTRUMENT_SUFFIXES for ending in found):
        line += " Those of instruments are read if they are named, or alone in a folder."
    yield line


def _lazy(array: Any, name: str) -> LazyArray:
    if not (hasattr(array, "shape") and hasattr(array, "dtype") and hasattr(array, "__getitem__")):
        msg = (
            f"{name}: can't take a {type(array).__name__} as an image. "
            "Give a path, an array, or a list of these."
        )
        raise InputError(msg)
    return LazyArray(tuple(int(n) for n in array.shape), "", _taker(array))


def _taker(array: Any) -> Callable[[Selection], NDArray[Any]]:
    return lambda selection: np.asarray(array[selection])

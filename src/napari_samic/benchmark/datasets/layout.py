"""Where the parts of a data set lie, and how its files are read.

Folders are looked for as they were published, also one folder further in, as archives unpack.
Knows no data set by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import InputError
from napari_samic.core.types import BoolArray, IntArray
from napari_samic.io.images import planes_of_file
from napari_samic.io.paths import check_stems, list_source, natural_key, some, stem_of
from napari_samic.io.readers import PILLOW_SUFFIXES, check_pixels, read_pillow
from napari_samic.io.text_files import read_text


def root_of(folder: str | Path, parts: Sequence[str], what: str, inner: Sequence[str] = ()) -> Path:
    """The folder that holds all `parts`: `folder` itself, or one of `inner` in it.

    Parameters
    ----------
    parts : sequence of str
        Files or sub-folders; "image|images" takes either.
    what : str
        The data set, for the error.
    inner : sequence of str
        Names that the archive unpacks to.

    Raises
    ------
    InputError
        Some of the parts are missing; it names them, and says what is there instead.
    """
    base = Path(folder).expanduser()
    for place in (base, *(base / name for name in inner)):
        if not _missing(place, parts):
            return place
    place = next((base / name for name in inner if (base / name).is_dir()), base)
    lacking = " and ".join(_quoted(part) for part in _missing(place, parts))
    wanted = ", ".join(part.split("|")[0] for part in parts)
    msg = (
        f"{place}: not a folder of {what}: {lacking} missing, found {found_in(place)}. "
        f"Give the folder that holds {wanted}."
    )
    raise InputError(msg)


def _quoted(part: str) -> str:
    return " or ".join(f"'{name}'" for name in part.split("|"))


def _missing(folder: Path, parts: Sequence[str]) -> list[str]:
    return [p for p in parts if not any((folder / name).exists() for name in p.split("|"))]


def found_in(folder: Path) -> str:
    """What a folder holds, in words: up to five names."""
    if not folder.is_dir():
        return "no such folder"
    names = sorted((path.name for path in folder.iterdir()), key=natural_key)
    return some(names) or "nothing"


def part_of(folder: Path, part: str) -> Path:
    """The one of "image|images" that `folder` has; the first name if it has none."""
    names = part.split("|")
    return next((folder / name for name in names if (folder / name).exists()), folder / names[0])


def sub_folders(folder: Path) -> list[Path]:
    """Folders in `folder` that are not hidden, sorted naturally."""
    folders = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    return sorted(folders, key=lambda path: natural_key(path.name))


def by_stem(folder: Path) -> dict[str, Path]:
    """Image files of a folder by name without ending, sorted naturally.

    Raises
    ------
    InputError
        No image there, or two of one name.
    """
    files = list_source(folder)
    check_stems([stem_of(path) for path in files], files)
    return {stem_of(path): path for path in files}


def names_in(path: Path, what: str) -> list[str]:
    """First word of each line of a list file; empty lines are left out."""
    lines = (line.split() for line in read_text(path, what).splitlines())
    return [words[0] for words in lines if words]


def read_raw(path: Path) -> NDArray[Any]:
    """Pixels of an image as its file has them.

    Raises
    ------
    ImageReadError
        It is missing or can't be read.
    """
    if path.suffix.lower() in PILLOW_SUFFIXES:
        return check_pixels(read_pillow(path), path.name)
    return planes_of_file(path)[0].read()


def read_binary(path: Path) -> IntArray:
    """A mask of one class, (H, W) int32 of 0 and 1.

    Black and white is cut in the middle (128), also where a JPEG or smoothing left gray between.
    Numbers and colors that are all below 128 are foreground wherever they are not 0.

    Raises
    ------
    ImageReadError
        It is missing or can't be read.
    """
    pixels = _mask_pixels(path)
    flat = pixels[..., :3].max(axis=-1) if pixels.ndim == 3 else pixels
    lossy = path.suffix.lower() in (".jpg", ".jpeg")
    white = flat.dtype == np.uint8 and (lossy or flat.max() >= 128)
    return np.asarray(flat >= 128 if white else flat > 0, dtype=np.int32)


def _mask_pixels(path: Path) -> NDArray[Any]:
    if path.suffix.lower() in PILLOW_SUFFIXES:
        return check_pixels(read_pillow(path, palette_indices=True), path.name)
    return planes_of_file(path, palette_indices=True)[0].read()


def read_class(path: Path, number: int) -> IntArray:
    """Where a mask of class numbers is `number`, (H, W) int32 of 0 and 1."""
    return np.asarray(_mask_pixels(path) == number, dtype=np.int32)


def read_equal(path: Path, number: int) -> BoolArray:
    """Where a mask is `number`, (H, W) bool."""
    return np.asarray(_mask_pixels(path) == number)


def read_numbers(path: Path) -> NDArray[Any]:
    """Numbers that occur in a mask of class numbers, ascending."""
    return np.unique(_mask_pixels(path))

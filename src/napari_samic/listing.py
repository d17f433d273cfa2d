"""Which files a path, a folder or a pattern means, in the order that people count in.

Looks at names only. Knows no pixels.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from napari_samic.errors import InputError
from napari_samic.formats import READABLE, is_zarr


def natural_key(text: str) -> tuple[list[tuple[bool, int, str]], str]:
    """Sort key that puts img2 before img10.

    >>> sorted(["img10", "img2", "img1"], key=natural_key)
    ['img1', 'img2', 'img10']
    """
    parts = re.split(r"([0-9]+)", text.lower())
    return [
        (part[:1].isdigit(), int(part) if part[:1].isdigit() else 0, part) for part in parts if part
    ], text


def stem_of(path: Path) -> str:
    """Name without its ending, and without the .ome of .ome.tif and .ome.zarr.

    >>> stem_of(Path("cells.ome.tif")), stem_of(Path("day.1.png"))
    ('cells', 'day.1')
    """
    stem = path.stem if path.suffix.lower() in READABLE else path.name
    return stem[:-4] if stem.lower().endswith(".ome") and len(stem) > 4 else stem


def is_readable(path: Path) -> bool:
    """Whether `path` looks like an image of ours: not hidden, a known ending or a zarr folder."""
    if path.name.startswith("."):
        return False
    return is_zarr(path) or (path.suffix.lower() in READABLE and path.is_file())


def list_source(source: str | Path) -> list[Path]:
    """Image files of a file, folder, zarr folder or glob pattern, sorted naturally.

    Folders are not searched recursively; hidden files and other kinds are left out.

    Raises
    ------
    InputError
        Nothing there, or nothing that is read.
    """
    path = Path(source).expanduser()
    if is_zarr(path) or path.is_file():
        return [_known(path)]
    if path.is_dir():
        found, what = _entries(path), f"{path}: no image in this folder"
    elif any(mark in str(path) for mark in "*?["):
        found = _glob(path)
        what = f"{path}: no image fits this pattern"
    else:
        raise InputError(f"{path}: no such file or folder. Check the name.")
    files = [p for p in found if is_readable(p)]
    if not files:
        raise InputError(f"{what}. These endings are read: {', '.join(READABLE)}.")
    return sorted(files, key=lambda p: natural_key(str(p)))


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        msg = f"{folder}: can't look into this folder ({error.strerror}). Check its permissions."
        raise InputError(msg) from error


def _glob(pattern: Path) -> list[Path]:
    anchor = Path(pattern.anchor)
    try:
        return list(anchor.glob(str(pattern.relative_to(anchor))))
    except (ValueError, OSError) as error:
        msg = f"{pattern}: not a pattern that can be followed ({error}). Try 'folder/*.tif'."
        raise InputError(msg) from error


def _known(path: Path) -> Path:
    if path.is_file() and path.suffix.lower() not in READABLE:
        msg = f"{path}: not an image that is read. These endings are: {', '.join(READABLE)}."
        raise InputError(msg)
    return path


def check_stems(names: Sequence[str], where: Iterable[object]) -> None:
    """Raise InputError if two files have one stem: results and masks are matched by it."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name, place in zip(names, where, strict=True):
        groups[name].append(str(place))
    for name, places in groups.items():
        if len(places) > 1:
            msg = (
                f"{places[0]} and {places[1]} are both called '{name}'. Masks and results are "
                "matched by name without ending: rename one or leave it out."
            )
            raise InputError(msg)

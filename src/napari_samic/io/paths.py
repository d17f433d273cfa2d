"""Which files a path, a folder or a pattern means, in the order that people count in.

Looks at names only, and knows which of them are alike. Knows no pixels.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_samic.core.errors import InputError
from napari_samic.io.readers import INSTRUMENT_SUFFIXES, READABLE, is_zarr
from napari_samic.io.text_files import writable

_ENDINGS = (*READABLE, *INSTRUMENT_SUFFIXES)
_CLUTTER = ("thumbs.db", "desktop.ini", "license", "readme")
_NO_IMAGES = (
    ".txt", ".csv", ".tsv", ".json", ".geojson", ".md", ".rst", ".xml", ".ome", ".yaml", ".yml",
    ".toml", ".ini", ".log", ".pdf", ".html", ".doc", ".docx", ".xls", ".xlsx", ".ods", ".db",
    ".py", ".ipynb", ".sh", ".bat", ".ijm", ".groovy", ".m", ".r", ".pt", ".roi", ".bak", ".tmp",
)  # fmt: skip


def natural_key(text: str) -> tuple[list[tuple[bool, int, str]], str]:
    """Sort key that puts img2 before img10.

    >>> sorted(["img10", "img2", "img1"], key=natural_key)
    ['img1', 'img2', 'img10']
    """
    parts = re.split(r"([0-9]+)", text.lower())
    return [
        (part[:1].isdigit(), int(part) if part[:1].isdigit() else 0, part) for part in parts if part
    ], text


def ending_of(path: Path) -> str:
    """Ending in lower case; that of packed NIfTI has two parts.

    >>> ending_of(Path("Head.NII.gz")), ending_of(Path("day.1.png"))
    ('.nii.gz', '.png')
    """
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def stem_of(path: Path) -> str:
    """Name without its ending, and without the .ome of .ome.tif and .ome.zarr.

    >>> stem_of(Path("cells.ome.tif")), stem_of(Path("day.1.png"))
    ('cells', 'day.1')
    """
    ending = ending_of(path)
    is_known = ending in (*READABLE, *INSTRUMENT_SUFFIXES)
    stem = path.name[: len(path.name) - len(ending)] if is_known else path.name
    return stem[:-4] if stem.lower().endswith(".ome") and len(stem) > 4 else stem


_PLANE = re.compile(r"(\[\d+\])+$")


def image_of(label: str) -> str:
    """Name of the image or series that a plane is of, as its results are called.

    >>> image_of("cells[3]"), image_of("cells[s0][1][3]"), image_of("day[2] b")
    ('cells', 'cells[s0]', 'day[2] b')
    """
    return _PLANE.sub("", label)


_MASK = re.compile(
    r"(?<=.)([-_. ]cp)?[-_. ](masks?|labels?|lbl|seg|(simple[-_ ])?segmentation|gt"
    r"|object[-_ ]identities)([-_]\d+)?$",
    re.IGNORECASE,
)
_DRAWN = re.compile(
    r"(?<=.)([-_. ]cp)?[-_. ](outlines?|flows?|cp[-_]output|cellprob|dp)([-_]cp[-_]masks)?$",
    re.IGNORECASE,
)


def bare_stem(path: Path) -> str:
    """Stem of the image that a mask belongs to, by what masks are called.

    >>> bare_stem(Path("c0_cp_masks.tif")), bare_stem(Path("c0.tif"))
    ('c0', 'c0')
    >>> bare_stem(Path("c0-mask.png")), bare_stem(Path("c0_Object Identities.tif"))
    ('c0', 'c0')
    """
    return _MASK.sub("", stem_of(path))


def folded(name: str) -> str:
    """One spelling of names that some disk or tool takes for the same.

    >>> folded("Zelle_A\u0308") == folded("zelle_\u00e4")
    True
    """
    composed = unicodedata.normalize("NFC", writable(name))
    return unicodedata.normalize("NFC", composed.casefold())


def masks_among(files: Iterable[Path]) -> list[Path]:
    """Masks that lie beside their images: `c0_cp_masks.tif` beside `c0.tif`."""
    return _beside(files, bare_stem)


def drawings_among(files: Iterable[Path]) -> list[Path]:
    """What Cellpose leaves beside images, neither image nor mask: `c0_cp_outlines.png`."""
    return _beside(files, lambda path: _DRAWN.sub("", stem_of(path)))


def _beside(files: Iterable[Path], origin: Callable[[Path], str]) -> list[Path]:
    """Files that lie beside the one of another name that they were made of."""
    by_stem = {(path.parent, folded(stem_of(path))): path for path in files}
    return [
        path
        for (folder, stem), path in by_stem.items()
        if (name := folded(origin(path))) != stem and (folder, name) in by_stem
    ]


def some(names: Sequence[object], most: int = 5) -> str:
    """Name the first, up to `most`, and say how many more there are.

    >>> some(["a", "b"]), some("abcdefg"), some("abcd", 3)
    ('a, b', 'a, b, c, d, e and 2 more', 'a, b, c and 1 more')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return writable(", ".join(map(str, names[:most]))) + more


def is_readable(path: Path) -> bool:
    """Whether `path` looks like an image of ours: not hidden, a known ending or a zarr folder."""
    if path.name.startswith("."):
        return False
    return is_zarr(path) or (ending_of(path) in READABLE and path.is_file())


@dataclass(frozen=True)
class Listing:
    """Files that a path means.

    Attributes
    ----------
    images : tuple of Path
        Sorted naturally.
    others : tuple of Path
        Files beside them that may be images, but are left out.
    no_files : tuple of Path
        What is called as an image is, but can't be read as one: broken links, folders, pipes.
    """

    images: tuple[Path, ...]
    others: tuple[Path, ...] = ()
    no_files: tuple[Path, ...] = ()


def list_source(source: str | Path, *, tell: Callable[[str], None] | None = None) -> list[Path]:
    """Image files of a file, folder, zarr folder or glob pattern, sorted naturally.

    Folders are not searched recursively; hidden files and other kinds are left out.

    Parameters
    ----------
    tell : callable, optional
        Is given a line if there are broken links and the like.

    Raises
    ------
    InputError
        Nothing there, or nothing that is read.
    """
    listing = look(source)
    if listing.no_files and tell is not None:
        tell(no_files_line(listing.no_files))
    return list(listing.images)


def look(source: str | Path) -> Listing:
    """As `list_source`, with what is left out; instruments' own files where there is nothing else.

    Raises
    ------
    InputError
        Nothing there, or nothing that is read.
    """
    if not str(source).strip():
        raise InputError(
            "an empty name of images. Name a file, a folder ('.' is this) or a pattern."
        )
    path = Path(source).expanduser()
    try:
        is_one, is_folder = is_zarr(path) or path.is_file(), path.is_dir()
    except OSError as error:  # a name that is too long
        msg = f"{path}: can't be looked up ({error.strerror}). Check the name."
        raise InputError(msg) from error
    if is_one:
        return Listing((_known(path),))
    if is_folder:
        entries, what = _entries(path), f"{path}: no image in this folder"
    elif any(mark in str(path) for mark in "*?["):
        entries = _glob(path)
        what = f"{path}: no image fits this pattern"
    elif path.is_symlink() or path.exists():
        entries, what = [path], f"{path}: no file or folder"
    else:
        raise InputError(f"{path}: no such file or folder. Check the name.")
    files = [p for p in entries if is_readable(p)]
    files = files or [p for p in entries if _is_instrument(p)]
    no_files = sorted(filter(_is_no_file, entries), key=lambda p: natural_key(str(p)))
    if not files and no_files:
        todo = "Links need their disk or `git annex get`, others another name."
        raise InputError(f"{what}; {no_files_line(no_files)} {todo}")
    if not files:
        raise InputError(f"{what}. These endings are read: {', '.join(_ENDINGS)}.")
    chosen = set(files)
    others = [p for p in entries if p not in chosen and _may_be_image(p)]
    images = tuple(sorted(files, key=lambda p: natural_key(str(p))))
    return Listing(images, tuple(others), tuple(no_files))


def no_files_line(paths: Iterable[Path]) -> str:
    """What to say of `Listing.no_files`, as "2 broken links left out: a.tif, b.tif."."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        is_broken = path.is_symlink() and not path.exists()
        kind = "broken link" if is_broken else "folder" if path.is_dir() else "special file"
        kinds[kind].append(path.name)
    parts = [
        f"{len(n)} {kind}{'s' * (len(n) > 1)} left out: {some(n)}" for kind, n in kinds.items()
    ]
    return "; ".join(parts) + "."


def _is_no_file(path: Path) -> bool:
    is_named = not path.name.startswith(".") and ending_of(path) in _ENDINGS
    return is_named and not (path.is_file() or is_zarr(path))


def _is_instrument(path: Path) -> bool:
    is_shown = not path.name.startswith(".")
    return is_shown and ending_of(path) in INSTRUMENT_SUFFIXES and path.is_file()


def _may_be_image(path: Path) -> bool:
    """Any file but hidden ones, notes and tables beside the images, and what we write."""
    name, is_hidden = path.name.lower(), path.name.startswith(".")
    return not (is_hidden or name in _CLUTTER or ending_of(path) in _NO_IMAGES) and path.is_file()


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        msg = f"{folder}: can't look into this folder ({error.strerror}). Check its permissions."
        raise InputError(msg) from error


def _glob(pattern: Path) -> list[Path]:
    """Paths that fit; folders at the beginning that are there are no patterns, as `day[1]`."""
    anchor = Path(pattern.anchor)
    try:
        for part in pattern.relative_to(anchor).parts[:-1]:
            if not (anchor / part).is_dir():
                break
            anchor /= part
        return list(anchor.glob(str(pattern.relative_to(anchor))))
    except (ValueError, OSError) as error:
        msg = f"{pattern}: not a pattern that can be followed ({error}). Try 'folder/*.tif'."
        raise InputError(msg) from error


def _known(path: Path) -> Path:
    if path.is_file() and ending_of(path) not in _ENDINGS:
        msg = f"{path}: not an image that is read. These endings are: {', '.join(_ENDINGS)}."
        raise InputError(msg)
    return path


def check_stems(names: Sequence[str], where: Iterable[object]) -> None:
    """Raise InputError if two have one name: results and masks are matched by it.

    Upper and lower case, and two ways to write an accent, are no difference: some disks know none.
    """
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, place in zip(names, where, strict=True):
        groups[folded(name)].append((name, str(place)))
    for (name, first), *others in groups.values():
        if others:
            alike = "" if others[0][0] == name else ", but for case or the spelling of accents"
            msg = (
                f"{first} and {others[0][1]} are both called '{name}'{alike}. Masks and results "
                "are matched by name without ending: rename one or leave it out."
            )
            raise InputError(msg)

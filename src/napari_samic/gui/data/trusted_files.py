"""Which image files a project may open unasked: those in its folder, and beside images of hers.

The folders that the user opened images from are kept in a file of her own, never in a project,
which may come from somebody else. Looks at no file that may not be opened: on Windows a path can
name another machine. Knows no Qt and no napari.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from napari_samic.core.errors import SamicError
from napari_samic.io.cache import home_folder
from napari_samic.io.files import atomic_file
from napari_samic.io.text_files import read_json

MOST = 1000
"""Folders that are kept, the newest."""
Ask = Callable[[Sequence[Path]], bool]
"""Asks the user whether these files may be opened; shows their paths."""


def file() -> Path:
    """Where the folders are kept."""
    return home_folder() / "opened-folders.json"


def folders() -> list[str]:
    """Whole paths of the folders that images were opened from, the newest last."""
    with suppress(SamicError):
        listed = read_json(file(), "the list of folders")
        listed = listed if isinstance(listed, list) else []
        return [folder for folder in listed if isinstance(folder, str)]
    return []


def remember(images: Iterable[Path]) -> None:
    """Note the folders of images that the user opened, or said yes to."""
    before = folders()
    both = [variant for path in images for variant in (_plain(path), path.resolve())]
    new = dict.fromkeys(str(path.parent) for path in both)
    if set(new) <= set(before):
        return
    kept = [*(folder for folder in before if folder not in new), *new][-MOST:]
    with suppress(SamicError), atomic_file(file(), overwrite=True) as temporary:
        temporary.write_text(json.dumps(kept, indent=1), encoding="utf-8")


def allows(image: Path, project: Path | None) -> bool:
    """Whether a file may be opened unasked; for many files, see `allowing`."""
    return allowing(project)(image)


def allowing(project: Path | None) -> Callable[[Path], bool]:
    """What tells whether a file may be opened unasked, by the folders that are known now.

    A link counts by where it leads.

    Parameters
    ----------
    project : Path or None
        The folder of the open project.
    """
    trusted = {os.path.normcase(folder) for folder in folders()}
    own = [] if project is None else [_cased(_plain(project)), _cased(project.resolve())]

    def is_in(image: Path) -> bool:
        place = _cased(image)
        return str(place.parent) in trusted or any(place.is_relative_to(folder) for folder in own)

    return lambda image: is_in(_plain(image)) and is_in(_plain(image).resolve())


def _cased(path: Path) -> Path:
    """One spelling of what a disk takes for the same."""
    return Path(os.path.normcase(path))


def _plain(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))

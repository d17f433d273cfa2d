"""Files that survive a crash: prompts of each session, in our own folder.

A session writes `recovery/<process>-<random>.prompts.json` after each change, and beside it notes
of what prompt files have no place for; both go when all is saved. What is left of sessions that
ended is offered again. Knows no Qt and no napari.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from napari_samic.io.cache import home_folder

_live: set[Path] = set()


def folder() -> Path:
    """Where recovery files are."""
    return home_folder() / "recovery"


def begin() -> Path:
    """The file of a new session; it appears with the first prompt."""
    path = folder() / f"{os.getpid()}-{uuid4().hex[:8]}.prompts.json"
    _live.add(path)
    return path


def end(path: Path, *, keep: bool) -> None:
    """A session closed: keep its file to be offered again, or remove it."""
    _live.discard(path)
    if not keep:
        discard(path)


def notes_file(path: Path) -> Path:
    """The notes beside a recovery file."""
    return path.with_name(path.name.replace(".prompts.", ".notes."))


def discard(path: Path) -> None:
    """Remove a recovery file and its notes."""
    for file in (path, notes_file(path)):
        with suppress(OSError):
            file.unlink(missing_ok=True)


@dataclass(frozen=True)
class Leftover:
    """A recovery file of a session that is no more."""

    path: Path
    saved: datetime


def leftovers() -> list[Leftover]:
    """Recovery files of sessions that ended, newest first."""
    orphans = []
    for path in folder().glob("*.prompts.json"):
        with suppress(OSError):
            if path not in _live and not _is_running(path):
                orphans.append(Leftover(path, datetime.fromtimestamp(path.stat().st_mtime)))
    return sorted(orphans, key=lambda leftover: leftover.saved, reverse=True)


def _is_running(path: Path) -> bool:
    """Whether another process that is still there wrote this file."""
    match = re.match(r"(\d+)-", path.name)
    if match is None or int(match[1]) == os.getpid():
        return False
    import psutil  # comes with napari

    return bool(psutil.pid_exists(int(match[1])))

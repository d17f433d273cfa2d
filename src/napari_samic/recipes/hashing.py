"""Hashes of files, by which a replay knows whether its data are those of the recording.

Of names and contents, so that a copy elsewhere has the same. Above `FULL` bytes only the size and
both ends of each file are read, and the result says so. Knows no image and no recipe.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_samic.core.types import Job, JobProgress
from napari_samic.io.paths import is_readable, list_source
from napari_samic.io.readers import is_zarr

CONTENTS, ENDS = "contents", "ends"
FULL = 2_000_000_000  # bytes; some seconds
END = 65_536  # bytes


@dataclass(frozen=True)
class Fingerprint:
    """Of a set of files.

    Attributes
    ----------
    files : int
    sha256 : str
        Of every file's name and hash, 64 hexadecimal digits.
    hashed : str
        "contents", or "ends" where the files were too large to be read as a whole: a change
        that keeps the size and is in the middle of a file is then not seen.
    """

    files: int
    sha256: str
    hashed: str = CONTENTS


def files_of(source: str | Path) -> list[tuple[str, Path]]:
    """Files that a path, folder or pattern means, each under a name that does not say where it is.

    Raises
    ------
    InputError
        Nothing there.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return [(path.name, path)]
    outlines = sorted(path.glob("*.geojson")) if path.is_dir() else []
    named = [(entry.name, entry) for entry in outlines]
    is_alone = named and not any(map(is_readable, path.iterdir()))
    for entry in () if is_alone else list_source(path):
        inside = sorted(entry.rglob("*")) if is_zarr(entry) else [entry]
        named += [(p.relative_to(entry.parent).as_posix(), p) for p in inside if p.is_file()]
    return sorted(named)


def fingerprint(files: Sequence[tuple[str, Path]], *, hashed: str = "") -> Job[Fingerprint]:
    """Hash files; a job.

    Parameters
    ----------
    files : sequence of (name, Path)
    hashed : str
        How, to compare with an earlier one; default: by the contents unless that is too much.
    """
    method = hashed or (CONTENTS if sum(_size(path) for _, path in files) <= FULL else ENDS)
    whole = hashlib.sha256()
    for i, (name, path) in enumerate(files):
        yield JobProgress(i, len(files), f"hashing {name}", {"phase": "hash"})
        whole.update(f"{name}\0{_digest(path, method)}\n".encode(errors="surrogateescape"))
    return Fingerprint(len(files), whole.hexdigest(), method)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _digest(path: Path, method: str) -> str:
    """Of one file; a file that can't be read is told by the job that needs it."""
    try:
        with path.open("rb") as stream:
            if method == CONTENTS:
                return hashlib.file_digest(stream, "sha256").hexdigest()
            size = _size(path)
            head = stream.read(END)
            stream.seek(max(0, size - END))
            return hashlib.sha256(b"%d " % size + head + stream.read(END)).hexdigest()
    except OSError:
        return "can't be read"

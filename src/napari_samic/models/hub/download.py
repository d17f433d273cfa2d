"""Weights files on disk: where, their checksum, atomic arrival, and the note beside each.

Knows files only: no model names' meaning, no network, no torch.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from napari_samic.core.errors import WeightsError
from napari_samic.io.cache import home_folder as home
from napari_samic.io.files import atomic_file

CHUNK = 1 << 20
_KNOWN: dict[tuple[str, int, int], str] = {}


def folder() -> Path:
    """Where weights lie: `home() / "models"`."""
    return home() / "models"


def present() -> str:
    """The weights files that are there, for messages."""
    if not folder().is_dir():
        return "nothing"
    names = sorted(p.name for p in folder().iterdir() if p.is_file() and p.suffix != ".json")
    return ", ".join(names) or "nothing"


def digest(path: Path) -> str:
    """SHA-256 of a file, read now; remembered for `quick_digest`.

    Raises
    ------
    WeightsError
        The file can't be read.
    """
    try:
        with path.open("rb") as stream:
            sha256 = _stream(stream, lambda _: None)
        _KNOWN[_stamp(path)] = sha256
    except OSError as error:
        raise WeightsError(f"{path}: can't be read ({error.strerror or error}).") from error
    return sha256


def quick_digest(path: Path) -> str:
    """SHA-256 of a file, from memory or from the note beside it while size and time are the same.

    Raises
    ------
    WeightsError
        The file can't be read.
    """
    try:
        stamp = _stamp(path)
    except OSError as error:
        raise WeightsError(f"{path}: can't be read ({error.strerror or error}).") from error
    note = read_note(path)
    if stamp not in _KNOWN and (note.get("bytes"), note.get("mtime_ns")) == stamp[1:]:
        _KNOWN[stamp] = str(note.get("sha256"))
    return _KNOWN[stamp] if stamp in _KNOWN else digest(path)


def _stamp(path: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns


def _stream(source: BinaryIO, sink: Callable[[bytes], object]) -> str:
    hasher = hashlib.sha256()
    while chunk := source.read(CHUNK):
        hasher.update(chunk)
        sink(chunk)
    return hasher.hexdigest()


def copy_in(source: Path, target: Path, accept: Callable[[str], None], **facts: Any) -> str:
    """Copy into our folder, hashing on the way; the target appears whole or not at all.

    Parameters
    ----------
    source, target : Path
    accept : callable
        Gets the SHA-256 before the file gets its name; raises to refuse it.
    **facts
        For the note beside the target.

    Returns
    -------
    str
        SHA-256, lower-case hex.

    Raises
    ------
    WeightsError
        The source can't be read or the target can't be written.
    """
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            source.open("rb") as reader,
            tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as writer,
        ):
            temporary = Path(writer.name)
            sha256 = _stream(reader, writer.write)
        accept(sha256)
        temporary.replace(target)
        write_note(target, sha256=sha256, **facts)
    except WeightsError:
        raise
    except OSError as error:
        msg = f"{source}: can't be copied to {target.parent} ({error.strerror or error})."
        raise WeightsError(msg) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return sha256


def note_path(path: Path) -> Path:
    """The JSON beside a weights file."""
    return path.with_name(path.name + ".json")


def write_note(path: Path, **facts: Any) -> None:
    """Write name, architecture and checksum beside a weights file, atomically."""
    stat = path.stat()
    facts |= {"version": 1, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    with atomic_file(note_path(path), overwrite=True) as temporary:
        temporary.write_text(json.dumps(facts, indent=2), encoding="utf-8")


def read_note(path: Path) -> dict[str, Any]:
    """What the note beside a weights file says; empty if there is none or it is damaged."""
    with suppress(OSError, ValueError):
        facts = json.loads(note_path(path).read_text(encoding="utf-8"))
        if isinstance(facts, dict):
            return facts
    return {}

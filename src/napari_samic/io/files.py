"""Atomic files, complete or not there, and folders that one process at a time writes to.

A temporary file in the target's own folder, renamed at the end: a full disk, a crash or a cancel
never leaves half a result behind, nor damages an older one. Knows no file format.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from napari_samic.core.errors import InputError, OutputError, SamicError

TEMP_SUFFIX = ".samic.tmp"
LOCK = ".samic.lock"
HEATMAPS = "heatmaps"
"""The one folder that jobs write to in that of their results."""

_CAUSES = {
    errno.ENOSPC: "the disk is full. Free some space or choose another folder",
    errno.EDQUOT: "your disk quota is used up. Free some space or choose another folder",
    errno.EROFS: "the disk is read-only. Choose another folder",
    errno.EACCES: "no permission to write there. Choose another folder",
    errno.EPERM: "no permission to write there. Choose another folder",
    errno.EISDIR: "that is a folder. Give the name of a file",
    errno.ENAMETOOLONG: "the name is too long. Choose a shorter one",
}


def output_error(path: Path, error: OSError) -> OutputError:
    """Say in one line why `path` can't be written."""
    cause = _CAUSES.get(error.errno or 0) or " ".join(str(error).split()) or type(error).__name__
    return OutputError(f"{path}: can't be written: {cause}.")


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError if `path` is a folder, can't be a name, or may not be replaced."""
    try:
        is_folder, is_there = path.is_dir(), path.exists()
    except OSError as error:  # a name that is too long
        raise output_error(path, error) from error
    if is_folder:
        raise output_error(path, IsADirectoryError(errno.EISDIR, ""))
    if is_there and not overwrite:
        msg = f"{path}: exists already. Choose another name, or overwrite it (--overwrite)."
        raise OutputError(msg)


def check_apart(path: Path | str, *inputs: Any) -> None:
    """Raise InputError if a result would take the place of a file that it is made of.

    Parameters
    ----------
    path : Path
        Of the result.
    inputs : path, `path:FILE` of a model, list of those, or anything else
        What has no path is passed over.
    """
    for source in inputs:
        if isinstance(source, list | tuple):
            check_apart(path, *source)
        elif isinstance(source, str | Path) and _is_same(
            Path(path), Path(str(source).removeprefix("path:")).expanduser()
        ):
            msg = f"{path}: is an input, too, which the result would replace. Choose another name."
            raise InputError(msg)


def _is_same(path: Path, other: Path) -> bool:
    with suppress(OSError):  # one is not there, or can't be looked up
        return path.resolve() == other.resolve() or path.samefile(other)
    return False


def remove(path: Path) -> None:
    """Remove a file if it is there.

    Raises
    ------
    OutputError
        The disk refuses.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(path, error) from error


@contextmanager
def atomic_file(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Atomic file: a temporary path to write to, renamed to `path` if the block ends well.

    Parameters
    ----------
    path : str or Path
        The file to be; its folder is made if need be.
    overwrite : bool
        Whether an existing file may be replaced.

    Yields
    ------
    Path
        In the folder of `path`; removed if the block fails.

    Raises
    ------
    OutputError
        Disk full, read-only, no permission, or a file in the way.
    """
    target = Path(path)
    with _temporary(target) as temporary, kept_file(target, temporary, overwrite=overwrite):
        yield temporary


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """Path beside `target` that is gone afterwards.

    It has one name, so that the next writer takes over what a killed one left; another where that
    one is in use, or can't be locked.
    """
    name = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:32]
    path, lock = target.with_name(f".{name}{TEMP_SUFFIX}"), None
    with suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = _taken(path)
    if lock is None:
        path = target.with_name(f".{uuid4().hex}{TEMP_SUFFIX}")
    try:
        yield path
    finally:
        with suppress(OSError):
            if lock is None or os.path.samestat(os.fstat(lock), os.lstat(path)):
                path.unlink(missing_ok=True)  # else renamed, and the name may be another writer's
        if lock is not None:
            os.close(lock)


def _taken(path: Path) -> int | None:
    """Descriptor of an empty file that is ours while it is open; None if it can't be had."""
    try:
        import fcntl
    except ImportError:  # Windows, where an open file can't be renamed either
        return None
    file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        facts = os.fstat(file)
        if stat.S_ISREG(facts.st_mode) and os.path.samestat(facts, os.lstat(path)):
            os.truncate(file, 0)
            return file
    except OSError:  # another writer has it, or had it until now
        pass
    os.close(file)
    return None


@contextmanager
def kept_file(path: Path, part: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """As `atomic_file`, but the file to write to is `part`, and stays there if the block fails.

    Raises
    ------
    OutputError
        As `atomic_file`.
    """
    check_free(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except SamicError:
        raise
    except OSError as error:
        raise output_error(path, error) from error


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep other processes and threads from writing to a folder, until the block ends.

    What writers that were killed left half-done is removed. The system takes the claim back when a
    process dies. Where a file system knows no locks, nobody is kept out.

    Raises
    ------
    OutputError
        Somebody else writes there.
    """
    try:
        lock = _locked(folder)
    except BlockingIOError as error:
        msg = f"{folder}: another run is writing there. Wait for its end, or choose another folder."
        raise OutputError(msg) from error
    try:
        for place in (folder, folder / HEATMAPS):
            for left in place.glob(f".*{TEMP_SUFFIX}"):
                if left.is_dir():  # an OME-Zarr
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    with suppress(OSError):
                        left.unlink()
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """Descriptor that holds the lock; None where there are no locks.

    Raises
    ------
    BlockingIOError
        Somebody else holds it.
    """
    try:
        import fcntl
    except ImportError:
        return _locked_on_windows(folder / LOCK)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise
    except OSError:  # NFS and others
        os.close(lock)
        return None
    return lock


def _locked_on_windows(path: Path) -> int:
    from importlib import import_module

    msvcrt: Any = import_module("msvcrt")
    lock = os.open(path, os.O_CREAT | os.O_RDWR | getattr(os, "O_TEMPORARY", 0))
    try:
        msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        os.close(lock)
        raise BlockingIOError(errno.EAGAIN, str(error)) from error
    return lock

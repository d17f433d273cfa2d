"""Files that are either complete or not there.

A temporary file in the target's own folder, renamed at the end: a full disk, a crash or a cancel
never leaves half a result behind, nor damages an older one. Knows no file format.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from napari_samic.errors import OutputError, SamicError

TEMP_SUFFIX = ".samic.tmp"

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
    found = _CAUSES.get(error.errno or 0) or " ".join(str(error).split()) or type(error).__name__
    return OutputError(f"{path}: can't be written: {found}.")


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


@contextmanager
def atomic_file(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path to write to; rename it to `path` if the block ends well.

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
    check_free(target, overwrite=overwrite)
    temporary = target.with_name(f".{uuid4().hex}{TEMP_SUFFIX}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(target)
    except SamicError:
        raise
    except OSError as error:
        raise output_error(target, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)

"""Arrays on disk, found by what they were computed from, so that a stale hit can't happen.

The file's name is a hash of the pixels, the weights and the version of the preparation. A cache
is a comfort and never an obstacle: what goes wrong is a miss, and `last_problem` says why.
Knows no model.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from napari_samic.io.files import TEMP_SUFFIX, atomic_file

SUFFIX = ".samic.npz"
DEFAULT_BYTES = 8 * 2**30
_STALE_S = 3600.0


def home_folder() -> Path:
    """Where this package keeps its files: ``$NAPARI_SAMIC_HOME``, or the system's cache folder."""
    if chosen := os.environ.get("NAPARI_SAMIC_HOME"):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("napari-samic", appauthor=False))


class ArrayCache:
    """Cache of named arrays by key, in one folder of limited size.

    Several processes may share a folder: files are written whole and renamed.

    Parameters
    ----------
    folder : Path, optional
        Default: ``features`` in `home_folder`. Made at the first `put`.
    max_bytes : int
        When exceeded, the entries that were not used for longest are removed.

    Attributes
    ----------
    last_problem : str
        Why the last `put` or `get` could not do its work; empty if nothing went wrong.
    """

    def __init__(self, folder: str | Path | None = None, max_bytes: int = DEFAULT_BYTES) -> None:
        self.folder = Path(folder) if folder is not None else home_folder() / "features"
        self.max_bytes = max_bytes
        self.last_problem = ""

    def key(self, image: NDArray[Any], weights_sha256: str, version: int | str) -> str:
        """Hash of pixels, shape, dtype, weights and version of the preparation.

        Returns
        -------
        str
            64 hexadecimal digits.
        """
        facts = [list(image.shape), image.dtype.str, weights_sha256, str(version)]
        digest = hashlib.sha256(json.dumps(facts).encode())
        digest.update(np.ascontiguousarray(image).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()

    def get(self, key: str) -> dict[str, NDArray[Any]] | None:
        """Arrays of `key`, exactly as they were put; None if they are not there.

        A damaged file is removed and is a miss.
        """
        path = self._path(key)
        self.last_problem = ""
        try:
            arrays = _load(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.last_problem = f"{path.name}: can't be read ({error})."
            return None
        except Exception as error:  # damaged zip and npy headers raise anything, MemoryError too
            self.last_problem = f"{path.name}: damaged ({error}), computed anew."
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        _touch(path)
        return arrays

    def put(self, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep `arrays`; if that fails, `last_problem` says why and nothing is left behind.

        Parameters
        ----------
        arrays : dict of str to array
            Of any shape and any dtype that .npy knows, float16 included; no objects.
        """
        self.last_problem = ""
        size = sum(array.nbytes for array in arrays.values())
        if size > self.max_bytes:
            self.last_problem = f"{size} bytes do not fit a cache of {self.max_bytes} bytes."
            return
        path = self._path(key)
        try:
            with atomic_file(path, overwrite=True) as temporary:
                _save(temporary, arrays)
            _touch(path)
            self._evict(keep=path)
        except (OSError, TypeError, ValueError) as error:
            self.last_problem = f"not cached: {error}"

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def _evict(self, keep: Path) -> None:
        """Remove the longest unused entries over the cap, and leftovers of killed processes."""
        entries: list[tuple[int, int, Path]] = []
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):
                facts = path.stat()
                if path.name.endswith(SUFFIX):
                    entries.append((facts.st_mtime_ns, facts.st_size, path))
                elif path.name.endswith(TEMP_SUFFIX) and time.time() - facts.st_mtime > _STALE_S:
                    path.unlink(missing_ok=True)
        excess = sum(size for _, size, _ in entries) - self.max_bytes
        for _, size, path in sorted(entries):
            if excess <= 0:
                break
            if path != keep:
                path.unlink(missing_ok=True)
                excess -= size


def _touch(path: Path) -> None:
    now = time.time_ns()  # the file system's own clock is coarser
    with suppress(OSError):
        os.utime(path, ns=(now, now))


def _save(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            if npy.descr_to_dtype(npy.dtype_to_descr(array.dtype)) != array.dtype:
                raise TypeError(f"'{name}' has dtype {array.dtype}, which .npy does not keep.")
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                npy.write_array(cast(Any, file), array, allow_pickle=False)


def _load(path: Path) -> dict[str, NDArray[Any]]:
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                arrays[name.removesuffix(".npy")] = npy.read_array(
                    cast(Any, file), allow_pickle=False
                )
                if file.read(1):  # also makes zipfile compare its checksum
                    raise ValueError("more bytes than the array needs")
    return arrays

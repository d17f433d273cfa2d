"""The cache of arrays: exact, capped, and never in the way."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_samic.io.cache import ArrayCache, home_folder

KEYS = [f"{n:064x}" for n in range(5)]
ONE_KB = {"a": np.zeros(1000, np.uint8)}


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_what_was_put_comes_back(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    assert cache.get(KEYS[0]) is None
    cache.put(KEYS[0], {"file": np.arange(3), "b/c": np.eye(2)})
    arrays = ArrayCache(tmp_path).get(KEYS[0])
    assert arrays is not None
    assert set(arrays) == {"file", "b/c"}
    np.testing.assert_array_equal(arrays["b/c"], np.eye(2))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "u1", "i8", "?", "c8", "M8[s]"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3, 4)])
def test_every_dtype_and_shape_is_kept_exactly(
    tmp_path: Path, dtype: str, shape: tuple[int, ...]
) -> None:
    raw = np.random.default_rng(0).integers(0, 2, (*shape, np.dtype(dtype).itemsize), np.uint8)
    array = np.ascontiguousarray(raw).view(dtype)[..., 0].copy()
    cache = ArrayCache(tmp_path)
    cache.put(KEYS[0], {"a": array})
    back = (cache.get(KEYS[0]) or {})["a"]
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_key_changes_with_everything_that_counts() -> None:
    cache = ArrayCache("unused")
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    other = image.copy()
    other[0, 0] = 9
    keys = [
        cache.key(image, "w", 1),
        cache.key(other, "w", 1),
        cache.key(image.reshape(4, 3), "w", 1),
        cache.key(image.view(np.int8), "w", 1),
        cache.key(image, "v", 1),
        cache.key(image, "w", 2),
        cache.key(image, "w1", ""),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 64 for key in keys)


def test_key_looks_at_values_not_at_memory_order() -> None:
    cache, image = ArrayCache("unused"), np.arange(12.0).reshape(3, 4)
    assert cache.key(np.asfortranarray(image), "w", 1) == cache.key(image, "w", 1)


def test_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path, max_bytes=4000)  # three entries with their headers
    for key in KEYS[:3]:
        cache.put(key, ONE_KB)
    assert cache.get(KEYS[0]) is not None
    cache.put(KEYS[3], ONE_KB)
    assert [cache.get(key) is not None for key in KEYS[:4]] == [True, False, True, True]


def test_entry_larger_than_the_cap_is_not_kept(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path, max_bytes=2000)
    cache.put(KEYS[0], ONE_KB)
    cache.put(KEYS[1], {"a": np.zeros(3000, np.uint8)})
    assert "3000 bytes" in cache.last_problem
    assert cache.get(KEYS[0]) is not None


def test_eviction_leaves_files_of_others_alone(tmp_path: Path) -> None:
    mine = tmp_path / "mine.npz"
    mine.write_bytes(bytes(9000))
    cache = ArrayCache(tmp_path, max_bytes=2000)
    cache.put(KEYS[0], ONE_KB)
    cache.put(KEYS[1], ONE_KB)
    assert mine.exists()
    assert cache.get(KEYS[0]) is None


def test_leftovers_of_killed_processes_are_swept(tmp_path: Path) -> None:
    old, new = tmp_path / ".old.samic.tmp", tmp_path / ".new.samic.tmp"
    for path in (old, new):
        path.write_bytes(b"")
    os.utime(old, (0, 0))
    ArrayCache(tmp_path).put(KEYS[0], ONE_KB)
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize("place", [0.0, 0.2, 0.5, 0.97])
def test_flipped_byte_is_a_miss_and_the_file_goes(tmp_path: Path, place: float) -> None:
    cache = ArrayCache(tmp_path)
    cache.put(KEYS[0], {"a": np.arange(500)})
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0xFF
    path.write_bytes(content)
    assert cache.get(KEYS[0]) is None
    assert "damaged" in cache.last_problem
    assert not path.exists()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_file_is_a_miss_and_the_file_goes(tmp_path: Path, share: float) -> None:
    cache = ArrayCache(tmp_path)
    cache.put(KEYS[0], {"a": np.arange(500)})
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert cache.get(KEYS[0]) is None
    assert not path.exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_failed_put_is_told_not_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    cache = ArrayCache(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        cache.put(KEYS[0], ONE_KB)
    assert "not cached" in cache.last_problem
    assert names_in(tmp_path) == []
    cache.put(KEYS[0], ONE_KB)
    assert cache.last_problem == ""


def test_folder_that_cannot_be_made_is_told_not_raised(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = ArrayCache(tmp_path / "file" / "cache")
    cache.put(KEYS[0], ONE_KB)
    assert "not cached" in cache.last_problem
    assert cache.get(KEYS[0]) is None


def test_objects_are_told_not_pickled(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    cache.put(KEYS[0], {"a": np.array([{}], dtype=object)})
    assert "not cached" in cache.last_problem
    assert names_in(tmp_path) == []


BUSY = """
import sys
import numpy as np
from napari_samic.io.cache import ArrayCache

folder, value, *keys = sys.argv[1:]
cache = ArrayCache(folder, max_bytes=100_000)
for turn in range(20):
    cache.put(keys[turn % 3], {"a": np.full(2000, int(value))})
    arrays = cache.get(keys[(turn + 1) % 3])
    if arrays is not None and len(np.unique(arrays["a"])) != 1:
        sys.exit("half a file")
sys.exit(cache.last_problem or 0)
"""


def test_two_processes_never_see_half_a_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUSY, str(tmp_path)]
    workers = [subprocess.Popen([*command, value, *KEYS[:3]]) for value in ("1", "2")]
    assert [worker.wait() for worker in workers] == [0, 0]
    assert all(path.name.endswith(".samic.npz") for path in tmp_path.iterdir())


def test_home_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path))
    assert home_folder() == tmp_path
    assert ArrayCache().folder == tmp_path / "features"
    monkeypatch.delenv("NAPARI_SAMIC_HOME")
    assert home_folder().name in ("napari-samic", "Cache")

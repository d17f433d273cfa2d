"""Writing results: whole or not at all."""

from __future__ import annotations

import csv
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage

from napari_samic.core.errors import InputError, OutputError
from napari_samic.core.types import HeatMap
from napari_samic.io.writers import (
    StackWriter,
    write_csv,
    write_heat_map,
    write_json,
    write_labels,
    write_png,
)

LABELS = np.arange(42, dtype=np.int32).reshape(6, 7)


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def write_stack(path: Path, *, overwrite: bool = False) -> None:
    with StackWriter(path, (2,), (6, 7), overwrite=overwrite) as writer:
        writer.write((1,), LABELS)


WRITERS: list[Any] = [
    pytest.param(lambda p, **k: write_labels(p, LABELS, **k), id="labels"),
    pytest.param(write_stack, id="stack"),
    pytest.param(lambda p, **k: write_heat_map(p, HeatMap(np.ones((6, 7))), **k), id="heat_map"),
    pytest.param(lambda p, **k: write_csv(p, [{"a": 1}], **k), id="csv"),
    pytest.param(lambda p, **k: write_json(p, {"a": 1}, **k), id="json"),
    pytest.param(lambda p, **k: write_png(p, np.zeros((6, 7, 3), np.uint8), **k), id="png"),
]
Writer = Callable[..., None]


@pytest.mark.parametrize("write", WRITERS)
def test_existing_file_is_kept_unless_overwriting_is_allowed(tmp_path: Path, write: Writer) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    with pytest.raises(OutputError, match="out: exists already"):
        write(path)
    assert path.read_text() == "old"
    write(path, overwrite=True)
    assert path.read_bytes() != b"old"
    assert names_in(tmp_path) == ["out"]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("code", "message"),
    [
        pytest.param(errno.ENOSPC, "the disk is full", id="full"),
        pytest.param(errno.EROFS, "read-only", id="read_only"),
        pytest.param(errno.EACCES, "no permission", id="permission"),
        pytest.param(errno.EIO, "error", id="other"),
    ],
)
def test_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Writer, code: int, message: str
) -> None:
    path = tmp_path / "out"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError, match=rf"out: can't be written: .*{message}") as caught:
        write(path, overwrite=True)
    assert "\n" not in str(caught.value)
    assert names_in(tmp_path) == ["out"]
    assert path.read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_disk_that_fills_while_a_stack_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def on_full_disk(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        return opened(Path("/dev/full") if mode == "r+b" else path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", on_full_disk)
    with pytest.raises(OutputError, match="the disk is full"):
        write_stack(tmp_path / "out.tif")
    assert names_in(tmp_path) == []


def test_folder_in_the_way_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="that is a folder"):
        write_json(tmp_path, {}, overwrite=True)


def test_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't be written"):
        write_json(tmp_path / "file" / "a.json", {})


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b" / "c.json", {})
    assert (tmp_path / "a" / "b" / "c.json").is_file()


# --- labels -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(6, 7), (5, 6, 7), (2, 5, 6, 7), (1, 6, 7), (5, 6, 3), (3, 6, 7)]
)
@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64])
def test_labels_come_back_with_shape_and_values(
    tmp_path: Path, shape: tuple[int, ...], dtype: type
) -> None:
    labels = (np.arange(np.prod(shape)) % 200).reshape(shape).astype(dtype)
    write_labels(tmp_path / "a.tif", labels)
    back = tifffile.imread(tmp_path / "a.tif")
    assert back.dtype == np.int32
    np.testing.assert_array_equal(back, labels)


def test_large_labels_are_written_tile_by_tile(tmp_path: Path) -> None:
    stored = np.memmap(tmp_path / "raw", np.int32, "w+", shape=(4200, 4100))
    stored[::7, ::5] = np.arange(600 * 820).reshape(600, 820)
    labels = np.memmap(tmp_path / "raw", np.int32, "r", shape=(4200, 4100))
    write_labels(tmp_path / "a.tif", labels)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages.first.is_tiled
        np.testing.assert_array_equal(file.asarray(), stored)
    labels = stored
    labels[4199, 4099] = -1
    with pytest.raises(InputError, match="from -1"):
        write_labels(tmp_path / "a.tif", labels, overwrite=True)


def test_large_plane_of_a_stack_is_written(tmp_path: Path) -> None:
    plane = np.arange(4200 * 4100, dtype=np.int32).reshape(4200, 4100)
    with StackWriter(tmp_path / "a.tif", (2,), plane.shape) as writer:
        writer.write((1,), plane)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif", key=1), plane)


def test_labels_are_compressed(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.tif", np.zeros((500, 500), np.int32))
    assert (tmp_path / "a.tif").stat().st_size < 50_000


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        pytest.param(LABELS / 2, "float64", id="fractions"),
        pytest.param(LABELS - 1, "labels from -1 to 40", id="negative"),
        pytest.param(LABELS.astype(np.int64) + 2**31, "expected 0 to 2", id="too_large"),
        pytest.param(np.zeros(5, np.int32), "expected whole numbers", id="one_axis"),
    ],
)
def test_values_that_are_no_labels_are_refused(
    tmp_path: Path, labels: np.ndarray, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        write_labels(tmp_path / "a.tif", labels)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("stack_shape", [(), (3,), (2, 3), (1,)])
def test_stack_is_written_in_any_order(tmp_path: Path, stack_shape: tuple[int, ...]) -> None:
    whole = np.random.default_rng(0).integers(0, 99, (*stack_shape, 6, 7))
    with StackWriter(tmp_path / "a.tif", stack_shape, (6, 7)) as writer:
        for index in reversed(list(np.ndindex(*stack_shape))):
            writer.write(index, whole[index])
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), whole)


def test_planes_that_were_not_written_are_background(tmp_path: Path) -> None:
    write_stack(tmp_path / "a.tif")
    back = tifffile.imread(tmp_path / "a.tif")
    assert not back[0].any()
    np.testing.assert_array_equal(back[1], LABELS)


def test_cancelled_stack_leaves_nothing(tmp_path: Path) -> None:
    def job():  # type: ignore[no-untyped-def]
        with StackWriter(tmp_path / "a.tif", (9,), (6, 7)) as writer:
            for number in range(9):
                writer.write((number,), LABELS)
                yield number

    running = job()
    next(running)
    assert len(names_in(tmp_path)) == 1
    running.close()
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("index", "labels"),
    [
        pytest.param((2,), LABELS, id="beyond"),
        pytest.param((-1,), LABELS, id="negative"),
        pytest.param((), LABELS, id="no_index"),
        pytest.param((0,), LABELS[:5], id="shape"),
    ],
)
def test_plane_that_does_not_fit_the_stack(
    tmp_path: Path, index: tuple[int, ...], labels: np.ndarray
) -> None:
    with (
        pytest.raises(InputError, match=r"a\.tif: plane .* for a stack of \(2,\)"),
        StackWriter(tmp_path / "a.tif", (2,), (6, 7)) as writer,
    ):
        writer.write(index, labels)
    assert names_in(tmp_path) == []


def test_closed_stack_refuses_planes(tmp_path: Path) -> None:
    with StackWriter(tmp_path / "a.tif", (), (6, 7)) as writer:
        pass
    with pytest.raises(InputError, match="not open"):
        writer.write((), LABELS)


def test_heat_map_keeps_its_values(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 42, dtype=np.float32).reshape(6, 7)
    write_heat_map(tmp_path / "a.tif", HeatMap(values))
    back = tifffile.imread(tmp_path / "a.tif")
    np.testing.assert_array_equal(back, values)
    assert back.dtype == np.float32


# --- tables -----------------------------------------------------------------------------------


def test_csv_has_all_columns_and_empty_cells(tmp_path: Path) -> None:
    rows = [{"name": "ä,b", "iou": np.float32(0.5)}, {"name": "c", "n": 3, "iou": float("nan")}]
    write_csv(tmp_path / "a.csv", rows)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["name", "iou", "n"], ["ä,b", "0.5", ""], ["c", "", "3"]]


def test_empty_csv_keeps_its_header(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [], columns=("name", "iou"))
    assert (tmp_path / "a.csv").read_text() == "name,iou\n"


def test_json_has_no_nan_and_no_numpy(tmp_path: Path) -> None:
    content = {"a": float("nan"), "b": np.array([1.0, np.inf]), "c": np.int64(3), "d": Path("x")}
    write_json(tmp_path / "a.json", content)
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "a": None, "b": [1.0, None], "c": 3, "d": "x",
    }  # fmt: skip


def test_json_refuses_objects_without_touching_the_disk(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't write a object"):
        write_json(tmp_path / "a.json", {"a": object()})
    assert names_in(tmp_path) == []


def test_png_comes_back(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (6, 7, 3), dtype=np.uint8)
    write_png(tmp_path / "a.png", image)
    np.testing.assert_array_equal(np.array(PillowImage.open(tmp_path / "a.png")), image)


def test_png_of_floats_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="float64"):
        write_png(tmp_path / "a.png", np.zeros((6, 7)))

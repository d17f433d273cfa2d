"""Opening images: lazily, with the right axes, and with errors that name the file."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image as PillowImage

from napari_samic.core.errors import InputError
from napari_samic.io.images import channel_names, open_images

RNG = np.random.default_rng(0)


def save_png(path: Path, array: np.ndarray | None = None) -> Path:
    pixels = np.zeros((6, 7, 3), np.uint8) if array is None else array
    PillowImage.fromarray(pixels).save(path)
    return path


class CountingArray:
    """Array-like that counts what is read from it."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype, self.reads = array, array.shape, array.dtype, 0

    def __getitem__(self, selection: object) -> np.ndarray:
        self.reads += 1
        return self.array[selection]


# --- lazy -------------------------------------------------------------------------------------


def test_array_is_read_one_plane_at_a_time() -> None:
    source = CountingArray(RNG.integers(0, 9, (5, 6, 7), dtype=np.uint8))
    planes = open_images(source)
    assert (len(planes), source.reads) == (5, 0)
    np.testing.assert_array_equal(planes[3].read(), source.array[3])
    assert source.reads == 1


def test_folder_of_500_images_is_opened_without_reading_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(500):
        PillowImage.new("L", (2, 2)).save(tmp_path / f"img{number}.png")
    monkeypatch.setattr(PillowImage.Image, "load", lambda _: pytest.fail("pixels were read"))
    assert len(open_images(tmp_path)) == 500


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}], ids=["plain", "compressed"])
def test_tiff_of_200_pages_is_opened_without_reading_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    stack = RNG.integers(0, 99, (200, 8, 9), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", stack, **options)
    reads: list[object] = []
    decode, block = tifffile.TiffPage.asarray, tifffile.FileHandle.memmap_array

    def counting(original, *args, **kwargs):  # type: ignore[no-untyped-def]
        reads.append(args)
        return original(*args, **kwargs)

    for where, name, original in (
        (tifffile.TiffPage, "asarray", decode),
        (tifffile.FileHandle, "memmap_array", block),
    ):
        monkeypatch.setattr(where, name, lambda *a, o=original, **k: counting(o, *a, **k))
    planes = open_images(tmp_path / "stack.tif")
    assert (len(planes), reads) == (200, [])
    np.testing.assert_array_equal(planes[117].read(), stack[117])
    assert len(reads) == 1


def test_dask_array_computes_one_plane_only() -> None:
    da = pytest.importorskip("dask.array")
    computed: list[int] = []

    def block(block_info: dict) -> np.ndarray:  # type: ignore[type-arg]
        computed.append(block_info[None]["chunk-location"][0])
        return np.full((1, 6, 7), computed[-1], np.uint8)

    lazy = da.map_blocks(block, chunks=((1,) * 4, 6, 7), dtype=np.uint8, meta=np.empty((0, 0, 0)))
    planes = open_images(lazy)
    assert computed == []
    assert planes[2].read()[0, 0] == 2
    assert computed == [2]


# --- axes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "stack_shape", "plane_shape"),
    [
        pytest.param((6, 7), (), (6, 7), id="grey"),
        pytest.param((6, 7, 3), (), (6, 7, 3), id="rgb"),
        pytest.param((6, 7, 4), (), (6, 7, 4), id="rgba"),
        pytest.param((5, 6, 7), (5,), (6, 7), id="stack"),
        pytest.param((5, 6, 7, 3), (5,), (6, 7, 3), id="rgb_stack"),
        pytest.param((2, 5, 6, 7), (2, 5), (6, 7), id="stack_of_stacks"),
        pytest.param((1, 6, 7), (1,), (6, 7), id="stack_of_one"),
    ],
)
def test_unnamed_array_is_split_by_its_shape(
    shape: tuple[int, ...], stack_shape: tuple[int, ...], plane_shape: tuple[int, ...]
) -> None:
    planes = open_images(np.zeros(shape, np.uint8))
    assert planes[0].stack_shape == stack_shape
    assert len(planes) == np.prod(stack_shape, dtype=int)
    assert planes[-1].read().shape == plane_shape
    assert planes[0].name == "image"


@pytest.mark.parametrize(
    ("shape", "axes", "stack_shape"),
    [
        pytest.param((2, 3, 4, 6, 7), "TZCYX", (2, 3), id="tzcyx"),
        pytest.param((4, 6, 7), "cyx", (), id="lower_case"),
        pytest.param((7, 6, 4), "XYC", (), id="x_first"),
        pytest.param((6, 7, 1), "YXC", (), id="one_channel_is_grey"),
    ],
)
def test_given_axes_order_the_pixels(
    shape: tuple[int, ...], axes: str, stack_shape: tuple[int, ...]
) -> None:
    array = RNG.integers(0, 99, shape, dtype=np.uint16)
    planes = open_images(array, axes=axes)
    assert planes[0].stack_shape == stack_shape
    letters = axes.upper()
    last = tuple(-1 if a not in "YXC" else slice(None) for a in letters)
    kept = "".join(a for a in letters if a in "YXC")
    expected = array[last].transpose([kept.index(a) for a in "YXC"])
    np.testing.assert_array_equal(planes[-1].read(), np.squeeze(expected))


@pytest.mark.parametrize(
    ("shape", "axes", "message"),
    [
        pytest.param((2, 2, 2, 6, 7), None, r'5 axes.*axes="TZCYX"', id="five_unnamed"),
        pytest.param((6,), None, "1 axes", id="one_axis"),
        pytest.param((5, 6, 7), "ZY", r"'ZY' do not fit shape \(5, 6, 7\)", id="too_few"),
        pytest.param((5, 6, 7), "ZZX", "one Y and one X", id="no_y"),
        pytest.param((0, 6, 7), None, "holds no plane", id="empty_stack"),
    ],
)
def test_axes_that_make_no_sense_are_refused(
    shape: tuple[int, ...], axes: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        open_images(np.zeros(shape, np.uint8), axes=axes)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["T:001", "we\\ird", "c:"])
def test_file_that_no_result_can_be_named_after_fails_alone(tmp_path: Path, name: str) -> None:
    for stem in (name, "good"):
        tifffile.imwrite(tmp_path / f"{stem}.tif", np.ones((6, 7), np.uint8))
    good, bad = sorted(open_images(tmp_path), key=lambda plane: plane.name != "good")
    assert good.read().shape == (6, 7)
    with pytest.raises(InputError, match=rf"^{re.escape(name)}\.tif: .*Rename it"):
        bad.read()


@pytest.mark.parametrize("name", ["CON", "nul", "a ", "b.", "c..", "1:2", "%41", "-x", "q'", "#"])
def test_odd_names_that_a_result_can_have_are_opened(tmp_path: Path, name: str) -> None:
    try:
        tifffile.imwrite(tmp_path / f"{name}.tif", np.ones((6, 7), np.uint8))
    except OSError:
        pytest.skip("this disk takes no such names")
    (plane,) = open_images(tmp_path)
    assert (plane.name, plane.read().shape) == (name, (6, 7))


def test_planes_of_a_stack_have_unique_labels() -> None:
    planes = open_images(np.zeros((2, 3, 6, 7)))
    assert [p.label for p in planes][:4] == [
        "image[0][0]", "image[0][1]", "image[0][2]", "image[1][0]",
    ]  # fmt: skip


def test_channel_names_are_those_of_the_file(tmp_path):
    planes = np.zeros((2, 8, 8), np.uint8)
    named = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", planes, metadata=named, photometric="minisblack")
    tifffile.imwrite(tmp_path / "b.tif", planes, photometric="minisblack")
    zarr.create_array(
        tmp_path / "c.zarr", shape=planes.shape, dtype="uint8",
        attributes={"ome": {"omero": {"channels": [{"label": "red"}, {}]}}},
    )  # fmt: skip
    zarr.create_array(tmp_path / "d.zarr", shape=(2,), dtype="uint8", attributes={"omero": 3})
    names = [channel_names(tmp_path / n) for n in ("a.ome.tif", "b.tif", "c.zarr", "d.zarr", "e")]
    assert names == [("DAPI", "GFP"), (), ("red", ""), (), ()]

"""Files and folders: kinds, axes, order, and what damaged ones say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image as PillowImage

from napari_samic.errors import ImageReadError, InputError
from napari_samic.images import (
    open_images,
)

RNG = np.random.default_rng(0)


def save_png(path: Path, array: np.ndarray | None = None) -> Path:
    pixels = np.zeros((6, 7, 3), np.uint8) if array is None else array
    PillowImage.fromarray(pixels).save(path)
    return path


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "dtype", "options", "stack_shape", "channels_at"),
    [
        pytest.param((6, 7), "u2", {}, (), None, id="grey"),
        pytest.param((6, 7, 3), "u1", {"photometric": "rgb"}, (), None, id="rgb"),
        pytest.param(
            (3, 6, 7), "u1", {"photometric": "rgb", "planarconfig": "separate"}, (), 0, id="planar"
        ),
        pytest.param((5, 6, 7), "u2", {"metadata": None}, (5,), None, id="no_metadata"),
        pytest.param((5, 6, 7, 3), "u1", {"photometric": "rgb"}, (5,), None, id="rgb_stack"),
        pytest.param(
            (4, 2, 6, 7), "u2", {"imagej": True, "metadata": {"axes": "ZCYX"}}, (4,), 1, id="imagej"
        ),
        pytest.param(
            (3, 4, 2, 6, 7), "f4", {"ome": True, "metadata": {"axes": "TZCYX"},
                                    "compression": "lzw"}, (3, 4), 2, id="ome_lzw",
        ),
        pytest.param((5, 6, 7), ">u2", {"byteorder": ">"}, (5,), None, id="big_endian"),
    ],
)  # fmt: skip
def test_tiff_axes_become_planes_and_channels(
    tmp_path: Path,
    shape: tuple[int, ...],
    dtype: str,
    options: dict[str, object],
    stack_shape: tuple[int, ...],
    channels_at: int | None,
) -> None:
    array = RNG.integers(0, 200, shape).astype(dtype)
    path = tmp_path / ("a.ome.tif" if "ome" in options else "a.tif")
    tifffile.imwrite(path, array, **options)
    planes = open_images(path)
    assert (planes[0].name, planes[0].stack_shape) == ("a", stack_shape)
    pixels = array if channels_at is None else np.moveaxis(array, channels_at, -1)
    for plane in planes:
        np.testing.assert_array_equal(plane.read(), pixels[plane.index])
    assert planes[0].read().dtype.isnative


def test_axes_argument_overrules_the_tiff(tmp_path: Path) -> None:
    array = RNG.integers(0, 200, (3, 6, 7), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, compression="zlib")
    (plane,) = open_images(tmp_path / "a.tif", axes="CYX")
    np.testing.assert_array_equal(plane.read(), np.moveaxis(array, 0, -1))


@pytest.mark.parametrize(
    ("mode", "shape", "dtype"),
    [
        pytest.param("L", (6, 7), np.uint8, id="grey"),
        pytest.param("1", (6, 7), np.bool_, id="one_bit"),
        pytest.param("LA", (6, 7), np.uint8, id="grey_alpha"),
        pytest.param("I;16", (6, 7), np.uint16, id="sixteen_bit"),
        pytest.param("P", (6, 7, 3), np.uint8, id="palette"),
        pytest.param("RGBA", (6, 7, 4), np.uint8, id="rgba"),
    ],
)
def test_png_modes(tmp_path: Path, mode: str, shape: tuple[int, ...], dtype: type) -> None:
    PillowImage.new(mode, (7, 6)).save(tmp_path / "a.PNG")
    pixels = open_images(tmp_path / "a.PNG")[0].read()
    assert (pixels.shape, pixels.dtype) == (shape, dtype)


def write_ome_zarr(path: Path, array: np.ndarray, version: str) -> None:
    zarr_format = 3 if version == "0.5" else 2
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    stored = group.create_array("s0", shape=array.shape, dtype=array.dtype, chunks=array.shape)
    stored[...] = array
    axes = ["t", "c", "z", "y", "x"]
    named = axes if version == "0.3" else [{"name": a, "type": "space"} for a in axes]
    scales = [{"axes": named, "datasets": [{"path": "s0"}]}]
    if version == "0.5":
        group.attrs["ome"] = {"version": "0.5", "multiscales": scales}
    else:
        group.attrs["multiscales"] = scales


@pytest.mark.parametrize("version", ["0.3", "0.4", "0.5"])
def test_ome_zarr_levels_and_axes(tmp_path: Path, version: str) -> None:
    array = RNG.integers(0, 99, (2, 3, 4, 6, 7), dtype=np.uint16)
    write_ome_zarr(tmp_path / "day.ome.zarr", array, version)
    planes = open_images(tmp_path)
    assert (planes[0].name, planes[0].stack_shape) == ("day", (2, 4))
    np.testing.assert_array_equal(planes[5].read(), np.moveaxis(array[1, :, 1], 0, -1))


def test_bare_zarr_array_on_disk_or_in_hand(tmp_path: Path) -> None:
    array = RNG.integers(0, 99, (4, 6, 7), dtype=np.uint16)
    stored = zarr.create_array(tmp_path / "a.zarr", shape=array.shape, dtype=array.dtype)
    stored[...] = array
    for source in (tmp_path / "a.zarr", stored):
        planes = open_images(source)
        np.testing.assert_array_equal([plane.read() for plane in planes], array)


def test_first_image_of_a_bioformats2raw_folder(tmp_path: Path) -> None:
    array = RNG.integers(0, 99, (1, 2, 1, 6, 7), dtype=np.uint16)
    zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    write_ome_zarr(tmp_path / "a.zarr" / "0", array, "0.4")
    (plane,) = open_images(tmp_path / "a.zarr")
    np.testing.assert_array_equal(plane.read(), np.moveaxis(array[0, :, 0], 0, -1))


def test_zarr_group_without_image_raises_when_read(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "a.zarr", mode="w")
    (plane,) = open_images(tmp_path / "a.zarr")
    with pytest.raises(ImageReadError, match=r"a\.zarr: zarr group without OME 'multiscales'"):
        plane.read()


# --- folders ----------------------------------------------------------------------------------


def test_folder_is_sorted_naturally_and_only_images_are_taken(tmp_path: Path) -> None:
    for name in ("img10.png", "img2.PNG", "img1.tif", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "deeper").mkdir()
    save_png(tmp_path / "deeper" / "img3.png")
    assert [p.name for p in open_images(tmp_path)] == ["img1", "img2", "img10"]


def test_glob_takes_what_fits(tmp_path: Path) -> None:
    for name in ("a1.png", "a2.png", "b1.png", "a3.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [p.name for p in open_images(str(tmp_path / "a*"))] == ["a1", "a2"]


def test_file_whose_name_has_brackets_is_a_file(tmp_path: Path) -> None:
    save_png(tmp_path / "a[1].png")
    assert open_images(tmp_path / "a[1].png")[0].name == "a[1]"


def test_list_joins_files_and_arrays(tmp_path: Path) -> None:
    planes = open_images([save_png(tmp_path / "a.png"), np.zeros((6, 7)), np.zeros((2, 6, 7))])
    assert [p.label for p in planes] == ["a", "image_1", "image_2[0]", "image_2[1]"]


@pytest.mark.parametrize(
    ("files", "source", "message"),
    [
        pytest.param([], ".", r"no image in this folder.*\.png, .*\.tiff", id="empty_folder"),
        pytest.param(["a.txt"], ".", "no image in this folder", id="no_image"),
        pytest.param(["a.png"], "b*.png", r"b\*\.png: no image fits.*\.png", id="empty_glob"),
        pytest.param(["a.png"], "b.png", r"b\.png: no such file or folder", id="missing"),
        pytest.param(["a.txt"], "a.txt", r"a\.txt: not an image that is read", id="other_kind"),
        pytest.param(["a.png", "a.tif"], ".", "both called 'a'", id="same_stem"),
        pytest.param(["a.png"], "**b/*.png", "not a pattern", id="bad_pattern"),
    ],
)
def test_sources_without_images_say_where_and_what_is_read(
    tmp_path: Path, files: list[str], source: str, message: str
) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=message):
        open_images(tmp_path / source)


@pytest.mark.parametrize("source", [[], 7, None], ids=["empty_list", "number", "none"])
def test_other_objects_are_refused(source: object) -> None:
    with pytest.raises(InputError, match=r"Give (at least one file|a path)"):
        open_images(source)


def test_same_stem_in_two_folders_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    files = [save_png(tmp_path / "a.png"), save_png(tmp_path / "b" / "a.png")]
    with pytest.raises(InputError, match="both called 'a'"):
        open_images(files)


# --- bad files and pixels ---------------------------------------------------------------------


def truncated(path: Path, share: float = 0.6) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("a.png", {}, id="png"),
        pytest.param("a.jpg", {}, id="jpeg"),
        pytest.param("a.bmp", {}, id="bmp"),
        pytest.param("a.tif", {}, id="tiff"),
        pytest.param("a.tif", {"compression": "zlib"}, id="zlib_tiff"),
        pytest.param("a.tif", {"compression": "lzw", "rowsperstrip": 8}, id="lzw_strips"),
    ],
)
def test_truncated_file_is_one_line_with_its_name(
    tmp_path: Path, name: str, options: dict[str, object]
) -> None:
    pixels = RNG.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    if name.endswith("tif"):
        tifffile.imwrite(tmp_path / name, pixels, **options)
    else:
        save_png(tmp_path / name, pixels)
    truncated(tmp_path / name)
    with pytest.raises(ImageReadError, match=rf"^{name}.*: can't be read \(.+\)") as caught:
        open_images(tmp_path)[0].read()
    assert "\n" not in str(caught.value)


def test_stack_with_a_lost_tail_still_gives_its_first_planes(tmp_path: Path) -> None:
    stack = RNG.integers(0, 255, (4, 64, 64), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in stack:
            file.write(page, compression="zlib", metadata=None)
    planes = open_images(tmp_path / "a.tif")
    truncated(tmp_path / "a.tif", 0.5)
    np.testing.assert_array_equal(planes[0].read(), stack[0])
    with pytest.raises(ImageReadError, match=r"a\.tif\[3\]: can't be read"):
        planes[3].read()


@pytest.mark.parametrize("name", ["bad.png", "bad.tif", "bad.zarr"])
def test_one_bad_file_does_not_spoil_its_folder(tmp_path: Path, name: str) -> None:
    save_png(tmp_path / "good.png")
    if name.endswith("zarr"):
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(b"no image")
    bad, good = open_images(tmp_path)
    assert good.read().shape == (6, 7, 3)
    with pytest.raises(ImageReadError, match=name):
        bad.read()


def test_file_that_vanished_after_listing(tmp_path: Path) -> None:
    path = save_png(tmp_path / "a.png")
    (plane,) = open_images(path)
    path.unlink()
    with pytest.raises(ImageReadError, match=r"a\.png: can't be read \(.*No such file"):
        plane.read()


@pytest.mark.parametrize("shape", [(1, 7), (7, 1), (0, 7), (7, 0, 3)])
def test_side_below_two_pixels_is_refused_when_read(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="expected at least 2 x 2"):
        open_images(np.zeros(shape), axes="YXC"[: len(shape)])[0].read()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_counted_and_refused(bad: float) -> None:
    array = np.zeros((3, 6, 7), np.float32)
    array[1, 2, 3:5] = bad
    planes = open_images(array)
    planes[0].read()
    with pytest.raises(InputError, match=r"image\[1\]: 2 of 42 values.*nan_to_num"):
        planes[1].read()


def test_complex_pixels_are_refused() -> None:
    with pytest.raises(InputError, match="complex64 pixels"):
        open_images(np.zeros((6, 7), np.complex64))[0].read()

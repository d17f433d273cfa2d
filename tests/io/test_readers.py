"""Files and folders: kinds, axes, order, and what damaged ones say."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import dask.array
import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image as PillowImage
from toys import TURNED

from napari_samic.core.errors import ImageReadError, InputError
from napari_samic.core.types import PixelSize
from napari_samic.io.images import open_images, pixel_size
from napari_samic.io.masks import read_labels

RNG = np.random.default_rng(0)


def save_png(path: Path, array: np.ndarray | None = None) -> Path:
    pixels = np.zeros((6, 7, 3), np.uint8) if array is None else array
    PillowImage.fromarray(pixels).save(path)
    return path


# --- parts --------------------------------------------------------------------------------------


def save_zarr(path: Path, array: np.ndarray) -> None:
    group = zarr.open_group(path, mode="w")
    group.create_array("0", data=array, chunks=(1, 16, 16))
    axes = [{"name": "c", "type": "channel"}, {"name": "y"}, {"name": "x"}]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0"}]}]


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        pytest.param((70, 90), {}, id="plain"),
        pytest.param((70, 90), {"tile": (16, 32)}, id="tiles"),
        pytest.param((70, 90), {"tile": (16, 32), "compression": "zlib", "predictor": True},
                     id="packed_tiles"),
        pytest.param((70, 90), {"rowsperstrip": 9, "compression": "lzw"}, id="packed_strips"),
        pytest.param((70, 90, 3), {"tile": (32, 32), "photometric": "rgb", "compression": "zlib"},
                     id="rgb"),
        pytest.param((3, 70, 90), {"photometric": "rgb", "planarconfig": "separate",
                                   "compression": "zlib", "tile": (32, 32)}, id="planar"),
        pytest.param((4, 70, 90), {"compression": "zlib", "photometric": "minisblack",
                                   "tile": (32, 32)}, id="stack"),
        pytest.param((2, 70, 90), {"ome": True, "metadata": {"axes": "CYX"}, "tile": (32, 32),
                                   "photometric": "minisblack"}, id="ome_channels"),
        pytest.param((2, 70, 90), None, id="zarr"),
    ],
)  # fmt: skip
def test_part_of_a_file_is_that_part_of_the_whole(
    tmp_path: Path, shape: tuple[int, ...], options: dict[str, object] | None
) -> None:
    array = RNG.integers(0, 2000, shape).astype(np.uint16)
    path = tmp_path / (
        "a.zarr" if options is None else "a.ome.tif" if "ome" in options else "a.tif"
    )
    if options is None:
        save_zarr(path, array)
    else:
        tifffile.imwrite(path, array, **options)
    for plane in open_images(path):
        whole = plane.read()
        assert plane.kind == (whole.shape, whole.dtype)
        assert plane.read_part is not None
        part = plane.read_part(slice(11, 50), slice(30, 81))
        np.testing.assert_array_equal(part, whole[11:50, 30:81])


@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr"])
def test_part_of_an_array_is_read_alone(kind: str) -> None:
    array = RNG.integers(0, 200, (3, 70, 90)).astype(np.uint8)
    read: list[int] = []

    def block(block_id: tuple[int, ...]) -> np.ndarray:
        read.append(1)
        _, row, column = block_id
        return array[:, 10 * row : 10 * row + 10, 10 * column : 10 * column + 10]

    chunks = ((3,), (10,) * 7, (10,) * 9)
    lazy: object = array
    if kind == "dask":
        lazy = dask.array.map_blocks(block, chunks=chunks, dtype=array.dtype, meta=array[:0])
    elif kind == "zarr":
        lazy = zarr.array(array, chunks=(3, 10, 10))
    (plane,) = open_images(lazy, axes="CYX")
    assert plane.read_part is not None
    part = plane.read_part(slice(12, 18), slice(20, 35))
    np.testing.assert_array_equal(part, np.moveaxis(array, 0, -1)[12:18, 20:35])
    assert len(read) == (2 if kind == "dask" else 0)


def test_lone_large_strip_is_read_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    array = np.zeros((8200, 8200), np.uint8)
    tifffile.imwrite(path, array, compression="zlib", rowsperstrip=len(array))
    assert open_images(path)[0].read_part is None
    tifffile.imwrite(path, array, compression="zlib", rowsperstrip=64)
    assert open_images(path)[0].read_part is not None


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


@pytest.mark.parametrize(
    ("channels", "shown"),
    [
        pytest.param(2, 0, id="grey_alpha"),
        pytest.param(3, slice(3), id="rgb"),
        pytest.param(4, slice(4), id="rgba"),
    ],
)
def test_png_of_16_bits_keeps_them(tmp_path: Path, channels: int, shown: int | slice) -> None:
    pixels = RNG.integers(0, 65536, (6, 7, channels)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    read = open_images(tmp_path / "a.png")[0].read()
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, pixels[..., shown])


@pytest.mark.parametrize("at", [33, -12], ids=["exif_first", "exif_last"])
def test_png_of_16_bits_is_turned(tmp_path: Path, at: int) -> None:
    pixels = RNG.integers(0, 65536, (6, 7, 3)).astype(np.uint16)
    exif = PillowImage.Exif()
    exif[274] = 6
    png = imagecodecs.png_encode(pixels)
    note = png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    (tmp_path / "a.png").write_bytes(png[:at] + note + png[at:])
    told: list[str] = []
    planes = open_images(tmp_path, tell=told.append)
    np.testing.assert_array_equal(planes[0].read(), np.rot90(pixels, -1))
    [line] = told
    assert line.startswith("a.png:")
    assert "EXIF" in line


def test_key_colour_of_a_png_of_16_bits_is_no_channel(tmp_path: Path) -> None:
    png = imagecodecs.png_encode(np.ones((6, 7, 3), np.uint16))
    (tmp_path / "a.png").write_bytes(png[:33] + png_chunk(b"tRNS", b"\0\1" * 3) + png[33:])
    assert open_images(tmp_path)[0].read().shape == (6, 7, 3)


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


def test_every_image_of_a_bioformats2raw_folder(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    for number in range(2):
        array = np.full((1, 2, 1, 6, 7), number, np.uint16)
        write_ome_zarr(tmp_path / "a.zarr" / str(number), array, "0.4")
    planes = open_images(tmp_path / "a.zarr")
    assert [(p.label, p.read()[0, 0, 0]) for p in planes] == [
        ("a[s0][0][0]", 0),
        ("a[s1][0][0]", 1),
    ]


def test_axes_are_named_by_type_or_by_dimension(tmp_path: Path) -> None:
    array = RNG.integers(0, 99, (6, 7, 2), dtype=np.uint16)
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_array("0", shape=array.shape, dtype=array.dtype)[...] = array
    axes = [
        {"name": n, "type": t} for n, t in zip("yxl", ["space", "space", "channel"], strict=True)
    ]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0"}]}]
    bare = zarr.create_array(
        tmp_path / "b.zarr", shape=array.shape, dtype=array.dtype, dimension_names=["y", "x", "c"]
    )
    bare[...] = array
    lines: list[str] = []
    for plane in open_images(tmp_path, tell=lines.append):
        np.testing.assert_array_equal(plane.read(), array)
    assert lines == []


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


@pytest.mark.parametrize("pattern", ["fo[1]/*.png", "fo[[]1]/*.png", "f*/*.png", "fo[1]/../*/*"])
def test_folder_that_is_there_is_no_pattern(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "fo[1]").mkdir()
    save_png(tmp_path / "fo[1]" / "a.png")
    assert [p.name for p in open_images(str(tmp_path / pattern))] == ["a"]


def test_empty_name_is_not_the_folder_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_png(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert [p.name for p in open_images(".")] == ["a"]
    with pytest.raises(InputError, match="an empty name of images"):
        open_images("")


@pytest.mark.parametrize("source", [[], 7, None], ids=["empty_list", "number", "none"])
def test_other_objects_are_refused(source: object) -> None:
    with pytest.raises(InputError, match=r"Give (at least one file|a path)"):
        open_images(source)


def test_same_stem_in_two_folders_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    files = [save_png(tmp_path / "a.png"), save_png(tmp_path / "b" / "a.png")]
    with pytest.raises(InputError, match="both called 'a'"):
        open_images(files)


def test_files_of_other_kinds_are_told_in_one_line(tmp_path: Path) -> None:
    save_png(tmp_path / "a.png")
    for name in ("b.czi", "b.nd2", "c.gif", "d.gif", "e", ".x.gif", "Thumbs.db", "n.txt", "p.pt"):
        (tmp_path / name).write_bytes(b"")
    for source in (tmp_path, str(tmp_path / "*")):
        lines: list[str] = []
        assert [p.name for p in open_images(source, tell=lines.append)] == ["a"]
        (line,) = lines
        assert "5 files of other kinds left out: 1 .czi, 2 .gif, 1 .nd2, 1 no ending" in line


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder of a link to nothing, a link to itself, a pipe, and a folder."""
    folder = tmp_path / "broken"
    (folder / "d.tif").mkdir(parents=True)
    (folder / "b.tif").symlink_to(".git/annex/b")
    (folder / "c.png").symlink_to("c.png")
    (folder / ".x.tif").symlink_to("nowhere")
    os.mkfifo(folder / "e.tif")
    return folder


WORDS = (
    "2 broken links left out: b.tif, c.png; 1 folder left out: d.tif; "
    "1 special file left out: e.tif."
)


@pytest.mark.parametrize("pattern", ["", "*"], ids=["folder", "pattern"])
def test_broken_links_and_the_like_are_told_in_one_line(broken: Path, pattern: str) -> None:
    (broken / "a.png").symlink_to(save_png(broken.parent / "stored.png"))
    lines: list[str] = []
    planes = open_images(str(broken / pattern), tell=lines.append)
    assert ([p.name for p in planes], lines) == (["a"], [WORDS])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("", "no image in this folder; 2 broken links left out", id="all"),
        pytest.param("*.tif", "pattern; 1 broken link left out: b.tif", id="pattern"),
        pytest.param("b.tif", "1 broken link left out: b.tif", id="one"),
        pytest.param("e.tif", "1 special file left out: e.tif", id="pipe"),
    ],
)
def test_nothing_but_broken_links_is_said(broken: Path, name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        open_images(str(broken / name))


def test_what_is_alike_in_many_files_is_told_once(tmp_path: Path) -> None:
    for number in range(12):
        tifffile.imwrite(tmp_path / f"{number}.tif", np.zeros((3, 20, 30), np.uint8),
                         photometric="minisblack")  # fmt: skip
    lines: list[str] = []
    assert len(open_images(tmp_path, tell=lines.append)) == 36
    (line,) = lines
    assert line.startswith("12 files")
    assert "planes x rows" in line
    assert open_images(tmp_path, axes="ZYX", tell=lines.append)
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("shape", "letters", "planes"),
    [
        pytest.param((96, 128, 5), "YXC", 1, id="five_channels"),
        pytest.param((96, 128, 2), "YXC", 1, id="two_channels"),
        pytest.param((96, 128, 10), "YXC", 1, id="ten_channels"),
        pytest.param((96, 128, 15), "YXC", 1, id="fifteen_channels"),
        pytest.param((96, 128, 16), "QYX", 96, id="sixteen_columns"),
        pytest.param((96, 128, 31), "QYX", 96, id="many_bands_are_told"),
        pytest.param((5, 96, 128), "QYX", 5, id="five_planes"),
        pytest.param((12, 12, 5), "QYX", 12, id="small_planes"),
    ],
)
@pytest.mark.parametrize("kind", ["array", "shaped", "bare", "zarr"])
def test_guess_puts_a_short_last_axis_to_the_channels(
    tmp_path: Path, shape: tuple[int, ...], letters: str, planes: int, kind: str
) -> None:
    array = RNG.integers(0, 99, shape, dtype=np.uint8)
    if kind == "zarr":
        zarr.create_array(tmp_path / "a.zarr", shape=shape, dtype=array.dtype)[...] = array
    elif kind != "array":
        metadata = {} if kind == "shaped" else None
        tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", metadata=metadata)
    lines: list[str] = []
    found = open_images(array if kind == "array" else tmp_path, tell=lines.append)
    assert len(found) == planes
    np.testing.assert_array_equal(found[-1].read(), array[-1] if "Q" in letters else array)
    assert f"({letters})" in lines[0]


def test_channels_are_last_in_a_stack_too() -> None:
    array = RNG.integers(0, 99, (4, 96, 128, 5), dtype=np.uint8)
    planes = open_images(array)
    np.testing.assert_array_equal([p.read() for p in planes], array)


# --- as viewers show them ---------------------------------------------------------------------


@pytest.mark.parametrize("turn", TURNED)
def test_exif_turns_images_and_masks(tmp_path: Path, turn: int) -> None:
    exif = PillowImage.Exif()
    exif[0x112] = turn
    stored = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    PillowImage.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    assert open_images(tmp_path)[0].read().tolist() == TURNED[turn]
    assert read_labels(tmp_path / "a.png").tolist() == TURNED[turn]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_plate_says_how_to_give_a_well_or_a_field_of_it(tmp_path: Path, version: str) -> None:
    plate = tmp_path / "P.zarr"
    group = zarr.open_group(plate, mode="w", zarr_format=3 if version == "0.5" else 2)
    about = {"plate": {"wells": [{"path": "B/3"}, {"path": "B/4"}]}}
    group.attrs.update({"ome": about} if version == "0.5" else about)
    pixels = RNG.integers(0, 99, (1, 1, 1, 6, 7), dtype=np.uint8)
    for field in "01":
        write_ome_zarr(plate / "B" / "3" / field, pixels, version)
    zarr.open_group(plate / "B" / "3", mode="a", zarr_format=3 if version == "0.5" else 2)
    with pytest.raises(ImageReadError, match=r"P\.zarr: a plate of 2 wells.* P\.zarr/B/3/0\.$"):
        open_images(plate)[0].read()
    well = open_images(plate / "B" / "3")
    assert [plane.name for plane in well] == ["3[s0]", "3[s1]"]
    np.testing.assert_array_equal(open_images(plate / "B" / "3" / "0")[0].read(), pixels[0, 0, 0])


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_exif_that_turns_is_told_once_for_all_files(tmp_path: Path, ending: str) -> None:
    exif = PillowImage.Exif()
    for number, turn in enumerate((6, 1, 3)):
        exif[274] = turn
        pixels = np.zeros((2, 3), np.uint8)
        PillowImage.fromarray(pixels).save(tmp_path / f"{number}{ending}", exif=exif)
    (tmp_path / f"3{ending}").write_bytes(b"no image")
    told: list[str] = []
    open_images(tmp_path, strict=False, tell=told.append)
    [line] = told
    assert line.startswith("2 files")
    assert "EXIF" in line


def test_palette_mask_is_turned_and_keeps_its_numbers(tmp_path: Path) -> None:
    exif = PillowImage.Exif()
    exif[0x112] = 6
    picture = PillowImage.fromarray(np.array([[1, 2, 3], [4, 5, 6]], np.uint8), "P")
    picture.putpalette(RNG.integers(0, 256, 768).astype(np.uint8).tobytes())
    picture.save(tmp_path / "a.png", exif=exif)
    assert read_labels(tmp_path / "a.png").tolist() == [[4, 1], [5, 2], [6, 3]]


@pytest.mark.parametrize(
    "note",
    [b"\x12\x01\x03\x00\x01\x00\x00\x00\x09\x00\x00\x00", b"rubbish"],
    ids=["nine", "rubbish"],
)
def test_senseless_orientation_leaves_the_image_alone(tmp_path: Path, note: bytes) -> None:
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00" + note + b"\x00\x00\x00\x00"
    pixels = RNG.integers(0, 255, (6, 7), dtype=np.uint8)
    PillowImage.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(open_images(tmp_path)[0].read(), pixels)


def test_cmyk_jpeg_has_the_colours_of_its_rgb_twin(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8, :, 0], pixels[8:, :, 2] = 255, 255
    PillowImage.fromarray(pixels).convert("CMYK").save(tmp_path / "a.jpg", quality=97)
    shown = open_images(tmp_path)[0].read().astype(int)
    assert shown.shape == (16, 16, 3)
    assert np.abs(shown - pixels).max() < 40


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


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(path: Path, rows: int, columns: int) -> Path:
    """A PNG of a few bytes that says it is large."""
    size = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", size), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    body = b"".join(png_chunk(kind, data) for kind, data in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def test_image_larger_than_the_memory_fails_alone_and_at_once(tmp_path: Path) -> None:
    png_header(tmp_path / "a.png", 400_000, 400_000)
    save_png(tmp_path / "b.png")
    bad, good = open_images(tmp_path)
    assert good.read().shape == (6, 7, 3)
    with pytest.raises(ImageReadError, match=r"^a\.png: 400000 x 400000 pixels.*more memory"):
        bad.read()


def test_size_that_pillow_calls_an_attack_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PillowImage, "MAX_IMAGE_PIXELS", 10)
    path = save_png(tmp_path / "a.png")
    assert open_images(path)[0].read().shape == (6, 7, 3)
    assert PillowImage.MAX_IMAGE_PIXELS == 10


def test_array_that_does_not_fit_is_one_line() -> None:
    class Huge:
        shape, dtype = (6, 7), np.dtype(np.uint8)

        def __getitem__(self, _: object) -> np.ndarray:
            raise MemoryError

    with pytest.raises(ImageReadError, match="image: it needs more memory than there is"):
        open_images(Huge())[0].read()


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


@pytest.mark.parametrize(
    ("axes", "steps", "expected"),
    [
        pytest.param(("micrometer",) * 3, [[2, 0.5, 0.25]], PixelSize(0.5, 0.25, 2.0), id="scale"),
        pytest.param(
            ("nanometer",) * 3, [[1, 2, 4], [1, 5, 5]], PixelSize(0.01, 0.02, 0.001), id="two"
        ),
        pytest.param(("",) * 3, [[1, 0.5, 0.25]], None, id="no_unit"),
        pytest.param(("", "micrometer", "nanometer"), [[1, 1, 1]], None, id="two_units"),
    ],
)
def test_size_of_pixels_is_that_of_the_ome_metadata(tmp_path, axes, steps, expected):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("0", data=np.zeros((2, 5, 6), np.uint8))
    first, *rest = ([{"type": "scale", "scale": step}] for step in steps)
    scales = {
        "axes": [{"name": n, "unit": unit} for n, unit in zip("zyx", axes, strict=True)],
        "datasets": [{"path": "0", "coordinateTransformations": first}],
    }
    scales |= {"coordinateTransformations": rest[0]} if rest else {}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [scales]}
    assert pixel_size(tmp_path / "a.zarr") == expected

"""Stacks and folders are opened without reading them."""

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_samic.core.errors import InputError
from napari_samic.core.types import ImagePlane
from napari_samic.gui.data.layer_pixels import FILES
from napari_samic.gui.data.lazy_layers import lazy_layers
from napari_samic.io.images import open_images


@pytest.fixture
def reads(monkeypatch):
    """Labels of the planes that are read from now on."""
    seen = []
    before = ImagePlane.__init__

    def watched(self, name, index, read, *args, **kwargs):
        def spy():
            seen.append(self.label)
            return read()

        before(self, name, index, spy, *args, **kwargs)

    monkeypatch.setattr(ImagePlane, "__init__", watched)
    return seen


def test_stack_file_is_read_slice_by_slice(tmp_path, reads):
    whole = np.random.default_rng(0).integers(0, 255, (200, 8, 9), np.uint8)
    tifffile.imwrite(tmp_path / "cells.tif", whole, photometric="minisblack")
    ((data, options, kind),) = lazy_layers(tmp_path / "cells.tif")
    assert (data.shape, kind, options["name"], options["rgb"]) == (
        (200, 8, 9), "image", "cells", False,
    )  # fmt: skip
    np.testing.assert_array_equal(np.asarray(data[150]), whole[150])
    assert reads == ["cells[0]", "cells[150]"]


def test_folder_is_read_file_by_file_and_knows_its_files(tmp_path, reads):
    for i in range(50):
        tifffile.imwrite(tmp_path / f"im{i}.tif", np.full((6, 7), i, np.uint8))
    ((data, options, _),) = lazy_layers(tmp_path)
    assert data.shape == (50, 6, 7)
    assert int(np.asarray(data[10]).max()) == 10  # im10 after im9
    assert reads == ["im0", "im10"]
    assert options["metadata"][FILES][10].endswith("im10.tif")


def test_headers_of_a_folder_are_looked_at_once(tmp_path, monkeypatch):
    for i in range(20):
        tifffile.imwrite(tmp_path / f"im{i}.tif", np.full((6, 7), i, np.uint8))
    opened, before = [], tifffile.TiffFile.__init__

    def counted(self, file, **how):
        opened.append(file)
        before(self, file, **how)

    monkeypatch.setattr(tifffile.TiffFile, "__init__", counted)
    lazy_layers(tmp_path)
    assert opened.count(tmp_path / "im9.tif") == 2  # the second is for a set of OME-TIFFs


@pytest.mark.parametrize(
    ("shape", "how"),
    [
        pytest.param((6, 7), {}, id="grey"),
        pytest.param((6, 7), {"byteorder": ">"}, id="big_endian"),
        pytest.param((6, 7, 3), {"photometric": "rgb"}, id="colour"),
        pytest.param((3, 6, 7), {"photometric": "rgb", "planarconfig": "separate"}, id="planar"),
        pytest.param((6, 7), {"photometric": "miniswhite"}, id="finished"),
        pytest.param((5, 6, 7), {"photometric": "minisblack"}, id="stack"),
    ],
)
def test_kind_that_a_header_tells_is_that_of_the_pixels(tmp_path, shape, how):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, np.uint16), **how)
    plane = open_images(tmp_path / "a.tif")[0]
    pixels = plane.read()
    assert plane.kind in ((pixels.shape, pixels.dtype), None)
    assert (plane.kind is None) == (how.get("photometric") == "miniswhite")


def test_images_of_several_sizes_become_a_layer_each(tmp_path):
    for i, size in enumerate([(6, 7), (8, 9), (6, 7)]):
        Image.fromarray(np.full((*size, 3), 10 * i, np.uint8)).save(tmp_path / f"p{i}.png")
    two, one = lazy_layers(tmp_path)
    assert (two[0].shape, two[1]["rgb"]) == ((2, 6, 7, 3), True)
    assert (one[0].shape, one[1]["name"]) == ((8, 9, 3), "p1")


def test_pngs_of_8_and_16_bits_become_a_layer_each(tmp_path, reads):
    for i, dtype in enumerate([np.uint8, np.uint16, np.uint16]):
        png = imagecodecs.png_encode(np.full((6, 7, 3), 200, dtype))
        (tmp_path / f"p{i}.png").write_bytes(png)
    one, two = lazy_layers(tmp_path)
    assert (one[0].dtype, two[0].dtype) == (np.uint8, np.uint16)
    assert (two[0].shape, reads) == ((2, 6, 7, 3), ["p0", "p1"])


def test_nothing_there_is_told(tmp_path):
    with pytest.raises(InputError, match="no image"):
        lazy_layers(tmp_path)


def test_channels_that_are_no_colour_are_layers_of_their_own(tmp_path):
    cube = np.random.default_rng(0).integers(0, 255, (3, 20, 30, 2), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", cube, photometric="minisblack", planarconfig="contig")
    ((data, options, _),) = lazy_layers(tmp_path)
    assert options["channel_axis"] == -1
    np.testing.assert_array_equal(np.asarray(data[2]), cube[2])


def test_bad_file_is_told_and_the_others_are_shown(tmp_path):
    for i in range(2):
        Image.fromarray(np.full((6, 7), i, np.uint8)).save(tmp_path / f"p{i}.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    told = []
    ((data, options, _),) = lazy_layers(tmp_path, tell=told.append)
    assert (data.shape, options["name"]) == ((2, 6, 7), tmp_path.name)
    (line,) = told
    assert line.startswith("1 not shown")
    assert "bad.png" in line


def test_turned_photo_is_of_the_size_that_it_is_shown_in(tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6
    pixels = np.arange(42, dtype=np.uint8).reshape(6, 7)
    Image.fromarray(pixels).save(tmp_path / "p0.png", exif=exif)
    Image.fromarray(np.rot90(pixels, -1)).save(tmp_path / "p1.png")
    ((data, _, _),) = lazy_layers(tmp_path)
    np.testing.assert_array_equal(np.asarray(data[0]), np.asarray(data[1]))


def test_stack_and_images_of_a_folder_know_their_files(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", np.zeros((4, 8, 9), np.uint8), photometric="minisblack")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((6, 7), np.uint8))
    layers = {options["name"]: (data.shape, options) for data, options, _ in lazy_layers(tmp_path)}
    assert {name: shape for name, (shape, _) in layers.items()} == {"s": (4, 8, 9), "a": (6, 7)}
    for name, (_, options) in layers.items():
        assert options["metadata"][FILES] == [str(tmp_path / f"{name}.tif")]


def test_a_large_file_is_shown_by_levels_and_read_part_by_part(tmp_path, reads, monkeypatch):
    monkeypatch.setattr("napari_samic.core.types.LARGE_PX", 1000)
    pixels = np.arange(64 * 80, dtype=np.uint16).reshape(64, 80)
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(tmp_path / name, pixels, tile=(16, 16), photometric="minisblack")
    (data, options, _), (_, other, _) = lazy_layers(tmp_path)
    assert (options["name"], other["name"]) == ("a", "b")  # no stack, which is read as planes
    fine, coarse = data
    assert reads == []  # as a whole
    assert (fine.shape, fine.dtype, fine.ndim, options["rgb"]) == ((64, 80), np.uint16, 2, False)
    np.testing.assert_array_equal(coarse, pixels[::4, ::4])
    for key in (np.s_[10:20, 30:70], np.s_[63, 79], np.s_[5], np.s_[..., 79], np.s_[::7, 60:2:-3]):
        np.testing.assert_array_equal(fine[key], pixels[key])
    np.testing.assert_array_equal(np.asarray(fine), pixels)
    array = zarr.create_array(tmp_path / "c.zarr", shape=(64, 80), chunks=(16, 16), dtype="u2")
    array[...] = pixels
    (((fine, coarse), _, _),) = lazy_layers(tmp_path / "c.zarr")
    np.testing.assert_array_equal(coarse, pixels[::4, ::4])
    np.testing.assert_array_equal(fine[30:50, 2:4], pixels[30:50, 2:4])
    assert reads == []
    tifffile.imwrite(tmp_path / "a.tif", pixels[..., None].repeat(5, 2), planarconfig="contig")
    ((data, _, _),) = lazy_layers(tmp_path / "a.tif")  # channels are layers of their own
    assert data.shape == (64, 80, 5)

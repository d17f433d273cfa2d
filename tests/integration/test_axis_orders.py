"""OME-TIFF and NGFF as others write them: right shape, channel and plane, in the shell and napari.

Each file has axes of different lengths in another order, and no two planes alike.
"""

from math import prod

import numpy as np
import pytest
import tifffile

from napari_samic.io.images import open_images
from napari_samic.io.normalize import Normalization
from napari_samic.io.prompts import load_prompts
from napari_samic.io.text_files import pixels_sha256

LENGTHS = {"T": 2, "C": 2, "Z": 3, "Y": 24, "X": 30, "S": 3}
OME = ["TZCYX", "TCZYX", "ZTCYX", "ZCTYX", "CTZYX", "CZTYX", "CYX", "TYX"]
NGFF = ["TCZYX", "TZYX", "TCYX", "CZYX", "TYX", "CYX", "ZYX", "YX"]
WHY = "not needed to read such files: only here, as a writer"


def by_tifffile(folder, array, order):
    tifffile.imwrite(folder / "a.ome.tif", array, metadata={"axes": order},
                     photometric="minisblack")  # fmt: skip


def by_tifffile_in_colour(folder, array, order):
    tifffile.imwrite(folder / "a.ome.tif", array, metadata={"axes": order}, photometric="rgb")


def by_imagej(folder, array, order):
    tifffile.imwrite(folder / "a.tif", array, imagej=True, metadata={"axes": order})


def by_bioio(folder, array, order):
    writers = pytest.importorskip("bioio_ome_tiff.writers", reason=WHY)
    writers.OmeTiffWriter.save(array, str(folder / "a.ome.tif"), dim_order=order)


def by_ome_zarr(version):
    def write(folder, array, order):
        writer = pytest.importorskip("ome_zarr.writer", reason=WHY)
        from ome_zarr import format as formats

        kind = {"0.4": formats.FormatV04, "0.5": formats.FormatV05}[version]()
        writer.write_image(array, str(folder / "a.ome.zarr"), scale_factors=[2],
                           axes=order.lower(), fmt=kind)  # fmt: skip

    return write


def by_bioio_zarr(folder, array, order):
    writers = pytest.importorskip("bioio_ome_zarr.writers", reason=WHY)
    types = {"T": "time", "C": "channel"}
    writer = writers.OMEZarrWriter(
        str(folder / "a.ome.zarr"), level_shapes=[array.shape], dtype=array.dtype,
        axes_names=list(order.lower()), axes_types=[types.get(a, "space") for a in order],
    )  # fmt: skip
    writer.write_full_volume(array)


WRITERS = {
    "tifffile": (by_tifffile, OME),
    "tifffile_colour": (by_tifffile_in_colour, ["TZYXS", "ZTYXS", "TYXS", "YXS"]),
    "imagej": (by_imagej, ["TZCYX", "ZCYX", "TZYX", "TCYX", "CYX", "ZYX", "TYX", "YX"]),
    "bioio": (by_bioio, OME),
    "ome_zarr_0.4": (by_ome_zarr("0.4"), NGFF),
    "ome_zarr_0.5": (by_ome_zarr("0.5"), NGFF),
    "bioio_zarr": (by_bioio_zarr, NGFF),
}
FILES = [
    pytest.param((write, order), id=f"{name}-{order}")
    for name, (write, orders) in WRITERS.items()
    for order in orders
]


@pytest.fixture(params=FILES)
def written(request, tmp_path):
    """A folder with the file, and its planes by their index, channels last."""
    write, order = request.param
    shape = [LENGTHS[axis] for axis in order]
    array = np.random.default_rng(0).permutation(prod(shape)).reshape(shape).astype(np.uint16)
    array = array if "S" not in order else array.astype(np.uint8)
    folder = tmp_path / "images"
    folder.mkdir()
    write(folder, array, order)
    cube = np.moveaxis(array, order.index("C"), -1) if "C" in order else array
    stack = tuple(LENGTHS[axis] for axis in order if axis not in "YXCS")
    return folder, {index: cube[index] for index in np.ndindex(*stack)}


def test_planes_are_those_that_were_written(written):
    folder, expected = written
    lines = []
    planes = open_images(folder, tell=lines.append)
    assert [p.index for p in planes] == list(expected)
    for plane in planes:
        assert plane.name == "a"
        np.testing.assert_array_equal(plane.read(), expected[plane.index])
    assert lines == []  # nothing was guessed


def test_shell_works_on_them(written, shell, toy, tmp_path):
    folder, expected = written
    stack = tuple(np.max(list(expected), axis=0) + 1) if () not in expected else ()
    truth = np.zeros((*stack, 24, 30), np.uint8)
    truth[..., 8:16, 10:20] = 1
    (tmp_path / "masks").mkdir()
    tifffile.imwrite(tmp_path / "masks" / "a.tif", truth, photometric="minisblack")
    ran = shell(
        "annotate", folder, "--masks", tmp_path / "masks", "--simulate", "--max-clicks", "1",
        "--out", tmp_path / "out", "--model", toy,
    )  # fmt: skip
    assert (ran.code, ran.complaints) == (0, [])
    assert tifffile.imread(tmp_path / "out" / "a.tif").shape == (*stack, 24, 30)
    stored = load_prompts(tmp_path / "out" / "prompts.json")
    seen = {image.name: image.sha256 for image in stored.images}
    normalization = Normalization.from_dict(stored.normalization)
    assert seen == {
        "a" + "".join(f"[{i}]" for i in index): pixels_sha256(normalization.apply(pixels))
        for index, pixels in expected.items()
    }


def test_napari_shows_them(written):
    pytest.importorskip("napari")
    from napari_samic.gui.data.lazy_layers import lazy_layers

    folder, expected = written
    ((data, options, kind),) = lazy_layers(folder)
    depth = next(iter(expected.values())).shape[2:]
    names = ["a channel 0", "a channel 1"] if depth == (2,) else "a"
    assert (kind, options["name"]) == ("image", names)
    assert options.get("channel_axis") == (-1 if depth == (2,) else None)
    assert options.get("rgb", False) == (depth == (3,))
    for index, pixels in expected.items():
        np.testing.assert_array_equal(np.asarray(data[index]), pixels)

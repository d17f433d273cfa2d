"""Files that were read wrongly once, as their finders wrote them, by the shell and from scripts.

The generators lie in the team's shared folder; nothing of it is copied. Neighbours of each case
that need no such folder stand in `io/test_readers.py`, `io/test_tiff.py` and
`gui/data/test_lazy_layers.py`.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_samic.core.errors import InputError
from napari_samic.io.images import open_images
from napari_samic.io.masks import read_labels
from napari_samic.io.normalize import fit_normalization, read_rgb

SCENE = (96, 128)


def opened(source, **options):
    lines = []
    return open_images(source, strict=False, tell=lines.append, **options), lines


def test_set_of_ome_tiffs_is_three_planes(case):
    planes, lines = opened(case("03") / "mf")
    assert [p.label for p in planes] == ["cells_z0[0]", "cells_z0[1]", "cells_z0[2]"]
    pages = [tifffile.imread(p, is_ome=False) for p in sorted(Path("mf").iterdir())]
    np.testing.assert_array_equal([p.read() for p in planes], pages)
    [line] = lines
    assert line.startswith("cells_z0.ome.tif:")
    assert "2 files" in line


def test_channels_last_is_one_plane_that_asks_for_its_channels(case):
    (plane,), lines = opened(case("06") / "cl")
    assert plane.read().shape == (*SCENE, 5)
    assert "--axes" in lines[0]
    with pytest.raises(InputError, match=r"5 channels \(0 to 4\).*Choose"):
        fit_normalization([plane])
    assert read_rgb(plane, fit_normalization([plane], channels=[0])).shape == (*SCENE, 3)


def test_thumbnail_is_passed_over_and_every_series_is_there(case):
    planes, lines = opened(case("08") / "th")
    shapes = {p.label: p.read().shape for p in planes}
    assert shapes.pop("thumb") == SCENE
    assert shapes == {
        **{f"multi[s{n}]": SCENE for n in range(3)},
        **{f"pages[s{n}]": (90 + 10 * n, 128) for n in range(3)},
    }
    assert len(lines) == 2


@pytest.mark.parametrize("turn", [6, 3])
def test_photo_is_turned_as_every_viewer_shows_it(case, turn):
    folder = case("11")
    (plane,), _ = opened(folder / f"i{turn}")
    red = plane.read()[..., 0].astype(int)
    truth = tifffile.imread(folder / "t" / "phone.tif") > 0
    assert red.shape == SCENE
    assert red[truth].min() > red[~truth].max()


def test_large_png_is_read(case):
    assert read_labels(case("16") / "big.png").shape == (13500, 13500)


def test_other_kinds_are_told(case):
    (plane,), (line,) = opened(case("21") / "hd")
    assert plane.label == "x"
    assert all(f"1 .{kind}" in line for kind in ("czi", "gif", "jp2", "nd2"))


def test_folder_of_two_sizes_shows_both(case):
    pytest.importorskip("napari")
    from napari_samic.gui.data.lazy_layers import lazy_layers

    layers = lazy_layers(case("22") / "mixed")
    assert {options["name"]: data.shape for data, options, _ in layers} == {
        "a": (60, 100),
        "b": (80, 90),
    }
    assert all(np.asarray(data).max() > 100 for data, _, _ in layers)


# --- the same through the jobs ----------------------------------------------------------------


def simulated(shell, folder, toy, *options):
    return shell(
        "annotate", folder / "images", "--masks", folder / "masks", "--simulate", "--max-clicks",
        "1", "--out", folder / "out", "--model", toy, *options,
    )  # fmt: skip


def test_shell_tells_what_was_guessed_and_reads_what_is_asked_for(shell, scenes, toy, tmp_path):
    shutil.copytree(scenes / "masks", tmp_path / "masks")
    (tmp_path / "images").mkdir()
    truth = read_labels(tmp_path / "masks" / "p0.png")
    image = np.where(truth > 0, 200, 40).astype(np.uint8)
    for stem in ("p0", "p1"):
        cube = np.stack([image, image // 2], -1)
        tifffile.imwrite(tmp_path / "images" / f"{stem}.tif", cube, photometric="minisblack")
    ran = simulated(shell, tmp_path, toy)
    assert ran.code == 0
    note, left_out = ran.complaints
    assert note.startswith("note: 2 files")
    assert "rows x columns" in note
    assert "p2.png, p3.png" in left_out
    assert tifffile.imread(tmp_path / "out" / "p0.tif").shape == truth.shape
    again = simulated(shell, tmp_path, toy, "--axes", "YXC", "--overwrite", "--json")
    left_out, meaning = again.json["notices"]
    assert (again.code, meaning[:12]) == (0, "mask values:")
    assert "p2.png" in left_out


def test_each_series_has_a_result_of_its_own(shell, scenes, toy, tmp_path):
    truth = read_labels(scenes / "masks" / "p0.png")
    image = np.where(truth > 0, 200, 40).astype(np.uint8)
    for folder, pages in (("images", [image, image[:-4]]), ("masks", [truth, truth[:-4]])):
        (tmp_path / folder).mkdir()
        with tifffile.TiffWriter(tmp_path / folder / "a.tif") as file:
            for page in pages:
                file.write(page.astype(np.uint8), photometric="minisblack", metadata=None)
    ran = simulated(shell, tmp_path, toy)
    assert (ran.code, "2 series" in ran.err) == (0, True)
    shapes = {p.name: tifffile.imread(p).shape for p in (tmp_path / "out").glob("*.tif")}
    rows, columns = truth.shape
    assert shapes == {"a[s0].tif": (rows, columns), "a[s1].tif": (rows - 4, columns)}
    shutil.rmtree(tmp_path / "out")
    assert simulated(shell, tmp_path, toy, "--series", "1").code == 0
    assert [p.name for p in (tmp_path / "out").glob("*.tif")] == ["a[s1].tif"]


def test_giant_and_circular_files_fail_alone(shell, scenes, toy, tmp_path):
    shutil.copytree(scenes, tmp_path, dirs_exist_ok=True)
    mask = tmp_path / "masks" / "p0.png"
    with tifffile.TiffWriter(tmp_path / "images" / "giant.tif", bigtiff=True) as file:
        file.write(
            iter([b"\0"]), shape=(400_000, 400_000), dtype="u1", compression="zlib",
            rowsperstrip=400_000, photometric="minisblack", metadata=None,
        )  # fmt: skip
    circle = bytearray(b"II*\0\x08\0\0\0\0\0\x08\0\0\0\0\0")  # a page that is followed by itself
    (tmp_path / "images" / "circle.tif").write_bytes(circle)
    for stem in ("giant", "circle"):
        shutil.copy(mask, tmp_path / "masks" / f"{stem}.png")
    ran = simulated(shell, tmp_path, toy)
    failed = sorted(line for line in ran.err.splitlines() if line.startswith("failed: "))
    assert ran.code == 1
    assert [line.split(":")[1].strip() for line in failed] == ["circle.tif", "giant.tif"]
    assert len(list((tmp_path / "out").glob("p*.tif"))) == len(list(scenes.glob("images/*")))

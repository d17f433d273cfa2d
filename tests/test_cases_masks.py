"""Cases of the shared folder on masks, ranges, names and label numbers: the right value of each.

A case is made by its own generator in a folder of the test; without the shared folder these tests
are skipped, and their neighbours, which need none, stay.
"""

import json
import os
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_samic import pipeline
from napari_samic.contracts import run
from napari_samic.errors import InputError, OutputError
from napari_samic.gui.writers import write_coco, write_geojson, write_labels
from napari_samic.pipeline import common
from napari_samic.settings import ExportSettings
from toys import scene, write_image, write_scenes


@pytest.fixture
def case(tmp_path, monkeypatch, shared_dir):
    """Make a case by its number; gives its folder."""

    def make(number):
        (source,) = (shared_dir / "cases").glob(f"{number}_*/gen.py")
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(source.parent)
        runpy.run_path(str(source))
        return tmp_path

    return make


def areas_of(path):
    return [(a["label"], a["area"]) for a in json.loads(path.read_text())["annotations"]]


def sparse(dtype, *ids):
    """Two rows of four pixels for each id, one below the other."""
    labels = np.zeros((4 * len(ids) + 2, 9), dtype)
    for k, value in enumerate(ids):
        labels[4 * k + 1 : 4 * k + 3, 2:6] = value
    return labels


@pytest.mark.parametrize("name", ["wraps", "drops"])
def test_case_09_writers_refuse_what_int32_cannot_hold(case, name):
    folder = case("09")
    labels = np.load(folder / f"{name}.npy")
    for write in (write_labels, write_geojson):
        with pytest.raises(InputError, match=r"expected 0 to 2\*\*31-1"):
            write(str(folder / "out.json"), labels, {"name": name})
    with pytest.raises(InputError, match=rf"{name}: labels from 0 to \d+, expected 0"):
        write_coco(str(folder / "out.json"), [(labels, {"name": name}, "labels")])
    assert not (folder / "out.json").exists()


@pytest.mark.parametrize("write", [write_labels, write_geojson])
def test_writers_refuse_negative_numbers(tmp_path, write):
    with pytest.raises(InputError, match="labels from -3 to 1"):
        write(str(tmp_path / "out"), sparse(np.int64, 1, -3), {"name": "a"})


@pytest.mark.parametrize("as_levels", [list, tuple, pytest.param("napari", id="napari")])
def test_writers_take_the_first_scale(tmp_path, as_levels):
    if as_levels == "napari":
        as_levels = pytest.importorskip("napari.layers._multiscale_data").MultiScaleData
    labels = sparse(np.uint8, 1, 2)
    data = as_levels([labels, labels[::2, ::2]])
    write_labels(str(tmp_path / "a.tif"), data, {"name": "a", "multiscale": True})
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), labels)
    write_coco(str(tmp_path / "a.json"), [(data, {"name": "a"}, "labels")])
    assert areas_of(tmp_path / "a.json") == [(1, 8), (2, 8)]


def exported(results, out, **formats):
    return run(pipeline.export(results, out=out, settings=ExportSettings(**formats)))


def test_case_17_far_numbers_cost_nothing(case):
    folder = case("17")
    outcome = exported(folder / "p", folder / "x", coco=True, table=True, geojson=True)
    assert outcome.figures["objects"] == 5
    assert sorted(n for n, _ in areas_of(folder / "x" / "coco.json")) == [1, 3, 4, 5, 1_500_000_000]
    table = (folder / "x" / "measurements.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in table[1:]] == ["1", "3", "4", "5", "1500000000"]


def test_largest_number_of_all_and_no_ground(tmp_path):
    labels = np.full((4, 5), 2**31 - 1, np.int32)
    labels[:2] = 7
    (tmp_path / "p").mkdir()
    tifffile.imwrite(tmp_path / "p" / "a.tif", labels)
    exported(tmp_path / "p", tmp_path / "x", coco=True, ome_zarr=True, table=True)
    assert areas_of(tmp_path / "x" / "coco.json") == [(7, 10), (2**31 - 1, 10)]


def test_case_19_names_that_meet_are_refused_before_work(case):
    folder = case("19")
    with pytest.raises(InputError, match=r"a\.tif and .*a\[1\]\.tif are both called 'a\[1\]'"):
        common.open_planes(folder / "br")
    results = folder / "o"
    results.mkdir()
    tifffile.imwrite(results / "day.tif", np.ones((3, 8, 9), np.int32), photometric="minisblack")
    tifffile.imwrite(results / "day-0001.tif", np.ones((8, 9), np.int32))
    with pytest.raises(InputError, match=r"both called 'day-0001\.png'"):
        exported(results, folder / "x", png=True)
    assert list((folder / "x").iterdir()) == []


@pytest.mark.parametrize("formats", [{"ome_zarr": True}, {"geojson": True}])
def test_case_20_too_long_a_name_is_one_line(tmp_path, formats):
    (tmp_path / "o").mkdir()
    tifffile.imwrite(tmp_path / "o" / f"{'x' * 249}.tif", np.ones((8, 9), np.int32))
    with pytest.raises(OutputError, match="the name is too long"):
        exported(tmp_path / "o", tmp_path / "x", tiff=True, **formats)
    assert list((tmp_path / "x").iterdir()) == []


@pytest.mark.parametrize("command", ["train", "segment", "evaluate"])
def test_long_paths_on_the_shell_are_one_line(shell, tmp_path, prompter, scenes, command):
    long = tmp_path / ("x" * 300)
    ran = shell(
        *{
            "train": ("train", "--images", scenes / "images", "--masks", long, "--out", long),
            "segment": ("segment", long, "--prompter", prompter, "--out", tmp_path / "o"),
            "evaluate": ("evaluate", "--predictions", long, "--truth", long, "--out", long),
        }[command]
    )
    assert ran.code in (2, 3)
    assert len(ran.err.splitlines()) == 1


def odd_name(folder, name=b"z\xe4hlung.png"):
    """A copy of the first image under bytes that are no UTF-8."""
    path = Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
    try:
        shutil.copy(folder / "p0.png", path)
    except OSError:
        pytest.skip("this disk takes no such names")
    return path


def test_name_of_other_bytes_fails_alone(shell, tmp_path, prompter):
    write_scenes(tmp_path, 2)
    odd_name(tmp_path / "images")
    ran = shell("segment", tmp_path / "images", "--prompter", prompter, "--out", tmp_path / "o")
    assert ran.code == 1
    assert "the name is not UTF-8" in (tmp_path / "o" / "failures.csv").read_text(encoding="utf-8")
    table = (tmp_path / "o" / "scores.csv").read_text(encoding="utf-8")
    assert "p0," in table
    assert "p1," in table


def test_folder_of_other_bytes_is_written_escaped(shell, tmp_path, prompter):
    write_scenes(tmp_path, 1)
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/z\xe4hl")
    try:
        shutil.copytree(tmp_path / "images", odd)
    except OSError:
        pytest.skip("this disk takes no such names")
    out = f"{odd}/o"
    for form in ("--overwrite", "--json"):
        ran = shell("segment", odd, "--prompter", prompter, "--out", out, form)
        assert ran.code == 0
    assert Path(out, "scores.csv").exists()


def test_heat_maps_that_would_meet_are_refused_before_work(shell, tmp_path, prompter):
    stack = np.stack([scene(k)[0] for k in range(2)])
    folder = tmp_path / "i"
    write_image(folder / "day-0001.png", scene(0)[0])
    tifffile.imwrite(folder / "day.tif", stack, photometric="rgb")
    call = ("segment", folder, "--prompter", prompter, "--out", tmp_path / "o")
    ran = shell(*call, "--heatmaps")
    assert ran.code == 2
    assert "both called 'day-0001'" in ran.err
    assert not (tmp_path / "o" / "scores.csv").exists()
    assert shell(*call).code == 0

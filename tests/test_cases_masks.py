"""Cases of the shared folder on masks, ranges, names and label numbers: the right value of each.

A case is made by its own generator in a folder of the test; without the shared folder these tests
are skipped, and their neighbours, which need none, stay.
"""

import json
import runpy

import numpy as np
import pytest
import tifffile

from napari_samic import pipeline
from napari_samic.contracts import run
from napari_samic.errors import InputError
from napari_samic.gui.writers import write_coco, write_geojson, write_labels
from napari_samic.settings import ExportSettings


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

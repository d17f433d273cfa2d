"""The benchmark of tiles: what is drawn and scored strip by strip is that of the whole."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_samic.evaluation.matching import match_objects
from napari_samic.pipeline import tiling

PATH = Path(__file__).parents[2] / "benchmarks" / "tiles.py"


@pytest.fixture(scope="module")
def tiles():
    spec = importlib.util.spec_from_file_location("bench_tiles", PATH)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)  # dataclasses look there
        spec.loader.exec_module(module)
        yield module


def test_mosaic_is_drawn_strip_by_strip(tiles, tmp_path):
    scene = tiles.Scene(600, 58, 3)
    image, truth = tiles.draw(scene, 0, 600)
    tiles.write_mosaic(tmp_path, scene)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "mosaic" / "mosaic.tif"), image)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "truth" / "mosaic.tif"), truth)
    assert len(np.unique(truth)) == 101


def test_scores_of_strips_are_those_of_the_whole(tiles, tmp_path):
    scene = tiles.Scene(600, 58, 3)
    tiles.write_mosaic(tmp_path, scene)
    truth = tiles.plane(tmp_path / "truth")
    labels = np.roll(truth.read(), 6, axis=1)
    tiles.write(tmp_path / "labels" / "mosaic.tif", labels)
    places = tiling.windows((600, 600), 400)
    overlaps = tiles.Overlaps.of(tiles.plane(tmp_path / "labels"), truth, places)
    assert overlaps.f1 == pytest.approx(match_objects(labels, truth.read()).f1)
    assert 0.1 < overlaps.f1 < 0.95
    edges, whole = (200, 399), truth.read()
    cut = np.unique([whole[list(edges)], whole[:, list(edges)].T])
    assert np.flatnonzero(overlaps.is_cut).tolist() == (cut[cut > 0] - 1).tolist()

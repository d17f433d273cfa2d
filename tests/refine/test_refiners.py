"""Refinement of a finished segmentation."""

import maps as drawn
import numpy as np
import pytest

from napari_samic.contracts import HeatMap, Refiner, Segmentation
from napari_samic.errors import InputError
from napari_samic.refine.limits import Limits
from napari_samic.refine.refiners import MapRefiner, ShapeRefiner
from napari_samic.settings import RefineSettings

IMAGE = drawn.picture()
OBJECT = drawn.disc(24, 24, 6) | drawn.disc(24, 33, 4)


def result(*masks, heat=None):
    labels = np.zeros(drawn.SHAPE, np.int32)
    for i, mask in enumerate(masks):
        labels[mask] = i + 1
    points = [drawn.at(*np.argwhere(m).mean(0)) for m in masks]
    heat_map = None if heat is None else HeatMap(heat)
    scores = np.linspace(0.9, 0.8, len(masks))
    return Segmentation(labels, scores, tuple(points), heat_map, {1: 0.7})


BOTH = [
    pytest.param(lambda s, **k: MapRefiner(drawn.Discs(), s, **k), id="map"),
    pytest.param(ShapeRefiner, id="shape"),
]


@pytest.mark.parametrize("make", BOTH)
def test_refiners_meet_the_protocol_and_change_nothing_by_default(make):
    refiner = make(RefineSettings())
    assert isinstance(refiner, Refiner)
    before = result(OBJECT, drawn.disc(10, 50, 4), heat=drawn.flat(OBJECT))
    after = refiner.refine(IMAGE, before)
    np.testing.assert_array_equal(after.labels, before.labels)
    np.testing.assert_array_equal(after.scores, before.scores)
    assert (after.objects, after.heat_map) == (before.objects, before.heat_map)
    assert after.agreement == before.agreement


@pytest.mark.parametrize("make", BOTH)
def test_shapes_are_smoothed_and_filled(make):
    rough = OBJECT & ~drawn.disc(24, 24, 1)
    rough[24, 36:50] = True
    after = make(RefineSettings(smooth_px=1, fill_px=5)).refine(IMAGE, result(rough))
    assert not after.labels[24, 42:].any()
    assert after.labels[24, 24] == 1


@pytest.mark.parametrize("make", BOTH)
def test_implausible_objects_are_dropped_and_the_rest_numbered_anew(make):
    refiner = make(RefineSettings(limits=True), limits=Limits(area_frac=(0.02, 1.0)))
    before = result(drawn.disc(10, 50, 2), OBJECT)
    after = refiner.refine(IMAGE, before)
    assert after.objects == before.objects[1:]
    assert ((after.labels == 1) == OBJECT).all()


def test_missed_part_of_the_map_is_clicked():
    class Adds(drawn.Discs):
        def _mask(self, shape, prompts, radius):
            return drawn.disc(24, 24, 6) | drawn.disc(*drawn.positives(prompts)[-1], 4)

    before = result(drawn.disc(24, 24, 6), heat=drawn.flat(OBJECT))
    after = MapRefiner(Adds(), RefineSettings(clicks=1)).refine(IMAGE, before)
    missed = OBJECT & (before.labels == 0)
    assert after.labels[missed].mean() > 0.6


def test_without_a_map_nothing_is_clicked():
    machine = drawn.Discs()
    before = result(OBJECT)
    after = MapRefiner(machine, RefineSettings(clicks=3)).refine(IMAGE, before)
    np.testing.assert_array_equal(after.labels, before.labels)
    assert not machine.asked


def test_union_of_a_class_is_refused():
    union = Segmentation(3 * OBJECT.astype(np.int32), np.ones(1), (drawn.at(24, 24),))
    with pytest.raises(InputError, match="labels up to 3 for 1 objects"):
        ShapeRefiner(RefineSettings()).refine(IMAGE, union)


def test_map_of_another_size_is_refused():
    with pytest.raises(InputError, match=r"map of \(4, 4\) for labels of"):
        ShapeRefiner(RefineSettings()).refine(IMAGE, result(OBJECT, heat=np.eye(4)))


def test_nothing_found_stays_nothing():
    after = ShapeRefiner(RefineSettings(smooth_px=2)).refine(IMAGE, result())
    assert not after.labels.any()

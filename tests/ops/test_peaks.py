import numpy as np
import pytest

from napari_samic.core.errors import InputError
from napari_samic.core.settings import HeatMapSettings, PeakSettings
from napari_samic.core.types import HeatMap, Prompts
from napari_samic.ops.heatmaps import from_points, from_prompts
from napari_samic.ops.peaks import peaks, to_points


def clicks(*points, signs=None, box=None):
    points = np.reshape(points, (-1, 2))
    return Prompts(points, np.ones(len(points), bool) if signs is None else signs, box)


def island(shape, *slices, value=1.0):
    values = np.zeros(shape, np.float32)
    for part in slices:
        values[part] = value
    return values


def test_clicks_come_back_from_their_own_map():
    points = np.array([(30.0, 40.0), (100.0, 20.0), (60.0, 110.0)])
    found = to_points(from_points(points, (128, 128)))
    np.testing.assert_allclose(found[np.lexsort(found.T)], points[np.lexsort(points.T)], atol=0.05)


def test_strongest_peak_comes_first():
    values = island((20, 20), np.s_[2:4, 2:4], value=0.6)
    values[10:12, 10:12] = 0.9
    values[15:17, 2:4] = 0.7
    np.testing.assert_allclose(to_points(HeatMap(values)), [(10.5, 10.5), (15.5, 2.5), (2.5, 2.5)])


def test_pixels_at_the_threshold_are_outside():
    values = island((9, 9), np.s_[4, 4], value=0.5)
    assert to_points(HeatMap(values)).shape == (0, 2)
    assert len(to_points(HeatMap(values), threshold=0.49)) == 1


def test_corners_join_pixels_into_one_region():
    np.testing.assert_allclose(to_points(HeatMap(np.eye(5))), [(2, 2)])


def test_holes_are_filled_before_the_centroid():
    values = island((12, 12), np.s_[2:9, 2:9])
    values[4:8, 5:8] = 0  # off centre: without filling, the centroid would move
    np.testing.assert_allclose(to_points(HeatMap(values)), [(5, 5)])


def test_island_in_a_hole_belongs_to_the_outer_contour():
    values = island((13, 13), np.s_[1:12, 1:12])
    values[3:10, 3:10] = 0
    values[5, 5] = 1
    np.testing.assert_allclose(to_points(HeatMap(values)), [(6, 6)])


def test_low_map_is_found_only_when_normalised():
    heat_map = HeatMap(from_points([(30, 40)], (64, 64)).values * 0.2)
    assert to_points(heat_map).shape == (0, 2)
    assert len(to_points(heat_map, normalise=True)) == 1


def test_centroid_outside_a_horseshoe_snaps_to_its_maximum():
    values = island((11, 11), np.s_[1:10, 1:3], np.s_[1:10, 8:10], np.s_[8:10, 1:10], value=0.8)
    values[2, 9] = 0.9
    (centroid,) = to_points(HeatMap(values))
    assert values[tuple(np.rint(centroid).astype(int))] == 0
    np.testing.assert_allclose(to_points(HeatMap(values), snap_to_peak=True), [(2, 9)])


def test_centroid_inside_stays_when_snapping():
    values = island((11, 11), np.s_[2:7, 2:7], value=0.8)
    values[2, 2] = 0.9
    np.testing.assert_allclose(to_points(HeatMap(values), snap_to_peak=True), [(4, 4)])


def test_centroid_in_another_region_snaps_home():
    values = island((11, 11), np.s_[0:11, 0:2], np.s_[0:11, 9:11], np.s_[9:11, 0:11], value=0.8)
    (outer,) = np.rint(to_points(HeatMap(values))).astype(int)
    values[tuple(outer)] = 0.6
    values[0, 0] = 0.9
    found = to_points(HeatMap(values), snap_to_peak=True)
    np.testing.assert_allclose(found, [(0, 0), outer])


def test_specks_below_the_least_area_are_left_out():
    values = island((20, 20), np.s_[2:5, 2:5], np.s_[10, 10])
    np.testing.assert_allclose(to_points(HeatMap(values), min_area_px=2), [(3, 3)])
    assert len(to_points(HeatMap(values), min_area_px=1)) == 2
    assert to_points(HeatMap(values), min_area_px=10).shape == (0, 2)


@pytest.mark.parametrize("level", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("normalise", [True, False])
def test_constant_map_has_no_point(level, normalise):
    assert to_points(HeatMap(np.full((6, 6), level)), normalise=normalise).shape == (0, 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_map_that_is_not_finite_is_refused(bad):
    values = np.zeros((6, 6))
    values[1, 1] = bad
    with pytest.raises(InputError, match="1 values not finite"):
        to_points(HeatMap(values))


def test_peaks_return_to_the_pixels_of_the_original():
    objects = [clicks((120, 33.0)), clicks((301.0, 140.0))]
    shape = (400, 150)
    heat_map = from_prompts(objects, shape, 224, HeatMapSettings())
    found = peaks(heat_map, shape, PeakSettings(), 0.02)
    found = found[np.argsort(found[:, 0])]
    np.testing.assert_allclose(found, [(120, 33), (301, 140)], atol=0.5)


def test_peaks_map_by_pixel_centres_exactly():
    heat_map = HeatMap(island((10, 10), np.s_[4, 7]))
    settings = PeakSettings(min_area_frac=0.0)
    np.testing.assert_allclose(peaks(heat_map, (40, 20), settings, 0.02), [(17.5, 14.5)])


def test_paper_settings_cut_the_map_as_it_is():
    heat_map = HeatMap(from_points([(30, 40)], (64, 64)).values * 0.4)
    assert peaks(heat_map, (64, 64), PeakSettings.paper(), 0.02).shape == (0, 2)
    assert len(peaks(heat_map, (64, 64), PeakSettings(), 0.02)) == 1


def test_least_area_is_a_share_of_a_clicks_disc():
    # sigma 5 px: a quarter of pi * 25 is 19.6 px
    heat_map = HeatMap(island((100, 100), np.s_[10:14, 10:15], np.s_[50:53, 50:56]))
    assert len(peaks(heat_map, (100, 100), PeakSettings(), 0.05)) == 1
    assert len(peaks(heat_map, (100, 100), PeakSettings(min_area_frac=0.2), 0.05)) == 2


def test_plateau_of_the_background_hides_no_peak():
    values = np.full((60, 60), 0.49)
    values[10:15, 10:15], values[40:45, 40:45] = 0.93, 0.9
    heat_map = HeatMap(values)
    assert len(to_points(heat_map, normalise=True)) == 1  # the whole map is above half its maximum
    found = to_points(heat_map, normalise=True, subtract_background=True)
    assert found == pytest.approx(np.array([[12, 12], [42, 42]]))


def test_neighbours_that_touch_are_split_at_a_higher_cut():
    heat_map = from_points([[30, 24], [30, 41], [30, 80]], (60, 100), sigma_frac=0.06)
    assert len(to_points(heat_map)) == 2
    found = to_points(heat_map, split_peaks=True)
    assert sorted(np.rint(found[:, 1]).tolist()) == pytest.approx([24, 41, 80], abs=2)


def test_lone_peak_is_left_whole_by_splitting():
    heat_map = from_points([[20, 31]], (64, 64), sigma_frac=0.05)
    assert to_points(heat_map, split_peaks=True) == pytest.approx(to_points(heat_map))

import doctest
import subprocess
import sys

import numpy as np
import pytest

from napari_samic import heatmaps
from napari_samic.contracts import HeatMap, Prompts
from napari_samic.errors import InputError, PromptError, SettingsError
from napari_samic.heatmaps import combine_maps, from_points, from_prompts, peaks, to_points
from napari_samic.settings import HeatMapSettings, PeakSettings


def clicks(*points, signs=None, box=None):
    points = np.reshape(points, (-1, 2))
    return Prompts(points, np.ones(len(points), bool) if signs is None else signs, box)


def island(shape, *slices, value=1.0):
    values = np.zeros(shape, np.float32)
    for part in slices:
        values[part] = value
    return values


def test_example_in_the_docstring_runs():
    assert doctest.testmod(heatmaps).failed == 0


def test_array_rooms_import_no_torch():
    code = (
        "import sys, napari_samic.heatmaps, napari_samic.metrics, napari_samic.prompts;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_one_point_draws_the_gaussian_of_the_paper():
    values = from_points([(30, 40)], (100, 100), sigma_frac=0.05).values
    rows, columns = np.mgrid[:100, :100]
    expected = np.exp(-((rows - 30) ** 2 + (columns - 40) ** 2) / (2 * 5.0**2))
    np.testing.assert_allclose(values, expected, atol=1e-6)
    assert values.dtype == np.float32


def test_sigma_follows_each_axis():
    values = from_points([(50, 100)], (100, 200), sigma_frac=0.02).values
    one_sigma = np.exp(-0.5)
    assert values[52, 100] == pytest.approx(one_sigma, abs=1e-6)
    assert values[50, 104] == pytest.approx(one_sigma, abs=1e-6)


def test_points_add_up_and_the_maximum_is_one():
    values = from_points([(20, 20), (20, 20), (60, 60)], (100, 100)).values
    assert values.max() == 1.0
    assert values[60, 60] == pytest.approx(0.5, abs=1e-5)


def test_lone_click_beside_a_cluster_survives_max():
    values = from_points([(20, 20), (20, 20), (60, 60)], (100, 100), combine="max").values
    assert values[60, 60] == pytest.approx(1.0, abs=1e-5)


def test_point_between_pixels_of_a_thin_gaussian_is_still_drawn():
    values = from_points([(0.5, 3.5)], (8, 8), sigma_frac=0.001).values
    assert np.isfinite(values).all()
    assert values.max() == 1.0


@pytest.mark.parametrize(
    ("points", "message"),
    [
        pytest.param([], "no point to draw", id="none"),
        pytest.param(np.zeros((0, 2)), "no point to draw", id="none_of_shape_0_2"),
        pytest.param([(10, 3)], r"row 10, column 3 is outside the image of 10 x 8", id="below"),
        pytest.param([(1, 1), (3, -1)], "column -1 is outside", id="left"),
        pytest.param([(1, np.nan)], "not a finite number", id="nan"),
        pytest.param([1, 2], r"shape \(2,\), expected \(N, 2\)", id="flat"),
    ],
)
def test_points_that_make_no_sense_are_refused(points, message):
    with pytest.raises(PromptError, match=message):
        from_points(points, (10, 8))


def test_map_without_pixels_is_refused():
    with pytest.raises(InputError, match=r"shape \(0, 8\) has no pixels"):
        from_points([(1, 1)], (0, 8))


@pytest.mark.parametrize("sigma_frac", [0, -1, np.nan, np.inf])
def test_sigma_must_be_above_zero(sigma_frac):
    with pytest.raises(SettingsError, match=r"sigma_frac is .* expected a number above 0"):
        from_points([(1, 1)], (8, 8), sigma_frac=sigma_frac)


def test_unknown_way_to_combine_is_refused():
    with pytest.raises(SettingsError, match="combine is 'mean', expected 'sum' or 'max'"):
        from_points([(1, 1)], (8, 8), combine="mean")


def test_prompts_land_on_the_square_grid_by_pixel_centres():
    # 4x fewer rows, 2x fewer columns: (41.5 + .5) / 4 - .5 = 10, (20.5 + .5) / 2 - .5 = 10
    values = from_prompts([clicks((41.5, 20.5))], (224, 112), 56, HeatMapSettings()).values
    assert values.shape == (56, 56)
    assert np.unravel_index(values.argmax(), values.shape) == (10, 10)
    np.testing.assert_allclose(values, values.T, atol=1e-6)


def test_all_objects_are_drawn_and_negative_points_are_not():
    objects = [clicks((8, 8), (40, 8), signs=[True, False]), clicks((8, 40))]
    values = from_prompts(objects, (56, 56), 56, HeatMapSettings()).values
    assert values[8, 8] > 0.9
    assert values[8, 40] > 0.9
    assert values[40, 8] < 1e-6


def test_box_gives_its_centre_only_without_a_positive_point():
    box = [10, 20, 30, 44]
    settings = HeatMapSettings()
    alone = from_prompts([clicks(box=box)], (64, 64), 64, settings).values
    assert np.unravel_index(alone.argmax(), alone.shape) == (20, 32)
    clicked = from_prompts([clicks((12, 22), box=box)], (64, 64), 64, settings).values
    assert clicked[20, 32] < 1e-6


def test_settings_reach_the_drawing():
    objects = [clicks((20, 20), (20, 20)), clicks((60, 60))]
    wide = HeatMapSettings(sigma_frac=0.1, combine="max")
    values = from_prompts(objects, (100, 100), 100, wide).values
    assert values[60, 60] == pytest.approx(1.0, abs=1e-3)
    assert values[60, 70] == pytest.approx(np.exp(-0.5), abs=1e-3)


@pytest.mark.parametrize("side", [7, 13, 100, 333])
def test_click_on_the_very_edge_is_not_lost_to_rounding(side):
    for height in range(3, 60):
        values = from_prompts(
            [clicks((height - 0.5, height - 0.5))], (height, height), side, HeatMapSettings()
        ).values
        assert values[-1, -1] == 1.0


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        pytest.param([], "no positive point and no box", id="nothing"),
        pytest.param([clicks((3, 3), signs=[False])], "no positive point", id="negative_only"),
        pytest.param([clicks((3, 3)), clicks((3, 99))], "column 99 is outside", id="outside"),
    ],
)
def test_prompts_without_a_place_are_refused(objects, message):
    with pytest.raises(PromptError, match=message):
        from_prompts(objects, (50, 50), 56, HeatMapSettings())


def test_k_maps_join_by_their_plain_mean():
    maps = [HeatMap(np.full((2, 3), v)) for v in (0.1, 0.2, 0.9)]
    np.testing.assert_allclose(combine_maps(maps).values, 0.4, rtol=1e-6)


def test_weights_shift_the_mean():
    maps = [HeatMap(np.full((2, 3), v)) for v in (0.0, 1.0)]
    np.testing.assert_allclose(combine_maps(maps, weights=[1, 3]).values, 0.75)


@pytest.mark.parametrize(
    ("maps", "weights", "message"),
    [
        pytest.param([], None, "shape none", id="no_map"),
        pytest.param([np.ones((2, 2)), np.ones((2, 3))], None, r"\(2, 2\) and \(2, 3\)", id="mix"),
        pytest.param([np.full((2, 2), np.nan)], None, "4 values not finite", id="nan"),
        pytest.param([np.ones((2, 2))], [0.0], "weights .* for 1 maps", id="zero_weight"),
        pytest.param([np.ones((2, 2))], [1.0, 2.0], "weights .* for 1 maps", id="two_weights"),
        pytest.param([np.ones((2, 2))] * 2, [2.0, -1.0], "none below 0", id="negative_weight"),
        pytest.param([np.ones((2, 2))], [np.nan], "weights", id="nan_weight"),
    ],
)
def test_maps_that_cannot_be_joined_are_refused(maps, weights, message):
    with pytest.raises(InputError, match=message):
        combine_maps([HeatMap(m) for m in maps], weights=weights)


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


def test_floor_silences_a_map_of_noise():
    heat_map = HeatMap(from_points([(30, 40)], (64, 64)).values * 0.2)
    assert to_points(heat_map, normalise=True, floor=0.3).shape == (0, 2)
    assert len(to_points(heat_map, normalise=True, floor=0.1)) == 1


def test_floor_is_only_used_with_normalise():
    heat_map = HeatMap(from_points([(30, 40)], (64, 64)).values * 0.8)
    assert len(to_points(heat_map, floor=0.9)) == 1


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

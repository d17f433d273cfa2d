import doctest
import subprocess
import sys

import numpy as np
import pytest

from napari_samic.core.errors import InputError, PromptError, SettingsError
from napari_samic.core.settings import HeatMapSettings
from napari_samic.core.types import Prompts
from napari_samic.ops import heatmaps
from napari_samic.ops.heatmaps import from_points, from_prompts


def clicks(*points, signs=None, box=None):
    points = np.reshape(points, (-1, 2))
    return Prompts(points, np.ones(len(points), bool) if signs is None else signs, box)


def test_example_in_the_docstring_runs():
    assert doctest.testmod(heatmaps).failed == 0


def test_array_rooms_import_no_torch():
    code = (
        "import sys, napari_samic.ops.heatmaps, napari_samic.evaluation.metrics;"
        "import napari_samic.io.prompts;"
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


def test_agreement_is_high_for_maps_that_point_to_the_same_places():
    same = from_points([(10, 30)], (50, 100)).values
    near = from_points([(11, 31)], (50, 100)).values
    far = from_points([(40, 80)], (50, 100)).values
    assert heatmaps.agreement([same, same, same]) == 1.0
    assert 0.5 < heatmaps.agreement([same, near]) < 1.0
    assert heatmaps.agreement([same, far]) == 0.0
    assert heatmaps.agreement([same, same, far]) < heatmaps.agreement([same, same, near])
    assert heatmaps.agreement([0.5 * same, same]) == 1.0  # as strong or not
    assert heatmaps.agreement(np.zeros((2, 4, 4))) == 0.0

"""Raw pixels to RGB, the same way for a whole data set."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from napari_samic.core.errors import FormatError, ImageReadError, InputError
from napari_samic.core.types import ImagePlane, LazyImage
from napari_samic.io.images import open_images
from napari_samic.io.normalize import Normalization, fit_normalization, open_rgb, read_rgb
from napari_samic.io.text_files import pixels_sha256

RNG = np.random.default_rng(0)


def plane_of(array: np.ndarray, name: str = "image") -> ImagePlane:
    return ImagePlane(name, (), lambda: array)


def test_colour_of_8_bits_is_left_as_it_is() -> None:
    image = RNG.integers(60, 90, (6, 7, 3), dtype=np.uint8)
    normalization = fit_normalization([plane_of(image)])
    np.testing.assert_array_equal(read_rgb(plane_of(image), normalization), image)


def test_alpha_is_dropped() -> None:
    image = RNG.integers(0, 255, (6, 7, 4), dtype=np.uint8)
    rgb = read_rgb(plane_of(image), fit_normalization([plane_of(image)]))
    np.testing.assert_array_equal(rgb, image[..., :3])


def test_range_is_the_data_sets_not_the_images() -> None:
    dim, bright = (np.linspace(0, top, 64).reshape(8, 8) for top in (100, 1000))
    planes = open_images([dim, bright])
    normalization = fit_normalization(planes, percentiles=(0, 100))
    assert (normalization.low, normalization.high) == ((0.0,), (1000.0,))
    assert read_rgb(planes[0], normalization).max() == 26
    assert read_rgb(planes[1], normalization).max() == 255


def test_each_channel_has_its_own_range() -> None:
    cube = np.stack([np.linspace(a, b, 36).reshape(6, 6) for a, b in ((0, 1), (5, 9))], axis=-1)
    normalization = fit_normalization(open_images(cube, axes="YXC"), percentiles=(0, 100))
    assert (normalization.low, normalization.high) == ((0.0, 5.0), (1.0, 9.0))


@pytest.mark.parametrize(
    ("shape", "channels", "expected"),
    [
        pytest.param((6, 7), None, (0, 0, 0), id="one_is_grey"),
        pytest.param((6, 7, 2), None, (0, 1, None), id="two_are_red_and_green"),
        pytest.param((6, 7, 3), None, (0, 1, 2), id="three_are_rgb"),
        pytest.param((6, 7, 5), (4,), (4, 4, 4), id="chosen_grey"),
        pytest.param((6, 7, 5), (3, 1), (3, 1, None), id="chosen_pair"),
        pytest.param((6, 7, 4), (3, 0, 1), (3, 0, 1), id="chosen_three"),
    ],
)
def test_channel_map(
    shape: tuple[int, ...], channels: tuple[int, ...] | None, expected: tuple[int | None, ...]
) -> None:
    cube = RNG.integers(0, 5000, shape, dtype=np.uint16)
    planes = open_images(cube, axes="YXC"[: cube.ndim])
    rgb = read_rgb(planes[0], fit_normalization(planes, channels=channels))
    channel = cube[..., None] if cube.ndim == 2 else cube
    for place, number in enumerate(expected):
        if number is None:
            assert not rgb[..., place].any()
        else:
            agreement = np.corrcoef(rgb[..., place].ravel(), channel[..., number].ravel())[0, 1]
            assert agreement > 0.999


@pytest.mark.parametrize(
    ("shape", "dtype", "channels", "message"),
    [
        pytest.param((6, 7, 5), "u1", None, r"5 channels \(0 to 4\).*channels=", id="five"),
        pytest.param((6, 7, 4), "u2", None, r"4 channels \(0 to 3\)", id="four_of_16_bits"),
        pytest.param((6, 7, 5), "u2", (5,), r"channels \(5,\) asked for.*0 to 4", id="beyond"),
        pytest.param((6, 7, 5), "u2", (0, 1, 2, 3), "one to three", id="four_chosen"),
        pytest.param((6, 7, 5), "u2", (1, 0, 1), "twice", id="twice"),
    ],
)
def test_channels_must_be_chosen_within_what_is_there(
    shape: tuple[int, ...], dtype: str, channels: tuple[int, ...] | None, message: str
) -> None:
    planes = open_images(np.zeros(shape, dtype), axes="YXC")
    with pytest.raises(InputError, match=message):
        fit_normalization(planes, channels=channels)


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.full((6, 7), 7, np.uint8), id="uint8"),
        pytest.param(np.full((6, 7), 1e20, np.float64), id="huge_float"),
        pytest.param(np.zeros((6, 7), np.int32), id="zeros"),
        pytest.param(np.ones((6, 7), np.bool_), id="bool"),
    ],
)
def test_constant_data_has_a_valid_range(array: np.ndarray) -> None:
    normalization = fit_normalization([plane_of(array)])
    assert normalization.high > normalization.low
    assert len(np.unique(read_rgb(plane_of(array), normalization))) == 1


def test_rare_bright_spots_are_not_lost_to_the_percentiles() -> None:
    array = np.zeros((100, 100), np.uint16)
    array[50, 50:52] = 1000, 500
    rgb = read_rgb(plane_of(array), fit_normalization([plane_of(array)]))
    assert rgb[50, 49:52, 0].tolist() == [0, 255, 128]


def test_bool_image_is_black_and_white() -> None:
    array = np.eye(6, dtype=np.bool_)
    rgb = read_rgb(plane_of(array), fit_normalization([plane_of(array)]))
    np.testing.assert_array_equal(rgb[..., 1], np.eye(6) * 255)


def test_grey_image_among_colour_images_is_replicated() -> None:
    grey = RNG.integers(0, 255, (6, 7), dtype=np.uint8)
    planes = [plane_of(grey), plane_of(np.zeros((6, 7, 3), np.uint8))]
    rgb = read_rgb(planes[0], fit_normalization(planes))
    np.testing.assert_array_equal(rgb, np.dstack([grey] * 3))


def test_channel_alone_is_seen_as_in_an_image_of_all_channels() -> None:
    pair = RNG.integers(0, 4000, (6, 7, 2), dtype=np.uint16)
    fitted = replace(fit_normalization([plane_of(pair[..., 1])]), channels=(1,), channel_count=0)
    alone, both = (read_rgb(plane_of(pixels), fitted) for pixels in (pair[..., 1], pair))
    np.testing.assert_array_equal(alone, both)


@pytest.mark.parametrize(
    ("fitted", "other", "message"),
    [
        pytest.param((6, 7), (6, 7, 3), "odd: 3 channels, expected 1", id="colour_among_grey"),
        pytest.param((6, 7, 2), (6, 7), "odd: 1 channel, expected 2", id="grey_among_pairs"),
        pytest.param((6, 7, 3), (6, 7, 5), "odd: 5 channels, expected 3", id="five_among_rgb"),
    ],
)
def test_plane_with_other_channels_is_named(
    fitted: tuple[int, ...], other: tuple[int, ...], message: str
) -> None:
    normalization = fit_normalization([plane_of(np.zeros(fitted, np.uint16))])
    with pytest.raises(InputError, match=message):
        read_rgb(plane_of(np.zeros(other, np.uint16), "odd"), normalization)


def test_sample_is_evenly_spaced_and_capped() -> None:
    read: list[int] = []

    def reader(number: int) -> np.ndarray:
        read.append(number)
        return np.full((4, 4), number, np.uint16)

    planes = [ImagePlane("s", (i,), partial(reader, i), (101,)) for i in range(101)]
    fit_normalization(planes, max_planes=5)
    assert read == [0, 25, 50, 75, 100]


def test_unreadable_planes_are_passed_over_until_none_is_left(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
    bad = open_images(tmp_path)
    good = plane_of(np.zeros((6, 7), np.uint8))
    assert fit_normalization([*bad, good]).channels == (0,)
    with pytest.raises(ImageReadError, match=r"a\.png"):
        fit_normalization(bad)


def test_no_planes_are_refused() -> None:
    with pytest.raises(InputError, match="no images"):
        fit_normalization([])


def test_normalization_survives_json() -> None:
    before = Normalization((0.5, 1.0), (2.0, 3.5), (4, 1), 6)
    assert Normalization.from_dict(json.loads(json.dumps(before.to_dict()))) == before


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"low": [0], "high": [1]}, id="missing"),
        pytest.param({"low": [0], "high": [0], "channels": [0]}, id="empty_range"),
        pytest.param({"low": [0], "high": ["x"], "channels": [0]}, id="text"),
        pytest.param({"low": [0], "high": [1], "channels": [0, 1]}, id="lengths"),
    ],
)
def test_damaged_normalization_is_a_format_error(values: dict[str, list[object]]) -> None:
    with pytest.raises(FormatError, match=r"normalisation: .*damaged"):
        Normalization.from_dict(values)


def test_pixels_that_cannot_reach_half_of_the_range_are_of_another_scale() -> None:
    image = RNG.integers(0, 255, (8, 8)).astype(np.uint8)
    read_rgb(plane_of(image), Normalization((0.0,), (400.0,), (0,), 1, "uint16"), is_strict=True)
    wide = Normalization((77.0,), (3643.0,), (0,), 1, "uint16")
    read_rgb(plane_of(np.zeros_like(image)), wide, is_strict=True)  # a blank one
    read_rgb(plane_of(image.astype(np.uint16)), wide, is_strict=True)  # a dark one
    with pytest.raises(InputError, match=r"uint8 from .* 77 to 3643 uint16"):
        read_rgb(plane_of(image), wide, is_strict=True)


@pytest.mark.parametrize("is_strict", [False, True])
def test_image_is_looked_through_once(is_strict: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.linspace(0, 9, 64).reshape(8, 8)
    normalization = Normalization((0.0,), (9.0,), (0,), 1, "float64")
    looked, isfinite = [], np.isfinite
    monkeypatch.setattr(
        np, "isfinite", lambda a, **k: [looked.append(np.shape(a)), isfinite(a, **k)][1]
    )
    read_rgb(plane_of(image), normalization, is_strict=is_strict)
    assert looked.count((8, 8)) == 1


@pytest.mark.parametrize("channels", [(0,), (0, 1), (0, 1, 2), (2, 1, 0)])
def test_image_is_no_view_of_the_pixels(channels: tuple[int, ...]) -> None:
    stored = RNG.integers(0, 255, (8, 8, 3)).astype(np.uint8)
    count = len(channels)
    normalization = Normalization((0.0,) * count, (255.0,) * count, channels, 3, "uint8")
    image = normalization.apply(stored)
    np.testing.assert_array_equal(image[..., :count], stored[..., channels])
    assert not np.shares_memory(image, stored)


def test_image_that_fits_until_it_is_scaled_is_one_line() -> None:
    giant = np.broadcast_to(np.uint16(7), (10**7, 10**7))
    normalization = Normalization((0.0,), (9.0,), (0,))
    with pytest.raises(ImageReadError, match=r"^giant: it needs more memory than there is"):
        read_rgb(plane_of(giant, "giant"), normalization)


# --- large images -------------------------------------------------------------------------------

LARGE = (4099, 4111)
IDENTITY = Normalization((0.0,), (255.0,), (0,))


def large_plane(low: int = 0, high: int = 4000) -> ImagePlane:
    ramp = np.linspace(low, high, LARGE[0]).astype(np.uint16)[:, None]
    return open_images(ramp + (np.arange(LARGE[1]) % 7).astype(np.uint16))[0]


def test_large_image_read_in_parts_is_the_whole() -> None:
    plane = large_plane()
    normalization = Normalization((0.0,), (4000.0,), (0,), 1, "uint16")
    lazy, whole = open_rgb(plane, normalization), read_rgb(plane, normalization)
    assert isinstance(lazy, LazyImage)
    assert lazy.shape == whole.shape
    np.testing.assert_array_equal(lazy[2000:2600, 17:1040], whole[2000:2600, 17:1040])
    np.testing.assert_array_equal(lazy, whole)
    assert pixels_sha256(lazy) == pixels_sha256(whole)


def test_large_image_is_read_once_for_its_hash() -> None:
    reads = []
    plane = large_plane()
    read = plane.read_part
    assert read is not None

    def counted(rows: slice, columns: slice) -> Any:
        reads.append(rows)
        return read(rows, columns)

    lazy = open_rgb(replace(plane, read_part=counted), Normalization((0.0,), (4000.0,), (0,)))
    first = pixels_sha256(lazy)
    count = len(reads)
    assert pixels_sha256(lazy) == first
    assert len(reads) == count


def test_small_image_is_read_at_once() -> None:
    image = RNG.integers(0, 255, (60, 70), dtype=np.uint8)
    assert isinstance(open_rgb(open_images(image)[0], IDENTITY), np.ndarray)


def test_scale_of_a_large_image_is_that_of_the_whole() -> None:
    wide = Normalization((0.0,), (0.5,), (0,), 1, "float32")
    plane = large_plane(40_000, 60_000)
    for read in (read_rgb, open_rgb):
        with pytest.raises(InputError, match="uint16 from 40001 to 60000"):
            read(plane, wide, is_strict=True)
    taken = replace(wide, outside=Normalization((40_000.0,), (60_000.0,), (0,), 1, "uint16"))
    lines: list[str] = []
    lazy = open_rgb(plane, taken, is_strict=True, tell=lines.append)
    assert len(lines) == 1
    np.testing.assert_array_equal(lazy, read_rgb(plane, taken))


def test_whole_of_an_image_larger_than_the_memory_is_refused() -> None:
    huge = zarr.create_array({}, shape=(2**20, 2**19), chunks=(2**15, 2**15), dtype="u1")
    (plane,) = open_images(huge)
    assert plane.read_part is not None
    with pytest.raises(ImageReadError, match="memory"):
        plane.read_part(slice(0, 2**20), slice(0, 2**19))


def test_large_image_with_nan_is_refused_before_it_is_used() -> None:
    image = np.zeros(LARGE, np.float32)
    image[3000, 7] = np.nan
    with pytest.raises(InputError, match=r"1 of .* NaN"):
        open_rgb(open_images(image)[0], Normalization((0.0,), (1.0,), (0,)))

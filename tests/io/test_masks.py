"""Reading masks, and pairing them with their images."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage

from napari_samic.core.errors import InputError
from napari_samic.core.label_objects import LabelObjects
from napari_samic.core.types import ImagePlane, run_job
from napari_samic.export.coco import coco_tree
from napari_samic.export.geojson import geojson_tree
from napari_samic.io.images import open_images
from napari_samic.io.masks import class_numbers, match_by_stem, meaning_of, read_labels, read_mask

RNG = np.random.default_rng(0)


def save_png(path: Path, array: np.ndarray | None = None) -> Path:
    pixels = np.zeros((6, 7, 3), np.uint8) if array is None else array
    PillowImage.fromarray(pixels).save(path)
    return path


def plane_of(array: np.ndarray, name: str = "image") -> ImagePlane:
    return ImagePlane(name, (), lambda: array)


IDS = np.arange(42).reshape(6, 7)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        pytest.param(((IDS % 2) * 255).astype(np.uint8), IDS % 2, id="black_and_white"),
        pytest.param(((IDS % 2) * 65535).astype(np.uint16), IDS % 2, id="black_and_white_16"),
        pytest.param(IDS.astype(np.uint8), IDS, id="numbers"),
        pytest.param((IDS * 1000).astype(np.uint16), IDS * 1000, id="numbers_16"),
        pytest.param(np.dstack([IDS] * 3).astype(np.uint8), IDS, id="equal_channels"),
    ],
)
def test_png_masks(tmp_path: Path, stored: np.ndarray, expected: np.ndarray) -> None:
    labels = read_labels(save_png(tmp_path / "m.png", stored))
    np.testing.assert_array_equal(labels, expected)
    assert labels.dtype == np.int32


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_numbers_in_a_colour_png_of_16_bits_are_read(tmp_path: Path, channels: int) -> None:
    numbers = np.arange(42, dtype=np.uint16).reshape(6, 7)
    pixels = np.stack([numbers] * channels, axis=-1)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), numbers)


def test_palette_mask_gives_numbers_not_colours(tmp_path: Path) -> None:
    image = PillowImage.fromarray(IDS.astype(np.uint8)).convert("P")
    image.putpalette([255 - i // 3 for i in range(768)])
    image.putdata(IDS.ravel().tolist())
    image.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "m.png"), IDS)


@pytest.mark.parametrize("dtype", ["i4", "u4", "i8", "f4", "f8"])
def test_tiff_masks_of_whole_numbers(tmp_path: Path, dtype: str) -> None:
    tifffile.imwrite(tmp_path / "m.tif", (IDS * 1000).astype(dtype))
    np.testing.assert_array_equal(read_labels(tmp_path / "m.tif"), IDS * 1000)


@pytest.mark.parametrize(
    ("name", "stored", "message"),
    [
        pytest.param("m.tif", np.full((6, 7), 0.5), "value 0.5 in a mask", id="fractions"),
        pytest.param("m.tif", IDS.astype("i4") - 1, "values from -1 to 40", id="negative"),
        pytest.param("m.tif", IDS.astype("u4") + 2**31, "expected 0", id="too_large"),
        pytest.param("m.tif", np.full((6, 7), np.nan), "NaN", id="nan"),
        pytest.param("m.tif", np.zeros((2, 6, 7), "u1"), "stack of 2 planes", id="stack"),
        pytest.param(
            "m.png", np.dstack([IDS, IDS, IDS + 1]).astype("u1"), "3 different", id="colours"
        ),
        pytest.param("m.jpg", (IDS * 6).astype("u1"), "JPEG mask", id="jpeg"),
    ],
)
def test_masks_that_are_no_labels_are_refused(
    tmp_path: Path, name: str, stored: np.ndarray, message: str
) -> None:
    if name.endswith("tif"):
        tifffile.imwrite(tmp_path / name, stored, photometric="minisblack")
    else:
        save_png(tmp_path / name, stored)
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / name)


@pytest.mark.parametrize("suffix", ["", "_mask", "_masks", "_label", "_labels", "_seg", "_MASK"])
def test_masks_are_found_by_stem(tmp_path: Path, suffix: str) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    for stem in ("a", "b_1"):
        save_png(images / f"{stem}.png")
        tifffile.imwrite(masks / f"{stem}{suffix}.tif", IDS.astype(np.int32))
    found = match_by_stem(open_images(images), masks)
    assert {k: p.name for k, p in found.items()} == {
        "a": f"a{suffix}.tif",
        "b_1": f"b_1{suffix}.tif",
    }


def test_images_and_masks_may_share_a_folder(tmp_path: Path) -> None:
    image = save_png(tmp_path / "a.png")
    save_png(tmp_path / "a_mask.png")
    assert match_by_stem(open_images(image), tmp_path)["a"].name == "a_mask.png"


def test_missing_masks_are_named_at_once_up_to_five(tmp_path: Path) -> None:
    save_png(tmp_path / "i0_mask.png")
    planes = [ImagePlane(f"i{n}", (), lambda: IDS) for n in range(8)]
    with pytest.raises(InputError, match=r"no mask for i1, i2, i3, i4, i5 and 2 more\."):
        match_by_stem(planes, tmp_path)


def test_two_masks_of_one_image_are_refused(tmp_path: Path) -> None:
    for name in ("a_mask.png", "a_seg.png"):
        save_png(tmp_path / name)
    with pytest.raises(InputError, match=r"a_mask\.png and a_seg\.png are both masks of 'a'"):
        match_by_stem([plane_of(IDS, "a")], tmp_path)


def test_mask_stack_is_read_at_the_place_of_its_plane(tmp_path: Path) -> None:
    masks = RNG.integers(0, 9, (2, 3, 6, 7)).astype(np.int32)
    tifffile.imwrite(tmp_path / "image_mask.tif", masks, photometric="minisblack")
    planes = open_images(np.zeros((2, 3, 6, 7)))
    paths = match_by_stem(planes, tmp_path)
    for plane in planes:
        labels = read_mask(plane, paths[plane.label], shape=(6, 7))
        np.testing.assert_array_equal(labels, masks[plane.index])


def packed_stack(path: Path, count: int = 30) -> np.ndarray:
    masks = RNG.integers(0, 9, (count, 6, 7)).astype(np.int32)
    tifffile.imwrite(path, masks, photometric="minisblack", compression="zlib")
    return masks


def test_mask_stack_is_opened_once_for_all_planes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = packed_stack(tmp_path / "image.tif")
    planes = open_images(np.zeros((30, 6, 7)))
    read_mask(planes[0], tmp_path / "image.tif")
    parsed: list[object] = []
    make = tifffile.TiffFrame.__init__
    monkeypatch.setattr(
        tifffile.TiffFrame, "__init__", lambda *a, **k: [parsed.append(a), make(*a, **k)][1]
    )
    for number in (1, 29):
        labels = read_mask(planes[number], tmp_path / "image.tif")
        np.testing.assert_array_equal(labels, masks[number])
    assert not parsed


@pytest.mark.parametrize("count", [30, 20])
def test_mask_stack_that_was_written_anew_is_read_anew(tmp_path: Path, count: int) -> None:
    path = tmp_path / "image.tif"
    for length in (30, count):
        masks = packed_stack(path, length)
        planes = open_images(np.zeros((length, 6, 7)))
        np.testing.assert_array_equal(read_mask(planes[7], path), masks[7])


def test_mask_that_could_not_be_opened_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = packed_stack(tmp_path / "image.tif")
    (plane, *_) = open_images(np.zeros((30, 6, 7)))

    def full(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(tifffile, "TiffFile", full)
        with pytest.raises(InputError):
            read_mask(plane, tmp_path / "image.tif")
    np.testing.assert_array_equal(read_mask(plane, tmp_path / "image.tif"), masks[0])


@pytest.mark.parametrize(
    ("image_shape", "mask_shape", "message"),
    [
        pytest.param((3, 6, 7), (2, 6, 7), r"mask stack \(2,\) for an image stack", id="lengths"),
        pytest.param((3, 6, 7), (6, 7), "one mask for the stack", id="one_for_many"),
        pytest.param((6, 7), (2, 6, 7), "mask stack", id="many_for_one"),
        pytest.param((6, 7), (5, 7), r"mask of \(5, 7\) for the image image", id="size"),
    ],
)
def test_mask_of_another_shape_is_refused(
    tmp_path: Path, image_shape: tuple[int, ...], mask_shape: tuple[int, ...], message: str
) -> None:
    tifffile.imwrite(tmp_path / "image.tif", np.zeros(mask_shape, np.int32))
    plane = open_images(np.zeros(image_shape))[0]
    with pytest.raises(InputError, match=message):
        read_mask(plane, tmp_path / "image.tif", shape=(6, 7))


def test_broken_links_among_masks_are_told(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        save_png(tmp_path / folder / "a.png")
    planes = [*open_images(tmp_path / "images"), plane_of(np.zeros((6, 7)), "b")]
    (tmp_path / "masks" / "b.png").symlink_to("nowhere")
    lines: list[str] = []
    match_by_stem(planes, tmp_path / "masks", require_all=False, tell=lines.append)
    [line] = lines
    assert line.endswith(": b.png.")
    with pytest.raises(InputError, match=r"no mask for b.*1 broken link left out: b\.png"):
        match_by_stem(planes, tmp_path / "masks")


def test_broken_links_beside_images_and_masks_are_told_with_the_images(tmp_path: Path) -> None:
    for name in ("a.png", "a_mask.png"):
        save_png(tmp_path / name)
    (tmp_path / "b.png").symlink_to("nowhere")
    lines: list[str] = []
    planes = open_images(tmp_path / "a.png")
    match_by_stem(planes, tmp_path, tell=lines.append)
    assert lines == []


def test_outlines_are_matched_by_the_names_in_a_coco_file(tmp_path: Path) -> None:
    images = [LabelObjects(f"s[{i}]", IDS * (i + 1 == IDS)) for i in range(2)]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(coco_tree([*images, LabelObjects("other", IDS)])))
    planes, lines = open_images(np.zeros((2, *IDS.shape))), list[str]()
    planes = [replace(plane, name="s") for plane in planes]
    paths = match_by_stem(planes, path, tell=lines.append)
    assert lines == ["masks without an image of their name, left out: other."]
    for i, plane in enumerate(planes):
        labels = read_mask(plane, paths[plane.label], shape=IDS.shape)
        np.testing.assert_array_equal(labels > 0, i + 1 == IDS)
    assert run_job(meaning_of(paths.values())).line.startswith("masks are outlines")
    with pytest.raises(InputError, match=r"instances\.json: outlines, which have no values"):
        run_job(meaning_of(paths.values(), "1=object"))


def test_geojson_files_of_a_folder_are_matched_as_masks_are(tmp_path: Path) -> None:
    plane = plane_of(IDS, "a")
    tree = geojson_tree(LabelObjects("", IDS))
    (tmp_path / "A_mask.geojson").write_text(json.dumps(tree))
    path = match_by_stem([plane], tmp_path)["a"]
    np.testing.assert_array_equal(read_mask(plane, path, shape=IDS.shape), IDS)
    other = save_png(tmp_path / "b.png")
    assert class_numbers([path]) == {"class 1": 1}
    assert class_numbers([path, other]) == {"class 1": 1, "object": 2}  # masks are of no class
    save_png(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png and A_mask\.geojson are both masks of 'a'"):
        match_by_stem([plane], tmp_path)

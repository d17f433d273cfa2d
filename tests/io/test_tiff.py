"""TIFFs: series, sets of OME-TIFFs, and pixels as viewers show them."""

from __future__ import annotations

import pickle
import re
import shutil
import struct
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage
from toys import TURNED

from napari_samic.core.errors import ImageReadError, InputError
from napari_samic.core.types import ImagePlane
from napari_samic.io.images import open_images
from napari_samic.io.masks import match_by_stem, read_labels, read_mask

RNG = np.random.default_rng(0)
GREY: dict[str, Any] = {"photometric": "minisblack", "metadata": None}
SPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def pixels(*shape: int, dtype: str = "u1") -> np.ndarray:
    return RNG.integers(1, 200, shape).astype(dtype)


def opened(source: Any, **options: Any) -> tuple[list[ImagePlane], list[str]]:
    """Planes, and the lines that were told."""
    lines: list[str] = []
    return open_images(source, tell=lines.append, **options), lines


def write_pages(path: Path, pages: Sequence[np.ndarray], reduced: int = -1) -> Path:
    with tifffile.TiffWriter(path) as file:
        for number, page in enumerate(pages):
            file.write(page, subfiletype=int(number == reduced), **GREY)
    return path


def write_set(
    folder: Path, pages: Sequence[np.ndarray], *, images: int = 1, last: str | None = None
) -> list[Path]:
    """An OME-TIFF set of one file a page, each with the metadata of all `images`.

    These call the last file `last`.
    """
    names = [f"set_{n}.ome.tif" for n in range(len(pages))]
    ids = [f"urn:uuid:{uuid.uuid4()}" for _ in names]
    per, xml = len(pages) // images, ""
    listed = [*names[:-1], names[-1] if last is None else escape(last)]
    for image in range(images):
        parts = "".join(
            f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1">'
            f'<UUID FileName="{listed[image * per + z]}">{ids[image * per + z]}</UUID></TiffData>'
            for z in range(per)
        )
        rows, columns = pages[0].shape
        xml += (
            f'<Image ID="Image:{image}"><Pixels ID="Pixels:{image}" DimensionOrder="XYZCT" '
            f'Type="uint8" SizeX="{columns}" SizeY="{rows}" SizeZ="{per}" SizeC="1" SizeT="1">'
            f'<Channel ID="Channel:{image}:0" SamplesPerPixel="1"/>{parts}</Pixels></Image>'
        )
    for name, own, page in zip(names, ids, pages, strict=True):
        text = f'<?xml version="1.0"?><OME xmlns="{SPACE}" UUID="{own}">{xml}</OME>'
        tifffile.imwrite(folder / name, page, description=text.encode(), **GREY)
    return [folder / name for name in names]


# --- series -----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1], ids=["before", "after"])
def test_thumbnail_is_never_the_image(tmp_path: Path, place: int) -> None:
    image = pixels(40, 50)
    pages = [image[::4, ::4], image] if place == 0 else [image, image[::4, ::4]]
    (plane,), lines = opened(write_pages(tmp_path / "a.tif", pages, reduced=place))
    np.testing.assert_array_equal(plane.read(), image)
    assert plane.label == "a"
    assert [("thumbnail" in line) for line in lines] == [True] * (place == 0)  # else a pyramid


def test_smaller_page_that_is_left_out_is_told_unless_it_is_marked(tmp_path: Path) -> None:
    image = pixels(64, 64)
    for reduced in (-1, 1):
        path = write_pages(tmp_path / "a.tif", [image, image[::2, ::2]], reduced=reduced)
        (plane,), lines = opened(path)
        np.testing.assert_array_equal(plane.read(), image)
        assert [("pyramid" in line) for line in lines] == [True] * (reduced < 0)


def test_lone_page_that_calls_itself_reduced_is_the_image(tmp_path: Path) -> None:
    (plane,), lines = opened(write_pages(tmp_path / "a.tif", [pixels(40, 50)], reduced=0))
    assert (plane.read().shape, lines) == ((40, 50), [])


def test_pages_of_other_sizes_are_images_of_their_own(tmp_path: Path) -> None:
    pages = [pixels(40 + n, 50) for n in range(3)]
    planes, lines = opened(write_pages(tmp_path / "a.tif", pages))
    assert [p.label for p in planes] == ["a[s0]", "a[s1]", "a[s2]"]
    for plane, page in zip(planes, pages, strict=True):
        np.testing.assert_array_equal(plane.read(), page)
    [line] = lines
    assert line.startswith("a.tif: its 3 series")
    assert "--series" in line


def test_series_of_stacks_keep_their_planes(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        for depth in (2, 3):
            file.write(pixels(depth, 40, 50), metadata={"axes": "ZYX"}, photometric="minisblack")
    labels = [p.label for p in open_images(tmp_path)]
    assert labels == ["a[s0][0]", "a[s0][1]", "a[s1][0]", "a[s1][1]", "a[s1][2]"]


def test_chosen_series_keeps_its_name_and_the_others_are_told(tmp_path: Path) -> None:
    pages = [pixels(40 + n, 50) for n in range(3)]
    (plane,), lines = opened(write_pages(tmp_path / "a.tif", pages), series=1)
    assert (plane.label, plane.read().shape) == ("a[s1]", (41, 50))
    [line] = lines
    assert line.startswith("a.tif: 2 of")


def test_series_that_is_not_there_is_refused_alone(tmp_path: Path) -> None:
    write_pages(tmp_path / "a.tif", [pixels(40, 50), pixels(41, 50)])
    write_pages(tmp_path / "b.tif", [pixels(40, 50)])
    with pytest.raises(InputError, match=r"b\.tif: series 1 asked for, it has 1"):
        open_images(tmp_path, series=1)
    good, bad = open_images(tmp_path, series=1, strict=False)
    assert good.read().shape == (41, 50)
    with pytest.raises(InputError, match="series 1 asked for"):
        bad.read()


def test_name_of_a_series_and_of_another_file_collide(tmp_path: Path) -> None:
    write_pages(tmp_path / "a.tif", [pixels(40, 50), pixels(41, 50)])
    write_pages(tmp_path / "a[s1].tif", [pixels(40, 50)])
    with pytest.raises(InputError, match=r"both called 'a\[s1\]'"):
        open_images(tmp_path)


def test_image_that_is_called_label_is_an_image(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        for name in ("Label", "other"):
            file.write(pixels(40, 50), metadata={"axes": "YX", "Name": name})
    assert [p.label for p in open_images(tmp_path)] == ["a[s0]", "a[s1]"]


def test_slide_is_its_baseline(tmp_path: Path) -> None:
    image = pixels(256, 256, 3)
    with tifffile.TiffWriter(tmp_path / "a.svs") as file:
        options = {"photometric": "rgb", "metadata": None, "tile": (64, 64)}
        file.write(image, description="Aperio Image Library v1", **options)
        file.write(image[::4, ::4], photometric="rgb", metadata=None)  # its thumbnail
        file.write(image[::2, ::2], description="Aperio Image Library v1", **options)
        file.write(image[:32], photometric="rgb", metadata=None, subfiletype=1)
    (plane,), lines = opened(tmp_path / "a.svs")
    np.testing.assert_array_equal(plane.read(), image)
    assert len(lines) == 1


# --- masks of series and of given axes --------------------------------------------------------


def test_masks_of_series_are_their_own_files_or_the_same_series(tmp_path: Path) -> None:
    planes = open_images(write_pages(tmp_path / "a.tif", [pixels(40, 50), pixels(41, 50)]))
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
    masks = [np.full((40 + n, 50), n + 3, np.uint8) for n in range(2)]
    for n, mask in enumerate(masks):
        tifffile.imwrite(one / f"a[s{n}].tif", mask)
    write_pages(other / "a_mask.tif", masks)
    results = open_images(one)  # of a job
    for images, folder in ((planes, one), (planes, other), (results, other)):
        found = match_by_stem(images, folder)
        for plane, mask in zip(images, masks, strict=True):
            np.testing.assert_array_equal(read_mask(plane, found[plane.label]), mask)


def test_one_mask_serves_a_chosen_series_but_not_several(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.tif", [pixels(40, 50), pixels(40, 50, dtype="u2")])
    (tmp_path / "masks").mkdir()
    tifffile.imwrite(tmp_path / "masks" / "a.tif", np.ones((40, 50), np.uint8))
    (chosen,) = open_images(path, series=1)
    assert match_by_stem([chosen], tmp_path / "masks")[chosen.label].name == "a.tif"
    with pytest.raises(InputError, match=r"no mask for a\[s0\], a\[s1\]"):
        match_by_stem(open_images(path), tmp_path / "masks")


def test_unnamed_mask_stack_is_read_by_the_axes_of_its_image(tmp_path: Path) -> None:
    image, mask = pixels(40, 50, 12, 2), pixels(40, 50, 12)
    planes = open_images(image, axes="YXZC")
    tifffile.imwrite(tmp_path / "image.tif", mask, **GREY)
    np.testing.assert_array_equal(read_mask(planes[7], tmp_path / "image.tif"), mask[..., 7])


def test_result_of_an_image_with_given_axes_is_read_as_it_was_written(tmp_path: Path) -> None:
    planes = open_images(pixels(40, 50, 12), axes="YXZ")
    labels = pixels(12, 40, 50)
    tifffile.imwrite(tmp_path / "image.tif", labels, photometric="minisblack")
    np.testing.assert_array_equal(read_mask(planes[7], tmp_path / "image.tif"), labels[7])


# --- pages ------------------------------------------------------------------------------------

PACKED: dict[str, Any] = {"photometric": "minisblack", "compression": "zlib"}


def write_stack(path: Path, kind: str, stack: np.ndarray) -> Path:
    options = {
        "shaped": {},
        "generic": {"metadata": None},
        "ome": {"ome": True, "metadata": {"axes": "ZYX"}},
        "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}},
        "tiles": {"tile": (16, 16)},
    }[kind]
    tifffile.imwrite(path, stack, **PACKED, **options)
    return path


@pytest.mark.parametrize("kind", ["shaped", "generic", "ome", "imagej", "tiles"])
def test_plane_of_packed_pages_is_found_without_looking_for_the_others(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = pixels(50, 40, 50, dtype="u2")
    planes = open_images(write_stack(tmp_path / "a.tif", kind, stack))
    parsed: list[object] = []
    make = tifffile.TiffFrame.__init__
    monkeypatch.setattr(
        tifffile.TiffFrame, "__init__", lambda *a, **k: [parsed.append(a), make(*a, **k)][1]
    )
    for number in (0, 31, 49):
        np.testing.assert_array_equal(planes[number].read(), stack[number])
    assert not parsed


def test_pages_in_more_than_one_axis_are_told_apart(tmp_path: Path) -> None:
    stack = pixels(3, 4, 2, 40, 50)
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, metadata={"axes": "TZCYX"}, **PACKED)
    planes = open_images(tmp_path)
    assert planes[0].stack_shape == (3, 4)
    for plane in planes:
        np.testing.assert_array_equal(plane.read(), np.moveaxis(stack[plane.index], 0, -1))


def test_planes_travel_to_other_processes(tmp_path: Path) -> None:
    stack = pixels(5, 40, 50)
    planes = open_images(write_stack(tmp_path / "a.tif", "generic", stack))
    plane = pickle.loads(pickle.dumps(planes))[3]
    np.testing.assert_array_equal(plane.read(), stack[3])


@pytest.mark.parametrize("kind", ["shaped", "generic"])
def test_file_that_changed_since_it_was_opened_is_read_as_it_is(tmp_path: Path, kind: str) -> None:
    before, after = pixels(5, 40, 50), pixels(8, 40, 50)
    planes = open_images(write_stack(tmp_path / "a.tif", kind, before))
    planes[2].read()
    write_stack(tmp_path / "a.tif", kind, after)
    np.testing.assert_array_equal(planes[2].read(), after[2])


def test_page_that_is_another_by_its_own_header_is_read_by_that_of_its_series(
    tmp_path: Path,
) -> None:
    stack = pixels(5, 40, 50)
    path = write_stack(tmp_path / "a.tif", "shaped", stack)
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[3].tags["ImageLength"].overwrite(39)
    np.testing.assert_array_equal([plane.read() for plane in open_images(path)], stack)


# --- sets -------------------------------------------------------------------------------------


def test_set_is_opened_once(tmp_path: Path) -> None:
    pages = [pixels(40, 50) for _ in range(3)]
    files = write_set(tmp_path, pages)
    tifffile.imwrite(tmp_path / "z.tif", pages[0])
    for source in (tmp_path, [*files[::-1], tmp_path / "z.tif"][::-1], str(tmp_path / "*.tif")):
        planes, lines = opened(source)
        stack = [p for p in planes if p.stack_shape]
        assert (len(planes), len(stack)) == (4, 3)
        np.testing.assert_array_equal([p.read() for p in stack], pages)
        assert len(lines) == 1
        assert "other 2 files" in lines[0]


def test_one_file_of_a_set_brings_the_others(tmp_path: Path) -> None:
    files = write_set(tmp_path, [pixels(40, 50) for _ in range(3)])
    planes, _ = opened(files[1])
    assert [p.label for p in planes] == ["set_1[0]", "set_1[1]", "set_1[2]"]


def test_missing_file_of_a_set_is_one_error_and_the_others_go_on(tmp_path: Path) -> None:
    files = write_set(tmp_path, [pixels(40, 50) for _ in range(3)])
    files[1].unlink()
    tifffile.imwrite(tmp_path / "z.tif", pixels(40, 50))
    bad, good = open_images(tmp_path)
    assert good.read().shape == (40, 50)
    with pytest.raises(ImageReadError, match=r"^set_0\.ome\.tif: .*3 files lacks 1, as set_1\.ome"):
        bad.read()


def test_mask_set_is_read_once_its_missing_file_is_back(tmp_path: Path) -> None:
    pages = [pixels(40, 50) for _ in range(3)]
    files = write_set(tmp_path, pages)
    planes = open_images(np.zeros((3, 40, 50)))
    files[1].rename(tmp_path / "away")
    with pytest.raises(InputError):
        read_mask(planes[1], files[0])
    (tmp_path / "away").rename(files[1])
    np.testing.assert_array_equal(read_mask(planes[1], files[0]), pages[1])


def test_image_of_a_set_that_was_copied_alone_is_opened_alone(tmp_path: Path) -> None:
    pages = [pixels(40, 50) for _ in range(2)]
    files = write_set(tmp_path, pages, images=2)
    files[0].unlink()
    (plane,), lines = opened(tmp_path)
    np.testing.assert_array_equal(plane.read(), pages[1])
    assert "not beside it" in lines[0]


def test_renamed_file_of_its_own_is_no_set(tmp_path: Path) -> None:
    (file,) = write_set(tmp_path, [pixels(40, 50)])
    (plane,), lines = opened(file.rename(tmp_path / "other.ome.tif"))
    assert (plane.label, plane.read().shape, lines) == ("other", (40, 50), [])


def test_file_that_points_to_the_metadata_of_another_is_part_of_its_set(tmp_path: Path) -> None:
    pages = [pixels(40, 50) for _ in range(3)]
    files = write_set(tmp_path, pages)
    text = f'<OME xmlns="{SPACE}"><BinaryOnly MetadataFile="set_2.ome.tif" UUID="u"/></OME>'
    tifffile.imwrite(files[0], pages[0], description=text.encode(), **GREY)
    planes = open_images(tmp_path)
    assert [p.label for p in planes] == ["set_0[0]", "set_0[1]", "set_0[2]"]
    np.testing.assert_array_equal([p.read() for p in planes], pages)


@pytest.mark.parametrize("count", [3, 1])
def test_metadata_in_a_companion_file_are_read(tmp_path: Path, count: int) -> None:
    pages = [pixels(40, 50) for _ in range(count)]
    files = write_set(tmp_path, pages)
    with tifffile.TiffFile(files[0]) as file:
        xml = file.pages.first.description
    own = xml.partition(' UUID="')[2].partition('"')[0]
    (tmp_path / "set.companion.ome").write_text(xml.replace(f' UUID="{own}"', ' UUID="urn:c"', 1))
    text = f'<OME xmlns="{SPACE}"><BinaryOnly MetadataFile="set.companion.ome" UUID="u"/></OME>'
    for file, page in zip(files, pages, strict=True):
        tifffile.imwrite(file, page, description=text.encode(), **GREY)
    planes, lines = opened(tmp_path)
    np.testing.assert_array_equal([p.read() for p in planes], pages)
    assert ({p.name for p in planes}, len(lines)) == ({"set_0"}, count > 1)
    (tmp_path / "set.companion.ome").unlink()
    planes, (line,) = opened(tmp_path)
    assert [p.label for p in planes] == [f"set_{n}" for n in range(count)]
    assert "OME metadata" in line


ELSEWHERE = ["sub/set_1.ome.tif", "../set_1.ome.tif", "", ".", "..", "C:x", "a\\b", "x" * 300]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_file_of_a_set_that_is_no_plain_name_is_not_there(tmp_path: Path, name: str) -> None:
    pages = [pixels(40, 50) for _ in range(2)]
    (tmp_path / "in" / "sub").mkdir(parents=True)
    lone, moved = write_set(tmp_path / "in", pages, last=name)
    for folder in (tmp_path, tmp_path / "in" / "sub"):
        shutil.copy(moved, folder)
    moved.unlink()
    (plane,) = open_images(lone)
    with pytest.raises(ImageReadError, match=r"^set_0\.ome\.tif: its set of 2 files lacks 1, as "):
        plane.read()


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.parametrize("whose", ["its_own", "another"])
def test_image_whose_files_are_in_another_folder_is_not_looked_for(
    tmp_path: Path, name: str, whose: str
) -> None:
    pages = [pixels(40, 50) for _ in range(2)]
    (tmp_path / "in" / "sub").mkdir(parents=True)
    first, last = write_set(tmp_path / "in", pages, images=2, last=name)
    for folder in (tmp_path, tmp_path / "in" / "sub"):
        shutil.copy(last, folder)
    if whose == "its_own":
        first.unlink()
        (plane,), _ = opened(last)
        np.testing.assert_array_equal(plane.read(), pages[1])
        return
    last.unlink()
    (plane,), lines = opened(first)
    assert plane.path == first
    np.testing.assert_array_equal(plane.read(), pages[0])
    assert [("not beside it" in line) for line in lines] == [True]


def test_file_that_lists_itself_in_another_folder_is_read_itself(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    shutil.copy(*write_set(tmp_path, [pixels(40, 50)]), tmp_path / "sub")
    with tifffile.TiffFile(tmp_path / "set_0.ome.tif") as file:
        xml = file.pages.first.description.replace('FileName="', 'FileName="sub/')
    xml = re.sub(r'(<OME [^>]*?) UUID="[^"]*"', r"\1", xml)
    page = pixels(40, 50)
    tifffile.imwrite(tmp_path / "set_0.ome.tif", page, description=xml.encode(), **GREY)
    (plane,) = open_images(tmp_path)
    np.testing.assert_array_equal(plane.read(), page)


@pytest.mark.parametrize("name", ["", ".", "../m.ome.tif", "sub/m.ome.tif", "x" * 300])
def test_metadata_in_another_folder_are_not_looked_for(tmp_path: Path, name: str) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    page = pixels(40, 50)
    for folder in (tmp_path, tmp_path / "in" / "sub"):
        tifffile.imwrite(folder / "m.ome.tif", pixels(30, 30), photometric="minisblack")
    text = f'<OME xmlns="{SPACE}"><BinaryOnly MetadataFile="{name}" UUID="u"/></OME>'
    path = tmp_path / "in" / "a.ome.tif"
    tifffile.imwrite(path, page, description=text.encode(), **GREY)
    (plane,), (line,) = opened(path)
    np.testing.assert_array_equal(plane.read(), page)
    assert "OME metadata" in line


# --- pixels as shown --------------------------------------------------------------------------


@pytest.mark.parametrize("turn", TURNED)
def test_orientation_tag_turns_images_and_masks(tmp_path: Path, turn: int) -> None:
    stored, tag = np.array([[1, 2, 3], [4, 5, 6]], np.uint8), [(274, "H", 1, turn, True)]
    tifffile.imwrite(tmp_path / "a.tif", stored, extratags=tag, **GREY)
    (plane,), lines = opened(tmp_path / "a.tif")
    assert plane.read().tolist() == TURNED[turn]
    assert read_labels(tmp_path / "a.tif").tolist() == TURNED[turn]
    assert len(lines) == (turn != 1)


def test_stack_of_colour_is_turned_plane_by_plane(tmp_path: Path) -> None:
    stored, tag = pixels(4, 20, 30, 3), [(274, "H", 1, 8, True)]
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extratags=tag)
    planes = open_images(tmp_path / "a.tif")
    np.testing.assert_array_equal(planes[2].read(), np.rot90(stored[2]))


def test_palette_is_shown_and_a_mask_keeps_its_numbers(tmp_path: Path) -> None:
    stored, colours = pixels(20, 30), RNG.integers(0, 256, (3, 256)).astype(np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif", stored, photometric="palette", colormap=colours << 8, metadata=None
    )
    np.testing.assert_array_equal(open_images(tmp_path)[0].read(), colours.T[stored])
    np.testing.assert_array_equal(read_labels(tmp_path / "a.tif"), stored)


def test_grey_palette_stays_one_channel(tmp_path: Path) -> None:
    stored, ramp = pixels(20, 30), np.arange(256, dtype=np.uint16)[::-1] << 8
    tifffile.imwrite(
        tmp_path / "a.tif", stored, photometric="palette", colormap=np.stack([ramp] * 3),
        metadata=None,
    )  # fmt: skip
    np.testing.assert_array_equal(open_images(tmp_path)[0].read(), 255 - stored)


@pytest.mark.parametrize(
    ("dtype", "full"), [("u1", 255), ("u2", 65535), ("?", 1)], ids=["8_bit", "16_bit", "1_bit"]
)
def test_min_is_white_is_turned_round(tmp_path: Path, dtype: str, full: int) -> None:
    stored = RNG.integers(0, 2, (20, 32)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite", metadata=None)
    shown = open_images(tmp_path)[0].read()
    np.testing.assert_array_equal(shown, full - stored.astype(int))
    assert shown.dtype == stored.dtype


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    inks = np.zeros((20, 30, 4), np.uint8)
    inks[:5, :, 0], inks[5:10, :, 3] = 255, 255  # cyan, black; the rest is paper
    tifffile.imwrite(tmp_path / "a.tif", inks, photometric="separated", metadata=None)
    shown = open_images(tmp_path)[0].read()
    assert [shown[row, 0].tolist() for row in (0, 7, 15)] == [
        [0, 255, 255], [0, 0, 0], [255, 255, 255],
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["CMYK", "YCbCr", "LAB", "P", "LA", "1", "jpeg"])
def test_colours_are_those_that_pillow_shows(tmp_path: Path, kind: str) -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:16, :, 0], picture[16:, :, 2] = 255, 200
    image = PillowImage.fromarray(picture).convert("YCbCr" if kind == "jpeg" else kind)
    image.save(tmp_path / "a.tif", compression="jpeg" if kind == "jpeg" else None)
    expected = np.array(PillowImage.open(tmp_path / "a.tif").convert("RGB"))
    shown = open_images(tmp_path)[0].read()
    if shown.dtype == bool:
        shown = shown * np.uint8(255)
    grey = shown if shown.ndim == 3 else np.repeat(shown[..., None], 3, axis=2)
    np.testing.assert_array_equal(grey, expected)


def test_alpha_beside_grey_is_no_channel(tmp_path: Path) -> None:
    stored = pixels(20, 30, 2)
    tifffile.imwrite(
        tmp_path / "a.tif", stored, planarconfig="contig", extrasamples=["unassalpha"], **GREY
    )
    np.testing.assert_array_equal(open_images(tmp_path)[0].read(), stored[..., 0])


# --- files that would not end -----------------------------------------------------------------


def close_the_circle(path: Path, last: int, to: int) -> None:
    """Have the page after `last` be page `to`."""
    with tifffile.TiffFile(path) as file:
        offsets = [page.offset for page in file.pages]
        big = file.is_bigtiff
    count, entry, place = ("<Q", 20, "<Q") if big else ("<H", 12, "<I")
    data = bytearray(path.read_bytes())
    (entries,) = struct.unpack_from(count, data, offsets[last])
    after = offsets[last] + struct.calcsize(count) + entries * entry
    struct.pack_into(place, data, after, offsets[to])
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("last", "to", "big"),
    [
        pytest.param(0, 0, False, id="to_itself"),
        pytest.param(2, 1, False, id="to_an_earlier_one"),
        pytest.param(2, 0, True, id="bigtiff"),
    ],
)
def test_circle_of_pages_is_one_line(tmp_path: Path, last: int, to: int, big: bool) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels(3, 20, 30), bigtiff=big, **GREY)
    close_the_circle(tmp_path / "a.tif", last, to)
    tifffile.imwrite(tmp_path / "b.tif", pixels(20, 30))
    bad, good = open_images(tmp_path)
    assert good.read().shape == (20, 30)
    with pytest.raises(ImageReadError, match=r"^a\.tif: can't be read .*without end"):
        bad.read()


def test_tiff_larger_than_the_memory_fails_alone(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=True) as file:
        file.write(
            iter([b"\0"]), shape=(400_000, 400_000), dtype="u1", compression="zlib",
            rowsperstrip=400_000, **GREY,
        )  # fmt: skip
    tifffile.imwrite(tmp_path / "b.tif", pixels(20, 30))
    bad, good = open_images(tmp_path)
    assert good.read().shape == (20, 30)
    with pytest.raises(ImageReadError, match=r"^a\.tif: 400000 x 400000 pixels.*more memory"):
        bad.read()


def test_tiff_that_claims_far_more_than_its_file_can_hold_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), compression="zlib", rowsperstrip=64)
    with tifffile.TiffFile(path, mode="r+") as file:
        for code in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            file.pages[0].tags[code].overwrite(30_000)
    (plane,) = open_images(path)
    with pytest.raises(ImageReadError, match=r"a\.tif.*claims 900000000 bytes a page"):
        plane.read()


def test_file_without_an_image_fails_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((9, 9), np.uint8), compression="lzw", metadata=None)
    with tifffile.TiffFile(path) as file:
        width = file.pages[0].tags["ImageWidth"].offset
    content = bytearray(path.read_bytes())
    content[width : width + 2] = struct.pack("<H", 65_000)  # no width any more
    path.write_bytes(content)
    (plane,) = open_images(path, strict=False)
    with pytest.raises(ImageReadError, match=r"^a\.tif: holds no image"):
        plane.read()
    with pytest.raises(ImageReadError, match=r"^a\.tif: holds no image"):
        read_labels(path)

"""Cases of the shared folder on masks, ranges, names and label numbers: the right value of each.

A case is made by its own generator in a folder of the test; without the shared folder these tests
are skipped, and their neighbours, which need none, stay.
"""

import json
import os
import shutil
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage
from toys import scene, write_image, write_scenes

import napari_samic
from napari_samic import pipeline
from napari_samic.benchmark import datasets
from napari_samic.core.errors import FormatError, InputError, OutputError
from napari_samic.core.settings import AdaptSettings, ExportSettings, TrainSettings
from napari_samic.core.types import ImagePlane, run_job
from napari_samic.gui.plugin.writers import write_coco, write_geojson, write_labels
from napari_samic.io import masks
from napari_samic.io.images import open_images
from napari_samic.io.mask_values import ValueCounts, infer_meaning, parse_mask_values
from napari_samic.io.normalize import Normalization, fit_normalization, fit_outside, read_rgb
from napari_samic.pipeline import common


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
    return run_job(pipeline.export(results, out=out, settings=ExportSettings(**formats)))


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


def evaluated(predictions, truth, **options):
    return run_job(pipeline.evaluate(predictions=predictions, truth=truth, **options))


@pytest.mark.parametrize(
    ("number", "truth", "line"),
    [
        pytest.param("04", "pm", "2 values: 0 ground, 255 object (of the palette's", id="palette"),
        pytest.param("12", "trimap", "3 values: 0 ground, 128 void, 255 object", id="trimap"),
        pytest.param("12", "voc", "7 values: 0 ground, 1 to 5 objects, 255 void", id="voc"),
    ],
)
def test_cases_04_and_12_truth_is_scored_as_it_is_meant(case, number, truth, line):
    folder = case(number)
    outcome = evaluated(folder / "base" / "masks", folder / truth)
    assert outcome.figures["miou"] == outcome.figures["object_f1"] == 1.0
    assert outcome.figures["boundary_f"] == outcome.figures["fb_iou"] == 1.0
    (notice,) = outcome.notices
    assert line in notice
    assert ("not scored" in notice) == ("void" in line)


def held(*values, white=255, share=0.1):
    return ValueCounts("a", frozenset(values), white, share)


@pytest.mark.parametrize(
    ("masks", "void", "objects"),
    [
        pytest.param([held(0, 1), held(0, 2, 5)], (), (), id="numbers"),
        pytest.param([held(0), held(0, 7)], (), (7,), id="one_value"),
        pytest.param([held(0, 255, white=0)], (), (255,), id="black_and_white_of_32_bits"),
        pytest.param([held(0, 65535, white=65535)], (), (65535,), id="black_and_white_of_16_bits"),
        pytest.param([held(0, 32768, 65535, white=65535)], (32768,), (65535,), id="trimap_16"),
        pytest.param([held(0, 127, 255)], (127,), (255,), id="trimap_127"),
        pytest.param([held(0, 1, 255), held(0)], (255,), (1,), id="one_class_and_void"),
        pytest.param([held(0, 1, 2), held(0, 255)], (), (255,), id="two_kinds"),
        pytest.param([held(*range(182), 255)], (255,), (), id="many_classes_and_void"),
        pytest.param([held(*range(256))], (), (), id="255_objects"),
        pytest.param([held(*range(400), white=65535)], (), (), id="more_objects"),
        pytest.param(
            [held(*range(250)), held(0, *range(250, 256), share=0.4)], (), (), id="last_is_large"
        ),
    ],
)
def test_what_values_mean(masks, void, objects):
    found = infer_meaning(masks)
    assert (found.ground, found.void, found.objects) == ((0,), void, objects)


@pytest.mark.parametrize(
    ("masks", "why"),
    [
        pytest.param([held(1, 2, 3)], "none is 0", id="trimap_of_numbers"),
        pytest.param([held(0, 100, 255)], "may be white", id="grey"),
        pytest.param([held(0, 85, 170, 255)], "may be white", id="grey_levels"),
        pytest.param([held(0, 1, 255), held(0, 255)], "may be white", id="void_alone"),
        pytest.param([held(0, 1, 2, 255, white=65535)], "may be white", id="number_or_void"),
        pytest.param([held(0, 3, 252, 255)], "may be white", id="near_white"),
        pytest.param([held(*range(256), share=0.9)], "blurred", id="blurred_edges"),
        pytest.param([held(*range(256), share=0.2)], "blurred", id="of_small_objects"),
        pytest.param([held(255)], "none is 0", id="one_value_everywhere"),
        pytest.param(
            [ValueCounts("a", frozenset({0, 255}), 255, 1.0, True)], "shown white", id="inverted"
        ),
    ],
)
def test_sets_that_could_mean_this_or_that_are_refused(masks, why):
    with pytest.raises(InputError, match=rf"{why}.*--mask-values"):
        infer_meaning(masks)


@pytest.mark.parametrize(
    ("stored", "told", "expected"),
    [
        pytest.param([3, 1, 2, 1], "1=object,2=ground,3=void", [0, 1, 0, 2], id="trimap"),
        pytest.param([0, 255, 0, 255], "0=object,255=ground", [1, 0, 2, 0], id="inverted"),
        pytest.param([0, 4, -1, 9], "-1=void", [0, 4, 0, 9], id="others_are_numbers"),
        pytest.param([0, 1, 1, 2], "1=object,2=object", [0, 1, 1, 2], id="classes"),
    ],
)
def test_values_can_be_told(stored, told, expected):
    labels, void = parse_mask_values(told).applied(np.array([stored]), "a")
    assert labels.tolist() == [expected]
    assert void.sum() == told.count("void")


@pytest.mark.parametrize("text", ["", "1", "1=cell", "x=void", "1=void,1=object", "1.5=void"])
def test_senseless_mask_values_are_refused(text):
    with pytest.raises(InputError, match="Write them as 0=ground,128=void,255=object"):
        parse_mask_values(text)


def test_a_value_that_was_not_told_is_refused():
    with pytest.raises(InputError, match="value 7 in a mask, expected 0, 1"):
        parse_mask_values("1=object").applied(np.array([[0, 7]]), "a")


def test_told_values_reach_the_score(tmp_path):
    write_scenes(tmp_path, 2)
    for k in range(2):
        trimap = np.where(scene(k)[1] > 0, 1, 2).astype(np.uint8)
        write_image(tmp_path / "pets" / f"p{k}.png", trimap)
    with pytest.raises(InputError, match="none is 0"):
        evaluated(tmp_path / "masks", tmp_path / "pets")
    outcome = evaluated(tmp_path / "masks", tmp_path / "pets", mask_values="1=object,2=ground")
    assert outcome.figures["miou"] == outcome.figures["object_f1"] == 1.0


def save_palette(path, indices, colours):
    picture = Image.fromarray(indices.astype(np.uint8))
    picture.putpalette([v for colour in colours for v in colour])
    path.parent.mkdir(exist_ok=True)
    picture.save(path)


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp"])
def test_palette_of_white_and_black_is_read_by_colour(tmp_path, ending):
    inside = scene(0)[1] > 0
    save_palette(tmp_path / "m" / f"p0{ending}", ~inside, [(255,) * 3, (0,) * 3])
    meaning = run_job(masks.meaning_of([tmp_path / "m" / f"p0{ending}"]))
    (plane,) = open_images(write_image(tmp_path / "p0.png", scene(0)[0]))
    read = masks.read_mask(plane, tmp_path / "m" / f"p0{ending}", values=meaning.values)
    np.testing.assert_array_equal(read > 0, inside)


def test_colours_anywhere_in_the_set_make_its_palettes_numbers(tmp_path):
    colours = [(0, 0, 0), (255, 255, 255), (200, 0, 0)]
    for k, most in enumerate((1, 2)):
        save_palette(tmp_path / f"p{k}.png", np.minimum(scene(k)[1], most), colours)
    meaning = run_job(masks.meaning_of(sorted(tmp_path.iterdir())))
    assert (meaning.values.by_color, meaning.values.objects) == (False, ())
    assert "3 values: 0 ground, 1 to 2 objects" in meaning.line


@pytest.mark.parametrize(
    ("indices", "colours", "why"),
    [
        pytest.param(lambda a: a == 0, [(255, 0, 0), (0, 0, 0)], "black.* is 1", id="two"),
        pytest.param(
            lambda a: (a + 2) % 3,
            [(255, 0, 0), (9, 0, 255), (0, 0, 0)],
            "black.* is 2",
            id="of_an_object",
        ),
        pytest.param(
            lambda a: (a > 0) * 255, [(k,) * 3 for k in range(255, -1, -1)], "shown white", id="lut"
        ),
    ],
)
def test_palettes_that_show_another_ground_than_0_are_refused(tmp_path, indices, colours, why):
    save_palette(tmp_path / "p0.png", indices(scene(0)[1]), colours)
    with pytest.raises(InputError, match=rf"{why}.*--mask-values"):
        run_job(masks.meaning_of([tmp_path / "p0.png"]))
    assert run_job(masks.meaning_of([tmp_path / "p0.png"], "0=object,1=ground")).values.objects == (
        0,
    )


def test_reversed_greys_are_read_as_told_by_their_numbers(tmp_path):
    inside = scene(0)[1] > 0
    save_palette(tmp_path / "p0.png", inside * 255, [(k,) * 3 for k in range(255, -1, -1)])
    values = run_job(masks.meaning_of([tmp_path / "p0.png"], "255=object")).values
    read = masks.read_mask(plane_at(tmp_path / "p0.png"), tmp_path / "p0.png", values=values)
    np.testing.assert_array_equal(read > 0, inside)


def plane_at(path):
    return ImagePlane(path.stem, (), lambda: scene(0)[0], path=path)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("level", [255, 0], ids=["white", "black"])
def test_mask_in_the_alpha_channel_is_refused(tmp_path, mode, level):
    alpha = Image.fromarray((scene(0)[1] > 0).astype(np.uint8) * 255)
    picture = Image.new(mode, alpha.size, (level,) * (len(mode) - 1))
    picture.putalpha(alpha)
    picture.save(tmp_path / "p0.png")
    with pytest.raises(InputError, match=r"p0\.png: a mask whose opacity varies"):
        masks.read_mask(plane_at(tmp_path / "p0.png"), tmp_path / "p0.png")


@pytest.mark.parametrize("is_clear", [True, False], ids=["clear_ground", "opaque"])
def test_alpha_that_hides_no_object_makes_no_difference(tmp_path, is_clear):
    labels = scene(0)[1].astype(np.uint8)
    alpha = (labels > 0) * 255 if is_clear else np.full_like(labels, 255)
    Image.fromarray(np.dstack([labels] * 3 + [alpha.astype(np.uint8)])).save(tmp_path / "p0.png")
    read = masks.read_mask(plane_at(tmp_path / "p0.png"), tmp_path / "p0.png")
    np.testing.assert_array_equal(read, labels)


@pytest.mark.parametrize("sigma_px", [1, 3, 6])
@pytest.mark.parametrize("top", [255, 65535])
def test_blurred_masks_are_refused_at_every_width(tmp_path, sigma_px, top):
    soft = ndimage.gaussian_filter((scene(0)[1] > 0) * float(top), sigma_px)
    write_image(tmp_path / "p0.tif", soft.astype(np.uint8 if top == 255 else np.uint16))
    with pytest.raises(InputError, match=r"blurred.*threshold"):
        run_job(masks.meaning_of([tmp_path / "p0.tif"]))


@pytest.mark.parametrize("side_px", [3, 4, 8])
def test_small_objects_that_all_touch_are_numbers(tmp_path, side_px):
    tiles = np.kron(np.arange(144).reshape(12, 12), np.ones((side_px, side_px)))
    write_image(tmp_path / "p0.tif", tiles.astype(np.uint8))
    assert run_job(masks.meaning_of([tmp_path / "p0.tif"])).values == parse_mask_values("0=ground")


@pytest.mark.parametrize("is_inverted", [True, False])
def test_white_at_the_border_of_every_mask_is_told(tmp_path, is_inverted):
    for k in range(2):
        small = np.zeros((40, 50), bool)
        small[10:20, 10 : 20 + k] = True
        write_image(tmp_path / f"p{k}.png", (small ^ is_inverted).astype(np.uint8) * 255)
    line = run_job(masks.meaning_of(sorted(tmp_path.iterdir()))).line
    assert ("say --mask-values 0=object,255=ground." in line) == is_inverted


def test_object_found_in_the_void_counts_neither_way(tmp_path):
    truth = np.zeros((40, 40), np.uint8)
    truth[4:12, 4:12], truth[20:36, 20:36] = 1, 255
    found = np.zeros((40, 40), np.int32)
    found[4:12, 4:12], found[22:34, 22:37] = 1, 2
    for folder, labels in (("t", truth), ("p", found)):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "a.tif", labels)
    figures = evaluated(tmp_path / "p", tmp_path / "t").figures
    assert (figures["miou"], figures["n_predicted"], figures["n_true"]) == (1.0, 1, 1)


def test_case_14_masks_are_found_whatever_their_spelling(case):
    folder = case("14")
    found = masks.match_by_stem(open_images(folder / "i"), folder / "m")
    assert len(found) == 3


def test_case_and_masks_without_an_image(tmp_path):
    image = write_image(tmp_path / "IMG_1.png", scene(0)[0])
    for name in ("img_1_Mask.png", "img_2.png"):
        write_image(tmp_path / "m" / name, scene(0)[1])
    said = []
    found = masks.match_by_stem(open_images(image), tmp_path / "m", tell=said.append)
    assert found["IMG_1"].name == "img_1_Mask.png"
    [line] = said
    assert line.endswith(": img_2.png.")


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(("a", "A"), id="case"),
        pytest.param(("\u00e4", unicodedata.normalize("NFD", "\u00e4")), id="accent"),
    ],
)
def test_names_that_some_disks_take_for_one_are_refused(tmp_path, pair):
    for name in pair:
        write_image(tmp_path / "i" / f"{name}.png", scene(0)[0])
    with pytest.raises(InputError, match=r"both called .*but for case or the spelling"):
        common.open_planes(tmp_path / "i")
    image = write_image(tmp_path / f"{pair[0]}.png", scene(0)[0])
    with pytest.raises(InputError, match="both masks of"):
        masks.match_by_stem(open_images(image), tmp_path / "i")


def test_case_15_masks_beside_their_images_are_no_images(case):
    folder = case("15") / "cp"
    said = []
    planes = common.open_planes(folder, tell=said.append)
    assert [p.label for p in planes] == ["c0", "c1", "c2"]
    [line] = said
    assert line.endswith(": c0_cp_masks.tif, c1_cp_masks.tif, c2_cp_masks.tif.")
    found = masks.match_by_stem(planes, folder)
    assert {k: p.name for k, p in found.items()} == {
        f"c{k}": f"c{k}_cp_masks.tif" for k in range(3)
    }


@pytest.mark.parametrize(
    "end",
    ["-mask", " mask", ".labels", "_GT", "_lbl", "_segmentation", "_Object Identities", "_masks_1"],
)
def test_masks_are_known_by_what_tools_call_them(tmp_path, end):
    write_image(tmp_path / "c0.png", scene(0)[0])
    mask = write_image(tmp_path / f"c0{end}.png", scene(0)[1])
    said = []
    planes = common.open_planes(tmp_path, tell=said.append)
    assert [p.label for p in planes] == ["c0"]
    [line] = said
    assert line.endswith(f": {mask.name}.")
    assert masks.match_by_stem(planes, tmp_path) == {"c0": mask}


@pytest.mark.parametrize(
    "end", ["_cp_outlines", "_outlines", "_flows", "_cp_output", "_flows_cp_masks"]
)
def test_drawings_of_cellpose_are_neither_images_nor_masks(tmp_path, end):
    write_image(tmp_path / "c0.png", scene(0)[0])
    write_image(tmp_path / "c0_cp_masks.png", scene(0)[1])
    drawn = write_image(tmp_path / f"c0{end}.png", scene(0)[0])
    said = []
    planes = common.open_planes(tmp_path, tell=said.append)
    assert [p.label for p in planes] == ["c0"]
    assert said[1].endswith(f": {drawn.name}.")
    assert masks.match_by_stem(planes, tmp_path)["c0"].name == "c0_cp_masks.png"


@pytest.mark.parametrize("name", ["mask", "c1_mask", "c0_flows"])
def test_names_of_masks_without_their_image_are_images(tmp_path, name):
    write_image(tmp_path / f"{name}.png", scene(0)[0])
    assert [p.label for p in common.open_planes(tmp_path)] == [name]


def test_truth_may_be_a_folder_of_images_with_their_masks(case):
    folder = case("15")
    said = []
    for k, path in enumerate(sorted((folder / "base" / "masks").iterdir())):
        path.rename(path.with_name(f"c{k}.tif"))
    planes = open_images(folder / "base" / "masks")
    found = masks.match_by_stem(planes, folder / "cp", tell=said.append)
    assert {p.name for p in found.values()} == {f"c{k}_cp_masks.tif" for k in range(3)}
    figures = evaluated(folder / "base" / "masks", folder / "cp").figures
    assert (figures["miou"], figures["unscored"]) == (1.0, 0)
    [line] = said
    assert line.endswith(": c0.tif, c1.tif, c2.tif.")


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
    assert "not UTF-8" in (tmp_path / "o" / "failures.csv").read_text(encoding="utf-8")
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


def test_case_05_another_bit_depth_is_refused_alone(case):
    folder = case("05")
    normalization = fit_normalization(open_images(folder / "base" / "images"))
    for plane in open_images(folder / "mb"):
        if plane.name.startswith("b8"):
            read_rgb(plane, normalization, is_strict=True)
        else:
            with pytest.raises(InputError, match=r"uint16 from .* training is .* uint8.*--rescale"):
                read_rgb(plane, normalization, is_strict=True)


def test_case_05_images_of_another_depth_are_scaled_anew_when_told(case):
    folder = case("05")
    known = fit_normalization(open_images(folder / "base" / "images"))
    planes = open_images(folder / "mb")
    told = replace(known, outside=run_job(fit_outside(planes, known)))
    assert Normalization.from_dict(told.to_dict()) == told
    said = []
    pictures = {p.name: read_rgb(p, told, is_strict=True, tell=said.append) for p in planes}
    assert len(said) == 3
    for plane in planes:
        if plane.name.startswith("b8"):
            np.testing.assert_array_equal(pictures[plane.name], read_rgb(plane, known))
        else:
            assert np.ptp(pictures[plane.name]) > 200


def discs(dtype=np.uint8, gain=1.0, ground=40.0, height=140.0, noise=4.0):
    """Bright discs on a noisy ground, cut off where the kind of pixels ends."""
    rows, columns = np.mgrid[:60, :80]
    values = np.random.default_rng(0).normal(ground, noise, (60, 80))
    for row, column in ((20, 20), (40, 60)):
        values[np.hypot(rows - row, columns - column) < 9] += height
    top = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else np.inf
    return np.clip(values * gain, 0, top).astype(dtype)


def fitted(pixels):
    return fit_normalization([ImagePlane("a", (), lambda: pixels)])


@pytest.mark.parametrize("gain", [1, 200], ids=["of_8_bits", "of_16_bits"])
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"gain": 0.7}, id="darker"),
        pytest.param({"gain": 1.3}, id="brighter"),
        pytest.param({"height": 0.0}, id="no_object"),
        pytest.param({"height": 0.0, "gain": 0.7}, id="no_object_and_darker"),
        pytest.param({"height": 0.0, "gain": 1.3}, id="no_object_and_brighter"),
        pytest.param({"height": 30.0}, id="faint_objects"),
        pytest.param({"ground": 0.0, "height": 0.0, "noise": 0.0}, id="black"),
        pytest.param({"ground": 250.0, "height": 0.0, "noise": 0.0}, id="white"),
        pytest.param({"ground": 0.0, "height": 0.0, "noise": 1.0}, id="hardly_any_light"),
    ],
)
def test_ordinary_variation_fits(gain, changes):
    dtype = np.uint8 if gain == 1 else np.uint16
    given = {**changes, "gain": changes.get("gain", 1.0) * gain}
    if changes.get("noise") == 1.0:
        given["gain"] = 1.0
    assert fitted(discs(dtype, gain)).fits(discs(dtype, **given))


@pytest.mark.parametrize(
    ("known", "other"),
    [
        pytest.param(discs(), discs(np.uint16, 16), id="12_bits_for_8"),
        pytest.param(discs(), discs(np.uint16, 4), id="10_bits_for_8"),
        pytest.param(discs(np.uint16, 16), discs(np.uint16, 200), id="16_bits_for_12"),
        pytest.param(discs(np.uint16, 200), discs(np.uint16, 16), id="12_bits_for_16"),
        pytest.param(discs(np.uint16, 200), discs(), id="8_bits_for_16"),
        pytest.param(discs(), discs(np.float32, 1 / 255), id="fractions_for_8"),
        pytest.param(discs(np.float32, 1 / 255), discs(), id="8_bits_for_fractions"),
        pytest.param(
            np.dstack([discs()] * 3),
            np.dstack([discs(np.uint16, 200)] * 3),
            id="colours_of_16_bits",
        ),
        pytest.param(
            np.dstack([discs()] * 3), np.dstack([discs(np.float32, 1 / 255)] * 3), id="of_fractions"
        ),
        pytest.param(discs() > 100, discs(), id="8_bits_for_1"),
    ],
)
def test_another_scale_does_not_fit(known, other):
    assert not fitted(known).fits(other)


def test_a_prompter_of_before_knows_no_kind_of_pixels():
    old = Normalization.from_dict({**fitted(discs()).to_dict(), "dtype": ""})
    assert not old.fits(discs(np.uint16, 200))
    assert old.fits(discs(gain=0.7))


def test_an_unknown_kind_of_pixels_is_a_damaged_file():
    with pytest.raises(FormatError, match="damaged"):
        Normalization.from_dict({**fitted(discs()).to_dict(), "dtype": "int7"})


def test_segment_refuses_another_depth_alone_and_rescales_when_told(shell, tmp_path, prompter):
    write_image(tmp_path / "i" / "p0.png", scene(0)[0])
    write_image(tmp_path / "i" / "p1.tif", scene(1, scale=200)[0])
    call = ("segment", tmp_path / "i", "--prompter", prompter)
    ran = shell(*call, "--out", tmp_path / "o")
    assert (ran.code, (tmp_path / "o" / "p1.tif").exists()) == (1, False)
    assert "failed: p1: uint16" in ran.err
    assert (tmp_path / "o" / "p0.tif").exists()
    ran = shell(*call, "--out", tmp_path / "again", "--rescale")
    assert ran.code == 0
    assert "(0 to 255 uint8)" in ran.err
    assert (tmp_path / "again" / "p1.tif").exists()


def test_grey_among_colours_is_told_and_colour_for_grey_refused(shell, tmp_path, prompter):
    write_image(tmp_path / "i" / "grey.png", scene(0)[0][..., 0])
    ran = shell("segment", tmp_path / "i", "--prompter", prompter, "--out", tmp_path / "o")
    assert ran.code == 0
    assert ran.err.startswith("note: 1 image")
    with pytest.raises(InputError, match="3 channels, expected 1"):
        fitted(discs()).apply(np.dstack([discs()] * 3), "a", is_strict=True)


@pytest.fixture
def one_of_16_bits(tmp_path):
    write_scenes(tmp_path, 4, suffix=".tif")
    write_image(tmp_path / "images" / "p3.tif", scene(3, scale=200)[0])
    return tmp_path


def test_reference_of_another_depth_is_left_out_alone(one_of_16_bits, toy):
    outcome = napari_samic.train(
        one_of_16_bits / "images", masks=one_of_16_bits / "masks", out=one_of_16_bits / "p.pt",
        model=toy, device="cpu", settings=TrainSettings(epochs=1, views=1),
        adapt=AdaptSettings(adapt=False),
    )  # fmt: skip
    assert outcome.done == ("p0", "p1", "p2")
    assert outcome.failures["p3"].startswith("p3: uint16 from")
    assert "--rescale" not in outcome.failures["p3"]


def test_annotated_image_of_another_depth_fails_alone(one_of_16_bits, toy):
    outcome = napari_samic.annotate(
        one_of_16_bits / "images", masks=one_of_16_bits / "masks", simulate=True,
        out=one_of_16_bits / "o", model=toy, device="cpu",
    )  # fmt: skip
    assert outcome.done == ("p0", "p1", "p2")
    line = outcome.failures["p3"]
    assert "0 to 255 uint8" in line
    assert "--rescale" not in line


@pytest.mark.parametrize(
    ("gains", "dtype"),
    [
        pytest.param((1, 200, 1), "uint8", id="most"),
        pytest.param((200, 1, 200), "uint16", id="most_of_16_bits"),
        pytest.param((200, 1), "uint16", id="first_of_as_many"),
    ],
)
def test_range_is_that_of_the_kind_that_most_images_have(gains, dtype):
    pictures = [discs(np.uint8 if gain == 1 else np.uint16, gain) for gain in gains]
    found = fit_normalization([ImagePlane("a", (), lambda p=p: p) for p in pictures])
    assert found.dtype == dtype
    assert [found.fits(p) for p in pictures] == [str(p.dtype) == dtype for p in pictures]


def test_benchmarked_folder_does_not_count_the_void(tmp_path):
    write_scenes(tmp_path, 2)
    for k in range(2):
        trimap = np.where(scene(k)[1] > 0, 255, 0).astype(np.uint8)
        trimap[:4] = 128
        write_image(tmp_path / "masks" / f"p{k}.png", trimap)
    for item in datasets.open("folder", tmp_path).items:
        assert item.read_truth().max() == 2
        assert item.read_ignored().sum() == 4 * trimap.shape[1]


def test_far_numbers_are_learned_from_without_cost(tmp_path, toy):
    write_scenes(tmp_path, 2)
    for k in range(2):
        far = scene(k)[1].astype(np.int32) * 700_000_000
        (tmp_path / "masks" / f"p{k}.png").unlink()
        tifffile.imwrite(tmp_path / "masks" / f"p{k}.tif", far)
    outcome = napari_samic.train(
        tmp_path / "images", masks=tmp_path / "masks", out=tmp_path / "p.pt", model=toy,
        device="cpu", settings=TrainSettings(epochs=1, views=1), adapt=AdaptSettings(adapt=False),
    )  # fmt: skip
    assert outcome.done == ("p0", "p1")
    assert "700000000 to 1400000000" in outcome.notices[-1]


def respelled(folder):
    """Let another disk write the accents of all names."""
    for path in sorted(folder.iterdir()):
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))


def test_prompts_and_results_are_found_after_a_disk_spelled_them_anew(tmp_path, toy):
    write_scenes(tmp_path, 2)
    for folder in ("images", "masks"):
        (tmp_path / folder / "p0.png").rename(tmp_path / folder / "Zelle_\u00e4.png")
    options = {"out": tmp_path / "a", "model": toy, "device": "cpu"}
    napari_samic.annotate(tmp_path / "images", masks=tmp_path / "masks", simulate=True, **options)
    for folder in ("images", "a"):
        respelled(tmp_path / folder)
    outcome = exported(tmp_path / "a", tmp_path / "x", coco=True)
    assert len(outcome.done) == 2
    options["out"] = tmp_path / "again"
    prompts = tmp_path / "a" / "prompts.json"
    assert len(napari_samic.annotate(tmp_path / "images", prompts=prompts, **options).done) == 2


def test_first_look_at_masks_and_ranges_tells_each_plane(tmp_path):
    stack = np.zeros((5, 8, 9), np.uint8)
    stack[:, 2:4] = 1
    tifffile.imwrite(tmp_path / "s.tif", stack, photometric="minisblack")
    names = [step.message for step in masks.meaning_of([tmp_path / "s.tif"])]
    assert [sum(f"s[{k}]" in name for name in names) for k in range(5)] == [1] * 5
    planes = open_images(tmp_path / "s.tif")
    names = [step.message for step in fit_outside(planes, fit_normalization(planes))]
    assert [name.rpartition(" ")[2] for name in names] == [f"s[{k}]" for k in range(5)]

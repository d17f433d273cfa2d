"""Prompts to masks, from a file and from a simulated annotator."""

import csv
import hashlib
import json
import os

import numpy as np
import pytest
import tifffile
import zarr
from toys import SHAPE, hidden_files, prompts_tree, scene, write_image, write_prompts, write_scenes

from napari_samic import pipeline
from napari_samic.core.errors import InputError, OutputError
from napari_samic.core.settings import AnnotateSettings, ExportSettings, SegmentSettings
from napari_samic.core.types import CroppedMask, Prompts, run_job
from napari_samic.evaluation.metrics import iou
from napari_samic.io.prompts import ImagePrompts, PromptFile, load_prompts, save_prompts

CENTRES = [(12, 14)], [(32, 40)]
ONE_CLICK = AnnotateSettings(target_iou=0.8)  # as good as the toy gets


def annotate(images, **options):
    return run_job(pipeline.annotate(images, device="cpu", **options))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory, scenes, toy):
    out = tmp_path_factory.mktemp("annotated")
    outcome = annotate(
        scenes / "images", out=out, masks=scenes / "masks", simulate=True, model=toy, overlay=True,
        settings=ONE_CLICK,
    )  # fmt: skip
    return out, outcome


def test_simulated_clicks_find_the_discs(simulated):
    out, outcome = simulated
    for i in range(4):
        labels = tifffile.imread(out / f"p{i}.tif")
        assert set(np.unique(labels)) == {0, 1, 2}
        assert iou(labels > 0, scene(i)[1] > 0) > 0.8
    assert outcome.figures["objects"] == 8
    assert outcome.figures["miou"] > 0.8
    assert outcome.figures["mean_score"] == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-3)


def test_scores_tell_clicks_and_iou_of_every_object(simulated):
    out, outcome = simulated
    table = list(csv.DictReader((out / "scores.csv").open()))
    assert [r["object"] for r in table] == ["1", "2"] * 4
    assert all(float(r["iou"]) > 0.8 and int(r["clicks"]) >= 1 for r in table)
    clicks = sum(int(r["clicks"]) for r in table)
    assert outcome.figures["clicks_per_object"] == clicks / 8


def test_written_prompts_give_the_same_labels_again(simulated, scenes, toy, tmp_path):
    out, _ = simulated
    annotate(scenes / "images", out=tmp_path, prompts=out / "prompts.json", model=toy)
    for i in range(4):
        ours, theirs = (tifffile.imread(d / f"p{i}.tif") for d in (out, tmp_path))
        assert iou(ours > 0, theirs > 0) > 0.9


def test_mask_that_was_drawn_stays_as_it_is(scenes, toy, tmp_path):
    drawn = np.zeros(SHAPE, bool)
    drawn[20:23, 3:30] = True
    objects = Prompts([(21, 10)], [True]), Prompts([(32, 40)], [True])
    image = ImagePrompts("p0", "", SHAPE, "", objects, (1.0, 0.5),
                         masks=(CroppedMask.of(drawn), None))  # fmt: skip
    save_prompts(tmp_path / "p.json", PromptFile((image,)))
    out = tmp_path / "out"
    annotate(scenes / "images", out=out, prompts=tmp_path / "p.json", model=toy)
    labels = tifffile.imread(out / "p0.tif")
    np.testing.assert_array_equal(labels == labels[21, 10], drawn)
    assert labels[32, 40] not in (0, labels[21, 10])


def test_contact_sheet_is_written_on_demand(simulated):
    assert (simulated[0] / "overlay.png").exists()
    assert not hidden_files(simulated[0])


def test_only_images_of_the_prompt_file_are_done(scenes, toy, tmp_path):
    prompts = write_prompts(tmp_path / "p.json", [("p0", SHAPE, CENTRES)])
    outcome = annotate(scenes / "images", out=tmp_path / "out", prompts=prompts, model=toy)
    assert (outcome.done, outcome.figures["clicks_per_object"]) == (("p0",), 1)
    assert set(np.unique(tifffile.imread(tmp_path / "out" / "p0.tif"))) == {0, 1, 2}


def test_object_hidden_by_another_keeps_its_prompts(scenes, toy, tmp_path):
    prompts = write_prompts(tmp_path / "p.json", [("p0", SHAPE, ([(12, 14)], [(12, 14)]))])
    outcome = annotate(scenes / "images", out=tmp_path / "out", prompts=prompts, model=toy)
    (image,) = load_prompts(tmp_path / "out" / "prompts.json").images
    assert (len(image.objects), image.scores[1]) == (2, 0.0)
    assert (outcome.figures["objects"], outcome.figures["hidden"]) == (2, 1)


def test_union_gives_every_pixel_its_class(scenes, toy, tmp_path):
    prompts = write_prompts(tmp_path / "p.json", [("p0", SHAPE, CENTRES)])
    annotate(
        scenes / "images", out=tmp_path / "out", prompts=prompts, model=toy,
        segment=SegmentSettings(instances=False),
    )  # fmt: skip
    assert set(np.unique(tifffile.imread(tmp_path / "out" / "p0.tif"))) == {0, 1}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_image_with_a_name_no_result_can_have_spoils_no_table(toy, tmp_path):
    odd = ("CON", "T:001", "a ", "b.", "new\nline", "we\\ird")
    for name in odd:
        image, labels = scene()
        write_image(tmp_path / "images" / f"{name}.png", image)
        write_image(tmp_path / "masks" / f"{name}.png", labels)
    for _ in range(2):  # the folder stays one to go on in
        outcome = annotate(
            tmp_path / "images", out=tmp_path / "out", masks=tmp_path / "masks", simulate=True,
            model=toy, settings=AnnotateSettings(max_clicks=1),
        )  # fmt: skip
        assert set(outcome.failures) == {"T:001", "we\\ird"}
        tables = load_prompts(tmp_path / "out" / "prompts.json")
        assert [image.name for image in tables.images] == ["a ", "b.", "CON", "new\nline"]
    out = run_job(
        pipeline.export(
            tmp_path / "out", out=tmp_path / "e",
            settings=ExportSettings(png=True, geojson=True, ome_zarr=True, coco=True, table=True),
        )
    )  # fmt: skip
    assert len(out.figures["files"]) > 4 * 4


def test_settings_reach_the_simulated_annotator(scenes, toy, tmp_path):
    outcome = annotate(
        scenes / "images" / "p0.png", out=tmp_path, masks=scenes / "masks", simulate=True,
        model=toy, settings=AnnotateSettings(max_clicks=1, target_iou=1.0),
    )  # fmt: skip
    assert outcome.figures["clicks_per_object"] == 1


def test_duplicates_are_hidden_in_the_simulation_too(toy, tmp_path):
    labels = np.zeros(SHAPE, np.uint8)
    labels[10:15, 10:13], labels[10:15, 14:17] = 1, 2  # two clicks whose discs are nearly one
    write_image(tmp_path / "images" / "p0.png", scene()[0])
    write_image(tmp_path / "masks" / "p0.png", labels)
    hidden = [
        annotate(
            tmp_path / "images", out=tmp_path / str(limit), masks=tmp_path / "masks", model=toy,
            simulate=True, settings=AnnotateSettings(max_clicks=1, min_object_px=1),
            segment=SegmentSettings(duplicate_iou=limit),
        ).figures["hidden"]
        for limit in (1.0, 0.2)
    ]  # fmt: skip
    assert hidden == [0, 1]


def test_box_is_a_prompt(scenes, toy, tmp_path):
    tree = prompts_tree([("p0", SHAPE, [[]])])
    box = {"row0": 20, "column0": 10, "row1": 40, "column1": 30}
    tree["images"][0]["objects"][0]["box"] = box
    (tmp_path / "p.json").write_text(json.dumps(tree))
    annotate(scenes / "images", out=tmp_path / "out", prompts=tmp_path / "p.json", model=toy)
    rows, columns = np.nonzero(tifffile.imread(tmp_path / "out" / "p0.tif"))
    assert (rows.mean(), columns.mean()) == pytest.approx((30, 20), abs=1)


def test_stack_is_annotated_plane_by_plane(toy, tmp_path):
    pages = np.stack([scene(i)[0] for i in range(3)])
    masks = np.stack([scene(i)[1] for i in range(3)])
    tifffile.imwrite(tmp_path / "images.tif", pages, photometric="rgb")
    (tmp_path / "masks").mkdir()
    tifffile.imwrite(tmp_path / "masks" / "images.tif", masks, photometric="minisblack")
    outcome = annotate(
        tmp_path / "images.tif", out=tmp_path / "out", masks=tmp_path / "masks", simulate=True,
        model=toy, settings=ONE_CLICK,
    )  # fmt: skip
    assert outcome.done == ("images[0]", "images[1]", "images[2]")
    labels = tifffile.imread(tmp_path / "out" / "images.tif")
    assert (labels.dtype, labels.shape) == (np.int32, (3, *SHAPE))
    assert all(iou(a > 0, b > 0) > 0.8 for a, b in zip(labels, masks, strict=True))


def test_mask_of_a_stack_is_hashed_once_for_all_planes(toy, tmp_path, monkeypatch):
    pages, masks = (np.stack([scene(i)[part] for i in range(5)]) for part in (0, 1))
    tifffile.imwrite(tmp_path / "images.tif", pages, photometric="rgb")
    write_image(tmp_path / "masks" / "images.tif", masks)
    hashed, digest = [], hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda file, *a: [hashed.append(file.name), digest(file, *a)][1]
    )
    annotate(
        tmp_path / "images.tif", out=tmp_path / "out", masks=tmp_path / "masks", simulate=True,
        model=toy, settings=AnnotateSettings(max_clicks=1),
    )  # fmt: skip
    assert hashed.count(str(tmp_path / "masks" / "images.tif")) == 1


def test_channel_map_is_stored_and_used(toy, tmp_path):
    image, labels = scene(scale=200)
    channels = np.concatenate([np.zeros_like(image[..., :2]), image], axis=2)  # (H, W, 5)
    (tmp_path / "images").mkdir()
    tifffile.imwrite(
        tmp_path / "images" / "p0.ome.tif", channels.transpose(2, 0, 1), metadata={"axes": "CYX"}
    )
    write_image(tmp_path / "masks" / "p0.png", labels)
    options = {"masks": tmp_path / "masks", "simulate": True, "model": toy}
    annotate(tmp_path / "images", out=tmp_path / "out", channels=(2, 3, 4), **options)
    stored = load_prompts(tmp_path / "out" / "prompts.json").normalization
    assert (stored["channels"], stored["channel_count"]) == ([2, 3, 4], 5)
    assert max(stored["high"]) > 20_000
    again = annotate(
        tmp_path / "images", out=tmp_path / "again", prompts=tmp_path / "out" / "prompts.json",
        model=toy,
    )  # fmt: skip
    assert again.done == ("p0",)


def test_changed_pixels_are_refused(toy, tmp_path):
    folder = write_scenes(tmp_path, 2)
    options = {"masks": folder / "masks", "simulate": True, "model": toy}
    annotate(folder / "images", out=tmp_path / "out", **options)
    write_image(folder / "images" / "p1.png", 255 - scene(1)[0])
    again = annotate(
        folder / "images", out=tmp_path / "again", prompts=tmp_path / "out" / "prompts.json",
        model=toy,
    )  # fmt: skip
    assert again.done == ("p0",)
    assert again.failures["p1"].startswith("p1: other pixels")


def test_array_is_annotated(toy, tmp_path):
    prompts = write_prompts(tmp_path / "p.json", [("image", SHAPE, CENTRES)])
    outcome = annotate(scene()[0], out=tmp_path / "out", prompts=prompts, model=toy)
    assert outcome.done == ("image",)


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_results_are_not_laid_among_the_inputs(toy, tmp_path, folder):
    write_scenes(tmp_path, 1)
    before = sorted((tmp_path / folder).iterdir())
    with pytest.raises(InputError, match=f"{folder}: holds p0.png, which is given as input"):
        annotate(
            tmp_path / "images", out=tmp_path / folder, masks=tmp_path / "masks", simulate=True,
            model=toy, overwrite=True,
        )  # fmt: skip
    assert sorted((tmp_path / folder).iterdir()) == before


def test_prompts_are_not_replaced_by_those_of_the_results(scenes, toy, tmp_path):
    prompts = write_prompts(tmp_path / "prompts.json", [("p0", SHAPE, CENTRES)])
    before = prompts.read_bytes()
    with pytest.raises(InputError, match=r"prompts\.json: is an input, too"):
        annotate(scenes / "images", out=tmp_path, prompts=prompts, model=toy, overwrite=True)
    assert prompts.read_bytes() == before


def test_results_are_not_laid_into_a_zarr_that_is_given(toy, tmp_path):
    prompts = write_prompts(tmp_path / "p.json", [("cells", SHAPE, CENTRES)])
    image = tmp_path / "cells.zarr"
    zarr.save_array(image, scene()[0])
    before = sorted(image.rglob("*"))
    with pytest.raises(InputError, match=r"cells\.zarr, which is given as input"):
        annotate(image, out=image, prompts=prompts, model=toy)
    assert sorted(image.rglob("*")) == before


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"masks": "masks"}, id="masks_alone"),
        pytest.param({"prompts": "p.json", "simulate": True}, id="simulate_without_masks"),
        pytest.param({"prompts": "p.json", "masks": "m", "simulate": True}, id="both"),
    ],
)
def test_one_source_of_clicks_is_needed(tmp_path, options):
    with pytest.raises(InputError, match="give either a prompt file"):
        annotate(tmp_path, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_results_of_another_model_are_not_joined(simulated, scenes, tmp_path):
    with pytest.raises(OutputError, match="holds results of path:"):
        annotate(
            scenes / "images", out=simulated[0], masks=scenes / "masks", simulate=True, model="tiny"
        )

"""A few annotated images to a prompter file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from toys import SHAPE, hidden_files, scene, write_image, write_prompts, write_scenes

from napari_samic import pipeline, recipes
from napari_samic.core.errors import FormatError, InputError, OutputError, TrainingError
from napari_samic.core.label_objects import LabelObjects, ObjectRecord
from napari_samic.core.settings import (
    AdaptSettings,
    HeatMapSettings,
    PeakSettings,
    PrompterSettings,
    TrainSettings,
)
from napari_samic.core.types import CroppedMask, Prompts, run_job
from napari_samic.export.coco import coco_tree
from napari_samic.io.prompts import ImagePrompts, PromptFile, save_prompts
from napari_samic.models.samic import serialization

QUICK = TrainSettings(epochs=1, views=1)
FIXED = AdaptSettings(adapt=False)
CENTRES = [(12, 14)], [(32, 40)]
NAMES = {2: "cell", 7: "dirt"}


def train(images, **options):
    how = options.pop("how", QUICK)
    return run_job(pipeline.train(images, device="cpu", settings=how, adapt=FIXED, **options))


def content(path):
    return torch.load(path, weights_only=True)


def test_prompter_file_holds_what_segmenting_needs(prompter, toy):
    header = serialization.describe(prompter)
    assert header["backbone"]["kind"] == "segmenter"
    assert header["normalisation"]["model"] == toy
    assert len(header["normalisation"]["model_sha256"]) == 64
    assert header["settings"]["peaks"]["min_area_frac"] == 0.2
    assert not hidden_files(prompter.parent)


def test_masks_of_some_of_the_images_are_used(toy, tmp_path):
    folder = write_scenes(tmp_path, 4)
    (folder / "masks" / "p1.png").unlink()
    outcome = train(folder / "images", masks=folder / "masks", out=tmp_path / "p.pt", model=toy)
    assert outcome.done == ("p0", "p2", "p3")
    assert outcome.figures["epochs"] == 1
    assert "1 epochs" in outcome.figures["summary"]


def test_outlines_teach_what_masks_do_and_their_classes(toy, tmp_path):
    folder = write_scenes(tmp_path, 3)
    about = {1: ObjectRecord(2), 2: ObjectRecord(7)}
    images = [LabelObjects(f"p{i}", scene(i)[1], about=about, classes=NAMES) for i in range(3)]
    (folder / "coco.json").write_text(json.dumps(coco_tree(images)))
    outcome = train(folder / "images", masks=folder / "coco.json", out=tmp_path / "c.pt", model=toy)
    assert outcome.done == ("p0", "p1", "p2")
    assert "classes: 2 cell, 7 dirt." in outcome.notices
    for i, stored in enumerate(content(tmp_path / "c.pt")["references"]):
        assert [prompts["label"] for prompts in stored["objects"]] == [2, 7]
        np.testing.assert_array_equal(stored["mask"] > 0, scene(i)[1] > 0)


def test_masks_of_a_prompt_file_are_learned_as_drawn(toy, tmp_path):
    folder = write_scenes(tmp_path, 2)
    drawn = np.zeros(SHAPE, bool)
    drawn[2:5, 3:30] = True  # nothing that the toy would answer
    point = Prompts([(3, 10)], [True]), Prompts([(32, 40)], [True])
    masks = CroppedMask.of(drawn), None
    images = [ImagePrompts(f"p{i}", "", SHAPE, "", point, (1.0, 0.5), masks=masks) for i in (0, 1)]
    save_prompts(tmp_path / "prompts.json", PromptFile(tuple(images)))
    out = tmp_path / "p.pt"
    train(folder / "images", prompts=tmp_path / "prompts.json", out=out, model=toy)
    for stored in content(out)["references"]:
        mask = stored["mask"].numpy()
        np.testing.assert_array_equal(mask == mask[3, 10], drawn)
        assert mask[32, 40] not in (0, mask[3, 10])  # what was clicked is answered by the model


def test_reference_without_an_object_is_named(toy, tmp_path):
    folder = write_scenes(tmp_path, 3)
    write_image(folder / "masks" / "p1.png", np.zeros(SHAPE, np.uint8))
    outcome = train(folder / "images", masks=folder / "masks", out=tmp_path / "p.pt", model=toy)
    assert outcome.notices[-1].endswith(": p1.")


@pytest.mark.parametrize("value", [np.uint8(255), None], ids=["one value", "numbers"])
def test_objects_too_small_for_the_network_in_large_references_are_told(toy, tmp_path, value):
    for i in range(2):
        image, labels = (np.pad(a, [(0, 0), (0, 3000)] + [(0, 0)] * (a.ndim - 2)) for a in scene(i))
        write_image(tmp_path / "images" / f"p{i}.png", image)
        write_image(
            tmp_path / "masks" / f"p{i}.png", np.uint8(labels > 0) * value if value else labels
        )
    outcome = train(tmp_path / "images", masks=tmp_path / "masks", out=tmp_path / "p.pt", model=toy)
    assert any("give pieces of these images" in notice for notice in outcome.notices)
    few = write_scenes(tmp_path / "small", 2)
    outcome = train(few / "images", masks=few / "masks", out=tmp_path / "q.pt", model=toy)
    assert not any("pieces" in notice for notice in outcome.notices)


def test_no_epochs_with_the_packaged_model_needs_one_image(tmp_path):
    folder = write_scenes(tmp_path, 1)
    out = tmp_path / "p.pt"
    how = TrainSettings(epochs=0)
    outcome = train(folder / "images", masks=folder / "masks", out=out, model="tiny", how=how)
    assert outcome.figures["epochs"] == 0
    assert outcome.figures["loss"] is None
    assert outcome.figures["summary"].startswith("not trained")
    segmented = run_job(
        pipeline.segment(folder / "images", prompter=out, out=tmp_path / "out", device="cpu")
    )
    assert segmented.done == ("p0",)


def test_no_epochs_without_first_weights_says_that_they_are_missing(scenes, toy, tmp_path):
    how = TrainSettings(epochs=0)
    with pytest.raises(TrainingError, match=r"no first weights come for it\. Train for at least"):
        train(scenes / "images", masks=scenes / "masks", out=tmp_path / "p", model=toy, how=how)


def test_no_epochs_with_other_layers_than_those_of_the_first_weights_is_told(scenes, tmp_path):
    with pytest.raises(TrainingError, match=r"^\S+ with 2 layers: no first weights come for it\."):
        train(scenes / "images", masks=scenes / "masks", out=tmp_path / "p", model="tiny",
              how=TrainSettings(epochs=0), prompter=PrompterSettings(layers=2))  # fmt: skip


def test_prompts_of_annotate_are_accepted(scenes, toy, tmp_path):
    run_job(
        pipeline.annotate(
            scenes / "images", masks=scenes / "masks", simulate=True, model=toy, out=tmp_path,
            device="cpu",
        )
    )  # fmt: skip
    outcome = train(
        scenes / "images", prompts=tmp_path / "prompts.json", out=tmp_path / "p.pt", model=toy
    )
    assert outcome.done == ("p0", "p1", "p2", "p3")
    assert outcome.failures == {}


def test_settings_reach_the_file(scenes, toy, tmp_path):
    out = tmp_path / "p.pt"
    train(
        scenes / "images", masks=scenes / "masks", out=out, model=toy,
        prompter=PrompterSettings(shots=2, centre=False), heat=HeatMapSettings(combine="max"),
        peaks=PeakSettings(threshold=0.3), how=TrainSettings(epochs=2, views=1),
    )  # fmt: skip
    stored = content(out)
    assert stored["settings"]["prompter"]["shots"] == 2
    assert stored["settings"]["heat"]["combine"] == "max"
    assert stored["settings"]["peaks"]["threshold"] == 0.3
    assert (len(stored["references"]), stored["centre"]) == (2, None)
    assert len(stored["report"]["losses"]) == 2


def test_same_seed_gives_the_same_weights(scenes, toy, tmp_path):
    for name in ("a.pt", "b.pt"):
        train(scenes / "images", masks=scenes / "masks", out=tmp_path / name, model=toy)
    a, b = (content(tmp_path / n)["learner"] for n in ("a.pt", "b.pt"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_file_is_not_written_over(scenes, toy, tmp_path):
    out = tmp_path / "p.pt"
    out.write_text("mine")
    job = pipeline.train(scenes / "images", masks=scenes / "masks", out=out, model=toy)
    with pytest.raises(OutputError, match=r"p\.pt: exists already"):
        next(job)  # before any work
    assert out.read_text() == "mine"
    train(scenes / "images", masks=scenes / "masks", out=out, model=toy, overwrite=True)
    assert serialization.describe(out)


@pytest.mark.parametrize("after", [3, 12])
def test_cancel_leaves_nothing(scenes, toy, tmp_path, after):
    job = pipeline.train(
        scenes / "images", masks=scenes / "masks", out=tmp_path / "p.pt", model=toy, device="cpu",
        settings=TrainSettings(epochs=50, views=1), adapt=FIXED,
    )  # fmt: skip
    for _ in range(after):
        next(job)
    job.close()
    assert list(tmp_path.iterdir()) == []


def test_steps_tell_reading_features_and_epochs(scenes, toy, tmp_path):
    steps = list(
        pipeline.train(
            scenes / "images", masks=scenes / "masks", out=tmp_path / "p.pt", model=toy,
            device="cpu", settings=QUICK, adapt=FIXED,
        )
    )  # fmt: skip
    phases = list(dict.fromkeys(s.data.get("phase") for s in steps))
    assert phases == ["read", "load", "features", "batch", "epoch"]


def test_unusable_references_are_told_and_the_others_used(toy, tmp_path):
    folder = write_scenes(tmp_path, 3)
    write_image(folder / "masks" / "p1.png", np.zeros((5, 5), np.uint8))
    (folder / "images" / "p2.png").write_bytes(b"no image")
    with pytest.raises(
        TrainingError, match=r"2 could not be used, the first because: p1\.png: mask"
    ):
        train(folder / "images", masks=folder / "masks", out=tmp_path / "p.pt", model=toy)
    write_image(folder / "images" / "p2.png", scene(2)[0])
    outcome = train(folder / "images", masks=folder / "masks", out=tmp_path / "p.pt", model=toy)
    assert (outcome.done, list(outcome.failures)) == (("p0", "p2"), ["p1"])


def test_changed_pixels_are_refused(toy, tmp_path):
    folder = write_scenes(tmp_path, 3)
    run_job(
        pipeline.annotate(
            folder / "images", masks=folder / "masks", simulate=True, model=toy, device="cpu",
            out=tmp_path / "a",
        )
    )  # fmt: skip
    write_image(folder / "images" / "p1.png", 255 - scene(1)[0])
    outcome = train(
        folder / "images", prompts=tmp_path / "a" / "prompts.json", out=tmp_path / "p.pt", model=toy
    )
    assert outcome.failures["p1"].startswith("p1: other pixels")


def test_model_path_is_found_from_another_folder(scenes, tmp_path, toy, monkeypatch):
    shutil.copy(toy.removeprefix("path:"), tmp_path / "toy.pt")
    monkeypatch.chdir(tmp_path)
    train(scenes / "images", masks=scenes / "masks", out="p.pt", model="path:toy.pt")
    stored = serialization.describe("p.pt")["normalisation"]["model"]
    assert stored == f"path:{(tmp_path / 'toy.pt').resolve()}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({}, "give either a prompt file", id="nothing"),
        pytest.param({"prompts": "a", "masks": "b"}, "give either a prompt file", id="both"),
        pytest.param({"masks": "nowhere"}, "no such file or folder", id="no_masks"),
    ],
)
def test_one_source_of_references_is_needed(scenes, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        train(scenes / "images", out=tmp_path / "p.pt", **options)


@pytest.mark.parametrize(
    ("given", "out", "message"),
    [
        pytest.param("masks", "masks/p0.png", "ending of an image", id="mask"),
        pytest.param("masks", "prompter.ome.TIFF", "ending of an image", id="new_image"),
        pytest.param("prompts", "images/../clicks.json", "is an input", id="prompts"),
    ],
)
def test_prompter_replaces_no_input(scenes, toy, tmp_path, given, out, message):
    folder = Path(shutil.copytree(scenes, tmp_path / "scenes"))
    prompts = folder / "clicks.json"
    prompts.write_text("{}")
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    options = {given: prompts if given == "prompts" else folder / "masks"}
    with pytest.raises(InputError, match=message):
        train(folder / "images", out=folder / out, overwrite=True, model=toy, **options)
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


@pytest.mark.parametrize("given", ["model", "encoder", "resume"])
def test_prompter_replaces_no_network_that_it_is_made_with(scenes, toy, tmp_path, given):
    file = Path(shutil.copy(toy.removeprefix("path:"), tmp_path / "net.pt"))
    before = file.read_bytes()
    options = {"model": toy, given: f"path:{file}" if given == "model" else file}
    if given == "encoder":
        options = {"model": toy, "prompter": PrompterSettings(encoder=f"path:{file}")}
    with pytest.raises(InputError, match=r"net\.pt: is an input, too"):
        train(scenes / "images", masks=scenes / "masks", out=file, overwrite=True, **options)
    assert file.read_bytes() == before


def test_one_reference_is_too_few(scenes, toy, tmp_path):
    prompts = write_prompts(tmp_path / "p.json", [("p0", SHAPE, CENTRES)])
    with pytest.raises(TrainingError, match=r"1 reference\(s\) with prompts"):
        train(scenes / "images", prompts=prompts, out=tmp_path / "p.pt", model=toy)
    assert not (tmp_path / "p.pt").exists()


def test_16_bit_range_is_stored(toy, tmp_path):
    for i in range(2):
        image, labels = scene(i, scale=150)
        (tmp_path / "images").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "images" / f"p{i}.tif", image, photometric="rgb")
        write_image(tmp_path / "masks" / f"p{i}.png", labels)
    train(tmp_path / "images", masks=tmp_path / "masks", out=tmp_path / "p.pt", model=toy)
    stored = serialization.describe(tmp_path / "p.pt")["normalisation"]
    assert 10_000 < max(stored["high"]) < 31_000
    json.dumps(stored)


def after_one_epoch():
    """Asked for the first time after the first epoch."""
    return True


def test_stopped_training_is_recorded_as_the_epochs_it_did_and_goes_on(toy, tmp_path):
    folder = write_scenes(tmp_path, 4)
    how, mark = TrainSettings(epochs=3, views=1), tmp_path / "mark"

    def job(name, **more):
        return run_job(recipes.recorded(pipeline.train, tmp_path / f"{name}.yaml")(
            folder / "images", masks=folder / "masks", out=tmp_path / name, model=toy,
            device="cpu", settings=how, adapt=FIXED, **more,
        ))  # fmt: skip

    stopped = job("stopped.pt", stop=after_one_epoch, resume=mark)
    assert stopped.figures["epochs"] == 1
    (step,) = recipes.load_recipe(tmp_path / "stopped.pt.yaml").steps
    assert step.settings["epochs"] == 1
    on = job("on.pt", resume=mark)
    (step,) = recipes.load_recipe(tmp_path / "on.pt.yaml").steps
    assert (on.figures["epochs"], step.settings["epochs"]) == (3, 3)
    straight = job("straight.pt")
    assert on.figures["after"] == straight.figures["after"]
    for name, found in content(tmp_path / "straight.pt")["learner"].items():
        assert torch.equal(content(tmp_path / "on.pt")["learner"][name], found)


def test_file_of_the_user_is_no_place_to_keep_where_a_training_ended(toy, tmp_path):
    folder = write_scenes(tmp_path, 2)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FormatError, match=r"mine\.txt: no training to go on with"):
        train(folder / "images", masks=folder / "masks", out=tmp_path / "p.pt", model=toy,
              resume=tmp_path / "mine.txt")  # fmt: skip
    assert (tmp_path / "mine.txt").read_text() == "mine"

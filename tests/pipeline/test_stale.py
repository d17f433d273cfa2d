"""What is no longer what the results were made of: done again, refused or told; never silent."""

import shutil

import numpy as np
import pytest
import tifffile
import torch

from napari_samic import pipeline
from napari_samic.contracts import run
from napari_samic.errors import InputError, StaleError
from napari_samic.gui import looking
from napari_samic.reviews import Verdict, save_review, sha256_of
from napari_samic.settings import (
    ExportSettings,
    MemorySettings,
    PeakSettings,
    RefineSettings,
    SegmentSettings,
    StrategySettings,
    TrainSettings,
)
from toys import scene, write_image, write_labels_of


@pytest.fixture
def done(prompter, scenes, tmp_path):
    """Images and a prompter of our own, and their results."""
    shutil.copytree(scenes / "images", tmp_path / "images")
    shutil.copy(prompter, tmp_path / "p.pt")
    segment(tmp_path)
    return tmp_path


def segment(folder, **options):
    options = {"prompter": folder / "p.pt", "out": folder / "labels", "device": "cpu"} | options
    return run(pipeline.segment(options.pop("images", folder / "images"), **options))


def change_image(folder):
    write_image(folder / "images" / "p1.png", scene(7)[0])


def export(folder):
    return run(pipeline.export(folder / "labels", out=folder / "x", settings=ExportSettings()))


def review(folder):
    return run(looking.look(folder / "labels"))


def accept(folder, of=None):
    verdicts = {f"p{i}": Verdict("accepted", of=of or "") for i in range(4)}
    save_review(folder / "review.json", verdicts)
    return run(
        pipeline.accept(folder / "labels", review=folder / "review.json", out=folder / "accepted")
    )


@pytest.mark.parametrize(
    ("options", "named"),
    [
        pytest.param({"settings": SegmentSettings(min_score=0.4)}, "min_score", id="settings"),
        pytest.param({"peaks": PeakSettings(threshold=0.9)}, "threshold", id="peaks"),
        pytest.param({"method": "samic"}, "method", id="method"),
        pytest.param({"strategy": StrategySettings(choice="agreement")}, "choice", id="strategy"),
        pytest.param({"refine": RefineSettings(smooth_px=2)}, "smooth_px", id="refine"),
        pytest.param({"memory": MemorySettings(follow="stacks")}, "follow", id="memory"),
    ],
)
def test_segment_with_another_setting_is_refused_and_named(done, options, named):
    with pytest.raises(StaleError, match=named):
        segment(done, **options)


def retrained(folder, **options):
    run(
        pipeline.train(
            folder / "images", masks=masks_of(folder), out=folder / "p.pt", device="cpu",
            overwrite=True, settings=TrainSettings(epochs=1, views=1, seed=5), **options,
        )
    )  # fmt: skip


def masks_of(folder):
    write_labels_of(folder / "masks")
    return folder / "masks"


def test_segment_with_a_prompter_that_was_trained_again_is_refused(done, toy):
    retrained(done, model=toy)
    with pytest.raises(StaleError, match="another prompter"):
        segment(done)


def test_segment_with_another_normalisation_is_refused(done, toy):
    retrained(done, model=toy, channels=(2, 1, 0))
    with pytest.raises(StaleError, match="another normalisation"):
        segment(done)


def test_segment_by_another_model_is_refused(done, tmp_path, toy):
    content = torch.load(toy.removeprefix("path:"), weights_only=True)
    other = tmp_path / "other.pt"
    torch.save(content, other)
    retrained(done, model=f"path:{other}")
    with pytest.raises(StaleError, match="holds results of"):
        segment(done)


def test_segment_does_an_image_that_changed_again(done):
    change_image(done)
    outcome = segment(done)
    assert outcome.done == ("p1",)
    assert "p1" in outcome.notices[0]


def test_planes_of_other_axes_are_other_planes(done):
    cube = np.stack([scene(i)[0][..., 0] for i in range(3)])
    tifffile.imwrite(done / "s.tif", cube, imagej=True, metadata={"axes": "ZYX"})
    segment(done, images=done / "s.tif", out=done / "s")
    tifffile.imwrite(done / "s.tif", cube[0])
    outcome = segment(done, images=done / "s.tif", out=done / "s")
    assert "no record" in outcome.failures["s"]
    assert tifffile.imread(done / "s" / "s.tif").shape == cube.shape


@pytest.mark.parametrize("look", [export, accept, review])
def test_image_that_changed_is_told_by_all_that_read_its_labels(done, look):
    change_image(done)
    assert any("images changed" in n and "p1" in n for n in look(done).notices)


@pytest.mark.parametrize("look", [export, accept, review])
def test_labels_that_were_edited_are_told(done, look):
    write_image(done / "labels" / "p2.tif", scene(1)[1].astype(np.int32))
    assert any("edited" in n and "p2" in n for n in look(done).notices)


@pytest.mark.parametrize("look", [export, accept, review])
def test_labels_of_two_runs_are_told(done, look):
    some = [done / "images" / "p0.png"]
    segment(done, images=some, settings=SegmentSettings(min_score=0.4), overwrite=True)
    assert any("min_score" in n for n in look(done).notices)


@pytest.mark.parametrize("look", [export, review])
def test_label_file_that_no_table_knows_is_told(done, look):
    write_image(done / "labels" / "mine.tif", scene(1)[1].astype(np.int32))
    assert any("mine" in n for n in look(done).notices)


@pytest.mark.parametrize("look", [export, accept, review])
def test_what_is_as_it_was_is_not_talked_about(done, look):
    assert look(done).notices == ()


def test_labels_that_were_made_again_after_the_review_are_not_accepted(done):
    before = sha256_of(done / "labels" / "p0.tif")
    write_image(done / "labels" / "p0.tif", scene(3)[1].astype(np.int32))
    with pytest.raises(InputError, match=r"p0.* reviewed"):
        accept(done, of=before)

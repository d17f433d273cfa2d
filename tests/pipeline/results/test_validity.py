"""What is no longer what the results were made of: done again, refused or told; never silent."""

import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from toys import scene, write_image, write_labels_of

from napari_samic import pipeline
from napari_samic.core.errors import InputError, OutputError, StaleError
from napari_samic.core.settings import (
    AdaptSettings,
    ExportSettings,
    MemorySettings,
    PeakSettings,
    RefineSettings,
    SegmentSettings,
    StrategySettings,
    TrainSettings,
)
from napari_samic.core.types import run_job
from napari_samic.gui.review import scan
from napari_samic.io.reviews import Verdict, save_review
from napari_samic.io.text_files import sha256_of
from napari_samic.pipeline.results.ledger import Ledger


@pytest.fixture
def done(prompter, scenes, tmp_path):
    """Images and a prompter of our own, and their results."""
    shutil.copytree(scenes / "images", tmp_path / "images")
    shutil.copy(prompter, tmp_path / "p.pt")
    segment(tmp_path)
    return tmp_path


def segment(folder, **options):
    options = {"prompter": folder / "p.pt", "out": folder / "labels", "device": "cpu"} | options
    return run_job(pipeline.segment(options.pop("images", folder / "images"), **options))


def change_image(folder):
    write_image(folder / "images" / "p1.png", scene(7)[0])


def export(folder):
    return run_job(pipeline.export(folder / "labels", out=folder / "x", settings=ExportSettings()))


def review(folder):
    return run_job(scan.scan_results(folder / "labels"))


def accept(folder, of=None):
    verdicts = {f"p{i}": Verdict("accepted", of=of or "") for i in range(4)}
    save_review(folder / "review.json", verdicts)
    return run_job(
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
    run_job(
        pipeline.train(
            folder / "images", masks=masks_of(folder), out=folder / "p.pt", device="cpu",
            overwrite=True, settings=TrainSettings(epochs=1, views=1, seed=5),
            adapt=AdaptSettings(adapt=False), **options,
        )
    )  # fmt: skip


def masks_of(folder):
    write_labels_of(folder / "masks")
    return folder / "masks"


def test_segment_with_a_prompter_that_was_trained_again_is_refused(done, toy):
    retrained(done, model=toy)
    with pytest.raises(StaleError, match="another prompter"):
        segment(done)


def test_segment_with_another_normalization_is_refused(done, toy):
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
    assert (outcome.done, outcome.failures) == (("s",), {})
    assert "another number of planes" in outcome.notices[0]
    assert tifffile.imread(done / "s" / "s.tif").shape == cube.shape[1:]


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


def test_accepted_labels_may_be_of_an_earlier_run(done):
    some = [done / "images" / "p0.png"]
    segment(done, images=some, settings=SegmentSettings(min_score=0.4), overwrite=True)
    assert run_job(scan.scan_results(done / "labels", judged=["p1", "p2", "p3"])).notices == ()


@pytest.mark.parametrize("look", [export, review])
def test_label_file_that_no_table_knows_is_told(done, look):
    write_image(done / "labels" / "mine.tif", scene(1)[1].astype(np.int32))
    assert any("mine" in n for n in look(done).notices)


@pytest.mark.parametrize("look", [export, accept, review])
def test_what_is_as_it_was_is_not_talked_about(done, look):
    assert look(done).notices == ()


def test_what_was_accepted_and_is_as_it_was_is_not_talked_about(done):
    accept(done)
    outcome = run_job(pipeline.export(done / "accepted", out=done / "x", settings=ExportSettings()))
    assert (len(outcome.done), outcome.notices) == (4, ())


def test_image_that_changed_is_told_by_what_reads_accepted_labels(done):
    accept(done)
    change_image(done)
    outcome = run_job(pipeline.export(done / "accepted", out=done / "x", settings=ExportSettings()))
    assert "images changed" in outcome.notices[0]


def test_accepted_image_that_was_read_by_axes_is_no_changed_one(done):
    cube = np.stack([scene(i)[0][..., 0] for i in range(3)])
    tifffile.imwrite(done / "s.tif", cube, photometric="minisblack")
    segment(done, images=done / "s.tif", out=done / "s", axes="CYX")
    save_review(done / "review.json", {"s": Verdict("accepted")})
    run_job(pipeline.accept(done / "s", review=done / "review.json", out=done / "accepted"))
    outcome = run_job(pipeline.export(done / "accepted", out=done / "x", settings=ExportSettings()))
    assert outcome.notices == ()


def test_folder_that_may_not_be_entered_is_not_known(done, monkeypatch):
    stat = Path.stat

    def refused(self, **options):
        if self.name == "p1.png":
            raise PermissionError(13, "no", str(self))
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", refused)
    assert export(done).notices == ()


@pytest.mark.parametrize("look", [export, accept, review])
def test_results_of_a_killed_accept_are_read_and_told(done, look):
    with closing(Ledger(done / "labels")) as ledger:
        ledger.begin({"run": {"job": "accept"}})
    assert any("stopped" in n for n in look(done).notices)
    with pytest.raises(OutputError, match="accept"):
        segment(done)


def test_peaks_and_memory_count_only_where_they_are_looked_at(done):
    memory = MemorySettings(follow="never", memory_frames=9)
    assert len(segment(done, memory=memory).skipped) == 4


def test_labels_that_were_made_again_after_the_review_are_not_accepted(done):
    before = sha256_of(done / "labels" / "p0.tif")
    write_image(done / "labels" / "p0.tif", scene(3)[1].astype(np.int32))
    with pytest.raises(InputError, match=r"p0.* reviewed"):
        accept(done, of=before)


def test_image_that_may_not_be_looked_at_is_passed_over(done):
    change_image(done)
    assert "changed since" in review(done).notices[0]
    asked = []

    def may(path):
        asked.append(path.name)
        return False

    assert run_job(scan.scan_results(done / "labels", may=may)).notices == ()
    assert asked == ["p0.png", "p1.png", "p2.png", "p3.png"]

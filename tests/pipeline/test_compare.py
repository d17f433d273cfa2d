"""Prompters compared on the references that the last one kept aside."""

import numpy as np
import pytest
from toys import SHAPE, write_prompts, write_scenes

from napari_samic import pipeline
from napari_samic.core import settings as settings_room
from napari_samic.core.settings import AdaptSettings, TrainSettings
from napari_samic.core.types import run_job
from napari_samic.models.finetune import dataset, encoder
from napari_samic.models.samic import serialization
from napari_samic.pipeline.compare import compare_prompters

PLACES = [[(12 + i, 14), (32, 40 - i)] for i in range(4)]


def annotated(folder, count=4):
    """Pictures and their prompts."""
    write_scenes(folder, count)
    images = [(f"p{i}", SHAPE, [[p] for p in PLACES[i]]) for i in range(count)]
    return folder / "images", write_prompts(folder / "prompts.json", images)


def trained(folder, name, toy, *, adapt=False, **settings):
    images, prompts = folder / "images", folder / "prompts.json"
    how = TrainSettings(**{"epochs": 1, "views": 1, **settings})
    job = pipeline.train(
        images, prompts=prompts, out=folder / name, model=toy, device="cpu", settings=how,
        adapt=AdaptSettings(adapt=adapt),
    )  # fmt: skip
    return folder / name, run_job(job)


def test_score_is_that_of_the_training(toy, tmp_path):
    images, prompts = annotated(tmp_path)
    old, _ = trained(tmp_path, "old.pt", toy, seed=1)
    new, outcome = trained(tmp_path, "new.pt", toy)
    found = run_job(compare_prompters(images, prompters=[old, new], prompts=prompts, device="cpu"))
    best = max(outcome.figures["after"], outcome.figures["before"])
    assert found.figures[str(new)] == pytest.approx(best, abs=1e-4)
    assert np.isfinite(found.figures[str(old)])
    assert found.figures[str(old)] != found.figures[str(new)]
    assert len(found.done) == 1


def test_below_four_references_there_is_nothing_to_judge_by(toy, tmp_path):
    images, prompts = annotated(tmp_path, 2)
    new, _ = trained(tmp_path, "new.pt", toy)
    found = run_job(compare_prompters(images, prompters=[new, new], prompts=prompts, device="cpu"))
    assert (found.done, found.figures) == ((), {"by_masks": False, str(new): None})


def test_old_prompter_that_can_not_be_used_is_told(toy, tmp_path):
    images, prompts = annotated(tmp_path)
    new, _ = trained(tmp_path, "new.pt", toy)
    (tmp_path / "old.pt").write_bytes(b"damaged")
    found = run_job(
        compare_prompters(
            images, prompters=[tmp_path / "old.pt", new], prompts=prompts, device="cpu"
        )
    )
    assert "old.pt:" in found.failures[str(tmp_path / "old.pt")]
    assert found.figures[str(tmp_path / "old.pt")] is None
    assert found.figures[str(new)] is not None


def test_where_the_encoder_was_adapted_masks_are_compared(toy, tmp_path, monkeypatch):
    images, prompts = annotated(tmp_path)
    old, _ = trained(tmp_path, "old.pt", toy)
    monkeypatch.setattr(dataset, "WINDOW_PX", 64)
    monkeypatch.setattr(dataset, "SIDES_PX", (64,))
    monkeypatch.setattr(settings_room, "ADAPT_STEPS", ((1, 6),))
    monkeypatch.setattr(encoder, "should_accept", lambda *_: True)
    new, _ = trained(tmp_path, "new.pt", toy, adapt=True)
    found = run_job(compare_prompters(images, prompters=[old, new], prompts=prompts, device="cpu"))
    growth = serialization.describe(new)["growth"]
    assert found.figures["by_masks"]
    assert found.figures[str(new)] == growth["after"]
    assert 0 < found.figures[str(old)] <= 1
    assert found.done == tuple(growth["held_out"])

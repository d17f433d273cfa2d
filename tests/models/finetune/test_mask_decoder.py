"""The mask decoder tuned to a few references: what it is asked, what it learns, what it leaves."""

import numpy as np
import pytest
import torch
from toys import scene

from napari_samic.core.errors import TrainingError
from napari_samic.core.settings import AdaptSettings
from napari_samic.core.types import run_job
from napari_samic.models.features.reference_masks import InstanceMasks
from napari_samic.models.finetune import mask_decoder
from napari_samic.models.finetune.dataset import ReferenceSample
from napari_samic.models.sam.segmenter import build

SETTINGS = AdaptSettings(decoder_steps=30)


@pytest.fixture(autouse=True)
def toys_learn_fast(monkeypatch):
    monkeypatch.setattr(mask_decoder, "RATE", 3e-3)


@pytest.fixture(scope="module")
def segmenter(toy):
    return build(toy, device="cpu")


def page(number):
    image, labels = scene(number)
    return ReferenceSample(
        f"p{number}", image, InstanceMasks(labels, tuple(1 for _ in range(labels.max())))
    )


def tuned(segmenter, judge=lambda state: float(state is not None), **options):
    pages = [page(i) for i in range(3)]
    settings = options.pop("settings", SETTINGS)
    job = mask_decoder.finetune_mask_decoder(
        segmenter, pages, settings, held_out=[page(3)], judge=judge, **options
    )
    losses = []
    while True:
        try:
            losses += [v for v in [next(job).data.get("loss")] if v is not None]
        except StopIteration as stop:
            return (*stop.value, losses)


def disc(radius=9, shape=(40, 48), centre=(15, 30)):
    rows, columns = np.indices(shape)
    return np.hypot(rows - centre[0], columns - centre[1]) <= radius


def test_a_shaken_outline_is_near_the_true_one_and_not_always_the_same():
    rng = np.random.default_rng(0)
    ious = []
    for _ in range(100):
        soft = mask_decoder.perturb_mask(disc(), rng)
        assert soft.min() >= 0
        assert soft.max() <= 1
        region = soft > 0.5
        ious.append((region & disc()).sum() / (region | disc()).sum())
    assert np.median(ious) > 0.7
    assert min(ious) < 0.9
    assert len(np.unique(ious)) > 50


@pytest.mark.parametrize("ask", ["box point map", "point", "box", "point map"])
def test_a_question_says_what_it_should_where_the_object_is(ask):
    rng, grid, scale = np.random.default_rng(0), (48, 48), (3.0, 3.0)
    for _ in range(20):
        asked = mask_decoder.sample_prompt(2, disc(), ask, scale, grid, rng)
        assert asked.place == 2
        assert asked.shape == ("point" in ask, "box" in ask, "map" in ask)
        asked.prompts.check_inside((120, 144), "here")
        if "point" in ask:
            row, column = asked.prompts.points_rc[0]
            assert np.hypot(row - 46, column - 91) < 25
        if "box" in ask:
            np.testing.assert_allclose(asked.prompts.box_rc, [17.5, 62.5, 74.5, 119.5], atol=18)
        if "map" in ask:
            assert asked.logits.shape == grid
            assert asked.logits[15, 30] > 0
            assert (asked.logits[40:] == -10).all()  # padding


def test_an_object_that_is_shaken_away_is_asked_for_as_it_is():
    tiny = np.zeros((20, 20), bool)
    tiny[4, 7] = True
    for seed in range(30):
        rng = np.random.default_rng(seed)
        asked = mask_decoder.sample_prompt(0, tiny, "point", (1.0, 1.0), (20, 20), rng)
        assert np.abs(asked.prompts.points_rc[0] - (4, 7)).max() <= 1


def test_the_loss_falls_and_the_segmenter_stays_as_it_is(segmenter):
    before = {k: v.clone() for k, v in segmenter.engine.network.state_dict().items()}
    state, report, losses = tuned(segmenter)
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
    assert report.accepted
    assert report.steps == 30
    assert report.held_out == ("p3",)
    for name, value in segmenter.engine.network.state_dict().items():
        assert torch.equal(value, before[name])
    assert any(not torch.equal(v, before[f"mask_decoder.{k}"]) for k, v in state.items())


def test_the_same_seed_gives_the_same_weights(segmenter):
    first, again, other = (tuned(segmenter, seed=seed)[0] for seed in (1, 1, 2))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_masks_of_the_tuned_segmenter_are_better(segmenter):
    state, _, _ = tuned(segmenter, settings=AdaptSettings(decoder_steps=80))
    image, labels = scene(3)
    wanted, rng = labels == 1, np.random.default_rng(0)
    asked = mask_decoder.sample_prompt(0, wanted, "box point map", (1.0, 1.0), (64, 64), rng)

    def score(one):
        (said,) = one.candidates(image, [asked.prompts])
        mask = said.masks[said.best]
        return (mask & wanted).sum() / (mask | wanted).sum()

    assert score(segmenter.with_decoder(state)) > score(segmenter) + 0.1


def test_no_better_or_stopped_nothing_is_given(segmenter):
    state, report, _ = tuned(segmenter, judge=lambda state: 0.5)
    assert state is None
    assert "not better" in report.summary
    asked = []
    state, report, _ = tuned(segmenter, stop=lambda: asked.append(1) or len(asked) > 6)
    assert state is None
    assert report.steps == 3
    assert "stopped" in report.summary


def test_without_a_judge_nothing_is_tuned(segmenter):
    assert run_job(mask_decoder.finetune_mask_decoder(segmenter, [page(0)], SETTINGS)) == (
        None,
        None,
    )


def test_a_loss_that_is_not_finite_is_told(segmenter, monkeypatch):
    monkeypatch.setattr(mask_decoder, "loss_of", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(TrainingError, match="lower learning rate"):
        tuned(segmenter)


def test_the_worst_mask_costs_nothing_and_a_wrong_score_does():
    target = torch.zeros(1, 1, 8, 8)
    target[..., 2:6, 2:6] = 1
    good, bad = 20 * (2 * target - 1), -20 * (2 * target - 1)
    logits = torch.cat([good, bad], 1)
    right = mask_decoder.loss_of(logits, torch.tensor([[1.0, 0.0]]), target)
    wrong = mask_decoder.loss_of(logits, torch.tensor([[0.0, 1.0]]), target)
    assert right < 0.05
    assert wrong > 1


@pytest.mark.parametrize("steps", [1, 2, 5, 6, 9, 19])
def test_any_number_of_batches_will_do(segmenter, steps):
    state, report, _ = tuned(segmenter, settings=AdaptSettings(decoder_steps=steps))
    assert report.steps == steps
    assert state is not None


def test_stop_is_asked_before_references_are_encoded(segmenter):
    state, _, losses = tuned(segmenter, stop=lambda: True)
    assert (state, losses) == (None, [])


def test_objects_lie_on_the_grid_where_they_are_in_the_image(segmenter, monkeypatch):
    asked, real = [], mask_decoder.sample_prompt

    def prompt(place, mask, ask, scale, *rest):
        asked.append((mask, scale))
        return real(place, mask, ask, scale, *rest)

    monkeypatch.setattr(mask_decoder, "sample_prompt", prompt)
    settings = AdaptSettings(decoder_steps=1)
    run_job(
        mask_decoder.finetune_mask_decoder(
            segmenter, [page(0)], settings, held_out=[page(3)], judge=lambda _: 0.5
        )
    )
    _, labels = scene(0)
    assert len(asked) == labels.max()
    for mask, scale in asked:
        middle = np.argwhere(mask).mean(0)
        row, column = ((middle + 0.5) * scale - 0.5).round().astype(int)
        own = labels == labels[row, column]
        assert labels[row, column] > 0
        assert mask.sum() * np.prod(scale) == pytest.approx(own.sum(), rel=0.2)

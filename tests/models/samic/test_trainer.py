"""Learning: it learns, repeats itself, and leaves the prompter alone when it fails."""

import copy
import math

import numpy as np
import pytest
import torch
from toy_backbone import prompter, quick, reference, references

from napari_samic.core.errors import TrainingError
from napari_samic.core.types import run_job
from napari_samic.models.samic import trainer
from napari_samic.models.samic.fit_report import FitReport


def weights(made):
    return copy.deepcopy(made.learner.state_dict())


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


def fitted(given=None, *, seed=0, **settings):
    made = prompter(seed=seed)
    report = run_job(made.fit(given or references(3), quick(seed=seed, **settings)))
    return made, report


def drive(job, phase, count=1):
    """Up to the `count`th Step of a phase."""
    for step in job:
        count -= step.data["phase"] == phase
        if count == 0:
            return step
    raise AssertionError(f"no more steps of {phase}")


def test_loss_goes_down_and_held_out_correlation_up(trained):
    report = trained.report
    assert len(report.losses) == 18
    assert min(report.losses) < 0.7 * report.losses[0]
    assert report.after > report.before + 0.3
    assert report.accepted
    assert len(report.held_out) == 1
    assert report.pairs == 7 * 4
    assert len(trained.references) == 3


def test_same_seed_gives_identical_weights_and_another_seed_others():
    first, again, other = (fitted(seed=s, epochs=2)[0] for s in (1, 1, 2))
    assert same(weights(first), weights(again))
    assert not same(weights(first), weights(other))


def test_training_seed_alone_changes_the_course():
    [a, b] = (prompter(), prompter())
    run_job(a.fit(references(4), quick(seed=1, epochs=1)))
    run_job(b.fit(references(4), quick(seed=2, epochs=1)))
    assert a.report.losses != b.report.losses


def test_training_leaves_the_global_random_numbers_alone():
    torch.manual_seed(5)
    before = torch.rand(3)
    torch.manual_seed(5)
    fitted(epochs=1)
    assert torch.equal(torch.rand(3), before)


@pytest.mark.parametrize("consumer", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_modes_leak_neither_to_nor_from_the_consumer(consumer):
    made, phases = prompter(), set()
    with consumer():
        grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        for step in made.fit(references(4), quick(epochs=2)):
            phases.add(step.data["phase"])
            assert torch.is_grad_enabled() == grad
            assert torch.is_inference_mode_enabled() == inference
    assert phases == {"features", "batch", "epoch"}
    assert len(made.report.losses) == 2


def test_steps_tell_how_far_it_is(monkeypatch):
    monkeypatch.setattr(trainer, "BATCH", 2)
    steps = list(prompter().fit(references(4), quick(epochs=2)))
    features = [s for s in steps if s.data["phase"] == "features"]
    assert [(s.done, s.total) for s in features] == [(k, 4) for k in (1, 2, 3, 4)]
    assert {s.message for s in features} == {f"features of r{k}" for k in range(4)}
    rest = [s for s in steps if s.data["phase"] != "features"]
    done = [s.done for s in rest]
    assert done == sorted(done)
    assert (done[-1], rest[-1].total) == (2000, 2000)
    assert [s.data["epoch"] for s in rest] == [1, 1, 1, 2, 2, 2]
    assert rest[-1].message.startswith("epoch 2: loss ")


def test_prompter_is_left_ready_to_answer():
    made, _ = fitted(epochs=1)
    assert not made.learner.training
    assert all(p.grad is None for p in made.learner.parameters())
    assert made.center is not None
    assert [r.name for r in made.references] == ["r0", "r1", "r2"]


def test_no_epochs_keeps_the_weights_and_takes_one_reference():
    made = prompter()
    before = weights(made)
    report = run_job(made.fit(references(1), quick(epochs=0)))
    assert same(weights(made), before)
    assert made.center is not None
    assert [r.name for r in made.references] == ["r0"]
    assert report.summary == "not trained: first weights, 1 reference(s)"
    assert made.propose((), references(1)[0].image).heat_map.values.max() > 0


def test_no_epochs_without_a_prompt_is_refused():
    bare = reference("bare", [(14, 14, 1)], asked=())
    with pytest.raises(TrainingError, match="0 reference"):
        run_job(prompter().fit([bare], quick(epochs=0)))


def test_without_centring_there_is_no_centre():
    made = prompter(centre=False)
    run_job(made.fit(references(2), quick(epochs=1)))
    assert made.center is None


def scripted(monkeypatch, values, spoil=None):
    """Replace the step: epoch k has loss values[k - 1]; weights move by 1 a step."""
    calls = []

    def step(train_state, batch):
        calls.append(len(batch))
        with torch.no_grad():
            train_state.prompter.learner.decoder2[2].bias += 1
            if spoil:
                spoil(train_state.prompter.learner)
        return values[min(len(calls), len(values)) - 1]

    monkeypatch.setattr(trainer, "train_step", step)
    return calls


def bias(made):
    return made.learner.decoder2[2].bias.detach().clone()


def test_early_stop_counts_epochs_without_a_better_loss(monkeypatch):
    monkeypatch.setattr(trainer, "PATIENCE", 3)
    scripted(monkeypatch, [5, 4, 4, 3.99995, 4.5, 1])
    _, report = fitted(epochs=50)
    assert report.losses == (5, 4, 4, 3.99995, 4.5)
    assert report.stopped == "no better loss for 3 epochs"


def test_a_better_loss_starts_the_count_anew(monkeypatch):
    monkeypatch.setattr(trainer, "PATIENCE", 2)
    scripted(monkeypatch, [5, 6, 4, 6, 3, 6, 6])
    _, report = fitted(epochs=7)
    assert report.losses == (5, 6, 4, 6, 3, 6, 6)


def test_all_epochs_are_done_without_early_stop(monkeypatch):
    monkeypatch.setattr(trainer, "PATIENCE", 1)
    scripted(monkeypatch, [5, 4, 3])
    _, report = fitted(epochs=3)
    assert (len(report.losses), report.stopped) == (3, "all done")


def test_best_weights_are_restored(monkeypatch):
    scripted(monkeypatch, [5, 3, 4, 4, 4])
    made = prompter()
    start = bias(made)
    run_job(made.fit(references(3), quick(epochs=5)))  # one batch an epoch
    torch.testing.assert_close(bias(made), start + 2)


def ruin(learner):
    for parameter in learner.parameters():
        parameter.fill_(0.0)
    learner.decoder2[2].bias.copy_(torch.tensor([0.0, -3.0]))


def test_worse_result_is_refused_and_the_old_weights_kept(monkeypatch):
    made = prompter()
    before = weights(made)
    monkeypatch.setattr(
        trainer, "evaluate_holdout", lambda p, kept, held: 0.8 if same(weights(p), before) else 0.3
    )
    scripted(monkeypatch, [5, 4], ruin)
    report = run_job(made.fit(references(4), quick(epochs=2)))
    assert (report.before, report.after, report.accepted) == (0.8, 0.3, False)
    assert same(weights(made), before)
    assert made.report is report
    assert "old weights" in report.summary
    assert made.center is not None  # with which the old weights were judged
    assert len(made.references) == 4


def test_ruined_weights_are_found_out_by_the_references_kept_aside(trained, monkeypatch):
    made = prompter(mask_mode="weighted", shots=3)
    made.learner.load_state_dict(trained.learner.state_dict())
    made.center = trained.center
    before, centre = weights(made), made.center
    scripted(monkeypatch, [5], ruin)
    report = run_job(made.fit(references(6, seed=9), quick(epochs=1)))
    assert report.before > 0.4
    assert report.after < 0.1
    assert not report.accepted
    assert same(weights(made), before)
    assert made.center is centre  # the old weights keep the centre that they learned with
    assert not made.learner.training


def test_old_weights_are_judged_with_their_own_centre(monkeypatch):
    made = prompter()
    run_job(made.fit(references(4), quick(epochs=1)))
    old, seen = made.center, []
    monkeypatch.setattr(
        trainer, "evaluate_holdout", lambda p, *_: seen.append(p.center) or float(len(seen))
    )
    run_job(made.fit(references(4, seed=5), quick(epochs=1)))
    assert seen[0] is old
    assert seen[1] is made.center is not old


@pytest.mark.parametrize("epochs", [0, 1])
@pytest.mark.parametrize(("kept", "left"), [(0, 2), (4, 4), (64, 6)])
def test_as_many_references_are_kept_as_asked_for(kept, left, epochs):
    made = prompter(shots=2, kept=kept)
    run_job(made.fit(references(6), quick(epochs=epochs)))
    assert len(made.references) == left


def test_few_references_are_accepted_unjudged():
    _, report = fitted(references(3), epochs=1)
    assert (report.before, report.after, report.accepted, report.held_out) == (None, None, True, ())
    assert "fewer than 4" in report.summary


def state(made):
    kept = (made.center, made.references, made.report, made.normalization)
    return kept, weights(made), made.learner.training


def assert_untouched(made, before):
    kept, old, mode = before
    now = (made.center, made.references, made.report, made.normalization)
    assert all(a is b for a, b in zip(now, kept, strict=True))
    assert same(weights(made), old)
    assert made.learner.training == mode
    assert all(p.grad is None for p in made.learner.parameters())


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "trained_before"])
@pytest.mark.parametrize(
    ("phase", "count"),
    [("features", 1), ("features", 4), ("batch", 1), ("batch", 3), ("epoch", 1), ("epoch", 2)],
)
def test_cancelled_it_leaves_the_prompter_as_it_was(phase, count, fresh, monkeypatch):
    monkeypatch.setattr(trainer, "BATCH", 2)
    made = prompter()
    if not fresh:
        run_job(made.fit(references(2), quick(epochs=1)))
    before = state(made)
    proposed = None if fresh else made.propose((), references(1, seed=3)[0].image).heat_map.values
    job = made.fit(references(4, seed=7), quick(epochs=3))
    drive(job, phase, count)
    job.close()
    assert_untouched(made, before)
    if not fresh:
        again = made.propose((), references(1, seed=3)[0].image).heat_map.values
        assert np.array_equal(again, proposed)


@pytest.mark.parametrize("failing", ["train_step", "evaluate_holdout"])
def test_failed_it_leaves_the_prompter_as_it_was(monkeypatch, failing):
    made = prompter()
    before = state(made)

    def broken(*_):
        raise MemoryError("full")

    monkeypatch.setattr(trainer, failing, broken)
    with pytest.raises(MemoryError):
        run_job(made.fit(references(4), quick()))
    assert_untouched(made, before)


def test_loss_that_is_not_finite_is_told(monkeypatch):
    made = prompter()
    before = state(made)
    monkeypatch.setattr(
        trainer.losses, "saliency_loss", lambda p, w, *_: p.sum() * torch.tensor(math.nan)
    )
    with pytest.raises(TrainingError, match=r"loss is not finite any more.*lower learning rate"):
        run_job(made.fit(references(2), quick()))
    assert_untouched(made, before)


def test_weights_that_are_not_finite_are_never_kept(monkeypatch):
    made = prompter()
    before = state(made)
    scripted(monkeypatch, [1], lambda learner: learner.decoder2[2].bias.fill_(torch.nan))
    with pytest.raises(TrainingError, match="weights are not finite"):
        run_job(made.fit(references(2), quick(epochs=1)))
    assert_untouched(made, before)


def test_one_reference_is_refused_before_anything_is_done():
    made = prompter()
    passes = made.backbone.passes
    with pytest.raises(TrainingError, match="training needs two of one class"):
        run_job(made.fit(references(1), quick()))
    assert made.backbone.passes == passes


def test_every_view_is_a_target_once_an_epoch(monkeypatch):
    batches = []
    monkeypatch.setattr(trainer, "train_step", lambda course, batch: batches.append(batch) or 1.0)
    run_job(prompter().fit(references(3), quick(epochs=2, views=2)))
    assert [len(b) for b in batches] == [4, 2, 4, 2]
    first, second = [x for b in batches[:2] for x in b], [x for b in batches[2:] for x in b]
    assert len({id(view) for view, _ in first}) == 6
    assert {id(view) for view, _ in first} == {id(view) for view, _ in second}
    assert [id(v) for v, _ in first] != [id(v) for v, _ in second]


def test_each_class_of_an_image_is_a_target():
    both = references(3, asked=(1, 2))
    lone = reference("x", [(9, 9, 3)], asked=(3,))  # of a class that no other image shows
    seen = []
    made = prompter()

    def spy(train_state, batch):
        seen.extend((view.reference.name, label) for view, label in batch)
        return 1.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "train_step", spy)
        run_job(made.fit([*both, lone], quick(epochs=1, holdout_frac=0.0)))
    assert sorted(seen) == [(f"r{i}", label) for i in range(3) for label in (1, 2)]
    labels = {o.label for r in made.references for o in r.objects}
    assert labels == {1, 2, 3}


def test_held_out_references_are_no_targets():
    made, seen = prompter(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            trainer, "train_step", lambda c, batch: seen.extend(v for v, _ in batch) or 1.0
        )
        report = run_job(made.fit(references(8), quick(epochs=1, holdout_frac=0.25)))
    assert len(report.held_out) == 2
    assert not {v.reference.name for v in seen} & set(report.held_out)


def test_images_of_several_shapes_train_together():
    given = [
        reference("a", [(20, 40, 1)], shape=(40, 90)),
        reference("b", [(70, 20, 1)], shape=(100, 50)),
        reference("c", [(30, 30, 1)]),
    ]
    _, report = fitted(given, epochs=1, views=4)
    assert len(report.losses) == 1


def test_summary_is_one_line_for_people():
    report = FitReport((2.0, 1.0), 0.25, 0.75, True, ("a",), 8, 3.2, "all done")
    assert report.summary == (
        "2 epochs in 3 s (all done); held-out map correlation 0.250 before, 0.750 after"
    )

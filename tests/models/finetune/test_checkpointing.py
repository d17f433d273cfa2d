"""A training that is ended early keeps its best, and goes on as if it had never stopped."""

import copy
from dataclasses import replace

import pytest
import torch
from toy_backbone import prompter, quick, references

from napari_samic.core.errors import FormatError, OutputError, TrainingError
from napari_samic.core.types import Prompts, run_job
from napari_samic.models.finetune.checkpointing import LEARNING, Checkpoint, TrainingControl
from napari_samic.models.samic import trainer


def weights(made):
    return copy.deepcopy(made.learner.state_dict())


def clicked(reference):
    """With a click more."""
    more = Prompts(reference.objects[0].points_rc + 1, [True])
    return replace(reference, objects=(*reference.objects, more))


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module", autouse=True)
def two_batches_an_epoch():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "BATCH", 2)
        yield


@pytest.fixture(scope="module")
def straight(two_batches_an_epoch):
    return trained()


def trained(watch=None, made=None, given=None, **settings):
    made = made or prompter()
    settings = {"epochs": 4, **settings}
    report = run_job(made.fit(given or references(5), quick(**settings), watch))
    return made, report


class After:
    """Says stop at the n-th question, and goes on saying it.

    It is asked after each epoch, and before both batches of each but the first.
    """

    def __init__(self, asked):
        self.left = asked

    def __call__(self):
        self.left -= 1
        return self.left <= 0


@pytest.mark.parametrize("asked", [
    pytest.param(1, id="before_anything_is_done"),
    pytest.param(3, id="between_two_batches"),
    pytest.param(4, id="at_the_end_of_an_epoch"),
])  # fmt: skip
def test_stopped_training_is_that_of_so_many_epochs(asked):
    made, report = trained(TrainingControl(After(asked)))
    assert 1 <= len(report.losses) < 4
    assert report.stopped == "stopped by hand"
    short, told = trained(epochs=len(report.losses))
    assert (report.losses, report.after) == (told.losses, told.after)
    assert same(weights(made), weights(short))
    assert not made.learner.training


def test_stop_that_is_taken_back_is_a_stop():
    asked = iter([False, False, True])
    _, report = trained(TrainingControl(lambda: next(asked, False)))
    assert (len(report.losses), report.stopped) == (1, "stopped by hand")


def kept(path):
    """A training that was asked to go on in such a file."""
    return TrainingControl(checkpoint=Checkpoint(path, strict=True))


@pytest.mark.parametrize("asked", [3, 4], ids=lambda n: f"after_{n}")
def test_training_that_goes_on_ends_as_one_that_never_stopped(straight, asked, tmp_path):
    first = kept(tmp_path / "mark")
    first.stop = After(asked)
    _, short = trained(first)
    assert 0 < len(short.losses) < 4
    made, report = trained(kept(tmp_path / "mark"))
    whole, told = straight
    assert report.losses == told.losses
    assert (report.before, report.after, report.stopped) == (told.before, told.after, "all done")
    assert same(weights(made), weights(whole))


def test_ended_training_goes_on_with_more_epochs(straight, tmp_path):
    trained(kept(tmp_path / "mark"), epochs=2)
    made, report = trained(kept(tmp_path / "mark"))
    assert same(weights(made), weights(straight[0]))
    assert len(report.losses) == 4


@pytest.mark.parametrize("change", [
    pytest.param({"learning_rate": 1e-3}, id="settings"),
    pytest.param({"given": references(5, seed=3)}, id="references"),
    pytest.param({"given": [replace(r, image=255 - r.image) for r in references(5)]}, id="pixels"),
    pytest.param({"given": [*references(5)[:4], clicked(references(5)[4])]}, id="prompts"),
    pytest.param({"made": prompter(seed=4)}, id="first_weights"),
    pytest.param({"made": prompter(mask_mode="faithful")}, id="prompter"),
])  # fmt: skip
def test_another_training_does_not_go_on(change, tmp_path):
    trained(kept(tmp_path / "mark"), epochs=1)
    made = change.get("made") or prompter()
    before = weights(made)
    with pytest.raises(TrainingError, match="not those of the training that was stopped"):
        trained(kept(tmp_path / "mark"), **{**change, "made": made})
    assert same(weights(made), before)


def test_held_out_score_is_told_and_changes_nothing():
    watch = TrainingControl(scores=True)
    watch.score_if_due = lambda score: score()  # whatever the time
    made, told = prompter(), []
    for step in made.fit(references(5), quick(epochs=3), watch):
        told += [step.data["held_out"]] if "held_out" in step.data else []
    assert len(told) == 3
    plain, report = trained(epochs=3)
    assert same(weights(made), weights(plain))
    assert told[-1] == pytest.approx(report.after) or min(report.losses) != report.losses[-1]


def test_held_out_score_takes_at_most_a_fifth_of_the_time(monkeypatch):
    clock, scored = [0.0], []
    monkeypatch.setattr(
        "napari_samic.models.finetune.checkpointing.time.monotonic", lambda: clock[0]
    )
    watch = TrainingControl(scores=True)

    def score():
        clock[0] += 3.0
        scored.append(clock[0])
        return 0.5

    for _ in range(100):
        watch.score_if_due(score)
        clock[0] += 1.0
    assert len(scored) == pytest.approx(0.2 * clock[0] / 3, abs=1)


def test_unwatched_training_scores_only_before_and_after(monkeypatch):
    calls = []
    monkeypatch.setattr(trainer, "evaluate_holdout", lambda *_: calls.append(1) or 0.5)
    trained(epochs=3)
    assert len(calls) == 2


@pytest.mark.parametrize("content", [b"", b"no torch file", None], ids=["empty", "text", "other"])
def test_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "mark"
    if content is None:
        torch.save({"kind": "napari-samic/prompter", "version": 1}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(FormatError, match="mark: no training to go on with"):
        Checkpoint(path, strict=True)
    assert Checkpoint(path).load(LEARNING, "") is None


def test_checkpoint_that_can_not_be_written_is_told(tmp_path):
    checkpoint = Checkpoint(tmp_path / "mark", strict=True)
    (tmp_path / "mark").mkdir()
    with pytest.raises(OutputError, match="that is a folder"):
        trained(TrainingControl(checkpoint=checkpoint), epochs=1)


class Evil:
    def __init__(self, flag):
        self.flag = flag

    def __reduce__(self):
        return open, (str(self.flag), "w")


def test_checkpoint_with_code_is_refused_and_not_run(tmp_path):
    torch.save({"kind": Evil(tmp_path / "was_run")}, tmp_path / "m.mark")
    with pytest.raises(FormatError, match=r"m\.mark: no training to go on with"):
        Checkpoint(tmp_path / "m.mark", strict=True)
    assert not (tmp_path / "was_run").exists()

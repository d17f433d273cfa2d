"""Train without Qt: what may be trained, how it goes, and what is kept."""

import pytest
from lab import annotate, begin, listen, make_session

from napari_samic.core.errors import InputError, TrainingError
from napari_samic.core.settings import (
    AdaptSettings,
    HeatMapSettings,
    TrainSettings,
    judged_after,
)
from napari_samic.core.types import JobProgress, duration
from napari_samic.gui.data.project import Project
from napari_samic.gui.train import jobs
from napari_samic.gui.train.jobs import PrompterComparison
from napari_samic.gui.train.presenter import CHOOSING, IDLE, RUNNING, STOPPING, TrainingModel
from napari_samic.gui.train.progress import EtaEstimator, TrainingHistory


@pytest.fixture
def session(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))
    finished = make_session(monkeypatch, "tiny")
    yield finished
    finished.close()


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Script:
    """Stands for `trainwork.train`: epochs with given losses, ends early when asked to."""

    def __init__(self, monkeypatch):
        self.losses, self.comparison, self.orders, self.closed = [3.0, 2.0, 2.5], None, [], 0
        self.clock = Clock()
        monkeypatch.setattr(jobs, "train", self.train)

    def train(self, order):
        self.orders.append(order)
        done = 0
        try:
            yield JobProgress(0, 0, "preparing", {"phase": "files"})
            total = 1000 * len(self.losses)
            for epoch, loss in enumerate(self.losses, start=1):
                if epoch > 1 and order.stop():
                    break
                self.clock.now += 2.0
                yield JobProgress(1000 * epoch - 500, total, "", {"phase": "batch", "epoch": epoch})
                self.clock.now += 2.0
                data = {"phase": "epoch", "epoch": epoch, "loss": loss, "held_out": 0.1 * epoch}
                yield JobProgress(1000 * epoch, total, "", data)
                done = epoch
            jobs.new_file(order.project).write_bytes(f"new {len(self.orders)}".encode())
            jobs.mark_file(order.project).write_bytes(b"mark")
            has_old = order.project.prompter_file.exists()
            return self.comparison or PrompterComparison(
                None, 0.5, (), f"{done} epochs", "", has_old
            )
        finally:
            self.closed += 1


@pytest.fixture
def script(monkeypatch):
    return Script(monkeypatch)


@pytest.fixture
def trainer(session, script, tmp_path):
    annotate(session, 0, 1, 2, 3)
    begin(session, tmp_path / "project")
    return TrainingModel(session, script.clock)


def advance(session, times):
    for _ in range(times):
        session.runner.jobs[-1].advance()


def test_what_is_missing_is_told(session):
    finished = TrainingModel(session)
    assert "Annotate two images or more" in finished.missing()
    annotate(session, 0)
    assert "two" in finished.missing()
    finished.choose(TrainSettings(epochs=0))
    assert finished.missing() == ""
    assert "untrained" in finished.guide()
    finished.choose(TrainSettings())
    annotate(session, 1)
    assert finished.missing() == ""
    assert finished.guide().startswith("2 references")
    annotate(session, 2, 3)
    assert finished.guide().startswith("4 references")
    session.scheduler.segmenter = None
    assert finished.missing() == "The model is being loaded."


def test_judgment_is_promised_only_where_there_will_be_one(session):
    model = TrainingModel(session)
    annotate(session, 0, 1, 2, 3)
    assert "kept aside to judge" in model.guide()
    least = judged_after(4)
    model.choose(AdaptSettings(adapt_steps=least - 1))
    assert f"that takes {least}" in model.guide()
    model.choose(AdaptSettings(adapt_steps=least))
    assert "kept aside to judge" in model.guide()
    cell = session.scheduler.state.add_class("nucleus")
    for number in (2, 3):
        session.scheduler.show(session.pixels, (number,))
        for item in session.scheduler.state.annotations[f"cells[{number}]"].items:
            session.scheduler.state.select(item.number)
            session.scheduler.state.set_class(cell)
    assert "annotate a third" in model.guide()  # two of each class: none can be spared


def test_class_that_one_image_shows_is_named(session):
    finished = TrainingModel(session)
    annotate(session, 0, 1)
    session.scheduler.state.set_class(session.scheduler.state.add_class("nucleus"))
    assert "nucleus" in finished.guide()


def test_only_marked_images_count_once_one_is_marked(session):
    annotate(session, 0, 1)
    session.scheduler.state.use_as_reference(True)
    assert "two" in TrainingModel(session).missing()
    assert "reference: cells[0]." in TrainingModel(session).guide()


def test_training_needs_a_project(session, script):
    annotate(session, 0, 1)
    with pytest.raises(InputError, match="Choose a project folder first"):
        TrainingModel(session).start()
    assert not script.orders


def test_first_prompter_is_in_use_without_a_question(session, trainer, script):
    told, project = listen(session.events), session.project
    trainer.choose(HeatMapSettings(sigma_frac=0.05))
    trainer.start()
    assert trainer.phase == RUNNING
    session.runner.settle()
    assert (trainer.phase, trainer.news) == (IDLE, "3 epochs.")
    assert project.prompter_file.read_bytes() == b"new 1"
    assert told == ["prompter"]
    assert trainer.history.losses == {1: 3.0, 2: 2.0, 3: 2.5}
    assert trainer.history.scores[3] == pytest.approx(0.3)
    assert script.orders[0].chosen[HeatMapSettings].sigma_frac == 0.05
    assert (script.orders[0].model, script.orders[0].resume) == ("tiny", False)


@pytest.mark.parametrize(
    ("take", "in_use", "kept"),
    [pytest.param(True, b"new", b"old", id="new"), pytest.param(False, b"old", b"new", id="old")],
)
def test_user_chooses_between_two_prompters(session, trainer, script, take, in_use, kept):
    project, told = session.project, listen(session.events)
    project.prompter_file.write_bytes(b"old")
    script.comparison = PrompterComparison(0.8, 0.3, ("cells[1]",), "3 epochs", "", True)
    trainer.start()
    session.runner.settle()
    assert trainer.phase == CHOOSING
    assert trainer.comparison.is_worse
    assert project.prompter_file.read_bytes() == b"old"
    trainer.take(take)
    trainer.take(not take)  # a second click, before the first is done
    session.runner.settle()
    assert (trainer.phase, trainer.comparison) == (IDLE, None)
    assert project.prompter_file.read_bytes()[:3] == in_use
    assert (project.folder / "prompter-1.pt").read_bytes()[:3] == kept
    assert "prompter-1.pt" in trainer.news
    assert told == (["prompter"] if take else [])


def test_stop_keeps_the_best_and_resume_goes_on(session, trainer, script):
    assert not trainer.can_resume
    trainer.start()
    advance(session, 3)
    assert trainer.has_best
    trainer.stop()
    assert trainer.phase == STOPPING
    session.runner.settle()
    assert (trainer.phase, trainer.news) == (IDLE, "1 epochs.")
    assert session.project.prompter_file.exists()
    assert trainer.can_resume
    trainer.start(resume=True)
    assert trainer.history.losses == {1: 3.0}
    advance(session, 1)
    assert script.orders[1].resume
    assert not script.orders[1].stop()
    session.runner.settle()
    assert trainer.phase == IDLE  # the one in use is the same, stopped: nothing is asked
    assert session.project.prompter_file.read_bytes() == b"new 2"
    script.comparison = PrompterComparison(0.8, 0.4, ("cells[1]",), "3 epochs", "", True)
    trainer.start(resume=True)
    session.runner.settle()
    assert trainer.phase == CHOOSING


def test_stop_before_the_first_epoch_changes_nothing(session, trainer, script):
    trainer.start()
    advance(session, 2)
    trainer.stop()
    session.runner.settle()
    assert (trainer.phase, script.closed) == (IDLE, 1)
    assert "nothing changed" in trainer.news
    assert not jobs.new_file(session.project).exists()


@pytest.mark.parametrize(
    ("batches", "ends"),
    [pytest.param(2, 20, id="goes_on_to_what_can_be_used"), pytest.param(25, 25, id="at_once")],
)
def test_stop_while_the_encoder_is_adapted_keeps_what_it_has_learned(
    session, trainer, monkeypatch, batches, ends
):
    stopped = []

    def adapting(order):
        for n in range(1, 100):
            if order.stop():
                stopped.append(n - 1)
                break
            yield JobProgress(n, 100, f"adapting: {n} of 100", {"phase": "adapt", "loss": 1.0})
        jobs.new_file(order.project).write_bytes(b"new")
        return PrompterComparison(summary="adapted.")

    monkeypatch.setattr(jobs, "train", adapting)
    trainer.start()
    advance(session, batches)
    assert f"adapting: {batches} of 100" in trainer.eta.text
    trainer.stop()
    session.runner.settle()
    assert stopped == [ends]
    assert "nothing changed" not in trainer.news


def test_failed_training_says_why_and_can_begin_anew(session, trainer, monkeypatch):
    def broken(order):
        yield JobProgress(0, 0)
        raise TrainingError("the loss is not finite any more.")

    monkeypatch.setattr(jobs, "train", broken)
    trainer.start()
    session.runner.settle()
    assert (trainer.phase, trainer.news) == (IDLE, "the loss is not finite any more.")
    assert len(session.runner.errors) == 1


def test_training_that_was_killed_with_the_window_can_be_gone_on_with(session, trainer):
    project = session.project
    jobs.mark_file(project).write_bytes(b"of the one before")
    jobs.next_mark(project).write_bytes(b"where it was killed")
    assert jobs.mark_file(project).read_bytes() == b"of the one before"
    trainer.close()
    session.scheduler.autosaver.project = Project.open(project.folder)
    assert TrainingModel(session).can_resume
    assert jobs.mark_file(project).read_bytes() == b"where it was killed"
    assert not jobs.next_mark(project).exists()


def test_training_that_failed_can_be_gone_on_with(session, trainer, monkeypatch):
    def broken(order):
        jobs.next_mark(order.project).write_bytes(b"where it failed")
        yield JobProgress(0, 0)
        raise TrainingError("out of memory.")

    monkeypatch.setattr(jobs, "train", broken)
    trainer.start()
    session.runner.settle()
    assert trainer.can_resume


def test_what_training_tells_is_shown(session, trainer, script):
    notices = ("taken for masks: a.", "q.tif: two series.")
    script.comparison = PrompterComparison(summary="3 epochs", notices=notices)
    trainer.start()
    session.runner.settle()
    assert trainer.news == "3 epochs. Taken for masks: a. q.tif: two series."


def test_second_start_while_it_runs_is_no_second_training(session, trainer, script):
    trainer.start()
    trainer.start()
    assert len(session.runner.jobs) == 1


def test_project_comes_back_with_settings_curves_and_the_open_choice(session, trainer, script):
    project = session.project
    project.prompter_file.write_bytes(b"old")
    script.comparison = PrompterComparison(0.8, 0.3, ("cells[1]",), "3 epochs", "", True)
    trainer.choose(TrainSettings(epochs=7))
    trainer.start()
    session.runner.settle()
    trainer.close()
    session.scheduler.autosaver.project = Project.open(project.folder)
    again = TrainingModel(session)
    assert again.of(TrainSettings).epochs == 7
    assert again.history == trainer.history
    assert (again.phase, again.comparison) == (CHOOSING, script.comparison)


def test_answer_for_another_project_is_left_there(session, trainer, script, tmp_path):
    first = session.project
    trainer.start()
    session.scheduler.autosaver.project = Project.create(tmp_path / "other")
    session.events.project.emit()
    session.runner.settle()
    assert (trainer.phase, trainer.comparison, trainer.history) == (IDLE, None, TrainingHistory())
    assert jobs.new_file(first).exists()
    assert not session.project.prompter_file.exists()


def test_nothing_is_told_after_close(session, trainer, script):
    told = listen(trainer.events)
    trainer.start()
    advance(session, 1)
    told.clear()
    trainer.close()
    session.runner.settle()
    session.events.project.emit()
    assert not told
    assert script.closed == 1


# --- the course


def test_pace_tells_rate_and_time_left():
    clock = Clock()
    eta = EtaEstimator(300, clock)
    eta.take(JobProgress(2, 5, "cells[1]", {"phase": "annotate"}))
    assert "2 of 5" in eta.text
    assert eta.share == 0.4
    eta.take(JobProgress(40_500, 300_000, "", {"phase": "batch", "epoch": 41}))
    assert "41 of 300" in eta.text
    clock.now = 8.0
    eta.take(JobProgress(42_500, 300_000, "", {"phase": "batch", "epoch": 43}))
    assert eta.text == "epoch 43 of 300 · 4.0 s each · at most 17 min left"
    assert eta.share == pytest.approx(42.5 / 300)


def test_best_epoch_is_that_of_the_lowest_loss():
    history = TrainingHistory()
    assert history.best is None
    for epoch, loss in enumerate([3.0, 1.0, 2.0], start=1):
        history.take(JobProgress(0, 0, "", {"phase": "epoch", "epoch": epoch, "loss": loss}))
    assert not history.take(JobProgress(0, 0, "", {"phase": "batch", "epoch": 4}))
    assert (history.best, history.scores) == (2, {})


def test_batches_of_the_encoder_are_a_curve_until_there_are_epochs():
    history = TrainingHistory()
    for batch in range(1, 12):
        history.take(JobProgress(batch, 120, "", {"phase": "adapt", "loss": 1 / batch}))
    assert history.losses == {5: 0.2, 10: 0.1}
    assert (history.batches, history.best) == (True, None)
    assert TrainingHistory.from_dict(history.to_dict()) == history
    history.take(JobProgress(0, 0, "", {"phase": "epoch", "epoch": 1, "loss": 3.0}))
    assert (history.losses, history.batches) == ({1: 3.0}, False)


@pytest.mark.parametrize("damaged", [None, "x", {"losses": 3}, {"losses": [["a", 1]]}, {"odd": 1}])
def test_damaged_curves_are_none(damaged):
    assert TrainingHistory.from_dict(damaged) == TrainingHistory()


def test_curves_survive_the_notes_of_a_project():
    history = TrainingHistory({1: 2.0, 2: float("nan")}, {2: 0.5})
    assert TrainingHistory.from_dict(history.to_dict()) == TrainingHistory({1: 2.0}, {2: 0.5})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h")],
)
def test_time_left_is_rounded(seconds, text):
    assert duration(seconds) == text

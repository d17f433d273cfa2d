"""References to a new prompter, and which of two stays: with the real jobs and a toy model."""

import shutil
from dataclasses import replace
from functools import wraps

import pytest
import torch
from lab import annotate, begin, make_session

from napari_samic import pipeline, recipes
from napari_samic.core.errors import InputError, TrainingError
from napari_samic.core.settings import AdaptSettings, PeakSettings, TrainSettings
from napari_samic.core.types import run_job
from napari_samic.gui.train import jobs
from napari_samic.gui.train.jobs import KINDS, PrompterComparison, TrainRequest

pytestmark = pytest.mark.usefixtures("no_finetuning")


@pytest.fixture
def session(tmp_path, monkeypatch, toy):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))
    made = make_session(monkeypatch, toy)
    annotate(made, 0, 1, 2, 3)
    begin(made, tmp_path / "project")
    yield made
    made.close()


def trained(session, *more, resume=False, stop=lambda: False, **settings):
    chosen = {kind: kind() for kind in KINDS}
    chosen[TrainSettings] = TrainSettings(**{"epochs": 1, "views": 1, **settings})
    chosen[PeakSettings] = PeakSettings(min_area_frac=0.2)
    chosen |= {type(one): one for one in more}
    order = TrainRequest(
        session.project, session.reference_images(), session.scheduler.state.model, chosen,
        session.other_images(), stop, resume,
    )  # fmt: skip
    return run_job(jobs.train(order))


def content(path):
    return torch.load(path, weights_only=True)


def same(one, other):
    one, other = content(one)["learner"], content(other)["learner"]
    return all(torch.equal(one[k], other[k]) for k in one)


def steps(project):
    return recipes.load_recipe(project.recipe).steps


def test_first_prompter_is_taken_with_its_step(session):
    project = session.project
    comparison = trained(session)
    assert not comparison.has_old
    assert 0 < abs(comparison.new) <= 1
    assert not project.prompter_file.exists()
    assert [s.do for s in steps(project)] == ["annotate"]
    assert (project.references_folder / "cells[0].tif").exists()
    assert run_job(jobs.accept(project)) is None
    annotated, step = steps(project)
    assert (step.do, step.out, step.inputs["prompts"]) == (
        "train",
        "prompter.pt",
        "references-1.json",
    )
    assert step.settings == {"epochs": 1, "views": 1, "min_area_frac": 0.2}
    assert annotated.settings == {"overwrite": True}
    left = sorted(p.name for p in project.folder.iterdir() if "prompter" in p.name)
    assert left == ["prompter.pt"]


def test_old_and_new_are_judged_and_neither_is_lost(session):
    project = session.project
    trained(session)
    run_job(jobs.accept(project))
    shutil.copy(project.prompter_file, project.folder / "first.pt")
    comparison = trained(session, epochs=2, learning_rate=0.01)
    assert comparison.has_old
    assert comparison.held_out[0].startswith("cells[")
    assert abs(comparison.old) <= 1
    assert comparison.why == ""
    assert same(project.prompter_file, project.folder / "first.pt")

    assert run_job(jobs.refuse(project)).name == "prompter-1.pt"
    assert same(project.prompter_file, project.folder / "first.pt")
    assert [s.do for s in steps(project)] == ["annotate", "train", "annotate"]

    trained(session, epochs=2, learning_rate=0.01)
    assert run_job(jobs.accept(project)).name == "prompter-2.pt"
    assert same(project.folder / "prompter-2.pt", project.folder / "first.pt")
    assert same(project.prompter_file, project.folder / "prompter-1.pt")
    assert steps(project)[-1].settings["overwrite"] is True


def test_recipe_of_a_training_that_was_stopped_and_gone_on_with_is_replayed(session, tmp_path):
    project = session.project
    trained(session, epochs=3, stop=lambda: True)
    run_job(jobs.accept(project))
    assert steps(project)[-1].settings["epochs"] == 1
    comparison = trained(session, epochs=3, resume=True)
    assert "3 epochs" in comparison.summary
    run_job(jobs.accept(project))
    run_job(recipes.replay(project.recipe, out=tmp_path / "again", strict=True))
    assert same(tmp_path / "again" / "prompter.pt", project.prompter_file)


def test_recipe_holds_after_a_training_on_other_references(session, tmp_path):
    project = session.project
    trained(session)
    run_job(jobs.accept(project))
    session.scheduler.state.add_point(30, 20)
    session.runner.settle()
    trained(session)
    run_job(jobs.accept(project))
    assert [s.inputs["prompts"] for s in steps(project)] == [
        "references-1.json", "references-1.json", "references-2.json", "references-2.json",
    ]  # fmt: skip
    run_job(recipes.replay(project.recipe, out=tmp_path / "again", strict=True))
    assert same(tmp_path / "again" / "prompter.pt", project.prompter_file)


def test_nothing_to_go_on_with_is_told(session):
    with pytest.raises(InputError, match="no training to go on with"):
        trained(session, resume=True)


def test_other_references_are_another_training(session):
    trained(session)
    session.scheduler.state.add_point(30, 20)
    session.runner.settle()
    with pytest.raises(TrainingError, match="not those of the training that was stopped"):
        trained(session, resume=True)


@pytest.mark.parametrize(
    ("growing", "names"),
    [
        pytest.param(
            AdaptSettings(adapt_others=True),
            {"images/cells[2].tif", "images/cells[3].tif"},
            id="all",
        ),
        pytest.param(AdaptSettings(adapt=False, adapt_others=True), None, id="nothing_grows"),
    ],
)
def test_open_images_that_are_not_annotated_help_what_grows(
    growing, names, tmp_path, monkeypatch, toy
):
    monkeypatch.setattr(jobs, "OTHERS_FROM", 2)
    made = make_session(monkeypatch, toy)
    annotate(made, 0, 1)
    project = begin(made, tmp_path / "project")
    trained(made, growing)
    [step] = recipes.load_recipe(jobs.new_step(project)).steps
    others = step.inputs.get("others")
    assert (others if others is None else set(others)) == names
    made.close()


def test_with_few_references_no_file_is_made_of_others(tmp_path, monkeypatch, toy):
    made = make_session(monkeypatch, toy)
    annotate(made, 0, 1)
    project = begin(made, tmp_path / "project")
    trained(made, AdaptSettings(adapt_others=True))
    assert {path.name for path in project.images_folder.glob("*.tif")} == {
        "cells[0].tif", "cells[1].tif",
    }  # fmt: skip
    made.close()


def test_cancelled_training_leaves_prompter_recipe_and_mark_as_they_were(session):
    project = session.project
    trained(session)
    run_job(jobs.accept(project))
    names = ("prompter.pt", "training.mark")
    before = {name: (project.folder / name).read_bytes() for name in names}
    chosen = {kind: kind() for kind in KINDS}
    order = TrainRequest(
        project, session.reference_images(), session.scheduler.state.model, chosen,
        session.other_images(), lambda: False,
    )  # fmt: skip
    job = jobs.train(order)
    while next(job).data.get("phase") != "batch":
        pass
    job.close()
    assert {name: (project.folder / name).read_bytes() for name in names} == before
    assert not jobs.new_file(project).exists()
    assert [s.do for s in steps(project)] == ["annotate", "train", "annotate"]


@pytest.mark.parametrize(
    ("stopped", "left"),
    [pytest.param(False, True, id="window_closed"), pytest.param(True, False, id="by_the_user")],
)
def test_training_ended_from_outside_leaves_what_can_be_gone_on_with(session, stopped, left):
    project = session.project
    order = TrainRequest(
        project, session.reference_images(), session.scheduler.state.model, {k: k() for k in KINDS},
        session.other_images(), lambda: stopped,
    )  # fmt: skip
    job = jobs.train(order)
    while next(job).data.get("phase") != "read":
        pass
    jobs.next_mark(project).write_bytes(b"where it is")
    job.close()
    assert jobs.next_mark(project).exists() is left


def test_prompter_that_waits_is_kept_when_another_is_trained(session):
    project = session.project
    trained(session)
    first = content(jobs.new_file(project))["learner"]
    trained(session, seed=5)
    kept = content(project.folder / "prompter-1.pt")["learner"]
    assert all(torch.equal(kept[k], first[k]) for k in first)


def test_old_prompter_that_can_not_be_used_here_is_told(session):
    project = session.project
    project.prompter_file.write_bytes(b"damaged")
    comparison = trained(session)
    assert (comparison.old, comparison.has_old) == (None, True)
    assert comparison.why.startswith("prompter.pt:")
    assert comparison.new is not None


def test_accepting_without_a_new_prompter_is_told(session):
    with pytest.raises(InputError, match="No new prompter"):
        run_job(jobs.accept(session.project))


def test_verdict_survives_the_notes_of_a_project():
    comparison = PrompterComparison(
        0.5, 0.25, ("a", "b"), "2 epochs", "", True, notices=("left out: c.",)
    )
    assert PrompterComparison.from_dict(comparison.to_dict()) == comparison
    assert comparison.is_worse
    assert PrompterComparison.from_dict(
        {"odd": 1, "new": 0.5, "held_out": None}
    ) == PrompterComparison(new=0.5)
    assert PrompterComparison.from_dict("damaged") == PrompterComparison()


def test_settings_survive_the_notes_of_a_project():
    chosen = [TrainSettings(epochs=7), PeakSettings.paper()]
    found = jobs.recalled(jobs.describe(chosen))
    assert (found[TrainSettings], found[PeakSettings]) == tuple(chosen)
    assert jobs.recalled({"TrainSettings": {"epochs": -1}})[TrainSettings] == TrainSettings()
    assert jobs.recalled("damaged") == {}


def test_a_tuned_decoder_alone_is_a_help(session, monkeypatch):
    """Neither learner nor grown network may be better, and the masks are all the same."""
    real = pipeline.train

    @wraps(real)
    def only_tuned(*given, **options):
        outcome = yield from real(*given, **options)
        changed = {"accepted": False, "adapted": False, "tuned": True, "after": 0.7, "before": 0.6}
        return replace(outcome, figures=outcome.figures | changed)

    monkeypatch.setattr(pipeline, "train", only_tuned)
    assert trained(session).helped


def test_what_training_tells_comes_with_the_verdict(session, monkeypatch):
    real = pipeline.train

    @wraps(real)
    def telling(*given, **options):
        outcome = yield from real(*given, **options)
        return replace(outcome, notices=("left out: c.",))

    monkeypatch.setattr(pipeline, "train", telling)
    assert trained(session).notices == ("left out: c.",)

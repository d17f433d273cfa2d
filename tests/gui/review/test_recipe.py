"""The recipe shown, saved, loaded and replayed, without a window."""

import shlex

import pytest
from discs import Inline
from lab import annotate, begin, make_session

import napari_samic
from napari_samic import pipeline, recipes
from napari_samic.core.errors import FormatError, InputError
from napari_samic.core.settings import ExportSettings, SegmentSettings, TrainSettings
from napari_samic.core.types import run_job
from napari_samic.gui.data.project import Project
from napari_samic.gui.propagate.presenter import PropagationModel
from napari_samic.gui.review.export import ACCEPTED_RESULTS, Exporter
from napari_samic.gui.review.presenter import ReviewModel
from napari_samic.gui.review.recipe import RecipeRunner
from napari_samic.gui.train.presenter import TrainingModel


@pytest.fixture
def project(tmp_path):
    return Project.create(tmp_path / "project")


@pytest.fixture
def recipe_runner(project):
    return RecipeRunner(Inline(), lambda: project)


@pytest.fixture
def recorded(project, prompter, scenes):
    job = recipes.recorded(pipeline.segment, project.recipe)(
        scenes / "images", prompter=prompter, out=project.results_folder,
        device="cpu", settings=SegmentSettings(),
    )  # fmt: skip
    return run_job(job)


def test_project_without_a_recipe_says_so(recipe_runner, tmp_path):
    assert recipe_runner.text() == ""
    with pytest.raises(InputError, match="Nothing was recorded yet"):
        recipe_runner.replay(tmp_path / "again")
    with pytest.raises(InputError, match="Nothing was recorded yet"):
        recipe_runner.save_as(tmp_path / "copy.yaml")


def test_replay_makes_the_same_labels(recipe_runner, recorded, tmp_path):
    recipe_runner.replay(tmp_path / "again")
    assert recipe_runner.is_running
    with pytest.raises(InputError, match="is being replayed"):
        recipe_runner.replay(tmp_path / "third")
    recipe_runner.runner.settle()
    assert not recipe_runner.is_running
    assert recipe_runner.status == "Replayed 1 steps. All labels are the same."
    made = tmp_path / "again" / "results"
    for name in recorded.done:
        assert (made / f"{name}.tif").read_bytes() == (recorded.out / f"{name}.tif").read_bytes()


def test_copied_commands_make_all_again_from_the_prompts_to_the_export(
    tmp_path, monkeypatch, toy, no_finetuning, shell
):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))
    session = make_session(monkeypatch, toy)
    settle = session.runner.settle
    project = begin(session, tmp_path / "a project")
    annotate(session, 0, 1)
    training = TrainingModel(session)
    training.choose(TrainSettings(epochs=1))
    training.start()
    settle()
    PropagationModel(session).start()
    settle()
    review = ReviewModel(session)
    review.scan_results()
    settle()
    assert review.accept_above(0.0) > 0
    exporter = Exporter(review, lambda: False)
    exporter.export(ACCEPTED_RESULTS, project.exports_folder, ExportSettings(table=True))
    settle()
    assert not session.runner.errors
    text = RecipeRunner(session.runner, lambda: project).as_text("command")
    commands = text.replace("\\\n", " ").splitlines()
    assert [shlex.split(command)[1] for command in commands] == [
        "annotate", "train", "segment", "accept", "export",
    ]  # fmt: skip
    for command in commands:
        ran = shell(*shlex.split(command)[1:])
        assert ran.code == 0, ran.err
    made = {p.name: p.read_bytes() for p in project.exports_folder.iterdir() if p.is_file()}
    again = project.folder / "again-1" / project.exports_folder.name
    assert {"cells.tif", "measurements.csv"} <= made.keys()
    assert {name: (again / name).read_bytes() for name in made} == made
    session.close()


def test_stopped_replay_says_so(recipe_runner, recorded, tmp_path):
    recipe_runner.replay(tmp_path / "again")
    recipe_runner.runner.jobs[0].advance()
    recipe_runner.stop()
    recipe_runner.runner.settle()
    assert recipe_runner.status == "The replay was not finished."
    assert not recipe_runner.is_running


def test_saved_copy_replays_from_where_it_lies(recipe_runner, recorded, tmp_path):
    (tmp_path / "shelf").mkdir()
    copy = tmp_path / "shelf" / "copy.yaml"
    recipe_runner.save_as(copy)
    recipe_runner.runner.settle()
    again = napari_samic.run_recipe(copy, out=tmp_path / "again")
    assert again.figures["steps"][0]["same_labels"] is True


def test_file_that_is_no_recipe_is_refused_and_the_one_before_stays(
    recipe_runner, recorded, tmp_path
):
    (tmp_path / "other.yaml").write_text("a: 1")
    before = recipe_runner.text()
    with pytest.raises(FormatError):
        recipe_runner.load(tmp_path / "other.yaml")
    assert recipe_runner.text() == before

"""A job that adds itself to a recipe when it is done."""

import numpy as np
import pytest

import napari_samic
from napari_samic import pipeline, recipes
from napari_samic.core.errors import FormatError, InputError, ModelError, OutputError
from napari_samic.core.settings import AnnotateSettings, PeakSettings, SegmentSettings
from napari_samic.core.types import JobProgress, run_job
from napari_samic.models.hub import registry


def annotated(project, toy, **changes):
    """Arguments of a job that is soon done."""
    return {
        "images": project / "images", "masks": project / "masks", "simulate": True,
        "out": project / "a", "model": toy, **changes,
    }  # fmt: skip


def test_every_job_is_recorded_with_what_differs_from_the_defaults(original, toy):
    sha256 = registry.weights_sha256(toy)
    first, second, third, fourth = recipes.load_recipe(original / "recipe.yaml").steps
    jobs = [first.do, second.do, third.do, fourth.do]
    assert jobs == ["annotate", "train", "segment", "evaluate"]
    assert first.inputs == {"images": "images", "masks": "masks"}
    assert first.settings == {"simulate": True, "device": "cpu", "target_iou": 0.8}
    assert (first.model, first.model_sha256) == (toy, sha256)
    assert (first.data["images"].files, first.results.files) == (3, 3)
    assert second.inputs == {"images": "images", "prompts": "annotated/prompts.json"}
    assert second.settings == {
        "device": "cpu", "epochs": 1, "views": 1, "min_area_frac": 0.2, "adapt": False,
    }  # fmt: skip
    assert (second.out, second.results) == ("discs.pt", None)
    assert third.inputs == {"images": "more", "prompter": "discs.pt"}
    assert (third.model, third.results.files) == ("", 2)
    assert third.settings == {"device": "cpu", "threshold": 0.4}  # the least area is the prompter's
    assert fourth.inputs == {"predictions": "labels", "truth": "truth"}
    assert {s.package for s in (first, fourth)} == {napari_samic.__version__}
    assert {s.threads for s in (first, second, third)} == {1}
    assert fourth.threads == 0  # nothing is computed that threads could change


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        pytest.param({"channels": (np.int64(2), 0, 1)}, {"channels": [2, 0, 1]}, id="channels"),
        pytest.param({"axes": "YXS", "series": 0}, {"axes": "YXS", "series": 0}, id="reading"),
        pytest.param({"segment": SegmentSettings(instances=False)}, {"instances": False},
                     id="bool"),
        pytest.param({"settings": AnnotateSettings()}, {}, id="defaults"),
        pytest.param({"overwrite": True, "overlay": True}, {"overlay": True, "overwrite": True},
                     id="flags"),
    ],
)  # fmt: skip
def test_settings_are_plain_values(project, toy, options, settings):
    run_job(
        recipes.recorded(pipeline.annotate, project / "r.yaml")(
            **annotated(project, toy, **options)
        )
    )
    (step,) = recipes.load_recipe(project / "r.yaml").steps
    assert step.settings == {"simulate": True, **settings}


def test_paths_are_relative_in_the_folder_of_the_recipe_and_whole_elsewhere(
    project, toy, tmp_path, monkeypatch
):
    monkeypatch.chdir(project / "images")
    images = ["p0.png", project / "images" / "p[12].png"]
    arguments = annotated(project, toy, images=images, masks="../masks", out=tmp_path / "far")
    run_job(recipes.recorded(pipeline.annotate, "../r.yaml")(**arguments))
    (step,) = recipes.load_recipe(project / "r.yaml").steps
    assert step.inputs == {"images": ("images/p0.png", "images/p[12].png"), "masks": "masks"}
    assert step.out == str(tmp_path / "far")


def test_stack_is_one_label_file(project, toy, tmp_path, prompter):
    import tifffile

    tifffile.imwrite(tmp_path / "s.tif", np.zeros((2, 40, 50), np.uint8), photometric="minisblack")
    job = recipes.recorded(pipeline.segment, tmp_path / "r")(
        tmp_path / "s.tif", prompter=prompter, out=tmp_path / "o",
        peaks=PeakSettings(min_area_frac=0.2),
    )  # fmt: skip
    assert run_job(job).done == ("s[0]", "s[1]")
    assert recipes.load_recipe(tmp_path / "r").steps[0].results.files == 1


def nothing_ran(project):
    return not (project / "a").exists()


REFUSED = [
    pytest.param("hello", FormatError, "format is None", id="text"),
    pytest.param("a: &b [*b]", FormatError, "alias \\*b", id="alias"),
    pytest.param("format: napari-samic/recipe\nversion: 9", FormatError, "version is 9", id="new"),
]


@pytest.mark.parametrize(("text", "error", "message"), REFUSED)
def test_file_that_is_no_recipe_is_refused_before_the_work(project, toy, text, error, message):
    (project / "r.yaml").write_text(text)
    with pytest.raises(error, match=message):
        run_job(recipes.recorded(pipeline.annotate, project / "r.yaml")(**annotated(project, toy)))
    assert (project / "r.yaml").read_text() == text
    assert nothing_ran(project)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        pytest.param({"images": np.zeros((9, 9))}, InputError, "images: a ndarray has no path that",
                     id="array"),
        pytest.param({"record": "images"}, OutputError, "that is a folder", id="folder"),
        pytest.param({"record": "a"}, InputError, "can't be both the result and the recipe",
                     id="both"),
        pytest.param({"record": "masks/p0.png/r"}, OutputError, "is a file, expected a folder",
                     id="in_a_file"),
        pytest.param({"model": "nonsense"}, ModelError, "unknown model 'nonsense'", id="model"),
        pytest.param({"images": "nowhere"}, InputError, "nowhere: no such file", id="input"),
    ],
)  # fmt: skip
def test_what_can_not_be_recorded_is_told_before_the_work(project, toy, change, error, message):
    record = project / change.get("record", "r.yaml")
    change = {k: v for k, v in change.items() if k != "record"}
    with pytest.raises(error, match=message):
        run_job(recipes.recorded(pipeline.annotate, record)(**annotated(project, toy, **change)))
    assert nothing_ran(project)
    assert not record.is_file()


@pytest.fixture
def part(monkeypatch):
    """A job that fails or is cancelled half-way."""

    def evaluate(*, predictions, truth, out=None, overwrite=False):
        yield JobProgress(1, 2, "half")
        raise InputError("broken")

    monkeypatch.setattr(pipeline, "evaluate", evaluate)


def test_cancelled_or_failed_job_leaves_the_recipe_as_it_was(project, part):
    path = project / "recipe.yaml"
    before = path.read_bytes()
    make = lambda: recipes.recorded(pipeline.evaluate, path)(  # noqa: E731
        predictions=project / "masks", truth=project / "truth"
    )
    job = make()
    while next(job).message != "half":
        pass
    job.close()
    assert path.read_bytes() == before
    with pytest.raises(InputError, match="broken"):
        run_job(make())
    assert path.read_bytes() == before


def test_step_that_another_recorded_meanwhile_is_kept(project, toy):
    path = project / "r.yaml"
    job = recipes.recorded(pipeline.annotate, path)(**annotated(project, toy))
    next(job)
    recipes.append_step(path, recipes.RecipeStep("evaluate", {"predictions": "x", "truth": "y"}))
    run_job(job)
    assert [s.do for s in recipes.load_recipe(path).steps] == ["evaluate", "annotate"]


def test_without_a_recipe_it_is_the_job_itself(project, toy):
    assert recipes.recorded(pipeline.annotate, None) is pipeline.annotate
    assert run_job(pipeline.annotate(**annotated(project, toy))).done == ("p0", "p1", "p2")
    assert [p.name for p in project.iterdir() if p.suffix == ".yaml"] == ["recipe.yaml"]

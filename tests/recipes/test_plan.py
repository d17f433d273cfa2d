"""What a replay would do: changes, other images, another folder, results that feed later steps."""

import re
from dataclasses import fields
from inspect import signature
from pathlib import Path

import pytest

from napari_samic import pipeline
from napari_samic.core.errors import InputError, SettingsError
from napari_samic.recipes import Recipe, RecipeStep
from napari_samic.recipes.hashing import Fingerprint
from napari_samic.recipes.plan import make_plan
from napari_samic.recipes.schema import OPTIONS, STEP_SCHEMAS

PRINT = Fingerprint(1, "0" * 64)
STEPS = (
    RecipeStep("annotate", {"images": "images", "masks": "masks"}, "a", "tiny", "1" * 64,
               {"simulate": True}, {"images": PRINT, "masks": PRINT}),
    RecipeStep("train", {"images": ("images", "/far/x.tif"), "prompts": "a/prompts.json"}, "p.pt",
               "path:toy.pt", "2" * 64, {"encoder": "path:toy.pt"}, {"prompts": PRINT}),
    RecipeStep("segment", {"images": "more/*.tif", "prompter": "p.pt"}, "/far/labels"),
    RecipeStep("evaluate", {"predictions": "/far/labels", "truth": "truth"}, "m.json"),
    RecipeStep("evaluate", {"predictions": "a/*.tif", "truth": "masks"}),
)  # fmt: skip
RECIPE = Recipe(Path("/data/r.yaml"), STEPS)
WATCHING = ("stop", "resume", "dask")  # these change no result


def test_table_of_jobs_is_that_of_the_pipeline():
    for job, kind in STEP_SCHEMAS.items():
        parameters = dict(signature(getattr(pipeline, job)).parameters)
        for name in WATCHING:
            parameters.pop(name, None)
        model = {"model"} if kind.has_model else set()
        assert {*kind.inputs, "out", *model, *kind.options, *kind.groups} == set(parameters)
        for option in kind.options:
            assert parameters[option].default == OPTIONS[option]
        assert kind.model == (parameters["model"].default if model else None)
        needed = [k for k in (*kind.inputs, "out") if parameters[k].default is parameters[k].empty]
        assert list(kind.needed) == needed
        names = [*kind.options, *(f.name for g in kind.groups.values() for f in fields(g))]
        assert len(names) == len(set(names))


def test_all_stays_where_it_was_beside_the_recipe():
    plan = make_plan(RECIPE)
    assert [p.step.out for p in plan] == [
        "/data/a",
        "/data/p.pt",
        "/far/labels",
        "/data/m.json",
        "",
    ]
    assert plan[1].step.inputs == {
        "images": ("/data/images", "/far/x.tif"), "prompts": "/data/a/prompts.json"}  # fmt: skip
    assert plan[1].step.model == "path:/data/toy.pt"
    assert plan[1].step.settings == {"encoder": "path:/data/toy.pt"}
    assert plan[2].step.inputs["images"] == "/data/more/*.tif"
    made = [dict(p.made_by) for p in plan]
    assert made == [{}, {"prompts": 1}, {"prompter": 2}, {"predictions": 3}, {"predictions": 1}]


def test_hashes_of_what_an_earlier_step_makes_do_not_count():
    plan = make_plan(RECIPE)
    assert list(plan[0].step.data) == ["images", "masks"]
    assert list(plan[1].step.data) == []


def test_results_go_to_another_folder_and_later_steps_look_there():
    plan = make_plan(RECIPE, out="/new")
    assert [p.step.out for p in plan] == ["/new/a", "/new/p.pt", "/new/labels", "/new/m.json", ""]
    assert plan[1].step.inputs["prompts"] == "/new/a/prompts.json"
    assert plan[2].step.inputs == {"images": "/data/more/*.tif", "prompter": "/new/p.pt"}
    assert [p.step.inputs["predictions"] for p in plan[3:]] == ["/new/labels", "/new/a/*.tif"]


def test_two_results_of_one_name_do_not_meet_in_another_folder():
    steps = (STEPS[0], RecipeStep("annotate", STEPS[0].inputs, "/far/a"), STEPS[4])
    plan = make_plan(Recipe(RECIPE.path, steps), out="/new")
    assert [p.step.out for p in plan] == ["/new/a", "/new/2-a", ""]
    assert plan[2].made_by == {"predictions": 1}


def test_images_below_a_folder_of_results_are_not_results():
    steps = (RecipeStep("annotate", {"images": "x", "masks": "m"}, "."), STEPS[0])
    plan = make_plan(Recipe(RECIPE.path, steps), out="/new")
    assert plan[1].step.inputs == {"images": "/data/images", "masks": "/data/masks"}
    assert plan[1].made_by == {}


def test_recipe_may_write_over_its_own_results_only():
    again = RecipeStep("train", STEPS[1].inputs, "p.pt", settings={"overwrite": True})
    plan = make_plan(Recipe(RECIPE.path, (again, again, STEPS[1])))
    assert [p.replaces(overwrite=False) for p in plan] == [False, True, False]
    assert [p.replaces(overwrite=True) for p in plan] == [True] * 3


# Changes.


def settings_after(change):
    return [dict(p.step.settings) for p in make_plan(RECIPE, set=change)]


@pytest.mark.parametrize(
    ("key", "steps"),
    [
        pytest.param("threshold", [1, 2], id="every_step_that_has_it"),
        pytest.param("segment.threshold", [2], id="by_job"),
        pytest.param("2.threshold", [1], id="by_number"),
    ],
)
def test_change_reaches_the_steps_it_names(key, steps):
    found = settings_after({key: "0.4"})
    assert [i for i, one in enumerate(found) if one.get("threshold") == 0.4] == steps


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        pytest.param("train.epochs", "5", 5, id="int"),
        pytest.param("train.learning_rate", "1e-3", 0.001, id="float"),
        pytest.param("segment.instances", "false", False, id="bool"),
        pytest.param("train.combine", "sum", "sum", id="choice"),
        pytest.param("annotate.device", "cuda", "cuda", id="text"),
        pytest.param("train.channels", "2,0,1", [2, 0, 1], id="channels"),
        pytest.param("train.series", "1", 1, id="series"),
        pytest.param("segment.axes", "TZYX", "TZYX", id="axes"),
        pytest.param("train.epochs", 5, 5, id="from_python"),
    ],
)
def test_text_of_the_shell_becomes_a_value(key, text, value):
    name = key.split(".")[1]
    assert value in [one.get(name) for one in settings_after({key: text})]


def test_paths_and_models_can_be_changed_and_are_relative_to_here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    change = {
        "train.images": "b",
        "model": "path:m.pt",
        "1.out": "c",
        "annotate.images": ["d", "e"],
    }
    first, second, third, *_ = make_plan(RECIPE, set=change)
    assert first.step.inputs["images"] == (f"{tmp_path}/d", f"{tmp_path}/e")
    assert second.step.inputs == {
        "images": f"{tmp_path}/b", "prompts": f"{tmp_path}/c/prompts.json"}  # fmt: skip
    assert [p.step.model for p in (first, second, third)] == [f"path:{tmp_path}/m.pt"] * 3


def test_hashes_of_what_is_changed_do_not_count():
    first = make_plan(RECIPE, set={"annotate.images": "/x", "annotate.model": "vit_b"})[0].step
    assert list(first.data) == ["masks"]
    assert (first.model, first.model_sha256) == ("vit_b", "")


BAD = [
    # (changes, error, message)
    ({"epoch": 1}, InputError, "r.yaml: epoch: not known. Known: adapt, adapt_others"),
    (
        {"evaluate.epochs": 1},
        InputError,
        "evaluate.epochs: not known. Known: mask_values, out, predictions",
    ),
    ({"train.overwrite": 1}, InputError, "train.overwrite: not known. Known: "),
    ({"trian.epochs": 1}, InputError, "trian.epochs: no step 'trian'. Steps: 1 (annotate), 2 (tra"),
    ({"train.out": ""}, InputError, "train.out: an empty path. '.' is the folder you are in"),
    ({"6.out": 1}, InputError, "6.out: no step '6'. Steps: 1 (annotate)"),
    ({"images": "x"}, InputError, "images: of which step? Say 1.images or 2.images or 3.images."),
    ({"a": 1, "b": 1}, InputError, "truth, views, weigh; b: not known. Known: "),
    ({"epochs": "many"}, SettingsError, "r.yaml: step 2 (train): epochs is 'many', expected int."),
    (
        {"epochs": -1, "min_score": 2},
        SettingsError,
        "step 1 (annotate): min_score is 2, expected at most 1.0; step 2 (train): epochs is -1, "
        "expected at least 0; step 3 (segment): min_score is 2, expected at most 1.0. Set another",
    ),
]


@pytest.mark.parametrize(
    ("change", "error", "message"), [pytest.param(*case, id=case[2][:40]) for case in BAD]
)
def test_bad_changes_are_told_at_once(change, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make_plan(RECIPE, set=change)


# Other images.


def test_other_images_go_to_the_steps_that_segment_alone():
    plan = make_plan(RECIPE, images=("/x", "/y"), out="/new")
    assert [p.step.inputs.get("images") for p in plan[:3]] == [
        "/data/images", ("/data/images", "/far/x.tif"), ("/x", "/y")]  # fmt: skip
    assert [p.left_out[:9] for p in plan] == ["", "", "", "its truth", ""]


def test_labels_of_other_images_are_scored_against_another_truth():
    plan = make_plan(RECIPE, images="/x", out="/new", set={"4.truth": "/t"})
    assert (plan[3].left_out, plan[3].step.inputs["truth"]) == ("", "/t")


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        pytest.param(STEPS, "step 3 (segment): results of other images would be mixed", id="out"),
        pytest.param(STEPS[:2], "r.yaml: no step segments; there are no images", id="none"),
    ],
)
def test_other_images_are_refused_where_they_would_spoil_something(steps, message):
    with pytest.raises(InputError, match=re.escape(message)):
        make_plan(Recipe(RECIPE.path, steps), images="/x")

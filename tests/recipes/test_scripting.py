"""A recipe as commands and as a script: both ask for what it says."""

import shlex
from pathlib import Path

import pytest

import napari_samic
from napari_samic import recipes
from napari_samic.core.errors import SettingsError
from napari_samic.core.settings import (
    PRESETS,
    AdaptSettings,
    HeatMapSettings,
    PeakSettings,
    PrompterSettings,
    TrainSettings,
    preset,
)
from napari_samic.pipeline.segment import stored_peaks
from napari_samic.recipes.recipe import Recipe, RecipeStep
from napari_samic.recipes.schema import STEP_SCHEMAS, of_group
from napari_samic.recipes.scripting import as_command, as_python

CALLS = ("annotate", "train", "segment", "evaluate", "accept", "export_results")
PAPER = {
    key: value
    for kind in (TrainSettings, PrompterSettings, HeatMapSettings, PeakSettings, AdaptSettings)
    for key, value in kind.paper().to_dict().items()
}


def segment(**settings):
    inputs = {"images": ("a.tif", "it's b.tif"), "prompter": "prompter.pt"}
    return RecipeStep("segment", inputs, out="labels", settings=settings)


def train(**settings):
    inputs = {"images": ("a", "/far/*.tif"), "prompts": "p.json", "others": ("c", "d")}
    return RecipeStep("train", inputs, out="q.pt", model="path:m.pt", settings=settings)


STEPS = [
    pytest.param(segment(), id="defaults"),
    pytest.param(
        segment(method="samic", threshold=0.2, instances=False, heatmaps=True, axes="ZYX",
                choice="both", limits=True, follow="stacks", smooth_px=3),
        id="options",
    ),
    *(pytest.param(segment(**preset.values), id=preset.name) for preset in PRESETS),
    pytest.param(segment(**preset("literal-paper").values | {"min_score": 0.3}), id="preset_more"),
    pytest.param(train(adapt=False, channels=[2, 0, 1], learning_rate=1e-5), id="train"),
    pytest.param(train(**PAPER), id="train_paper"),
    pytest.param(train(**PAPER | {"epochs": 3, "sigma_frac": 0.03}), id="train_paper_more"),
    pytest.param(
        RecipeStep("annotate", {"images": "i", "masks": "m"}, out="o", model="tiny",
                   settings={"simulate": True, "mask_values": "0=ground,9=object"}),
        id="annotate",
    ),
    pytest.param(RecipeStep("evaluate", {"predictions": "l", "truth": "t"}), id="evaluate"),
    pytest.param(
        RecipeStep("accept", {"results": "l", "review": "r.json", "edits": "e"}, out="o",
                   settings={"overwrite": True}),
        id="accept",
    ),
    pytest.param(
        RecipeStep("export", {"results": "l", "classes": "c.json"}, out="o",
                   settings={"tiff": False, "coco": True, "unit": "um", "pixel_width": 0.5}),
        id="export",
    ),
]  # fmt: skip


def asked(call, step, prompter):
    """What a job was called with, by parameter; a group that was left out has its defaults."""
    schema = STEP_SCHEMAS[step.do]
    args, kwargs = call
    arguments = dict(zip(schema.inputs, args, strict=False)) | kwargs
    out = {}
    for key, value in arguments.items():
        if value is not None and value is not False and key not in schema.groups:
            out[key] = [str(v) for v in value] if isinstance(value, list | tuple) else str(value)
    for key in ("images", "others"):
        if isinstance(out.get(key), str):
            out[key] = [out[key]]
    usual = {"method": "auto", "device": "auto", "model": schema.model}
    groups = {
        key: arguments.get(key) or (stored_peaks(prompter) if _is_stored(schema, key) else kind())
        for key, kind in schema.groups.items()
    }
    return {k: v for k, v in out.items() if usual.get(k) != v}, groups


def _is_stored(schema, key):
    return key == "peaks" and "prompter" in schema.inputs


def wanted(step, prompter):
    schema, stored = STEP_SCHEMAS[step.do], stored_peaks(prompter)

    def whole(path):
        return str(prompter.parent / path)

    values = {k: [*map(whole, [p] if isinstance(p, str) else p)] for k, p in step.inputs.items()}
    values = {k: v if k in ("images", "others") else v[0] for k, v in values.items()}
    values |= {"out": whole(step.out)} if step.out else {}
    if step.model != (schema.model or ""):
        values["model"] = f"path:{whole(step.model.removeprefix('path:'))}"
    for key in schema.options:
        if value := step.settings.get(key):
            values[key] = [str(v) for v in value] if isinstance(value, list) else str(value)
    groups = {}
    for key, kind in schema.groups.items():
        start = stored if _is_stored(schema, key) else kind()
        groups[key] = kind.from_dict({**start.to_dict(), **of_group(kind, step.settings)})
    return values, groups


@pytest.mark.parametrize("step", STEPS)
def test_command_asks_for_what_the_recipe_says(step, prompter, shell, monkeypatch):
    calls = []

    def recorded(make, _record):
        def job(*args, **kwargs):
            calls.append((make.__name__, args, kwargs))
            raise KeyboardInterrupt

        return job

    monkeypatch.setattr(recipes, "recorded", recorded)
    text = as_command(Recipe(prompter.parent / "r.yaml", (step,)))
    name, *words = shlex.split(text.replace("\\\n", ""))  # which shlex does not, as shells do
    shell(*words)
    ((do, *call),) = calls
    assert (name, do) == ("napari-samic", step.do)
    assert asked(call, step, prompter) == wanted(step, prompter)


@pytest.mark.parametrize("step", STEPS)
def test_script_asks_for_what_the_recipe_says(step, prompter, monkeypatch):
    calls = []
    for name in CALLS:
        monkeypatch.setattr(
            napari_samic, name, lambda *args, _name=name, **kw: calls.append((_name, args, kw)),
            raising=False,
        )  # fmt: skip
    exec(as_python(Recipe(prompter.parent / "r.yaml", (step,))), {})
    ((do, *call),) = calls
    assert do.removesuffix("_results") == step.do
    assert asked(call, step, prompter) == wanted(step, prompter)


def test_what_no_option_says_is_refused_not_left_out():
    with pytest.raises(SettingsError, match=r"step 2 \(segment\): duplicate_iou"):
        as_command(Recipe(Path("/r.yaml"), (segment(), segment(duplicate_iou=0.5))))


def test_script_runs_and_makes_the_same_labels(scenes, prompter, tmp_path):
    result = napari_samic.segment(
        scenes / "images", prompter=prompter, out=tmp_path / "labels", record=tmp_path / "r.yaml",
        peaks=PeakSettings(threshold=0.2, min_area_frac=0.0),
    )  # fmt: skip
    recipe = recipes.load_recipe(tmp_path / "r.yaml")
    script = as_python(recipe).replace("labels'", "again'")
    exec(script, {})
    assert stored_peaks(prompter) != PeakSettings(threshold=0.2, min_area_frac=0.0)
    for name in result.done:
        again = (tmp_path / "again" / f"{name}.tif").read_bytes()
        assert again == (result.out / f"{name}.tif").read_bytes()

"""The file: read safely, checked, added to."""

import re
from dataclasses import replace

import pytest
import yaml
from toys import hidden_files

from napari_samic import recipes
from napari_samic.core.errors import FormatError, InputError, OutputError
from napari_samic.core.settings import preset
from napari_samic.recipes.hashing import Fingerprint
from napari_samic.recipes.plan import make_plan

HASH = "0123456789abcdef" * 4
TRAIN = recipes.RecipeStep(
    "train",
    {"images": ("images", "/far/b*.tif"), "masks": "no"},
    out="p.pt",
    model="path:toy.pt",
    model_sha256=HASH,
    settings={"learning_rate": 1e-5, "epochs": 3, "channels": [2, 0, 1], "centre": False},
    data={"images": Fingerprint(5, HASH, "ends"), "masks": Fingerprint(1, "1" * 64)},
    package="0.10",
    threads=3,
)
SEGMENT = recipes.RecipeStep("segment", {"images": "été", "prompter": "p.pt"}, out="labels")
HEAD = "format: napari-samic/recipe\nversion: 1\n"
SOUND = f"""{HEAD}steps:
- do: train
  inputs: {{images: images, masks: masks}}
  out: p.pt
- do: segment
  inputs:
    images: more
    prompter: p.pt
  out: labels
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "r.yaml"


def test_steps_come_back_as_they_were(path):
    recipes.append_step(path, TRAIN)
    recipes.append_step(path, SEGMENT)
    assert recipes.load_recipe(path).steps == (TRAIN, SEGMENT)
    assert [p.name for p in path.parent.iterdir()] == ["r.yaml"]


def test_file_is_plain_and_says_how_to_replay_it(path):
    recipes.append_step(path, SEGMENT)
    assert path.read_text(encoding="utf-8") == (
        "# Recorded by napari-samic; to replay it: napari-samic run FILE\n"
        "format: napari-samic/recipe\nversion: 1\nsteps:\n- do: segment\n  inputs:\n"
        "    images: été\n    prompter: p.pt\n  out: labels\n"
    )


def test_same_command_again_takes_the_place_of_the_last_step_only(path):
    again = replace(TRAIN, data={}, package="9")
    for step in (TRAIN, again, SEGMENT, TRAIN):
        recipes.append_step(path, step)
    assert recipes.load_recipe(path).steps == (again, SEGMENT, TRAIN)


COMMENTED = f"# mine\n{SOUND}"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(COMMENTED, id="plain"),
        pytest.param(COMMENTED.rstrip(), id="no_newline_at_the_end"),
        pytest.param(re.sub("^([- ])", r"    \1", COMMENTED, flags=re.M), id="indented"),
        pytest.param(COMMENTED.replace("\n", "\r\n"), id="windows"),
    ],
)
def test_comments_and_steps_stay_when_one_is_added(path, text):
    path.write_text(text, newline="")
    before = recipes.load_recipe(path).steps
    recipes.append_step(path, TRAIN)
    assert recipes.load_recipe(path).steps == (*before, TRAIN)
    assert path.read_text().startswith(text.replace("\r", "").rstrip() + "\n")


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param("steps: []", id="empty"),
        pytest.param("steps:", id="nothing"),
        pytest.param('{steps: [{do: evaluate, inputs: {predictions: "a", truth: b}}], '
                     "format: napari-samic/recipe, version: 1}", id="flow"),
        pytest.param("steps:\n-\n  do: evaluate\n  inputs: {predictions: a, truth: b}\n"
                     "# version was last\n", id="dash_on_its_own_line"),
    ],
)  # fmt: skip
def test_files_written_by_hand_keep_their_steps(path, steps):
    path.write_text(steps if steps.startswith("{") else HEAD + steps)
    before = recipes.load_recipe(path).steps
    for step in (SEGMENT, replace(SEGMENT, data={"images": Fingerprint(1, HASH)})):
        recipes.append_step(path, step)
        assert recipes.load_recipe(path).steps == (*before, step)


def test_numbers_as_people_write_them(path):
    path.write_text(SOUND + "  settings: {min_score: 1e-3, threshold: .5, min_area_frac: 0}\n")
    assert recipes.load_recipe(path).steps[1].settings == {
        "min_score": 0.001, "threshold": 0.5, "min_area_frac": 0}  # fmt: skip


STEP = "line 4, step 1 (train): "
BAD = [
    # (what stands for what in SOUND, what the loader says)
    ("recipe\n", "recpie\n", "format is 'napari-samic/recpie', expected 'napari-samic/recipe'."),
    ("version: 1", "version: 2", "version is 2, expected 1. Open it with the napari-samic that"),
    ("version: 1", "version: true", "version is True, expected 1."),
    ("version: 1", "version: 1\nauthor: me", "unknown author. Known: format, version, steps"),
    ("steps:", "stages:", "unknown stages. Known: format, version, steps; steps is None, expected"),
    ("do: train", "do: trian", "line 4, step 1: do is 'trian', expected one of annotate, train, s"),
    ("do: train", "doo: train", "line 4, step 1: do is None, expected one of"),
    ("do: segment", "do: [segment]", "line 7, step 2: do is ['segment'], expected one of"),
    (
        "- do: train",
        "- 5\n- do: train",
        "line 4, step 1: is 5, expected a mapping of do, package, threads",
    ),
    (
        "out: p.pt",
        "out: p.pt\n  note: x",
        f"{STEP}unknown note. Known: do, package, threads, inputs, out,",
    ),
    ("  out: p.pt\n", "", f"{STEP}out is missing, expected a path."),
    ("  out: p.pt", "  out: 5", f"{STEP}out is 5, expected a path (in quotes if need be)."),
    ("images: images, ", "", f"{STEP}images is missing, expected a path in inputs"),
    ("images: images", "image: x", f"{STEP}unknown image in inputs. Known: images, prompts"),
    ("images: images", "images: []", f"{STEP}images is [], expected a path (in quotes if n"),
    ("images: images", "images: [a, 1]", f"{STEP}images is ['a', 1], expected a path"),
    ("masks: masks", "masks: [a]", f"{STEP}masks is ['a'], expected a path (in quotes"),
    ("masks: masks", "masks: 2024-01-01", f"{STEP}masks is datetime.date(2024, 1, 1), expecte"),
    ("{images: images, masks: masks}", "3", f"{STEP}inputs is 3, expected a mapping; {STEP}ima"),
]
ADDED = [
    # (one more line of the first step, what the loader says)
    ("settings: {epoch: 3}", "unknown epoch in settings. Known: adapt, adapt_others, adapt_steps"),
    ("settings: {epochs: -1}", "epochs is -1, expected at least 0."),
    ("settings: {epochs: -1, shots: 0}", "epochs is -1, expected at least 0; " + STEP + "shots is"),
    ("settings: {epochs: many}", "epochs is 'many', expected int"),
    ("settings: {combine: mean}", "combine is 'mean', expected one of sum, max"),
    ("settings: {channels: [0, -1]}", "channels is [0, -1], expected a list of one to three numb"),
    ("settings: {series: -1}", "series is -1, expected a number from 0"),
    ("settings: {axes: 3}", "axes is 3, expected a text"),
    ("settings: {device: 3}", "device is 3, expected a text"),
    ("settings: {overwrite: 3}", "overwrite is 3, expected true or false"),
    ("settings: [epochs]", "settings is ['epochs'], expected a mapping"),
    ("model: tiny", "model is 'tiny', expected a mapping"),
    ("model: {names: tiny}", "unknown names in model. Known: name, sha256; " + STEP + "name of"),
    ("model: {name: tiny, sha256: abc}", "sha256 of model is 'abc', expected 64 digits 0-9a-f"),
    ("threads: 0", "threads is 0, expected a whole number from 1 to 1024"),
    ("threads: true", "threads is True, expected a whole number from 1 to 1024"),
    ("package: 0.1", "package is 0.1, expected a text; put it in quotes"),
    ("data: {mask: {}}", "unknown mask in data. Known: images, prompts, masks, others"),
    ("data: {masks: 3}", "data of masks is 3, expected a mapping of files, sha256, hashed"),
    ("data: {masks: {}}", "files of data of masks is None, expected a whole number from 0"),
    ("data: {masks: {files: 1, sha256: 12}}", "sha256 of data of masks is 12, expected 64 digits"),
    (f"data: {{masks: {{files: 1, sha256: {HASH}, hashed: x}}}}", "hashed of data of masks is 'x'"),
    (f"data: {{masks: {{files: 1, sha256: {HASH}, size: 3}}}}", "unknown size in data of masks. K"),
    (f"results: {{files: true, sha256: {HASH}}}", "files of results is True, expected a whole"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"), [pytest.param(*case, id=case[2][:60]) for case in BAD]
)
def test_bad_recipes_are_refused_with_the_place(path, old, new, message):
    assert SOUND.count(old) >= 1
    path.write_text(SOUND.replace(old, new, 1))
    with pytest.raises(FormatError, match=re.escape(f"r.yaml: {message}")):
        recipes.load_recipe(path)


@pytest.mark.parametrize(
    ("line", "message"), [pytest.param(*case, id=case[1][:60]) for case in ADDED]
)
def test_bad_values_are_refused_with_the_place(path, line, message):
    path.write_text(SOUND.replace("  out: p.pt\n", f"  out: p.pt\n  {line}\n"))
    with pytest.raises(FormatError, match=re.escape(f"r.yaml: {STEP}{message}")):
        recipes.load_recipe(path)


def test_all_faults_are_told_at_once(path):
    text = SOUND.replace("images: images", "image: x").replace("out: labels", "out: [x]")
    path.write_text(text + "  settings: {min_score: 2, instances: 1}\n  model: {name: 3}\n")
    with pytest.raises(FormatError) as caught:
        recipes.load_recipe(path)
    assert str(caught.value) == (
        "r.yaml: line 4, step 1 (train): unknown image in inputs. Known: images, prompts, masks, "
        "others; line 4, step 1 (train): images is missing, expected a path in inputs; "
        "line 7, step 2 (segment): out is ['x'], expected a path (in quotes if need be); "
        "line 7, step 2 (segment): name of model is 3, expected a text; "
        "line 7, step 2 (segment): instances is 1, expected bool; "
        "line 7, step 2 (segment): min_score is 2, expected at most 1.0. "
        "Mend these places or record it anew."
    )


PAIRS = zip("abcdefgh", "bcdefghi", strict=True)
BOMB = "a: &a [x, x]\n" + "\n".join(f"{c}: &{c} [{', '.join(['*' + p] * 9)}]" for p, c in PAIRS)
UNSAFE = [
    pytest.param(BOMB, "line 2: alias *a, expected plain values. Write it out.", id="bomb"),
    pytest.param(f"{HEAD}steps: !!python/object/apply:os.system [ls]",
                 "line 3: tag tag:yaml.org,2002:python/object/apply:os.system, expected plain",
                 id="python_tag"),
    pytest.param(f"{HEAD}steps: !mine []", "line 3: tag !mine, expected plain", id="own_tag"),
    pytest.param(SOUND + "  out: x\n", "line 12: out is there twice. Delete one", id="twice"),
    pytest.param(SOUND.replace("steps:", "steps: x"), "not YAML (line 4, column 1: ", id="syntax"),
    pytest.param("a: \x00", "not YAML (", id="control_character"),
    pytest.param("[" * 5000, "not YAML (", id="deep"),
    pytest.param("[" * 100_000, "not YAML (line 1: more than 20 levels", id="brackets"),
    pytest.param("{a: " * 100_000, "not YAML (line 1: more than 20 levels", id="braces"),
    pytest.param("- " * 100_000, "not YAML (line 1: more than 20 levels", id="dashes"),
    pytest.param(HEAD.replace("1", f"'{'9' * 4000}'"), f"version is '{'9' * 39}, exp", id="long"),
    pytest.param(f"{HEAD}---\n{SOUND}", "not YAML (", id="two_documents"),
    pytest.param("", "format is None, expected 'napari-samic/recipe'", id="empty"),
    pytest.param("- 1", "format is None", id="list"),
    pytest.param('{"format": "napari-samic/prompts", "version": 1}', "format is 'napari-samic/pro",
                 id="prompt_file"),
    pytest.param("x" * 1_000_001, "1000001 characters, expected at most 1000000", id="huge"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), UNSAFE)
def test_what_is_no_recipe_is_refused_and_left_alone(path, text, message):
    path.write_text(text)
    for act in (recipes.load_recipe, lambda p: recipes.append_step(p, TRAIN)):
        with pytest.raises(FormatError, match=re.escape(f"r.yaml: {message}")):
            act(path)
    assert path.read_text() == text


def test_no_text_and_no_file(path):
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match=r"r\.yaml: not a text"):
        recipes.load_recipe(path)
    with pytest.raises(InputError, match=r"none\.yaml: can't be read \(No such file"):
        recipes.load_recipe(path.with_name("none.yaml"))


def test_failed_write_leaves_the_old_recipe(path, monkeypatch):
    recipes.append_step(path, TRAIN)
    before = path.read_text()

    def full(*_, **__):
        raise OSError(28, "full")

    monkeypatch.setattr(type(path), "write_text", full)
    with pytest.raises(OutputError, match="the disk is full"):
        recipes.append_step(path, SEGMENT)
    assert path.read_text() == before
    assert not hidden_files(path.parent)


@pytest.mark.parametrize("value", ["[" * 10_000, "&a [*a, *a]", "[1, 2]", "9" * 5000])
def test_text_in_place_of_a_number_is_no_yaml_of_its_own(path, value):
    step = {"do": "train", "inputs": {"images": "i", "masks": "m"}, "out": "p.pt"}
    tree = {"format": "napari-samic/recipe", "version": 1}
    tree["steps"] = [{**step, "settings": {"epochs": value}}]
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(FormatError, match="epochs is") as caught:
        recipes.load_recipe(path)
    assert len(str(caught.value)) < 300


def test_preset_is_its_values_and_what_stands_beside_it_counts(path):
    path.write_text(
        SOUND.replace(
            "  out: labels", "  out: labels\n  settings: {preset: literal-paper, min_score: 0.3}"
        )
    )
    settings = recipes.load_recipe(path).steps[1].settings
    assert settings == {**preset("literal-paper").values, "min_score": 0.3}
    plan = make_plan(recipes.load_recipe(path), set={"preset": "stack-that-goes-on"})
    assert plan[1].step.settings == {**settings, "follow": "stacks"}


@pytest.mark.parametrize(("job", "name"), [("train", "literal-paper"), ("segment", "cells")])
def test_preset_that_a_step_does_not_know_is_refused(path, job, name):
    text = SOUND.replace(f"do: {job}\n", f"do: {job}\n  settings: {{preset: {name}}}\n")
    path.write_text(text)
    with pytest.raises(FormatError, match=rf"\({job}\): .*preset"):
        recipes.load_recipe(path)

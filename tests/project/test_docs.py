import csv
import importlib.util
import re
import shlex
import shutil
import textwrap
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import tifffile
from toys import scene, write_image, write_scenes

import napari_samic
from napari_samic import recipes
from napari_samic.core import settings
from napari_samic.io.paths import bare_stem
from napari_samic.io.reviews import ACCEPTED, Verdict, save_review

README = Path(__file__).resolve().parents[2] / "README.md"
DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""A block that runs as it stands; those of other languages have names of files that nobody has."""
SHORTER = {"--minutes 1": "--epochs 1", "minutes=1": "epochs=1"}


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        pytest.param(kind, spec, id=f"{kind.__name__}-{spec.name}")
        for kind in settings.Settings.__subclasses__()
        if kind.__module__ == settings.__name__
        for spec in fields(kind)
    ],
)
def test_settings_page_has_every_setting_with_its_default_and_range(kind, spec):
    page = (DOCS / "settings.md").read_text(encoding="utf-8")
    is_shown = spec in settings.public_fields(kind)
    part = page.partition(f"## {kind.__name__ if is_shown else 'What only the paper'}")[2]
    (row,) = re.findall(rf"^\| `{spec.name}` \| (.*) \|$", part.partition("\n## ")[0], re.MULTILINE)
    *group, default, span, meaning = row.split(" | ")
    assert group == ([] if is_shown else [kind.__name__])
    assert default == (str(spec.default).lower() or "-")
    meta = spec.metadata
    known = meta["choices"] or [f"{meta[k]:g}" for k in ("ge", "le") if meta[k] is not None]
    assert re.findall(r"[^\s,]+", span.removeprefix("at least ").replace(" to ", " ")) == (
        [str(one) for one in known] or {"bool": ["true", "false"], "str": ["a", "text"]}[spec.type]
    )
    assert len(meaning) > 10


def test_settings_page_has_no_setting_that_is_gone():
    page = (DOCS / "settings.md").read_text(encoding="utf-8")
    kinds = settings.Settings.__subclasses__()
    known = {spec.name for kind in kinds for spec in fields(kind)}
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) <= known


def test_names_of_masks_that_the_readme_lists_are_recognised():
    text = README.read_text(encoding="utf-8").partition("Masks find their images by name: ")[2]
    text = text.partition("What their values mean")[0]
    files = [Path(name) for name in re.findall(r"`(cells\S[^`]*)`", text)]
    ends = re.findall(r"`(_[A-Za-z][^`]*)`", text)
    assert (len(files), len(ends)) == (7, 7)
    assert {bare_stem(path) for path in files} == {"cells"}
    for end in ends:
        assert {bare_stem(Path(f"cells{sign}{end[1:]}.tif")) for sign in "_-. "} == {"cells"}


@pytest.fixture
def readme_recipes(tmp_path, monkeypatch, no_finetuning):
    """The section's blocks, in a folder that has what they name."""
    write_scenes(tmp_path, 3)
    for i, folder in ((3, "more"), (4, "others")):
        write_image(tmp_path / folder / f"q{i}.png", scene(i)[0])
    monkeypatch.chdir(tmp_path)
    section = README.read_text(encoding="utf-8").partition("## Recipes\n")[2].partition("\n## ")[0]
    return [textwrap.dedent(b) for b in re.findall(r"(?:^    .*\n)+", section, flags=re.MULTILINE)]


def test_recipe_of_the_readme_is_what_its_commands_record_and_runs(shell, readme_recipes, toy):
    record, run, recipe = readme_recipes
    less = {"--epochs 30": "--epochs 1", "--simulate": f"--simulate --model {toy}"}
    for old, new in {**less, "--images images": f"--images images --model {toy}"}.items():
        assert old in record
        record = record.replace(old, new)
    run = run.replace("train.epochs=20", "train.epochs=2")
    for line in [*record.splitlines(), *run.splitlines()]:
        ran = shell(*shlex.split(line)[1:])
        assert (ran.code, ran.complaints) == (0, []), line
    Path("written.yaml").write_text(recipe, encoding="utf-8")
    written, recorded = (recipes.load_recipe(p).steps for p in ("written.yaml", "recipe.yaml"))
    assert [(s.do, s.inputs, s.out) for s in written] == [(s.do, s.inputs, s.out) for s in recorded]
    assert [s.settings for s in written] == [
        {"simulate": True}, {"epochs": 30}, {"threshold": 0.4}]  # fmt: skip
    shutil.rmtree("labels")
    ran = shell("run", "written.yaml", "--out", "by-hand", "--set", "epochs=1",
                "--set", f"model={toy}")  # fmt: skip
    assert (ran.code, ran.complaints) == (0, [])
    for found in Path("again/labels").glob("*.tif"):
        assert (Path("by-hand/labels") / found.name).read_bytes() == found.read_bytes()


def test_every_hostile_example_of_the_page_on_security_is_a_test():
    page = (README.parent / "docs" / "security.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) > 25
    lost = [
        f"{file}::{name}"
        for file, name in named
        if f"def {name}(" not in (README.parent / file).read_text(encoding="utf-8")
    ]
    assert not lost


@pytest.mark.parametrize(
    ("command", "kinds"),
    [
        pytest.param("annotate", (settings.AnnotateSettings,), id="annotate"),
        pytest.param("train", (settings.TrainSettings, settings.AdaptSettings), id="train"),
        pytest.param("segment", (settings.RefineSettings, settings.PeakSettings), id="segment"),
        pytest.param("export", (settings.ExportSettings,), id="export"),
    ],
)
def test_reference_of_the_shell_has_every_setting_of_a_command(command, kinds):
    spec = importlib.util.spec_from_file_location("shell_reference", DOCS / "shell_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    section = module.commands().partition(f"\n## {command}\n")[2].partition("\n## ")[0]
    names = {x.name.replace("_", "-") for kind in kinds for x in settings.public_fields(kind)}
    assert names <= set(re.findall(r"`--([a-z-]+)`", section))


def test_reference_of_python_has_every_public_name():
    page = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    named = re.findall(r"^\.\. auto\w+:: napari_samic\.(\w+)$", page, re.MULTILINE)
    assert set(napari_samic.__all__) - {"__version__"} <= set(named)


def run_blocks(page, shell):
    """Run what a page has to be run, one after the other, with short trainings; give its names."""
    names = {}
    for language, block in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
        for old, new in SHORTER.items():
            block = block.replace(old, new)
        if language == "python":
            exec(compile(block, page, "exec"), names)
        else:
            for line in block.splitlines():
                ran = shell(*shlex.split(line)[1:])
                assert ran.code == 0, f"{line}: {ran.err}"
    return names


@pytest.mark.slow
@pytest.mark.usefixtures("no_finetuning")
@pytest.mark.parametrize("page", ["tutorials/shell.md", "tutorials/python.md"])
def test_tutorial_leads_to_labels_and_tables(page, shell, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_blocks(page, shell)
    labels = [tifffile.imread(path) for path in sorted(Path("labels").glob("*.tif"))]
    assert [(x.shape, x.dtype) for x in labels] == [((256, 256), np.int32)] * 18
    assert any(x.any() for x in labels)
    assert {path.suffix for path in Path("exported").iterdir()} >= {".tif", ".csv", ".geojson"}
    with Path("exported/measurements.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(np.unique(x[x > 0])) for x in labels)


def test_table_of_measurements_is_read_as_its_page_says(shell, tmp_path, monkeypatch, scenes, toy):
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    images, masks = scenes / "images", scenes / "masks"
    options = ("--simulate", "--model", toy, "--out", "labels")
    assert shell("annotate", images, "--masks", masks, *options).code == 0
    names = run_blocks("how-to/measure.md", shell)
    page = (DOCS / "how-to" / "measure.md").read_text(encoding="utf-8")
    heads = re.findall(r"^\| (`.+`) \|", page, re.MULTILINE)
    listed = set(re.findall(r"`([a-z_]+)`", " ".join(heads)))
    of_channels = {re.sub(r"-\d$", "", column) for column in names["table"].columns}
    assert listed == of_channels
    assert set(names["table"]["image"]) == {"p0", "p1", "p2", "p3"}


@pytest.fixture
def readme_folder(tmp_path, monkeypatch, shell, toy, prompter, no_finetuning):
    """What the README's commands name, but for what they make themselves."""
    monkeypatch.chdir(tmp_path)
    write_scenes(tmp_path)
    for i in (5, 6):
        image, labels = scene(i)
        write_image(Path("more") / f"q{i}.tif", image)
        write_image(Path("truth") / f"q{i}.png", labels)
    for name in ("stack", "volume"):
        frames = np.stack([scene(i)[0] for i in range(3)])
        tifffile.imwrite(f"{name}.tif", frames, photometric="rgb")
    shutil.copy(prompter, "cells.pt")
    Path("edits").mkdir()
    save_review("review.json", {f"q{i}": Verdict(ACCEPTED) for i in (5, 6)})
    options = ("--masks", "masks", "--simulate", "--model", toy, "--out", "clicked")
    assert shell("annotate", "images", *options).code == 0
    shutil.copy("clicked/prompts.json", "clicks.json")


def readme_block(word):
    """The block of the section on use that holds a word, without its indent."""
    section = README.read_text(encoding="utf-8").partition("## Use it\n")[2].partition("\n### ")[0]
    blocks = re.findall(r"(?:^(?:    .*)?\n)+", section, flags=re.MULTILINE)
    (block,) = [textwrap.dedent(block) for block in blocks if word in block]
    return block


@pytest.mark.slow
@pytest.mark.usefixtures("readme_folder")
def test_commands_of_the_readme_run(shell, toy):
    lines = [x for x in readme_block("annotate images/").splitlines() if x.startswith("napari-")]
    assert len(lines) > 10
    more = {"annotate": f" --model {toy}", "train": f" --model {toy} --epochs 1"}
    for line in (x.replace("--model vit_b", f"--model {toy}") for x in lines):
        command, out = line.split()[1], re.search(r"--out (\S+)", line)
        again = " --overwrite" if out is not None and Path(out[1]).exists() else ""
        if "--dask" not in line:  # has tests of its own
            ran = shell(*shlex.split(line + more.get(command, "") + again)[1:])
            assert ran.code == 0, f"{line}: {ran.err}"
    for folder in ("labels", "matched", "kept"):
        assert {tifffile.imread(x).shape for x in Path(folder).glob("*.tif")} == {(48, 60)}
    for folder, name in (("followed", "stack"), ("linked", "volume")):
        assert tifffile.imread(f"{folder}/{name}.tif").shape == (3, 48, 60)
    made = {path.name for path in Path("exported").iterdir()}
    assert made >= {"coco.json", "measurements.csv", "q5.geojson", "q5.roi.zip", "q5.ome.zarr"}


@pytest.mark.slow
@pytest.mark.usefixtures("readme_folder")
def test_script_of_the_readme_runs(toy):
    block = readme_block("import napari_samic")
    short = 'out="polyps.pt", model=toy, settings=quick'
    assert 'out="polyps.pt"' in block
    names = {"toy": toy, "quick": settings.TrainSettings(epochs=1)}
    exec(compile(block.replace('out="polyps.pt"', short), "README.md", "exec"), names)
    assert (len(names["outcome"].done), names["outcome"].failures) == (2, {})

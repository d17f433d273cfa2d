import re
import shlex
import shutil
import textwrap
from dataclasses import fields
from pathlib import Path

import pytest
from toys import scene, write_image, write_scenes

from napari_samic import recipes
from napari_samic.core import settings
from napari_samic.io.paths import bare_stem

README = Path(__file__).resolve().parents[2] / "README.md"
DOCS = Path(__file__).resolve().parents[2] / "docs"


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

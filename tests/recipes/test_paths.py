"""A recipe saved in another folder still means the same files."""

from napari_samic.recipes import load_recipe
from napari_samic.recipes.paths import relocate
from napari_samic.recipes.plan import make_plan

RECIPE = """\
format: napari-samic/recipe
version: 1
steps:
- do: train
  inputs: {images: [images/a.tif, /raw/b.tif], prompts: references.json}
  out: prompter.pt
  model: {name: "path:weights/own.pt"}
- do: segment
  inputs: {images: images, prompter: prompter.pt}
  out: results
  settings: {encoder: "path:weights/own.pt", min_score: 0.5}
"""


def test_moved_recipe_plans_the_same(tmp_path):
    source, target = tmp_path / "project" / "recipe.yaml", tmp_path / "shelf" / "mine.yaml"
    for path in (source, target):
        path.parent.mkdir()
    source.write_text(RECIPE)
    target.write_text(relocate(source, target))
    before, after = (make_plan(load_recipe(path)) for path in (source, target))
    assert after == before
    assert load_recipe(target).steps[0].inputs["prompts"] == str(
        tmp_path / "project" / "references.json"
    )


def test_recipe_moved_within_its_folder_stays_as_it_is(tmp_path):
    source = tmp_path / "recipe.yaml"
    source.write_text(RECIPE)
    (tmp_path / "copy.yaml").write_text(relocate(source, tmp_path / "copy.yaml"))
    assert load_recipe(tmp_path / "copy.yaml").steps == load_recipe(source).steps

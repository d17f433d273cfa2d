"""Recipes: what was done, step by step, in a small YAML file that can be run again.

`recorded` makes a job of the pipeline that records itself; `replay` is the job that runs a recipe.
Built on the jobs alone: knows no shell and no window. Loads no torch before a step begins.
"""

from napari_samic.recipes.recipe import Recipe, RecipeStep, append_step, load_recipe
from napari_samic.recipes.recorder import recorded
from napari_samic.recipes.replay import replay

__all__ = ["Recipe", "RecipeStep", "append_step", "load_recipe", "recorded", "replay"]

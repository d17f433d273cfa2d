"""Recipes: what was done, step by step, in a small YAML file that can be run again.

Knows no shell and no window. Loads no torch.
"""

from napari_samic.recipes.recipefile import Recipe, RecipeStep, append_step, load_recipe

__all__ = ["Recipe", "RecipeStep", "append_step", "load_recipe"]

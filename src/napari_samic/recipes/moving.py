"""A recipe in another folder: the same steps, with paths that hold from there.

Pure text: files need not be there.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from napari_samic.recipes.places import absolute, absolute_model, written, written_model
from napari_samic.recipes.recipefile import PathText, Recipe, RecipeStep, load_recipe, text_of


def moved(source: Path | str, target: Path | str) -> str:
    """The text of a recipe as it would stand at `target`; comments are lost.

    Raises
    ------
    InputError, FormatError
        The source can't be read, or is no recipe.
    """
    recipe = load_recipe(source)
    there = Recipe(Path(target), ()).folder
    return text_of([_moved(step, recipe.folder, there) for step in recipe.steps])


def _moved(step: RecipeStep, here: Path, there: Path) -> RecipeStep:
    def path(text: PathText) -> PathText:
        if isinstance(text, tuple):
            return tuple(written(absolute(one, here), there) for one in text)
        return written(absolute(text, here), there)

    settings = dict(step.settings)
    if isinstance(settings.get("encoder"), str):
        settings["encoder"] = written_model(absolute_model(settings["encoder"], here), there)
    return replace(
        step,
        inputs={key: path(value) for key, value in step.inputs.items()},
        out=str(path(step.out)) if step.out else "",
        model=written_model(absolute_model(step.model, here), there) if step.model else "",
        settings=settings,
    )

"""Paths in a recipe: relative where they lie in its folder, so that both can be moved together.

`moved` writes a recipe for another folder. Pure text: patterns and files that are not there yet
are paths too.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from napari_samic.recipes.recipe import PathText, Recipe, RecipeStep, load_recipe, text_of

MODEL_FILE = "path:"


def written(path: str | Path, folder: Path) -> str:
    """How a path stands in a recipe that lies in `folder`.

    >>> written("/data/a/*.tif", Path("/data")), written("/raw", Path("/data"))
    ('a/*.tif', '/raw')
    """
    whole = absolute(path, Path.cwd())
    for start, found in ((folder, whole), (folder.resolve(), whole), (folder, _real(whole))):
        if Path(found).is_relative_to(start):
            return Path(found).relative_to(start).as_posix()
    return Path(whole).as_posix()


def _real(path: str) -> str:
    """Without links in the folders on its way; `/tmp` is one on a Mac."""
    return str(Path(path).parent.resolve() / Path(path).name)


def absolute(text: str | Path, folder: Path) -> str:
    """The whole path of what stands in a recipe that lies in `folder`.

    >>> absolute("a/*.tif", Path("/data")), absolute("/raw", Path("/data"))
    ('/data/a/*.tif', '/raw')
    """
    return os.path.normpath(folder.absolute() / Path(text).expanduser())


def written_model(name: str, folder: Path) -> str:
    """As `written`, of a model that may be `path:FILE`."""
    file = name.removeprefix(MODEL_FILE)
    return name if file == name else MODEL_FILE + written(file, folder)


def absolute_model(name: str, folder: Path) -> str:
    """As `absolute`, of a model that may be `path:FILE`."""
    file = name.removeprefix(MODEL_FILE)
    return name if file == name else MODEL_FILE + absolute(file, folder)


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

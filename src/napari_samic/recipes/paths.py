"""Paths in a recipe: relative where they lie in its folder, so that both can be moved together.

`relocate` writes a recipe for another folder. Pure text: patterns and files that are not there yet
are paths too.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from napari_samic.recipes.recipe import PathText, Recipe, RecipeStep, load_recipe, text_of

MODEL_FILE = "path:"


def to_relative(path: str | Path, folder: Path) -> str:
    """How a path stands in a recipe that lies in `folder`.

    >>> to_relative("/data/a/*.tif", Path("/data")), to_relative("/raw", Path("/data"))
    ('a/*.tif', '/raw')
    """
    full = to_absolute(path, Path.cwd())
    for start, candidate in ((folder, full), (folder.resolve(), full), (folder, _real(full))):
        if Path(candidate).is_relative_to(start):
            return Path(candidate).relative_to(start).as_posix()
    return Path(full).as_posix()


def _real(path: str) -> str:
    """Without links in the folders on its way; `/tmp` is one on a Mac."""
    return str(Path(path).parent.resolve() / Path(path).name)


def to_absolute(text: str | Path, folder: Path) -> str:
    """The whole path of what stands in a recipe that lies in `folder`.

    >>> to_absolute("a/*.tif", Path("/data")), to_absolute("/raw", Path("/data"))
    ('/data/a/*.tif', '/raw')
    """
    return os.path.normpath(folder.absolute() / Path(text).expanduser())


def model_to_relative(name: str, folder: Path) -> str:
    """As `to_relative`, of a model that may be `path:FILE`."""
    file = name.removeprefix(MODEL_FILE)
    return name if file == name else MODEL_FILE + to_relative(file, folder)


def model_to_absolute(name: str, folder: Path) -> str:
    """As `to_absolute`, of a model that may be `path:FILE`."""
    file = name.removeprefix(MODEL_FILE)
    return name if file == name else MODEL_FILE + to_absolute(file, folder)


def relocate(source: Path | str, target: Path | str) -> str:
    """The text of a recipe as it would stand at `target`; comments are lost.

    Raises
    ------
    InputError, FormatError
        The source can't be read, or is no recipe.
    """
    recipe = load_recipe(source)
    target_folder = Recipe(Path(target), ()).folder
    return text_of([_relocated(step, recipe.folder, target_folder) for step in recipe.steps])


def _relocated(step: RecipeStep, source_folder: Path, target_folder: Path) -> RecipeStep:
    def single(text: str) -> str:
        return to_relative(to_absolute(text, source_folder), target_folder)

    def path(text: PathText) -> PathText:
        return tuple(map(single, text)) if isinstance(text, tuple) else single(text)

    def model(name: str) -> str:
        return model_to_relative(model_to_absolute(name, source_folder), target_folder)

    settings = dict(step.settings)
    if isinstance(settings.get("encoder"), str):
        settings["encoder"] = model(settings["encoder"])
    return replace(
        step,
        inputs={key: path(value) for key, value in step.inputs.items()},
        out=single(step.out) if step.out else "",
        model=model(step.model) if step.model else "",
        settings=settings,
    )

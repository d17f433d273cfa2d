"""What a replay would do, decided before anything is done: changes, other images, another folder.

Looks at no file; `checks.py` does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari_samic.errors import InputError, SettingsError
from napari_samic.recipes.faults import place_of
from napari_samic.recipes.kinds import KINDS, faults_of_settings, value_of
from napari_samic.recipes.places import absolute, absolute_model
from napari_samic.recipes.recipefile import PathText, Recipe, RecipeStep

ASTRAY = {
    "evaluate": "its truth is of the recorded images; name another with --set "
    "evaluate.truth=FOLDER",
    "accept": "its review is of the recorded images; later steps take the labels as they are, or "
    "name another with --set accept.review=FILE",
}
"""Why a step is left out when there are other images."""


@dataclass(frozen=True)
class Planned:
    """One step with whole paths.

    Attributes
    ----------
    number : int
        From 1.
    step : RecipeStep
        With the changes; hashes are kept only of what is as recorded.
    made_by : dict of str to int
        Inputs that are results of an earlier step, and its number.
    made_before : bool
        An earlier step of the recipe has the same result.
    left_out : str
        Why it is not done; "" if it is.
    is_out_given : bool
        The user said where the result goes, not the recipe.
    """

    number: int
    step: RecipeStep
    made_by: Mapping[str, int]
    made_before: bool = False
    left_out: str = ""
    is_out_given: bool = False

    @property
    def place(self) -> str:
        """For messages."""
        return place_of(self.number, {"do": self.step.do})

    @property
    def out(self) -> Path | None:
        """Where the result goes."""
        return Path(self.step.out) if self.step.out else None

    def replaces(self, *, overwrite: bool) -> bool:
        """Whether it may write over what is there: by the user's word, or over the recipe's own."""
        return overwrite or (self.made_before and bool(self.step.settings.get("overwrite")))


@dataclass(frozen=True)
class _Made:
    """A result: where it was when recorded, where it will be, and of which step."""

    old: str
    new: str
    number: int
    is_file: bool

    def holds(self, path: str) -> bool:
        """Whether a path is this result, or one of those that a job leaves in its folder."""
        if path == self.old or self.is_file:
            return path == self.old
        folder, name = os.path.split(path)
        is_ours = name in ("prompts.json", "heatmaps") or name.endswith(".tif") or "*" in name
        return folder == self.old and is_ours


def make_plan(
    recipe: Recipe,
    *,
    set: Mapping[str, Any] | None = None,
    images: PathText | None = None,
    out: Path | str | None = None,
) -> list[Planned]:
    """Say what each step of a recipe will read and write.

    Parameters
    ----------
    recipe : Recipe
    set, images, out
        As for `replay`.

    Raises
    ------
    InputError
        A change that no step knows, or other images without a folder of their own.
    SettingsError
        A change to a value that can't be.
    """
    planner = _Planner(recipe, images, out)
    plan = [
        planner.planned(number, step, change)
        for number, step, change in zip(
            range(1, len(recipe.steps) + 1), recipe.steps, _changes(recipe, set or {}), strict=True
        )
    ]
    if images is not None and not planner.replaced:
        raise InputError(f"{recipe.path.name}: no step segments; there are no images to replace.")
    return plan


class _Planner:
    """Goes through the steps and remembers what the earlier ones make."""

    def __init__(self, recipe: Recipe, images: PathText | None, out: Path | str | None) -> None:
        self.recipe, self.images, self.out = recipe, images, out
        self.made: list[_Made] = []
        self.replaced: list[int] = []

    def planned(self, number: int, step: RecipeStep, given: Mapping[str, Any]) -> Planned:
        """One step with whole paths."""
        change = dict(given)
        is_replaced = self.images is not None and step.do == "segment"
        if is_replaced:
            change.setdefault("images", self.images)
            self.replaced.append(number)
        whole, made_by = _located(step, self.recipe.folder, self.made, change)
        old = absolute(step.out, self.recipe.folder) if step.out else ""
        target = (
            absolute(change["out"], Path.cwd()) if "out" in change else self._moved(old, number)
        )
        if is_replaced and target == old:
            raise InputError(_needs_out(place_of(number, {"do": step.do})))
        is_again = any(one.new == target for one in self.made)
        why = self._left_out(step.do, made_by, change)
        if why and step.do == "accept":  # what comes after it reads what it would have read
            self.made.append(_Made(old, str(whole.inputs["results"]), made_by["results"], False))
        elif target:
            self.made.append(_Made(old or target, target, number, KINDS[step.do].is_file))
        given_out = "out" in change or self.out is not None
        return Planned(number, replace(whole, out=target), made_by, is_again, why, given_out)

    def _left_out(self, do: str, made_by: Mapping[str, int], change: Mapping[str, Any]) -> str:
        """Why a step is not done: it tells of the recorded images, and there are others."""
        kind = KINDS[do]
        is_astray = made_by.get(kind.inputs[0]) in self.replaced
        return (
            ASTRAY[do] if kind.of_recorded and is_astray and kind.of_recorded not in change else ""
        )

    def _moved(self, old: str, number: int) -> str:
        """Where a result goes if nothing else is said: into the folder for all, under its name."""
        if not old or self.out is None:
            return old
        folder = self.recipe.folder
        is_inside = Path(old).is_relative_to(folder)
        name = Path(old).relative_to(folder) if is_inside else Path(Path(old).name)
        new = absolute(Path(self.out) / name, Path.cwd())
        if any(one.new == new and one.old != old for one in self.made):
            new = str(Path(new).with_name(f"{number}-{Path(new).name}"))
        return new


def _needs_out(place: str) -> str:
    return (
        f"{place}: results of other images would be mixed with the recorded ones. "
        "Name another folder for them (--out)."
    )


def _located(
    step: RecipeStep, folder: Path, made: Sequence[_Made], change: Mapping[str, Any]
) -> tuple[RecipeStep, dict[str, int]]:
    """A step with its changes and whole paths, and which of its inputs an earlier one makes."""
    inputs: dict[str, PathText] = {}
    made_by: dict[str, int] = {}
    kind = KINDS[step.do]
    here = Path.cwd()
    for key in kind.inputs:
        if key in change:
            inputs[key] = _one_or_more(absolute(one, here) for one in _many(change[key]))
        elif key in step.inputs:
            moved = [_followed(absolute(one, folder), made) for one in _many(step.inputs[key])]
            inputs[key] = _one_or_more(path for path, _ in moved)
            if number := max(number for _, number in moved):
                made_by[key] = number
    located = replace(
        step,
        inputs=inputs,
        settings=_settings(step, folder, change),
        data={k: v for k, v in step.data.items() if k not in change and k not in made_by},
        model=absolute_model(str(change.get("model", "")), here)
        or absolute_model(step.model, folder),
        model_sha256="" if "model" in change else step.model_sha256,
    )
    return located, made_by


def _settings(step: RecipeStep, folder: Path, change: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a step with its changes; an encoder may be `path:FILE`."""
    new = {k: v for k, v in change.items() if k in KINDS[step.do].settings}
    found = {**step.settings, **new}
    if "encoder" in found:
        start = Path.cwd() if "encoder" in new else folder
        found["encoder"] = absolute_model(found["encoder"], start)
    return found


def _followed(path: str, made: Sequence[_Made]) -> tuple[str, int]:
    for one in reversed(made):
        if one.holds(path):
            return one.new + path[len(one.old) :], one.number
    return path, 0


def _many(value: Any) -> Sequence[str | Path]:
    return value if isinstance(value, list | tuple) else [value]


def _one_or_more(paths: Any) -> PathText:
    found = tuple(paths)
    return found[0] if len(found) == 1 else found


def _changes(recipe: Recipe, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What changes in each step; all faults are told at once."""
    changes: list[dict[str, Any]] = [{} for _ in recipe.steps]
    faults = [f for key, raw in wanted.items() if (f := _take(recipe, key, raw, changes))]
    if faults:
        raise InputError(f"{recipe.path.name}: {'; '.join(faults)}.")
    for i, (step, change) in enumerate(zip(recipe.steps, changes, strict=True)):
        own = {k: v for k, v in change.items() if k in KINDS[step.do].settings}
        place = place_of(i + 1, {"do": step.do})
        faults += [f"{place}: {fault}" for fault in faults_of_settings(step.do, own)]
    if faults:
        raise SettingsError(f"{recipe.path.name}: {'; '.join(faults)}. Set another value.")
    return changes


def _take(recipe: Recipe, key: str, raw: Any, changes: list[dict[str, Any]]) -> str:
    """Note one change in the steps that it is for, or say why that can't be."""
    head, dot, name = key.rpartition(".")
    steps = list(enumerate(recipe.steps))
    chosen = [(i, s) for i, s in steps if not dot or head in (str(i + 1), s.do)]
    if not chosen:
        known = ", ".join(f"{i + 1} ({s.do})" for i, s in steps)
        return f"{key}: no step {head!r}. Steps: {known}"
    takers = [(i, s) for i, s in chosen if name in KINDS[s.do].changeable]
    if not takers:
        known = ", ".join(sorted({k for _, s in chosen for k in KINDS[s.do].changeable}))
        return f"{key}: not known. Known: {known}"
    is_path = any(name in (*KINDS[s.do].inputs, "out") for _, s in takers)
    if is_path and isinstance(raw, str) and not raw.strip():
        return f"{key}: an empty path. '.' is the folder you are in"
    if is_path and len(takers) > 1:
        names = " or ".join(f"{i + 1}.{name}" for i, _ in takers)
        return f"{key}: of which step? Say {names}"
    for i, step in takers:
        changes[i][name] = value_of(step.do, name, raw)
    return ""

"""What a replay would do, decided before anything is done: changes, other images, another folder.

`make_plan` looks at no file. `check` looks at everything: whether the plan can be carried out, and
whether its data and models are those of the recording. All that is wrong is told at once, before
the first step begins. Writes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_samic import __version__
from napari_samic.core.errors import InputError, OutputError, SamicError, SettingsError
from napari_samic.core.types import Job
from napari_samic.io.files import check_apart, check_free
from napari_samic.recipes.hashing import Fingerprint, files_of, fingerprint
from napari_samic.recipes.paths import model_to_absolute, to_absolute
from napari_samic.recipes.recipe import PathText, Recipe, RecipeStep
from napari_samic.recipes.recorder import weights_checksum
from napari_samic.recipes.schema import (
    STEP_SCHEMAS,
    faults_of_settings,
    place_of,
    value_of,
    with_preset,
)

ASTRAY = {
    "evaluate": "its truth is of the recorded images; name another with --set "
    "evaluate.truth=FOLDER",
    "accept": "its review is of the recorded images; later steps take the labels as they are, or "
    "name another with --set accept.review=FILE",
}
"""Why a step is left out when there are other images."""


@dataclass(frozen=True)
class PlannedStep:
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
class _PlannedResult:
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
) -> list[PlannedStep]:
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
        planner.plan_step(number, step, change)
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
        self.results: list[_PlannedResult] = []
        self.replaced: list[int] = []

    def plan_step(self, number: int, step: RecipeStep, given: Mapping[str, Any]) -> PlannedStep:
        """One step with whole paths."""
        change = dict(given)
        is_replaced = self.images is not None and step.do == "segment"
        if is_replaced:
            change.setdefault("images", self.images)
            self.replaced.append(number)
            recorded = {k: v for k, v in step.inputs.items() if k != "annotated"}
            step = replace(step, inputs=recorded)  # what was drawn is of the recorded images
        whole, made_by = _located(step, self.recipe.folder, self.results, change)
        old = to_absolute(step.out, self.recipe.folder) if step.out else ""
        target = (
            to_absolute(change["out"], Path.cwd())
            if "out" in change
            else self._relocated(old, number)
        )
        if is_replaced and target == old:
            raise InputError(_needs_out(place_of(number, {"do": step.do})))
        is_again = any(result.new == target for result in self.results)
        why = self._left_out(step.do, made_by, change)
        if why and step.do == "accept":  # what comes after it reads what it would have read
            self.results.append(
                _PlannedResult(old, str(whole.inputs["results"]), made_by["results"], False)
            )
        elif target:
            self.results.append(
                _PlannedResult(old or target, target, number, STEP_SCHEMAS[step.do].is_file)
            )
        given_out = "out" in change or self.out is not None
        return PlannedStep(number, replace(whole, out=target), made_by, is_again, why, given_out)

    def _left_out(self, do: str, made_by: Mapping[str, int], change: Mapping[str, Any]) -> str:
        """Why a step is not done: it tells of the recorded images, and there are others."""
        schema = STEP_SCHEMAS[do]
        is_astray = made_by.get(schema.inputs[0]) in self.replaced
        return (
            ASTRAY[do]
            if schema.of_recorded and is_astray and schema.of_recorded not in change
            else ""
        )

    def _relocated(self, old: str, number: int) -> str:
        """Where a result goes if nothing else is said: into the folder for all, under its name."""
        if not old or self.out is None:
            return old
        folder = self.recipe.folder
        is_inside = Path(old).is_relative_to(folder)
        name = Path(old).relative_to(folder) if is_inside else Path(Path(old).name)
        new = to_absolute(Path(self.out) / name, Path.cwd())
        if any(result.new == new and result.old != old for result in self.results):
            new = str(Path(new).with_name(f"{number}-{Path(new).name}"))
        return new


def _needs_out(place: str) -> str:
    return (
        f"{place}: results of other images would be mixed with the recorded ones. "
        "Name another folder for them (--out)."
    )


def _located(
    step: RecipeStep, folder: Path, results: Sequence[_PlannedResult], change: Mapping[str, Any]
) -> tuple[RecipeStep, dict[str, int]]:
    """A step with its changes and whole paths, and which of its inputs an earlier one makes."""
    inputs: dict[str, PathText] = {}
    made_by: dict[str, int] = {}
    schema = STEP_SCHEMAS[step.do]
    here = Path.cwd()
    for key in schema.inputs:
        if key in change:
            inputs[key] = _one_or_more(to_absolute(text, here) for text in _many(change[key]))
        elif key in step.inputs:
            moved = [
                _followed(to_absolute(text, folder), results) for text in _many(step.inputs[key])
            ]
            inputs[key] = _one_or_more(path for path, _ in moved)
            if number := max(number for _, number in moved):
                made_by[key] = number
    located = replace(
        step,
        inputs=inputs,
        settings=_settings(step, folder, change),
        data={k: v for k, v in step.data.items() if k not in change and k not in made_by},
        model=model_to_absolute(str(change.get("model", "")), here)
        or model_to_absolute(step.model, folder),
        model_sha256="" if "model" in change else step.model_sha256,
    )
    return located, made_by


def _settings(step: RecipeStep, folder: Path, change: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a step with its changes; an encoder may be `path:FILE`."""
    new = {k: v for k, v in change.items() if k in STEP_SCHEMAS[step.do].settings}
    settings = {**step.settings, **new}
    if "encoder" in settings:
        start = Path.cwd() if "encoder" in new else folder
        settings["encoder"] = model_to_absolute(settings["encoder"], start)
    return settings


def _followed(path: str, results: Sequence[_PlannedResult]) -> tuple[str, int]:
    for result in reversed(results):
        if result.holds(path):
            return result.new + path[len(result.old) :], result.number
    return path, 0


def _many(value: Any) -> Sequence[str | Path]:
    return value if isinstance(value, list | tuple) else [value]


def _one_or_more(paths: Any) -> PathText:
    texts = tuple(paths)
    return texts[0] if len(texts) == 1 else texts


def _changes(recipe: Recipe, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What changes in each step; all faults are told at once."""
    changes: list[dict[str, Any]] = [{} for _ in recipe.steps]
    faults = [f for key, raw in wanted.items() if (f := _take(recipe, key, raw, changes))]
    if faults:
        raise InputError(f"{recipe.path.name}: {'; '.join(faults)}.")
    for i, (step, change) in enumerate(zip(recipe.steps, changes, strict=True)):
        schema = STEP_SCHEMAS[step.do]
        own = {k: v for k, v in change.items() if k in (*schema.settings, "preset")}
        place = place_of(i + 1, {"do": step.do})
        faults += [f"{place}: {fault}" for fault in faults_of_settings(step.do, own)]
    if faults:
        raise SettingsError(f"{recipe.path.name}: {'; '.join(faults)}. Set another value.")
    return [
        with_preset(step.do, change) for step, change in zip(recipe.steps, changes, strict=True)
    ]


def _take(recipe: Recipe, key: str, raw: Any, changes: list[dict[str, Any]]) -> str:
    """Note one change in the steps that it is for, or say why that can't be."""
    head, dot, name = key.rpartition(".")
    steps = list(enumerate(recipe.steps))
    chosen = [(i, s) for i, s in steps if not dot or head in (str(i + 1), s.do)]
    if not chosen:
        choices = ", ".join(f"{i + 1} ({s.do})" for i, s in steps)
        return f"{key}: no step {head!r}. Steps: {choices}"
    takers = [(i, s) for i, s in chosen if name in STEP_SCHEMAS[s.do].changeable]
    if not takers:
        choices = ", ".join(sorted({k for _, s in chosen for k in STEP_SCHEMAS[s.do].changeable}))
        return f"{key}: not known. Known: {choices}"
    is_path = any(name in (*STEP_SCHEMAS[s.do].inputs, "out") for _, s in takers)
    if is_path and isinstance(raw, str) and not raw.strip():
        return f"{key}: an empty path. '.' is the folder you are in"
    if is_path and len(takers) > 1:
        names = " or ".join(f"{i + 1}.{name}" for i, _ in takers)
        return f"{key}: of which step? Say {names}"
    for i, step in takers:
        changes[i][name] = value_of(step.do, name, raw)
    return ""


# --- checks


@dataclass
class ValidationReport:
    """What a check found.

    Attributes
    ----------
    errors : list of SamicError
        Why the plan can't be carried out.
    differences : list of str
        What is other than when it was recorded.
    files : dict of (int, str) to int
        How many files each input of each step means; inputs that are yet to be made are not there.
    """

    errors: list[SamicError] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    files: dict[tuple[int, str], int] = field(default_factory=dict)

    def refuse(self, name: str, *, strict: bool) -> None:
        """Raise what was found, of the kind of the first; with `strict` differences too.

        Raises
        ------
        SamicError
        """
        problems = [*map(str, self.errors), *(self.differences if strict else ())]
        if problems:
            kind = type(self.errors[0]) if self.errors else InputError
            raise kind(f"{name}: {' '.join(problems)}")


def check(
    plan: Sequence[PlannedStep],
    *,
    overwrite: bool,
    inside: Path | None = None,
    done: Container[int] = (),
    recipe: Path | None = None,
) -> Job[ValidationReport]:
    """Look at inputs, models and places for results; a job, as it hashes.

    Parameters
    ----------
    plan : sequence of PlannedStep
    overwrite : bool
        As for `replay`.
    inside : Path, optional
        Folder that results must lie in unless the user said where they go.
    done : container of int
        Numbers of steps whose results are there.
    recipe : Path, optional
        File of the recipe, which no result may replace.
    """
    report = ValidationReport()
    report.differences += _versions(plan)
    for planned in plan:
        if planned.left_out:
            continue
        yield from _check_inputs(planned, report)
        for look in (_check_model, _check_out)[: 1 if planned.number in done else 2]:
            try:
                check_apart(planned.step.out, recipe)
                report.differences += look(planned, overwrite)
            except SamicError as error:
                report.errors.append(_placed(planned, error))
        if inside is not None and (fault := _leads_out(planned, inside)):
            report.errors.append(OutputError(f"{planned.place}: {fault}"))
    return report


def _leads_out(planned: PlannedStep, inside: Path) -> str:
    """Whether a step would write where neither the user said nor the recipe lies; links count."""
    if planned.out is None or planned.is_out_given:
        return ""
    leads = planned.out.resolve()
    if leads.is_relative_to(inside.resolve()):
        return ""
    return (
        f"would write to {leads}, outside of the recipe's folder. Name a folder for the results "
        "(--out), or trust the recipe (--anywhere)."
    )


def _placed(planned: PlannedStep, error: SamicError) -> SamicError:
    return type(error)(f"{planned.place}: {error}")


def _versions(plan: Sequence[PlannedStep]) -> Iterator[str]:
    others = sorted({p.step.package for p in plan} - {"", __version__})
    if others:
        yield (
            f"recorded with napari-samic {', '.join(others)}, this is {__version__}: settings that "
            "are not in the recipe have the defaults of this one."
        )


def _check_inputs(planned: PlannedStep, report: ValidationReport) -> Job[None]:
    for key, value in planned.step.inputs.items():
        if key in planned.made_by:
            continue
        try:
            sources = [value] if isinstance(value, str) else value
            files = [file for source in sources for file in files_of(source)]
        except SamicError as error:
            report.errors.append(type(error)(f"{planned.place}, {key}: {error}"))
            continue
        report.files[planned.number, key] = len(files)
        if key in planned.step.data:
            wanted = planned.step.data[key]
            now = yield from fingerprint(files, hashed=wanted.hashed)
            if now != wanted:
                report.differences.append(f"{planned.place}: {key} {_difference(now, wanted)}")


def _difference(now: Fingerprint, wanted: Fingerprint) -> str:
    if now.files != wanted.files:
        return f"has {now.files} files, {wanted.files} when it was recorded."
    return "has other contents or names than when it was recorded."


def _check_model(planned: PlannedStep, overwrite: bool) -> list[str]:  # noqa: ARG001
    step = planned.step
    now, wanted = weights_checksum(step.model), step.model_sha256
    if not wanted or now == wanted:
        return []
    return [
        f"{planned.place}: model {step.model} is {now[:12]}, {wanted[:12]} when it was recorded."
    ]


def _check_out(planned: PlannedStep, overwrite: bool) -> list[str]:
    if planned.out is None:
        return []
    if STEP_SCHEMAS[planned.step.do].is_file:
        step = planned.step
        check_apart(planned.out, *step.inputs.values(), step.model, step.settings.get("encoder"))
        may = planned.replaces(overwrite=overwrite) or planned.made_before
        check_free(planned.out, overwrite=may)
    elif planned.out.is_file():
        raise OutputError(f"{planned.out}: is a file, expected a folder. Choose another.")
    return []

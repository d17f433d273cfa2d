"""A recipe as what one would type: commands of the shell, or a Python script.

Both name whole paths, and only what differs from the defaults. Looks at no file.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from napari_samic import __version__
from napari_samic.core.errors import SettingsError
from napari_samic.core.settings import PRESETS, PeakSettings, public_fields
from napari_samic.recipes.plan import PlannedStep, make_plan
from napari_samic.recipes.recipe import Recipe
from napari_samic.recipes.schema import OPTIONS, STEP_SCHEMAS, StepSchema, of_group

CALLS = {"export": "export_results"}
"""Jobs that scripts call by another name."""
ARGUMENTS = {"annotate": "images", "segment": "images"}
"""Of commands of the shell, the input that stands without its name."""


def as_command(recipe: Recipe, *, out: Path | str | None = None) -> str:
    r"""Write each step as a command, one after the other.

    Parameters
    ----------
    out : Path, optional
        Folder for all that the steps write, as of `replay`; else they write where they did.

    Raises
    ------
    SettingsError
        A step has settings that are no options of the shell.

    Examples
    --------
    >>> from pathlib import Path
    >>> from napari_samic.recipes.recipe import RecipeStep
    >>> step = RecipeStep("export", {"results": "a"}, "b", settings={"coco": True})
    >>> print(as_command(Recipe(Path("/data/r.yaml"), (step,))))  # doctest: +SKIP
    napari-samic export \
        --results /data/a \
        --out /data/b \
        --coco
    """
    commands = []
    for planned in make_plan(recipe, out=out):
        head, *parts = _parts(planned)
        if os.name == "nt":
            commands.append(subprocess.list2cmdline([*head, *(w for part in parts for w in part)]))
        else:
            commands.append(" \\\n    ".join(shlex.join(part) for part in (head, *parts)))
    return "\n".join(commands)


def _parts(planned: PlannedStep) -> Iterator[list[str]]:
    """The words of a command: its name and arguments, then each option with its value."""
    step, schema = planned.step, STEP_SCHEMAS[planned.step.do]
    argument = ARGUMENTS.get(step.do, "")
    yield ["napari-samic", step.do, *_many(step.inputs.get(argument, ()))]
    for key, value in step.inputs.items():
        if key != argument:
            yield from ([_option(key), path] for path in _many(value))
    if step.out:
        yield ["--out", step.out]
    if step.model and step.model != schema.model:
        yield ["--model", step.model]
    yield from _settings(planned, schema)


def _settings(planned: PlannedStep, schema: StepSchema) -> Iterator[list[str]]:
    """By options alone, or by options beside what a preset or --paper sets."""
    usual = _defaults(schema)
    public = {spec.name for group in schema.groups.values() for spec in public_fields(group)}
    public |= set(schema.options)
    for words, base in _bases(planned.step.do, schema):
        settings = {k: usual.get(k) for k in base} | dict(planned.step.settings)
        changed = {k: v for k, v in settings.items() if base.get(k, usual.get(k)) != v}
        if changed.keys() <= public and None not in changed.values():
            yield from words
            yield from (_words(key, value, schema) for key, value in changed.items())
            return
    names = ", ".join(sorted(planned.step.settings.keys() - public))
    msg = (
        f"{planned.place}: {names} can't be set on the shell. Copy it as Python, or run the recipe."
    )
    raise SettingsError(msg)


def _defaults(schema: StepSchema) -> dict[str, Any]:
    """What holds if nothing is said, where that is known: peaks may be those of the prompter."""
    groups = [
        group for group in schema.groups.values()
        if not (group is PeakSettings and "prompter" in schema.inputs)
    ]  # fmt: skip
    usual = {key: OPTIONS[key] for key in schema.options}
    return usual | {k: v for group in groups for k, v in group().to_dict().items()}


def _bases(do: str, schema: StepSchema) -> Iterator[tuple[list[list[str]], Mapping[str, Any]]]:
    """What options can be added to: nothing, a preset or the paper, and the settings of each."""
    yield [], {}
    if schema.has_presets:
        yield from (([["--preset", preset.name]], preset.values) for preset in PRESETS)
    if do == "train":
        papers = [getattr(group, "paper", group)() for group in schema.groups.values()]
        yield [["--paper"]], {k: v for settings in papers for k, v in settings.to_dict().items()}


def _words(key: str, value: Any, schema: StepSchema) -> list[str]:
    if isinstance(value, bool):
        is_off = not value and key not in schema.options
        return [_option(f"no_{key}" if is_off else key)]
    many = value if isinstance(value, list | tuple) else [value]
    return [_option(key), ",".join(map(str, many))]


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _many(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def as_python(recipe: Recipe, *, out: Path | str | None = None) -> str:
    """Write a script that makes the same calls; `out` as of `as_command`."""
    calls = [_call(planned) for planned in make_plan(recipe, out=out)]
    text = "\n".join(calls)
    kinds = {kind.__name__ for schema in STEP_SCHEMAS.values() for kind in schema.groups.values()}
    names = sorted(name for name in kinds if f"={name}(" in text)
    imports = ["import napari_samic"]
    if names:
        imports.append(f"from napari_samic.core.settings import {', '.join(names)}")
    if "=replace(stored_peaks(" in text:
        imports.insert(0, "from dataclasses import replace\n")
        imports.append("from napari_samic.pipeline.segment import stored_peaks")
    head = f'"""Written by napari-samic {__version__} from {recipe.path.name}."""'
    return "\n".join([head, "", *imports, "", *calls, ""])


def _call(planned: PlannedStep) -> str:
    step, schema = planned.step, STEP_SCHEMAS[planned.step.do]
    arguments = {key: _value(value) for key, value in step.inputs.items()}
    arguments |= {"out": repr(step.out)} if step.out else {}
    arguments |= {"model": repr(step.model)} if step.model and step.model != schema.model else {}
    arguments |= {k: repr(step.settings[k]) for k in schema.options if k in step.settings}
    for parameter, group in schema.groups.items():
        if given := of_group(group, step.settings):
            values = ", ".join(f"{key}={value!r}" for key, value in given.items())
            is_stored = group is PeakSettings and "prompter" in schema.inputs
            make = f"replace(stored_peaks({arguments.get('prompter')}), " if is_stored else ""
            arguments[parameter] = f"{make or group.__name__ + '('}{values})"
    rows = "".join(f"    {key}={value},\n" for key, value in arguments.items())
    return f"napari_samic.{CALLS.get(step.do, step.do)}(\n{rows})"


def _value(value: str | tuple[str, ...]) -> str:
    """A path, or a list of them with a line for each."""
    if isinstance(value, str):
        return repr(value)
    return "[\n" + "".join(f"        {path!r},\n" for path in value) + "    ]"

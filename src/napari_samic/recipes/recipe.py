"""The recipe: a small YAML file of steps, read, checked and added to.

A step is added at the end of the text, so that comments stay. Knows no network and runs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_samic.core.errors import FormatError
from napari_samic.io.files import atomic_file
from napari_samic.io.text_files import first_of, read_text
from napari_samic.recipes.hashing import CONTENTS, Fingerprint
from napari_samic.recipes.safe_yaml import dumped, read_plain
from napari_samic.recipes.schema import (
    FORMAT,
    STEP_SCHEMAS,
    VERSION,
    check_format,
    validate,
    value_of,
    with_preset,
)

LARGEST = 1_000_000  # characters; a step has 500
HEAD = f"""\
# Recorded by napari-samic; to replay it: napari-samic run FILE
format: {FORMAT}
version: {VERSION}
steps:
"""

PathText = str | tuple[str, ...]


@dataclass(frozen=True)
class RecipeStep:
    """One job, as it was run.

    Attributes
    ----------
    do : str
        Name of the job.
    inputs : dict of str to (str or tuple of str)
        Paths, relative to the recipe's folder or absolute.
    out : str
        Where the result went; "" if nowhere.
    model, model_sha256 : str
        The segmenter; "" if the inputs say which.
    settings : dict
        Those that differ from their defaults.
    data : dict of str to Fingerprint
        Of the inputs.
    results : Fingerprint or None
        Of the label files that came out.
    package : str
        Version that ran it, whose defaults held.
    threads : int
        Of the processor: sums in another order differ in the last digit. 0: not known.
    """

    do: str
    inputs: Mapping[str, PathText]
    out: str = ""
    model: str = ""
    model_sha256: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Fingerprint] = field(default_factory=dict)
    results: Fingerprint | None = None
    package: str = ""
    threads: int = 0

    def is_same_command(self, other: RecipeStep) -> bool:
        """Whether both ask for the same, whatever the files held."""
        return _command(self) == _command(other)


def _command(step: RecipeStep) -> tuple[Any, ...]:
    return step.do, dict(step.inputs), step.out, step.model, dict(step.settings)


@dataclass(frozen=True)
class Recipe:
    """All that a recipe holds, and where it lies: its relative paths begin there."""

    path: Path
    steps: tuple[RecipeStep, ...]

    @property
    def folder(self) -> Path:
        """Where relative paths begin."""
        return Path(os.path.normpath(self.path.absolute())).parent


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe, or say all that is wrong with it.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    InputError
        No such file, or no permission to read it.
    FormatError
        Not YAML, another kind or version of file, or faulty; every fault is named with its line.
    """
    source = Path(path)
    return _parsed(_read(source), source)[0]


def append_step(path: str | Path, step: RecipeStep) -> None:
    """Add a step to a recipe, which is made if need be; it is either complete or as it was.

    The same command as that of the last step takes its place: it was run again. Two processes may
    record in turn, but not in the same millisecond.

    Raises
    ------
    FormatError
        A file that is no recipe.
    OutputError
        A place that can't be written to.
    """
    target = Path(path)
    text = _with(_read(target) if target.exists() else HEAD, target, step)
    with atomic_file(target, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def _with(text: str, target: Path, step: RecipeStep) -> str:
    """The text of a recipe and one step more."""
    recipe, lines = _parsed(text, target)
    kept, rows, indent = list(recipe.steps), text.splitlines(), ""
    if kept:
        indent = " " * (len(rows[lines[0] - 1]) - len(rows[lines[0] - 1].lstrip(" ")))
    if kept and kept[-1].is_same_command(step):
        kept.pop()
        rows = rows[: lines[-1] - 1]
    new = [indent + row for row in dumped([_step_tree(step)]).splitlines()]
    joined = "\n".join([*rows, *new, ""])
    wanted = (*kept, step)
    with suppress(FormatError):
        if _parsed(joined, target)[0].steps == wanted:
            return joined
    # Written by hand in a way that can't be added to: write all of it anew.
    return text_of(wanted)


def text_of(steps: Sequence[RecipeStep]) -> str:
    """The text of a recipe with these steps."""
    return HEAD + dumped([_step_tree(step) for step in steps])


def _step_tree(step: RecipeStep) -> dict[str, Any]:
    model = {"name": step.model, "sha256": step.model_sha256}
    tree = {
        "do": step.do,
        "package": step.package,
        "threads": step.threads,
        "inputs": {k: list(v) if isinstance(v, tuple) else v for k, v in step.inputs.items()},
        "out": step.out,
        "model": {k: v for k, v in model.items() if v},
        "settings": dict(step.settings),
        "data": {k: _fingerprint_tree(v) for k, v in step.data.items()},
        "results": step.results and _fingerprint_tree(step.results),
    }
    return {k: v for k, v in tree.items() if v}


def _fingerprint_tree(fingerprint: Fingerprint) -> dict[str, Any]:
    tree: dict[str, Any] = {"files": fingerprint.files, "sha256": fingerprint.sha256}
    return tree if fingerprint.hashed == CONTENTS else tree | {"hashed": fingerprint.hashed}


def _read(path: Path) -> str:
    text = read_text(path, "a recipe that napari-samic recorded")
    if len(text) > LARGEST:
        msg = f"{path.name}: {len(text)} characters, expected at most {LARGEST}. Pick a recipe."
        raise FormatError(msg)
    return text


def _parsed(text: str, path: Path) -> tuple[Recipe, list[int]]:
    """The recipe once it is known to be sound, and the line of each step."""
    raw, lines = read_plain(text, path.name, sequence="steps")
    if fault := check_format(raw):
        raise FormatError(f"{path.name}: {fault}")
    tree = _tidied(raw)
    if faults := validate(tree, lines):
        raise FormatError(f"{path.name}: {first_of(faults)}. Mend these places or record it anew.")
    return Recipe(path, tuple(_step(step) for step in tree["steps"])), lines


def _tidied(tree: dict[str, Any]) -> dict[str, Any]:
    """Nothing after `steps:` is an empty list, `1e-3` is a number, and presets are their values."""
    steps = tree.get("steps")
    if steps is None and "steps" in tree:
        steps = []
    if isinstance(steps, list):
        steps = [_with_values(step) for step in steps]
    return {**tree, "steps": steps}


def _with_values(step: Any) -> Any:
    job, settings = (step.get(k) if isinstance(step, dict) else None for k in ("do", "settings"))
    if not (isinstance(job, str) and job in STEP_SCHEMAS and isinstance(settings, dict)):
        return step
    values = {k: value_of(job, k, v) for k, v in settings.items()}
    return {**step, "settings": with_preset(job, values)}


def _step(tree: dict[str, Any]) -> RecipeStep:
    inputs = tree["inputs"].items()
    model = tree.get("model", {})
    return RecipeStep(
        do=tree["do"],
        inputs={k: tuple(v) if isinstance(v, list) else v for k, v in inputs},
        out=tree.get("out", ""),
        model=model.get("name", ""),
        model_sha256=model.get("sha256", ""),
        settings=tree.get("settings", {}),
        data={k: Fingerprint(**v) for k, v in tree.get("data", {}).items()},
        results=Fingerprint(**tree["results"]) if tree.get("results") else None,
        package=tree.get("package", ""),
        threads=tree.get("threads", 0),
    )

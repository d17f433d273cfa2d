"""What a recipe may say: of each job its inputs, its result, its options and its settings.

All options of a job stand side by side under their names on the shell, `min_score` for
`--min-score`. Of a recipe that says something else all faults are found at once, each with the
line and the number of its step. Knows no file; a test holds the table against the jobs' own
parameters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

import yaml

from napari_samic.core.errors import SettingsError
from napari_samic.core.settings import (
    AdaptSettings,
    AnnotateSettings,
    ExportSettings,
    HeatMapSettings,
    MemorySettings,
    PeakSettings,
    PrompterSettings,
    RefineSettings,
    SegmentSettings,
    Settings,
    StrategySettings,
    TrainSettings,
    preset,
)
from napari_samic.recipes.hashing import CONTENTS, ENDS

FORMAT = "napari-samic/recipe"
VERSION = 1
FILE_KEYS = ("format", "version", "steps")
MOST_THREADS = 1024
STEP_KEYS = (
    "do", "package", "threads", "inputs", "out", "model", "settings", "data", "results",
)  # fmt: skip
MODEL_KEYS = ("name", "sha256")
FINGERPRINT_KEYS = ("files", "sha256", "hashed")

OPTIONS: dict[str, Any] = {
    "mask_values": None,
    "simulate": False,
    "device": "auto",
    "encoder": None,
    "method": "auto",
    "channels": None,
    "axes": None,
    "series": None,
    "rescale": False,
    "heatmaps": False,
    "overlay": False,
    "overwrite": False,
}
"""Options that are no settings, and their defaults."""

LISTS = ("images", "others")
"""Inputs that may be a list of paths."""


@dataclass(frozen=True)
class StepSchema:
    """One job.

    Attributes
    ----------
    inputs : tuple of str
        Files and folders that are read; those in `needed` must be there.
    options : tuple of str
        Of `OPTIONS`.
    groups : dict of str to type
        The job's parameters that take settings.
    is_file : bool
        The result is one file, else a folder.
    model : str or None
        The segmenter if none is named; None if the inputs say which.
    of_recorded : str
        The input that tells of the recorded images only: with other images the step is left out.
    has_presets : bool
        `settings:` may have a `preset`, which stands for its values.
    """

    inputs: tuple[str, ...]
    needed: tuple[str, ...]
    options: tuple[str, ...]
    groups: Mapping[str, type[Settings]]
    is_file: bool = False
    has_model: bool = True
    model: str | None = None
    of_recorded: str = ""
    has_presets: bool = False

    @property
    def settings(self) -> tuple[str, ...]:
        """Every key that `settings:` of a step may have."""
        own = [spec.name for group in self.groups.values() for spec in fields(group)]
        return (*self.options, *own)

    @property
    def changeable(self) -> tuple[str, ...]:
        """Every key that `--set` may change."""
        model = ("model",) if self.has_model else ()
        settings = [name for name in self.settings if name != "overwrite"]
        presets = ("preset",) if self.has_presets else ()
        return (*self.inputs, "out", *model, *settings, *presets)


STEP_SCHEMAS = {
    "annotate": StepSchema(
        ("images", "prompts", "masks"),
        ("images", "out"),
        ("mask_values", "simulate", "device", "channels", "axes", "series", "overlay", "overwrite"),
        {"settings": AnnotateSettings, "segment": SegmentSettings},
        model="tiny",
    ),
    "train": StepSchema(
        ("images", "prompts", "masks", "others"),
        ("images", "out"),
        ("mask_values", "device", "channels", "axes", "series", "overwrite"),
        {
            "settings": TrainSettings,
            "prompter": PrompterSettings,
            "heat": HeatMapSettings,
            "peaks": PeakSettings,
            "adapt": AdaptSettings,
        },
        is_file=True,
        model="tiny",
    ),
    "segment": StepSchema(
        ("images", "prompter", "annotated"),
        ("images", "prompter", "out"),
        (
            "encoder",
            "method",
            "device",
            "axes",
            "series",
            "rescale",
            "heatmaps",
            "overlay",
            "overwrite",
        ),
        {
            "settings": SegmentSettings,
            "peaks": PeakSettings,
            "strategy": StrategySettings,
            "refine": RefineSettings,
            "memory": MemorySettings,
        },
        has_presets=True,
    ),
    "evaluate": StepSchema(
        ("predictions", "truth"),
        ("predictions", "truth"),
        ("mask_values", "overwrite"),
        {},
        is_file=True,
        has_model=False,
        of_recorded="truth",
    ),
    "accept": StepSchema(
        ("results", "review", "edits", "prompts"),
        ("results", "review", "out"),
        ("overwrite",),
        {},
        has_model=False,
        of_recorded="review",
    ),
    "export": StepSchema(
        ("results", "classes"),
        ("results", "out"),
        ("overwrite",),
        {"settings": ExportSettings},
        has_model=False,
    ),
}


def value_of(job: str, key: str, raw: Any) -> Any:
    """Turn what was written into what the job takes, where that is beyond doubt.

    YAML 1.1 reads `1e-3` as a text, and the shell gives nothing but texts.

    >>> value_of("train", "learning_rate", "1e-3"), value_of("annotate", "channels", "2,0,1")
    (0.001, [2, 0, 1])
    """
    if not isinstance(raw, str):
        return raw
    kind = _hints(job).get(key, type(OPTIONS.get(key)))
    with suppress(ValueError, yaml.YAMLError):
        if key == "channels":
            return [int(part) for part in raw.split(",")]
        if key == "series":
            return int(raw)
        if kind is float:
            return float(raw)
        if kind in (int, bool) and re.fullmatch(r"[\w+-]{1,20}", raw):  # no list, no alias
            return yaml.safe_load(raw)
    return raw


def with_preset(job: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Put a preset's values in its place; what is given besides counts.

    >>> with_preset("segment", {"preset": "stack-that-goes-on", "min_score": 0.3})
    {'follow': 'stacks', 'min_score': 0.3}
    """
    given = dict(settings)
    if STEP_SCHEMAS[job].has_presets and isinstance(name := given.get("preset"), str):
        with suppress(SettingsError):  # `faults_of_settings` says so
            values = preset(name).values
            del given["preset"]
            return {**values, **given}
    return given


def _hints(job: str) -> dict[str, Any]:
    return {
        k: v
        for group in STEP_SCHEMAS[job].groups.values()
        for k, v in get_type_hints(group).items()
    }


def of_group(group: type[Settings], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that belong to one group."""
    return {spec.name: settings[spec.name] for spec in fields(group) if spec.name in settings}


def faults_of_settings(job: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the settings of a step: unknown keys and values that can't be."""
    schema = STEP_SCHEMAS[job]
    if schema.has_presets and "preset" in settings:
        try:
            preset(settings["preset"])
        except SettingsError as error:
            yield str(error).removesuffix(".")
        settings = {key: value for key, value in settings.items() if key != "preset"}
    if unknown := sorted(str(key) for key in settings if key not in schema.settings):
        allowed = ", ".join(sorted(schema.settings))
        yield f"unknown {', '.join(unknown)} in settings. Known: {allowed}"
    for key in schema.options:
        if key in settings and (fault := _option_fault(key, settings[key])):
            yield fault
    for group in schema.groups.values():
        try:
            group.from_dict(of_group(group, settings))
        except SettingsError as error:
            yield from str(error).partition(": ")[2].split("; ")


def _option_fault(key: str, value: Any) -> str:
    if key == "channels":
        numbers = value if isinstance(value, list | tuple) else []
        is_right = 1 <= len(numbers) <= 3 and all(type(n) is int and n >= 0 for n in numbers)
        expected = "a list of one to three numbers from 0"
    elif key == "series":
        is_right, expected = type(value) is int and value >= 0, "a number from 0"
    elif isinstance(OPTIONS[key], bool):
        is_right, expected = isinstance(value, bool), "true or false"
    else:
        is_right, expected = isinstance(value, str), "a text"
    return "" if is_right else f"{key} is {value!r}, expected {expected}"


# --- faults


def check_format(tree: Any) -> str:
    """Say why this is not a recipe of our version; "" if it is.

    Parameters
    ----------
    tree : object
        As the YAML was read.
    """
    head = tree if isinstance(tree, dict) else {}
    if head.get("format") != FORMAT:
        what = f"format is {head.get('format')!r:.40}, expected {FORMAT!r}."
        return f"{what} Pick a recipe that napari-samic recorded."
    version = head.get("version")
    if type(version) is not int or version != VERSION:
        what = f"version is {version!r:.40}, expected {VERSION}."
        return f"{what} Open it with the napari-samic that saved it, or update this one."
    return ""


def validate(tree: Mapping[str, Any], lines: Sequence[int] = ()) -> list[str]:
    """Find every fault of a recipe.

    Parameters
    ----------
    tree : dict
        As the YAML was read, of our kind and version.
    lines : sequence of int
        Where each step begins, from 1; () if it has no text.

    Returns
    -------
    list of str
        One for each fault: its place, what was found and what was expected. Empty if sound.
    """
    faults = list(_unknown(tree, FILE_KEYS))
    steps = tree.get("steps")
    if not isinstance(steps, list):
        return [*faults, f"steps is {_brief(steps)}, expected a list"]
    for i, step in enumerate(steps):
        line = f"line {lines[i]}, " if i < len(lines) else ""
        faults += [f"{line}{place_of(i + 1, step)}: {fault}" for fault in step_faults(step)]
    return faults


def place_of(number: int, step: Any) -> str:
    """Say which step it is, for people."""
    job = step.get("do") if isinstance(step, dict) else None
    return (
        f"step {number} ({job})"
        if isinstance(job, str) and job in STEP_SCHEMAS
        else f"step {number}"
    )


def step_faults(step: Any) -> Iterator[str]:
    """Find every fault of one step."""
    if not isinstance(step, dict):
        yield f"is {_brief(step)}, expected a mapping of {', '.join(STEP_KEYS)}"
        return
    job = step.get("do")
    if not isinstance(job, str) or job not in STEP_SCHEMAS:
        yield f"do is {_brief(job)}, expected one of {', '.join(STEP_SCHEMAS)}"
        return
    schema = STEP_SCHEMAS[job]
    yield from _unknown(step, STEP_KEYS)
    if not isinstance(step.get("package", ""), str):
        yield f"package is {_brief(step['package'])}, expected a text; put it in quotes"
    threads = step.get("threads", 1)
    if type(threads) is not int or not 1 <= threads <= MOST_THREADS:
        yield f"threads is {_brief(threads)}, expected a whole number from 1 to {MOST_THREADS}"
    yield from _path_faults(step, schema)
    yield from _mapping(step, "model", _model_faults if schema.has_model else _no_model)
    yield from _mapping(step, "settings", lambda mapping: faults_of_settings(job, mapping))
    yield from _mapping(step, "data", lambda mapping: _data_faults(mapping, schema))
    yield from _mapping(step, "results", lambda mapping: _fingerprint_faults(mapping, "results"))


def _unknown(mapping: Mapping[Any, Any], allowed: Sequence[str], where: str = "") -> Iterator[str]:
    unknown = sorted(str(key) for key in mapping if key not in allowed)
    if unknown:
        inside = f" in {where}" if where else ""
        yield f"unknown {', '.join(unknown)}{inside}. Known: {', '.join(allowed)}"


Check = Callable[[dict[str, Any]], Iterator[str]]


def _mapping(step: Mapping[str, Any], key: str, check: Check) -> Iterator[str]:
    mapping = step.get(key, {})
    if isinstance(mapping, dict):
        yield from check(mapping)
    else:
        yield f"{key} is {_brief(mapping)}, expected a mapping"


def _path_faults(step: Mapping[str, Any], schema: StepSchema) -> Iterator[str]:
    inputs = step.get("inputs", {})
    if not isinstance(inputs, dict):
        yield f"inputs is {_brief(inputs)}, expected a mapping"
        inputs = {}
    yield from _unknown(inputs, schema.inputs, "inputs")
    given = {k: v for k, v in inputs.items() if k in schema.inputs}
    given |= {"out": step["out"]} if "out" in step else {}
    for key in schema.needed:
        if key not in given:
            yield f"{key} is missing, expected a path" + ("" if key == "out" else " in inputs")
    for key, value in given.items():
        many = value if isinstance(value, list) and value and key in LISTS else [value]
        if not all(isinstance(path, str) and path and "\0" not in path for path in many):
            or_list = ", or a list of paths" if key in LISTS else ""
            yield f"{key} is {_brief(value)}, expected a path (in quotes if need be){or_list}"


def _no_model(model: Mapping[str, Any]) -> Iterator[str]:
    if model:
        yield "unknown model. This job takes none"


def _model_faults(model: Mapping[str, Any]) -> Iterator[str]:
    yield from _unknown(model, MODEL_KEYS, "model")
    if model and not (isinstance(model.get("name"), str) and model["name"]):
        yield f"name of model is {_brief(model.get('name'))}, expected a text"
    if "sha256" in model and not _is_hash(model["sha256"]):
        yield f"sha256 of model is {_brief(model['sha256'])}, expected 64 digits 0-9a-f in quotes"


def _data_faults(data: Mapping[str, Any], schema: StepSchema) -> Iterator[str]:
    yield from _unknown(data, schema.inputs, "data")
    for key, value in data.items():
        if key in schema.inputs and isinstance(value, dict):
            yield from _fingerprint_faults(value, f"data of {key}")
        elif key in schema.inputs:
            keys = ", ".join(FINGERPRINT_KEYS)
            yield f"data of {key} is {_brief(value)}, expected a mapping of {keys}"


def _fingerprint_faults(mapping: Mapping[str, Any], where: str) -> Iterator[str]:
    if not mapping and where == "results":
        return
    yield from _unknown(mapping, FINGERPRINT_KEYS, where)
    files = mapping.get("files")
    if type(files) is not int or files < 0:
        yield f"files of {where} is {_brief(files)}, expected a whole number from 0"
    if not _is_hash(mapping.get("sha256")):
        yield f"sha256 of {where} is {_brief(mapping.get('sha256'))}, expected 64 digits 0-9a-f"
    if mapping.get("hashed", CONTENTS) not in (CONTENTS, ENDS):
        yield f"hashed of {where} is {_brief(mapping['hashed'])}, expected {CONTENTS} or {ENDS}"


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."

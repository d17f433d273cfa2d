"""What a step may say: of each job its inputs, its result, its options and its settings.

All options of a job stand side by side under their names on the shell, `batch_size` for
`--batch-size`. Knows no file; a test holds the table against the jobs' own parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

import yaml

from napari_samic.errors import SettingsError
from napari_samic.settings import (
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
)

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
class Kind:
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
    """

    inputs: tuple[str, ...]
    needed: tuple[str, ...]
    options: tuple[str, ...]
    groups: Mapping[str, type[Settings]]
    is_file: bool = False
    has_model: bool = True
    model: str | None = None
    of_recorded: str = ""

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
        return (*self.inputs, "out", *model, *settings)


KINDS = {
    "annotate": Kind(
        ("images", "prompts", "masks"),
        ("images", "out"),
        ("mask_values", "simulate", "device", "channels", "axes", "series", "overlay", "overwrite"),
        {"settings": AnnotateSettings, "segment": SegmentSettings},
        model="tiny",
    ),
    "train": Kind(
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
    "segment": Kind(
        ("images", "prompter"),
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
            "memory": MemorySettings,
            "strategy": StrategySettings,
            "refine": RefineSettings,
        },
    ),
    "evaluate": Kind(
        ("predictions", "truth"),
        ("predictions", "truth"),
        ("mask_values", "overwrite"),
        {},
        is_file=True,
        has_model=False,
        of_recorded="truth",
    ),
    "accept": Kind(
        ("results", "review", "edits", "prompts"),
        ("results", "review", "out"),
        ("overwrite",),
        {},
        has_model=False,
        of_recorded="review",
    ),
    "export": Kind(
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


def _hints(job: str) -> dict[str, Any]:
    return {k: v for group in KINDS[job].groups.values() for k, v in get_type_hints(group).items()}


def of_group(group: type[Settings], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that belong to one group."""
    return {spec.name: settings[spec.name] for spec in fields(group) if spec.name in settings}


def faults_of_settings(job: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the settings of a step: unknown keys and values that can't be."""
    kind = KINDS[job]
    if unknown := sorted(str(key) for key in settings if key not in kind.settings):
        yield f"unknown {', '.join(unknown)} in settings. Known: {', '.join(sorted(kind.settings))}"
    for key in kind.options:
        if key in settings and (fault := _option_fault(key, settings[key])):
            yield fault
    for group in kind.groups.values():
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

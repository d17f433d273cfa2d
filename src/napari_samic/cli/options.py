"""Options of the shell: those that several commands share, and those made of settings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer
from typer.models import OptionInfo

from napari_samic.core.errors import SettingsError
from napari_samic.core.settings import PRESETS, Preset, Settings, preset, public_fields

_NAMED = inspect.Parameter.KEYWORD_ONLY
Images = Annotated[list[str], typer.Argument(help="Images: files, folders, globs, OME-Zarr.")]
Out = Annotated[Path, typer.Option(help="Folder for the results.")]
Model = Annotated[str, typer.Option(help="Segmenter of `models list`, or path:FILE.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps or openvino.")]
Dask = Annotated[
    str | None,
    typer.Option(help="Dask workers to do it: local:N processes, or a scheduler's address."),
]
Channels = Annotated[
    str | None, typer.Option(help="Channels that become red, green, blue, as 2,0,1.")
]
Axes = Annotated[
    str | None,
    typer.Option(help="One letter an axis, as TZCYX, instead of the files' own."),
]
Series = Annotated[
    int | None,
    typer.Option(help="Of files with several images, the one to take.", min=0),
]
MaskValues = Annotated[
    str | None,
    typer.Option(help="What values of masks mean, as 0=ground,128=void,255=object."),
]
PresetName = Annotated[
    str,
    typer.Option(
        "--preset",
        help=f"Settings for a kind of image, where none is given: "
        f"{', '.join(preset.name for preset in PRESETS)}.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace earlier results.")]
Overlay = Annotated[
    bool, typer.Option("--overlay", help="Also draw a contact sheet of the first images.")
]
Record = Annotated[
    Path | None,
    typer.Option(help="Recipe to add this command to, for `run`."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, nothing else.")]


@dataclass(frozen=True)
class ChangedSettings:
    """A group of options without defaults: the command gets a dict of those that are given."""

    kind: type[Settings]


Group = type[Settings] | ChangedSettings


def _tell_all(context: typer.Context, is_asked: bool) -> None:
    if is_asked:
        for option in context.command.params:
            option.hidden = False  # type: ignore[attr-defined]
        print(context.get_help())
        raise typer.Exit


HelpAll = Annotated[
    bool,
    typer.Option("--help-all", is_eager=True, callback=_tell_all, help="List all options, too."),
]


def with_settings(
    *common: str, **groups: Group
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option for each setting of each dataclass, and `--help-all`.

    The command takes one argument a group; what is not given on the shell keeps its default, or
    is that of the `preset`, or the paper's where the command has `paper` and that is given.
    Its `--help` has only its arguments and the options that `common` names.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        kept = [p for p in own.parameters.values() if p.name not in groups]
        extra = [option for group in groups.values() for option in _options(group)]
        options = [_hidden(p) if p.name not in common else p for p in [*kept, *extra]]
        options.append(_parameter("help_all", False, HelpAll))
        options.append(inspect.Parameter("context", _NAMED, annotation=typer.Context))

        def call(context: typer.Context, help_all: bool, **values: Any) -> None:
            del help_all
            usual = [name for name in values if _is_usual(context, name)]
            base = preset(values.get("preset", PRESETS[0].name))
            values |= {k: v for k, v in base.values.items() if k in own.parameters and k in usual}
            is_paper = bool(values.get("paper"))
            settings = {
                name: _take(group, values, usual, base, is_paper=is_paper)
                for name, group in groups.items()
            }
            command(**values, **settings)

        call.__name__, call.__doc__ = command.__name__, command.__doc__
        call.__signature__ = own.replace(parameters=options)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in options}
        return call

    return decorate


def _kind(group: Group) -> type[Settings]:
    return group.kind if isinstance(group, ChangedSettings) else group


def _is_usual(context: typer.Context, name: str) -> bool:
    """Whether an option has its default because it was not given."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "DEFAULT"


def _take(
    group: Group, values: dict[str, Any], usual: Collection[str], base: Preset, *, is_paper: bool
) -> Any:
    """Move a group's values out of `values`; the usual ones become the base's or the paper's."""
    kind = _kind(group)
    given = {spec.name: values.pop(spec.name) for spec in public_fields(kind)}
    if isinstance(group, ChangedSettings):
        given = {k: v for k, v in given.items() if v is not None}
    given = {**base.of(kind), **{k: v for k, v in given.items() if k not in usual}}
    start = getattr(kind, "paper", kind)() if is_paper else kind()
    try:
        settings = kind.from_dict({**start.to_dict(), **given})
    except SettingsError as error:
        raise SettingsError(_as_options(str(error), list(given))) from error
    return given if isinstance(group, ChangedSettings) else settings


def _as_options(message: str, names: list[str]) -> str:
    """Call fields what they are called on the shell: min_score is --min-score."""
    for name in names:
        message = re.sub(rf"(^\w+: |; ){name} is", rf"\1--{name.replace('_', '-')} is", message)
    return message.partition(": ")[2] + ". Give another value."


def _options(group: Group) -> list[inspect.Parameter]:
    hints = get_type_hints(_kind(group))
    return [_option(spec, hints[spec.name], group) for spec in public_fields(_kind(group))]


def _option(spec: Any, kind: Any, group: Group) -> inspect.Parameter:
    text, default = _help(spec.metadata), spec.default
    if isinstance(group, ChangedSettings):
        text, default, kind = f"{text} \\[as trained]", None, kind | None
    option = typer.Option(help=text, rich_help_panel="Settings")
    return _parameter(spec.name, default, Annotated[kind, option])


def _parameter(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, _NAMED, default=default, annotation=annotation)


def _hidden(parameter: inspect.Parameter) -> inspect.Parameter:
    """One that `--help` leaves out; arguments are always there."""
    kind, info = get_args(parameter.annotation)
    if not isinstance(info, OptionInfo):
        return parameter
    info = copy(info)
    info.hidden = True
    return parameter.replace(annotation=Annotated[kind, info])


def _help(meta: Any) -> str:
    text = str(meta["help"])
    if meta["unit"]:
        text += f" In {meta['unit']}."
    if meta["choices"]:
        text += f" One of {', '.join(map(str, meta['choices']))}."
    return text

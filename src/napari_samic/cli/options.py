"""Options of the shell: those that several commands share, and those made of settings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from napari_samic.errors import SettingsError
from napari_samic.settings import Settings

_NAMED = inspect.Parameter.KEYWORD_ONLY
Images = Annotated[list[str], typer.Argument(help="Images: files, folders, globs, OME-Zarr.")]
Out = Annotated[Path, typer.Option(help="Folder for the results.")]
Model = Annotated[str, typer.Option(help="Segmenter: see `models list`, or path:FILE.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Channels = Annotated[
    str | None, typer.Option(help="Channels that become red, green, blue, as 2,0,1.")
]
Axes = Annotated[
    str | None,
    typer.Option(
        help="One letter an axis, as TZCYX, instead of the files' own: Y rows, X columns, "
        "C channels, others stacks."
    ),
]
Series = Annotated[
    int | None,
    typer.Option(help="Of files with several images, the one to take, from 0.", min=0),
]
MaskValues = Annotated[
    str | None,
    typer.Option(
        help="What values of masks mean, as 0=ground,128=void,255=object; others are numbers of "
        "objects, if no object is named. Default: decided from all masks."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace earlier results.")]
Overlay = Annotated[
    bool, typer.Option("--overlay", help="Also draw the first images on a contact sheet.")
]
Record = Annotated[
    Path | None,
    typer.Option(help="Recipe (YAML) to add this command to when it is done; see `run`."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, nothing else.")]


@dataclass(frozen=True)
class Changes:
    """A group of options without defaults: the command gets a dict of those that are given."""

    kind: type[Settings]


Group = type[Settings] | Changes


def with_settings(**groups: Group) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option for each field of each dataclass.

    The command takes one argument a group; what is not given on the shell keeps its default, or
    is the paper's where the command has `paper` and that is given.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        kept = [p for p in own.parameters.values() if p.name not in groups]
        context = inspect.Parameter("context", _NAMED, annotation=typer.Context)
        extra = [*(option for group in groups.values() for option in _options(group)), context]

        def call(context: typer.Context, **values: Any) -> None:
            usual = [name for name in values if _is_usual(context, name)]
            left_out = usual if values.get("paper") else []
            made = {name: _take(group, values, left_out) for name, group in groups.items()}
            command(**values, **made)

        call.__name__, call.__doc__ = command.__name__, command.__doc__
        call.__signature__ = own.replace(parameters=[*kept, *extra])  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in [*kept, *extra]}
        return call

    return decorate


def _kind(group: Group) -> type[Settings]:
    return group.kind if isinstance(group, Changes) else group


def _is_usual(context: typer.Context, name: str) -> bool:
    """Whether an option has its default because it was not given."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "DEFAULT"


def _take(group: Group, values: dict[str, Any], left_out: Collection[str]) -> Any:
    """Move a group's values out of `values`; those that are left out are the paper's."""
    kind = _kind(group)
    given = {spec.name: values.pop(spec.name) for spec in fields(kind)}
    if isinstance(group, Changes):
        given = {k: v for k, v in given.items() if v is not None}
    given = {k: v for k, v in given.items() if k not in left_out}
    usual = getattr(kind, "paper", kind)() if left_out else kind()
    try:
        made = kind.from_dict({**usual.to_dict(), **given})
    except SettingsError as error:
        raise SettingsError(_as_options(str(error), list(given))) from error
    return given if isinstance(group, Changes) else made


def _as_options(message: str, names: list[str]) -> str:
    """Call fields what they are called on the shell: batch_size is --batch-size."""
    for name in names:
        message = re.sub(rf"(^\w+: |; ){name} is", rf"\1--{name.replace('_', '-')} is", message)
    return message.partition(": ")[2] + ". Give another value."


def _options(group: Group) -> list[inspect.Parameter]:
    hints = get_type_hints(_kind(group))
    return [_option(spec, hints[spec.name], group) for spec in fields(_kind(group))]


def _option(spec: Any, kind: Any, group: Group) -> inspect.Parameter:
    text, default = _help(spec.metadata), spec.default
    if isinstance(group, Changes):
        text, default, kind = (
            f"{text} Default: what the prompter was trained with.",
            None,
            kind | None,
        )
    option = typer.Option(help=text, rich_help_panel="Settings")
    return inspect.Parameter(
        spec.name,
        _NAMED,
        default=default,
        annotation=Annotated[kind, option],
    )


def _help(meta: Any) -> str:
    text = str(meta["help"])
    if meta["unit"]:
        text += f" In {meta['unit']}."
    if meta["choices"]:
        text += f" One of {', '.join(map(str, meta['choices']))}."
    low, high = (None if meta[k] is None else f"{meta[k]:g}" for k in ("ge", "le"))
    if low is not None:
        text += f" From {low}" + (f" to {high}." if high is not None else " up.")
    return text

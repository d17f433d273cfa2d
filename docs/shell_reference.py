"""Write the reference of the shell's commands from the commands themselves, as Markdown.

python docs/shell_reference.py
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer

from napari_samic.cli import app


def commands() -> str:
    """A section for each command, in the order of `napari-samic --help`."""
    return "\n".join(_sections(typer.main.get_command(app), "napari-samic"))


def _sections(command: Any, name: str) -> Iterator[str]:
    for sub in getattr(command, "commands", {}).values():
        yield from _sections(sub, f"{name} {sub.name}")
    if not hasattr(command, "commands"):
        yield from _section(command, name)


def _section(command: Any, name: str) -> Iterator[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    words = [p.name.upper() for p in arguments]
    words += [f"{p.opts[0]} {p.name.upper()}" for p in options if p.required]
    yield f"\n## {name.removeprefix('napari-samic ')}\n"
    yield inspect.cleandoc(command.help or "") + "\n"
    yield f"    {' '.join([name, *words, '[OPTIONS]'])}\n"
    if rows := [_row(p) for p in (*arguments, *options)]:
        yield "| | meaning | default |\n|---|---|---|"
        yield from rows


def _row(parameter: Any) -> str:
    is_option = parameter.param_type_name == "option"
    names = parameter.opts + parameter.secondary_opts if is_option else [parameter.name.upper()]
    default = "required" if parameter.required else _default(parameter.default)
    text = (parameter.help or "").replace("\\[", "[").replace("|", "\\|")
    return f"| {', '.join(f'`{n}`' for n in names)} | {text} | {default} |"


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "" if value is None or value == "" else f"`{value}`"


if __name__ == "__main__":
    print(commands())

"""YAML of plain values only: no tags, no aliases, no key twice, few levels.

An alias would let a small file grow without end, a tag would name code, and of a key that is there
twice one would be lost. Knows nothing of recipes.
"""

from __future__ import annotations

from typing import Any

import yaml

from napari_samic.core.errors import FormatError

DEEPEST = 20
"""Levels of lists and mappings; a recipe has six. PyYAML's time grows with the square of them."""


def read_plain(text: str, name: str, *, sequence: str) -> tuple[Any, list[int]]:
    """Read a text.

    Parameters
    ----------
    text : str
    name : str
        Of the file, for messages.
    sequence : str
        Key of the list whose lines are wanted.

    Returns
    -------
    tree, lines
        Plain values, and the line of each item of that list, from 1.

    Raises
    ------
    FormatError
        Not YAML, or more than plain values.
    """
    try:
        fault = _unsafe(text)
        root = None if fault else yaml.compose(text, Loader=yaml.SafeLoader)
        fault = fault or _double(root)
        tree = None if fault else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        msg = f"{name}: not YAML ({_told(error)}). Pick another file, or a copy that is whole."
        raise FormatError(msg) from error
    if fault:
        raise FormatError(f"{name}: {fault}")
    return tree, _lines(root, sequence)


def dumped(tree: Any) -> str:
    """Write plain values, keys in their order."""
    text: str = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100)
    return text


def _unsafe(text: str) -> str:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"line {line}: more than {DEEPEST} levels")
        if isinstance(event, yaml.AliasEvent):
            return f"line {line}: alias *{event.anchor}, expected plain values. Write it out."
        if getattr(event, "tag", None):
            return f"line {line}: tag {event.tag}, expected plain values. Don't trust this file."
    return ""


def _double(node: Any) -> str:
    if isinstance(node, yaml.SequenceNode):
        return next(filter(None, map(_double, node.value)), "")
    if not isinstance(node, yaml.MappingNode):
        return ""
    seen: set[str] = set()
    for key, value in node.value:
        if str(key.value) in seen:
            line = key.start_mark.line + 1
            return f"line {line}: {key.value} is there twice. Delete one of them."
        seen.add(str(key.value))
        if fault := _double(value):
            return fault
    return ""


def _lines(root: Any, sequence: str) -> list[int]:
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value == sequence and isinstance(value, yaml.SequenceNode):
            return [node.start_mark.line + 1 for node in value.value]
    return []


def _told(error: Exception) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return where + " ".join(str(problem or error).split())[:120]

"""What is wrong with the tree of a prompt file: docs/prompts.schema.json, in Python.

All faults are found at once, each with its place, as `images[2].objects[0].points[1].row`. Two
rules go beyond JSON Schema: a box has an area, and no image is listed twice. Knows no file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from napari_samic.io.text_files import is_name

FORMAT = "napari-samic/prompts"
VERSION = 1
BOX_KEYS = ("row0", "column0", "row1", "column1")

_LARGEST = 1e300  # what is above it is a slip, and overflows


@dataclass(frozen=True)
class _Rule:
    """What a value must be, how to say so, and whether it must be there."""

    fits: Callable[[Any], bool]
    expected: str
    needed: bool = True


def check_format(tree: Any) -> str:
    """Say why this is not a prompt file of our version; "" if it is.

    Parameters
    ----------
    tree : object
        As `json.loads` returns it.

    Returns
    -------
    str
        What was found, what was expected and what to do.
    """
    header = tree if isinstance(tree, dict) else {}
    if header.get("format") != FORMAT:
        what = f"format is {header.get('format')!r:.40}, expected {FORMAT!r}."
        return f"{what} Pick a prompt file that napari-samic saved."
    version = header.get("version")
    if not (_is_whole(version) and version == VERSION):
        what = f"version is {version!r:.40}, expected {VERSION}."
        return f"{what} Open it with the napari-samic that saved it, or update this one."
    return ""


def faults_of(tree: dict[str, Any]) -> Iterator[str]:
    """Find every fault of a prompt file, one after the other.

    Parameters
    ----------
    tree : dict
        As `json.loads` returns it, of our kind and version.

    Yields
    ------
    str
        Its place, what was found and what was expected. None if it is sound.
    """
    yield from _fields(tree, "", _FILE)
    yield from _class_faults(tree)
    yield from _all_image_faults(tree)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _LARGEST


def _is_whole(value: Any) -> bool:
    return _is_number(value) and value == int(value)


def _from(least: int, kind: Callable[[Any], bool] = _is_whole) -> Callable[[Any], bool]:
    return lambda value: kind(value) and value >= least


def _or_null(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


def _is_hash(value: Any) -> bool:
    return _is_text(value) and re.fullmatch("([0-9a-f]{64})?", value) is not None


_NUMBER = _Rule(_is_number, "a finite number")
_SIDE = _Rule(_from(1), "a whole number from 1")
_FILE = {
    "format": _Rule(_is_text, "a text"),
    "version": _Rule(_is_whole, "a whole number"),
    "model": _Rule(_is_text, "a text"),
    "normalisation": _Rule(_or_null(_is_object), "an object or null"),
    "classes": _Rule(_is_object, "an object"),
    "images": _Rule(_is_list, "a list"),
}
_IMAGE = {
    "name": _Rule(is_name, "a text, not empty, without a folder"),
    "file": _Rule(_is_text, "a text"),
    "shape": _Rule(_is_object, "an object with rows and columns"),
    "sha256": _Rule(_is_hash, '64 digits 0-9a-f, or ""'),
    "objects": _Rule(_is_list, "a list"),
    "clicks": _Rule(_or_null(_from(0)), "a whole number from 0, or null", needed=False),
    "seconds": _Rule(_or_null(_from(0, _is_number)), "a number from 0, or null", needed=False),
}
_SHAPE = {"rows": _SIDE, "columns": _SIDE}
_OBJECT = {
    "class": _Rule(_from(1), "a whole number from 1"),
    "score": _NUMBER,
    "points": _Rule(_is_list, "a list"),
    "box": _Rule(_or_null(_is_object), f"an object with {', '.join(BOX_KEYS)}, or null", False),
    "mask": _Rule(_is_text, "a text", needed=False),
}
_POINT = {"row": _NUMBER, "column": _NUMBER, "foreground": _Rule(_is_bool, "true or false")}
_BOX = dict.fromkeys(BOX_KEYS, _NUMBER)


def _fields(value: Any, place: str, rules: dict[str, _Rule]) -> Iterator[str]:
    """Faults of one JSON object; what is in it is left to others."""
    if not isinstance(value, dict):
        yield f"{place}: {_shown(value)}, expected an object with {', '.join(rules)}"
        return
    for key, rule in rules.items():
        at = f"{place}.{key}".lstrip(".")
        if key not in value:
            if rule.needed:
                yield f"{at}: missing, expected {rule.expected}"
        elif not rule.fits(value[key]):
            yield f"{at}: {_shown(value[key])}, expected {rule.expected}"
    for key in value:
        if key not in rules:
            at = f"{place}.{key}".lstrip(".")
            yield f"{at}: not known, expected only {', '.join(rules)}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."


def _items(value: Any, key: str) -> list[Any]:
    """The list at `key`; empty if there is none, which `_fields` reports."""
    items = value.get(key) if isinstance(value, dict) else None
    return items if isinstance(items, list) else []


def _inner(value: Any, key: str) -> dict[str, Any] | None:
    """The JSON object at `key`; None if there is none, which `_fields` reports."""
    inner = value.get(key) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else None


def _class_faults(tree: dict[str, Any]) -> Iterator[str]:
    for label, name in (_inner(tree, "classes") or {}).items():
        if not re.fullmatch("[1-9][0-9]{0,8}", label):
            yield f"classes: {_shown(label)}, expected a whole number from 1"
        if not _is_text(name):
            yield f"classes.{label}: {_shown(name)}, expected a text"


def _all_image_faults(tree: dict[str, Any]) -> Iterator[str]:
    first: dict[str, int] = {}
    for i, image in enumerate(_items(tree, "images")):
        yield from _image_faults(image, f"images[{i}]")
        name = image.get("name") if isinstance(image, dict) else None
        if isinstance(name, str) and first.setdefault(name, i) != i:
            yield f"images[{i}].name: {_shown(name)} is listed already as images[{first[name]}]"


def _image_faults(image: Any, place: str) -> Iterator[str]:
    yield from _fields(image, place, _IMAGE)
    if (shape := _inner(image, "shape")) is not None:
        yield from _fields(shape, f"{place}.shape", _SHAPE)
    for j, entry in enumerate(_items(image, "objects")):
        yield from _object_faults(entry, f"{place}.objects[{j}]")


def _object_faults(tree: Any, place: str) -> Iterator[str]:
    yield from _fields(tree, place, _OBJECT)
    for k, point in enumerate(_items(tree, "points")):
        yield from _fields(point, f"{place}.points[{k}]", _POINT)
    if (box := _inner(tree, "box")) is None:
        return
    faults = list(_fields(box, f"{place}.box", _BOX))
    if not faults and not (box["row0"] < box["row1"] and box["column0"] < box["column1"]):
        faults = [f"{place}.box: {_shown(box)}, expected row0 < row1 and column0 < column1"]
    yield from faults

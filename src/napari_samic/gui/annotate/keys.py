"""The keyboard: which key does what, bound to our own layers only and released again.

None of these keys is taken by napari on Points, Shapes or Labels, so nothing of napari's is
replaced, except undo on the Labels layer, which there only knows brush strokes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

KEYS: dict[str, tuple[str, str]] = {
    "sign": ("Q", "switch between positive and negative clicks"),
    "box": ("W", "switch between clicking and drawing a box"),
    "new": ("N", "new object"),
    "previous": ("J", "previous object"),
    "next": ("K", "next object"),
    "delete": ("Shift-X", "delete the object"),
    "cycle": ("C", "next candidate mask"),
    "class": ("G", "next class"),
    "hint": ("H", "show or hide the hints"),
    "live": ("Y", "show or hide what would be found now"),
    "reference": ("U", "use the image as a reference"),
    "undo": ("Control-Z", "undo"),
    "redo": ("Control-Shift-Z", "redo"),
}
"""Verb to key, and what it does."""


def text(verb: str) -> str:
    """The key of a verb, to be shown: "Ctrl+Z"."""
    return KEYS[verb][0].replace("Control", "Ctrl").replace("-", "+")


def table() -> str:
    """All keys, one line each, for the tooltip."""
    return "\n".join(f"{text(verb)}:  {help_}" for verb, (_, help_) in KEYS.items())


def bind(layer: Any, handlers: Mapping[str, Callable[[], None]]) -> None:
    """Let the keys of `handlers` act while `layer` is the active one."""
    for verb, act in handlers.items():
        layer.bind_key(KEYS[verb][0], _ignoring(act), overwrite=True)


def release(layers: Iterable[Any]) -> None:
    """Take our keys off again."""
    for layer in layers:
        for key, _ in KEYS.values():
            with suppress(KeyError):
                layer.bind_key(key, None)


def _ignoring(act: Callable[[], None]) -> Callable[[Any], None]:
    def pressed(_layer: Any) -> None:
        act()

    return pressed

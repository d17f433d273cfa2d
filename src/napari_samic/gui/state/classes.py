"""The classes of objects: numbers from 1, each with a name and a color.

Plain Python: knows no Qt and no napari.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from napari_samic.core.errors import SettingsError

PALETTE = (
    "#35b8ff", "#ffb224", "#b98cff", "#4fd17a", "#ff7a59", "#f06bb3", "#d4d63a", "#2fd0c8",
)  # fmt: skip
"""Told apart by most eyes, on dark and on bright images."""


@dataclass(frozen=True)
class ClassStyle:
    """Name and color (#rrggbb) of a class."""

    name: str
    color: str


class Classes:
    """The table of classes; there is always at least one."""

    def __init__(self) -> None:
        self._styles: dict[int, ClassStyle] = {}
        self.add("object")

    def __len__(self) -> int:
        return len(self._styles)

    @property
    def labels(self) -> tuple[int, ...]:
        """Numbers of the classes, in order."""
        return tuple(sorted(self._styles))

    @property
    def is_plain(self) -> bool:
        """One class, whose color nobody chose."""
        return len(self._styles) == 1 and all(
            style.color == _color(label) for label, style in self._styles.items()
        )

    @property
    def names(self) -> dict[int, str]:
        """For the prompt file."""
        return {label: self._styles[label].name for label in self.labels}

    def style(self, label: int) -> ClassStyle:
        """Of a class; one that was never named gets its number."""
        return self._styles.get(label) or ClassStyle(f"class {label}", _color(label))

    def add(self, name: str = "") -> int:
        """Make a class.

        Returns
        -------
        int
            Its number.
        """
        label = 1 + max(self._styles, default=0)
        self._styles[label] = ClassStyle(name.strip() or f"class {label}", _color(label))
        return label

    def rename(self, label: int, name: str) -> None:
        """Give a class another name.

        Raises
        ------
        SettingsError
            An empty name, or that of another class.
        """
        wanted = name.strip()
        if not wanted:
            raise SettingsError("a class needs a name. Type at least one letter.")
        if any(s.name == wanted for n, s in self._styles.items() if n != label):
            raise SettingsError(f"there is a class {wanted!r} already. Choose another name.")
        self._styles[label] = replace(self.style(label), name=wanted)

    def recolor(self, label: int, color: str) -> None:
        """Give a class another color, #rrggbb."""
        self._styles[label] = replace(self.style(label), color=color)

    def take(self, names: Mapping[int, str], used: set[int]) -> None:
        """Take over the classes of a prompt file; those it does not name keep their names."""
        for label in sorted({*names, *used}):
            existing = self.style(label)
            self._styles[label] = replace(existing, name=names.get(label, existing.name))

    def after(self, label: int) -> int:
        """The class that follows, round and round."""
        order = self.labels
        later = [n for n in order if n > label]
        return later[0] if later else order[0]


def _color(label: int) -> str:
    return PALETTE[(label - 1) % len(PALETTE)]

"""Lines that the pipeline tells, as sentences for the window. Knows no Qt and no napari."""

from __future__ import annotations

from collections.abc import Iterable


def sentence(line: str) -> str:
    """Begin with a capital letter, but leave a name as it is.

    >>> sentence("went on with it."), sentence("q.tif: its 2 series are taken.")
    ('Went on with it.', 'q.tif: its 2 series are taken.')
    """
    first = line.partition(" ")[0].rstrip(",")
    return f"{line[:1].upper()}{line[1:]}" if first.isalpha() else line


def sentences(lines: Iterable[str]) -> list[str]:
    """Each line as a sentence."""
    return [sentence(line) for line in lines]

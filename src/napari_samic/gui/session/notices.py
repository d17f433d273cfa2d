"""Lines that the pipeline tells, in the words of the window. Knows no Qt and no napari."""

from __future__ import annotations

import re
from collections.abc import Iterable

from napari_samic.core.settings import MemorySettings, public_fields
from napari_samic.gui.widgets.field_specs import title_of

RESCALE = "Fit the range to these images"
"""What the window calls `segment --rescale`."""
_GROUPS = "settings|peaks|memory|strategy|refine|adapt"
_ALONE = "|".join(spec.name for spec in public_fields(MemorySettings))
_SETTING = re.compile(
    rf"\b(?:{_GROUPS})\.([a-z_]+)\b|(?<![\w'-])({_ALONE})(?= (?:asks|keeps|numbers|out\b))"
)


def in_words(line: str) -> str:
    """Call settings by their titles in the form, and options by their boxes.

    >>> in_words("results that were made with memory.link never (now stacks)")
    "results that were made with 'Link objects' never (now stacks)"
    >>> in_words("leave it out; `segment --rescale` scales such ones anew.")
    "leave it out; 'Fit the range to these images' scales such ones anew."
    """
    line = line.replace("`segment --rescale`", f"'{RESCALE}'")
    return _SETTING.sub(lambda match: f"'{title_of(match[1] or match[2])}'", line)


def sentence(line: str) -> str:
    """Begin with a capital letter, but leave a name as it is.

    >>> sentence("went on with it."), sentence("q.tif: its 2 series are taken.")
    ('Went on with it.', 'q.tif: its 2 series are taken.')
    """
    line = in_words(line)
    first = line.partition(" ")[0].rstrip(",")
    return f"{line[:1].upper()}{line[1:]}" if first.isalpha() else line


def sentences(lines: Iterable[str]) -> list[str]:
    """Each line as a sentence."""
    return [sentence(line) for line in lines]

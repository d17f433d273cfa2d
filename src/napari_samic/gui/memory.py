"""What of the Annotate step prompt files have no place for: to the notes of a project, and back.

Marks of references, colours of classes and the model. Plain Python: knows no Qt and no napari.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from napari_samic.gui.controller import Annotator

KEY = "annotate"


def remember(state: Annotator, notes: dict[str, Any]) -> None:
    """Put it into the notes; what else is there stays."""
    own = dict(notes.get(KEY, {}))
    own["references"] = sorted(p.name for p in state.pages.values() if p.is_reference and p.items)
    own["classes"] = {
        str(label): {"name": style.name, "colour": style.colour}
        for label in state.classes.labels
        if (style := state.classes.style(label))
    }
    own["model"] = state.model or own.get("model", "")
    notes[KEY] = own


def recall(state: Annotator, notes: Mapping[str, Any]) -> None:
    """Take it back; what is damaged is left out, since prompts are what counts."""
    own = notes.get(KEY)
    if not isinstance(own, dict):
        return
    marked = own.get("references")
    for name in marked if isinstance(marked, list) else []:
        if isinstance(name, str) and name in state.pages:
            state.pages[name].is_reference = True
    classes = own.get("classes")
    for number, style in classes.items() if isinstance(classes, dict) else ():
        if str(number).isdigit() and int(number) > 0 and isinstance(style, dict):
            label = int(number)
            state.classes.take({label: str(style.get("name") or f"class {label}")}, {label})
            if re.fullmatch(r"#[0-9a-fA-F]{6}", str(style.get("colour"))):
                state.classes.recolour(label, str(style["colour"]))
    state.tell("classes")


def model_of(notes: Mapping[str, Any]) -> str:
    """The model that the project was annotated with; "" if none is known."""
    own = notes.get(KEY)
    found = own.get("model") if isinstance(own, dict) else None
    return found if isinstance(found, str) else ""

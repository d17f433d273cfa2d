"""What the user thinks of each result, to the notes of a project and back.

Frozen, plain Python: knows no Qt, no napari and no job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from napari_samic.core.label_objects import ObjectRecord
from napari_samic.gui.state.objects import Point
from napari_samic.io.reviews import ACCEPTED, EDITED, REJECTED, Verdict
from napari_samic.io.text_files import is_name

KEY = "review"
Placed = tuple[int, Point]
"""Number of an object and one of its points."""


@dataclass(frozen=True)
class Edit:
    """Labels that take the place of predicted ones.

    Attributes
    ----------
    file, sha256 : str
        In the project's folder of edits; its hash is "" until it is written.
    objects : dict of int to ObjectRecord
        Class and confidence of each value.
    points : tuple of Placed
        As they were moved.
    """

    file: str
    sha256: str = ""
    objects: Mapping[int, ObjectRecord] = field(default_factory=dict)
    points: tuple[Placed, ...] = ()


@dataclass(frozen=True)
class ReviewDecision:
    """On one result.

    Attributes
    ----------
    verdict : str
        "accepted", "edited", "rejected", or "" while there is none.
    reason : str
    of : str
        Hash of the label file that was judged.
    edit : Edit or None
    """

    verdict: str = ""
    reason: str = ""
    of: str = ""
    edit: Edit | None = None

    def to_verdict(self) -> Verdict | None:
        """As the review file says it; None if there is no verdict."""
        if self.verdict == EDITED and self.edit is not None:
            edit = self.edit
            return Verdict(EDITED, self.reason, edit.file, edit.sha256, edit.objects, of=self.of)
        if self.verdict in (ACCEPTED, REJECTED):
            return Verdict(self.verdict, self.reason, of=self.of)
        return None


def to_notes(decisions: Mapping[str, ReviewDecision]) -> dict[str, Any]:
    """Plain values, for JSON."""
    return {
        name: _tree(decision)
        for name, decision in decisions.items()
        if decision != ReviewDecision()
    }


def _tree(decision: ReviewDecision) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "verdict": decision.verdict,
        "reason": decision.reason,
        "of": decision.of,
    }
    if decision.edit is not None:
        tree["edit"] = {
            "file": decision.edit.file,
            "sha256": decision.edit.sha256,
            "objects": {
                str(value): [about.label, about.score]
                for value, about in decision.edit.objects.items()
            },
            "points": [[number, *point] for number, point in decision.edit.points],
        }
    return tree


def from_notes(notes: Any) -> dict[str, ReviewDecision]:
    """Take them back; what is damaged is left out."""
    out = {}
    for name, tree in notes.items() if isinstance(notes, dict) else ():
        try:
            out[str(name)] = _opinion(tree)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            continue
    return out


def _opinion(tree: Mapping[str, Any]) -> ReviewDecision:
    edit_tree = tree.get("edit")
    edit = None
    if edit_tree is not None:
        objects = {int(v): ObjectRecord(int(a[0]), a[1]) for v, a in edit_tree["objects"].items()}
        points = tuple(
            (int(n), (float(r), float(c), bool(sign))) for n, r, c, sign in edit_tree["points"]
        )
        edit = Edit(str(edit_tree["file"]), str(edit_tree["sha256"]), objects, points)
        if not is_name(edit.file):
            raise ValueError(edit.file)
    verdict = str(tree["verdict"])
    if verdict not in ("", ACCEPTED, EDITED, REJECTED):
        raise ValueError(verdict)
    return ReviewDecision(verdict, str(tree.get("reason", "")), str(tree.get("of", "")), edit)

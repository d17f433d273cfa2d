"""What the user thinks of the results of a project: the ground that `review` stands on.

Verdicts are kept in the project's notes as they are given. Plain Python: must not know Qt or
napari.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_samic.doubts import Doubt
from napari_samic.gui.looking import Looked
from napari_samic.gui.opinions import KEY, Edit, Opinion, to_notes
from napari_samic.reviews import ACCEPTED, EDITED, REJECTED

if TYPE_CHECKING:
    from napari_samic.gui.bench import Bench

MARKS = {"": "", ACCEPTED: "✓", EDITED: "✎", REJECTED: "✗"}


class Judging:
    """Results, their order and the opinions on them; parent of `review.Reviewer`.

    Parameters
    ----------
    bench : Bench

    Attributes
    ----------
    looked : Looked or None
        The results, once they were read.
    order : list of Doubt
        The queue, most doubtful first.
    opinions : dict of str to Opinion
    status : str
    listeners : list of callable
        Told "queue", "current", "verdicts", "scores", "status"; and what the reviser tells.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.looked: Looked | None = None
        self.order: list[Doubt] = []
        self.opinions: dict[str, Opinion] = {}
        self.status = "No results yet: propagate first."
        self.listeners: list[Callable[[str], None]] = []
        self._kept: dict[str, tuple[Opinion, dict[str, Any]]] = {}

    @property
    def counts(self) -> dict[str, int]:
        """How many results have each verdict; "" has none."""
        found = dict.fromkeys(MARKS, 0)
        for one in self.order:
            found[self.opinion(one.name).verdict] += 1
        return found

    def opinion(self, name: str) -> Opinion:
        """On a result."""
        return self.opinions.get(name, Opinion())

    def is_outdated(self, name: str, one: Opinion) -> bool:
        """Judged on labels that are no more; an edit stands by itself."""
        return one.verdict in (ACCEPTED, REJECTED) and one.of != self._hash(name)

    def _hash(self, name: str) -> str:
        return self.looked.hashes.get(name, "") if self.looked is not None else ""

    # --- verdicts

    def above(self, score: float) -> list[str]:
        """Results without a verdict whose confidence is at least `score`."""
        facts = self.looked.facts if self.looked is not None else {}
        return [
            one.name
            for one in self.order
            if not self.opinion(one.name).verdict and (facts[one.name].score or 0.0) >= score
        ]

    @property
    def usual_score(self) -> float | None:
        """The median of the scores, rounded down to a hundredth; None if none is known.

        Half of the results have it, so it suits any model, whatever its scores are like.
        """
        facts = self.looked.facts.values() if self.looked is not None else ()
        scores = sorted(one.score for one in facts if one.score is not None)
        middle = scores[len(scores) // 2] if scores else None  # of two the higher: surer
        return None if middle is None else int(100 * middle + 1e-6) / 100

    def accept_above(self, score: float) -> int:
        """Accept all of `above`; gives their number."""
        names = self.above(score)
        for name in names:
            self.judge(name, ACCEPTED, f"confidence from {score:.2f}", tell=False)
        self.remember()
        return len(names)

    def judge(self, name: str, verdict: str, reason: str = "", *, tell: bool = True) -> None:
        """Give a verdict; it counts as long as the label file is the same."""
        before, of = self.opinion(name), self._hash(name)
        self.opinions[name] = replace(before, verdict=verdict, reason=reason, of=of)
        if tell:
            self.remember()

    def keep(self, name: str, edit: Edit | None) -> None:
        """The labels of a result were changed."""
        if edit is None:
            return
        if edit.sha256 and self.opinion(name).edit is None:
            return  # taken back while it was written
        before, of = self.opinion(name), self._hash(name)
        verdict = before.verdict if edit.sha256 else EDITED  # maybe rejected while it was written
        self.opinions[name] = replace(before, verdict=verdict, of=of, edit=edit)
        self.remember()

    def remember(self) -> None:
        """Keep the opinions, and tell."""
        for name, one in self.opinions.items():
            if self._kept.get(name, (None,))[0] is not one:
                self._kept[name] = (one, to_notes({name: one}))
        trees = {n: t for k in self.opinions for n, t in self._kept[k][1].items()}
        self.note(opinions=trees)
        self.tell("verdicts")
        self.bench.tell("review")

    def notes(self) -> dict[str, Any]:
        """What was kept."""
        project = self.bench.project
        found = project.notes.get(KEY) if project is not None else None
        return found if isinstance(found, dict) else {}

    def note(self, **values: Any) -> None:
        """Keep values in the notes of the project."""
        if self.bench.project is not None:
            self.bench.project.notes[KEY] = {**self.notes(), **values}
            self.bench.desk.keeper.note()

    def say(self, text: str) -> None:
        """Tell the user."""
        self.status = text
        self.tell("status")

    def tell(self, what: str) -> None:
        """Let the listeners know what changed."""
        for listener in list(self.listeners):
            listener(what)

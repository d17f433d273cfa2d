"""Review: the queue of results, most doubtful first; showing, judging and using them.

Verdicts are kept in the project's notes as they are given; changes of what is shown are in
`editor`. Plain Python: must not know Qt;
sees napari only through the session.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal, SignalGroup

from napari_samic.core.errors import InputError
from napari_samic.evaluation.quality import QualityFlag
from napari_samic.gui.data import trusted_files
from napari_samic.gui.data.result_files import LabelFiles
from napari_samic.gui.review import jobs, scan
from napari_samic.gui.review.editor import ResultEditor
from napari_samic.gui.review.jobs import Read
from napari_samic.gui.review.result import TOO_LARGE, ReviewedResult, take_reviewed
from napari_samic.gui.review.scan import ScannedResults
from napari_samic.gui.review.verdicts import KEY, Edit, ReviewDecision, from_notes, to_notes
from napari_samic.gui.runner.jobs import Calls, Handle
from napari_samic.gui.session.notices import sentence, sentences
from napari_samic.io.paths import image_of, natural_key, some
from napari_samic.io.reviews import ACCEPTED, EDITED, REJECTED

if TYPE_CHECKING:
    from napari_samic.gui.session.session import Session
    from napari_samic.pipeline.results.reader import StoredResult

MARKS = {"": "", ACCEPTED: "✓", EDITED: "✎", REJECTED: "✗"}


@dataclass(frozen=True)
class ObjectFigures:
    """What the tables tell of one object; None is not known.

    Attributes
    ----------
    image : str
    number : int
        Value in the labels of the image.
    label : int
        Its class.
    """

    image: str
    number: int
    label: int
    area_px: int | None
    brightness: float | None
    score: float | None

    @property
    def text(self) -> str:
        """One line for people."""
        figures = {
            "area": None if self.area_px is None else f"{self.area_px} px",
            "brightness": None if self.brightness is None else f"{self.brightness:.0f}",
            "score": None if self.score is None else f"{self.score:.2f}",
        }
        known = [f"{name} {figure}" for name, figure in figures.items() if figure is not None]
        return f"{self.image}, object {self.number}: {', '.join(known)}"


class ReviewEvents(SignalGroup):
    """What changed; of the result on the screen `ResultEditor.events` tell."""

    queue = Signal()
    current = Signal()
    verdicts = Signal()
    scores = Signal()
    status = Signal()


class ReviewModel:
    """See the module.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    scanned : ScannedResults or None
        The results, once they were read.
    order : list of QualityFlag
        The queue, most doubtful first.
    drawn : frozenset of str
        Results that are not in the queue, since the user drew them.
    decisions : dict of str to ReviewDecision
    status : str
    events : ReviewEvents
    current : str
        Name of the result that is shown; "" if none.
    wanted : (str, int) or None
        Image and number of an object that is to be looked at once it is shown.
    picture : array or None
        Its image, if that is not open in napari.
    editor : ResultEditor
        The result on the screen, and its edits.
    scores : dict of str to dict
        Against ground truth, by image; `total` of all.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.scanned: ScannedResults | None = None
        self.order: list[QualityFlag] = []
        self.drawn: frozenset[str] = frozenset()
        self.decisions: dict[str, ReviewDecision] = {}
        self.status = "No results yet: propagate first."
        self.events = ReviewEvents()
        self._saved_notes: dict[str, tuple[ReviewDecision, dict[str, Any]]] = {}
        self.current = ""
        self.wanted: tuple[str, int] | None = None
        self.picture: Any = None
        self.scores: dict[str, dict[str, float]] = {}
        self.total: dict[str, float] = {}
        self._before: dict[str, ReviewDecision] = {}
        self._outdated: set[str] = set()
        self._scan_message = ""
        self.editor = ResultEditor(session.runner, lambda: session.scheduler.segmenter, self.keep)
        self._scan_handle: Handle | None = None
        self._read_handle: Handle | None = None
        self._is_moving = False

    # --- decisions

    @property
    def counts(self) -> dict[str, int]:
        """How many results have each verdict; "" has none."""
        counts = dict.fromkeys(MARKS, 0)
        for flag in self.order:
            counts[self.decision(flag.name).verdict] += 1
        return counts

    @property
    def class_counts(self) -> dict[str, int]:
        """Objects of each class, by its name, in all results that are not rejected."""
        return self._by_class(label for _, _, label in self._objects())

    @property
    def linked_counts(self) -> dict[str, int]:
        """As `class_counts`, of objects that have one number through the slices of a stack."""
        linked = {
            (image_of(result.label), number, label)
            for result, number, label in self._objects()
            if self._is_linked(result.label)
        }
        return self._by_class(label for _, _, label in linked)

    def _by_class(self, labels: Iterable[int]) -> dict[str, int]:
        counts, classes = Counter(labels), self.session.scheduler.state.classes
        return {classes.style(label).name: counts[label] for label in sorted(counts)}

    def _objects(self) -> Iterator[tuple[StoredResult, int, int]]:
        """Result, number and class of each object that is not rejected."""
        for result in self.scanned.results.images if self.scanned is not None else ():
            decision = self.decision(result.label)
            if decision.verdict == REJECTED:
                continue
            if decision.edit is not None:
                records = decision.edit.objects.items()
                yield from ((result, number, record.label) for number, record in records)
            else:
                rows = result.rows
                yield from ((result, int(row["object"]), int(row["class"])) for row in rows)

    def _is_linked(self, name: str) -> bool:
        """Whether a number is one object in all slices of the stack."""
        made = self.scanned.results.provenance.get(name) if self.scanned is not None else None
        return made is not None and made.is_linked

    def object_figures(self) -> list[ObjectFigures]:
        """Every object as it was segmented; not those of results that are rejected or edited."""
        out = []
        for result in self.scanned.results.images if self.scanned is not None else ():
            decision = self.decision(result.label)
            if decision.verdict == REJECTED or decision.edit is not None or not result.numbered:
                continue
            for row in result.rows:
                area, brightness, score = (
                    float(row[name]) if row.get(name) else None
                    for name in ("area_px", "brightness", "score")
                )
                number, label = int(row["object"]), int(row["class"])
                area_px = None if area is None else int(area)
                out.append(ObjectFigures(result.label, number, label, area_px, brightness, score))
        return out

    def show_object(self, image: str, number: int) -> None:
        """Show a result with one of its objects in the middle."""
        self.wanted = (image, number)
        self.show_result(image)

    def decision(self, name: str) -> ReviewDecision:
        """On a result."""
        return self.decisions.get(name, ReviewDecision())

    def is_outdated(self, name: str, decision: ReviewDecision) -> bool:
        """Judged on labels that are no more; an edit stands by itself."""
        return decision.verdict in (ACCEPTED, REJECTED) and decision.of != self._hash(name)

    def _hash(self, name: str) -> str:
        return self.scanned.hashes.get(name, "") if self.scanned is not None else ""

    # --- the queue

    def scan_results(self) -> None:
        """Read the results of the project anew."""
        project = self.session.project
        if project is None or not project.results_folder.is_dir():
            self.set_status("No results yet: propagate first.")
            return
        if self._scan_handle is not None:
            self._scan_handle.cancel()
        self.decisions = self.decisions or from_notes(self.notes().get("opinions"))
        self.editor.folder = project.folder / "review"
        self.set_status("Reading the results ...")
        calls = Calls(on_done=self._results_scanned, on_error=self._scan_failed)
        folders, may = (project.results_folder, project.references_folder), self._allowing()
        judged = [name for name, decision in self.decisions.items() if decision.verdict]
        job = scan.scan_results(*folders, self.scanned, may, judged)
        self._scan_handle = self.session.runner.start(job, calls, title="SAMIC: reading results")

    def _results_scanned(self, scanned: ScannedResults) -> None:
        self._scan_handle = None
        self.scanned = scanned
        earlier = {n for n in self._outdated if n in scanned.facts and not self.decision(n).verdict}
        outdated = [n for n, decision in self.decisions.items() if self.is_outdated(n, decision)]
        for name in outdated:
            self.decisions[name] = replace(self.decisions[name], verdict="", of="")
        judged = [n for n, decision in self.decisions.items() if decision != ReviewDecision()]
        self.drawn = scan.drawn_names(scanned, self.session.drawing(), judged)
        self.order = [flag for flag in scanned.order if flag.name not in self.drawn]
        self._outdated = earlier | set(outdated)
        if outdated:
            self.save_decisions()
        lines = [_drawn_message(len(self.drawn))] if self.drawn else []
        self._scan_message = " ".join([*lines, *sentences(scanned.notices)])
        self.set_status(self._scan_status)
        self.events.queue.emit()
        wanted = self.current or str(self.notes().get("current", ""))
        if wanted in scanned.facts:
            self.show_result(wanted)
        elif self.order:
            self.show_result(self.order[0].name)

    @property
    def _scan_status(self) -> str:
        """What there is to say of the results, while nothing else is."""
        changed = sorted(self._outdated, key=natural_key)
        return " ".join(filter(None, [_outdated_message(changed), self._scan_message]))

    def _scan_failed(self, error: Exception) -> bool:
        self._scan_handle = None
        self.set_status(str(error))
        return isinstance(error, InputError)

    def clear(self) -> None:
        """Another project: nothing of the one before is left."""
        self.scanned, self.order, self.decisions, self.current = None, [], {}, ""
        self._outdated, self._scan_message = set(), ""
        self.drawn = frozenset()
        self.scores, self.total, self.picture = {}, {}, None
        self.editor.show(None)
        self.events.queue.emit()

    def current_flag(self) -> QualityFlag | None:
        """Of the result that is shown."""
        return next((flag for flag in self.order if flag.name == self.current), None)

    # --- moving

    def move(self, by: int) -> None:
        """To the next (+1) or previous (-1) of the queue."""
        names = [flag.name for flag in self.order]
        if self.current in names:
            place = names.index(self.current) + by
            if 0 <= place < len(names):
                self.show_result(names[place])

    def show_next_undecided(self) -> None:
        """To the most doubtful result after this one that has no verdict, else the first such."""
        names = [flag.name for flag in self.order]
        place = names.index(self.current) if self.current in names else -1
        for name in names[place + 1 :] + names[: max(place, 0)]:
            if not self.decision(name).verdict:
                self.show_result(name)
                return
        self.set_status("Every result has a verdict. Export them.")

    def show_result(self, name: str) -> None:
        """Show a result: its image, its labels, its points."""
        result = self._result(name)
        if result is None or self.session.project is None:
            return
        self.current, self.picture = name, None
        self.note(current=name)
        self.events.current.emit()
        read = self._reader(name, self._allowing())
        is_open = self.session.find(name) is not None
        if read is None and result.image_file:
            self.set_status(
                f"{result.image_file}: you opened no image of this folder yet. Open it to see it."
            )
        if is_open:
            self._is_moving = True
            try:
                self.session.show_image(name)
            finally:
                self._is_moving = False
        edit = self.decision(name).edit
        folder = self.session.project.folder / "review"
        job = jobs.fetch(result, edit, folder, None if is_open else read)
        calls = Calls(on_done=partial(self._result_read, read))
        if self._read_handle is not None:
            self._read_handle.cancel()  # what it would bring is of a result that is left
        self._read_handle = self.session.runner.start(job, calls)

    def _result_read(self, read: Read | None, fetched: tuple[ReviewedResult, Any]) -> None:
        self._read_handle = None
        reviewed, self.picture = fetched
        reviewed = replace(reviewed, first_new=self._first_new(reviewed.name))
        self.editor.label = self.session.scheduler.state.label
        self._before.pop(reviewed.name, None)
        self.editor.show(reviewed, read, is_edit=self.decision(reviewed.name).edit is not None)
        if reviewed.levels is not None:
            self.set_status(sentence(TOO_LARGE))
        self._look_for_painted(reviewed.name)

    def _first_new(self, name: str) -> int:
        """The least number of a new object: no other plane has it if numbers go through planes."""
        results = self.scanned.results if self.scanned is not None else None
        if results is None or not self._is_linked(name):
            return 1
        numbers = {int(row["object"]) for result in results.images for row in result.rows}
        edits = (decision.edit for decision in self.decisions.values())
        numbers |= {number for edit in edits if edit is not None for number in edit.objects}
        return 1 + max(numbers, default=0)

    def _look_for_painted(self, name: str) -> None:
        """What was painted on it in the Propagate step becomes an edit."""
        files = self._files()
        if files is not None and files.edit(name).is_file():
            calls = Calls(on_done=partial(self._painted, name))
            self.session.runner.start(jobs.read_painted(files.edit(name)), calls)

    def _painted(self, name: str, labels: Any) -> None:
        reviewed = self.editor.reviewed
        if reviewed and reviewed.name == name and labels.shape == reviewed.labels.shape:
            self.editor.take_labels(labels)
            self.editor.begin(is_edit=True)  # nothing else knows what was painted there

    def keep(self, name: str, edit: Edit | None) -> None:
        """The labels of a result were changed, and written once the edit has a hash.

        None: all changes were undone, so what was thought of it before holds again.
        """
        if edit is None:
            self.decisions[name] = self._before.pop(name, self.decision(name))
            self.save_decisions()
            return
        self._before.setdefault(name, self.decision(name))
        if edit.sha256 and self.decision(name).edit is None:
            return  # taken back while it was written
        before, of = self.decision(name), self._hash(name)
        verdict = before.verdict if edit.sha256 else EDITED  # maybe rejected while it was written
        self.decisions[name] = replace(before, verdict=verdict, of=of, edit=edit)
        self.save_decisions()
        files = self._files()
        if files is not None and edit.sha256 and self.decision(name).edit == edit:
            files.taken_over(name)
            self.session.events.review.emit()

    def _files(self) -> LabelFiles | None:
        project = self.session.project
        return None if project is None else LabelFiles(project.results_folder, project.notes)

    def follow(self, name: str) -> None:
        """The user moved to another slice, unless it was us."""
        if not self._is_moving and name != self.current and self._result(name) is not None:
            self.show_result(name)

    def _result(self, name: str) -> Any:
        images = self.scanned.results.images if self.scanned is not None else ()
        return next((image for image in images if image.label == name), None)

    def _allowing(self) -> Callable[[Path], bool]:
        """What tells whether an image may be opened unasked."""
        return trusted_files.allowing(
            None if self.session.project is None else self.session.project.folder
        )

    def _reader(self, name: str, may: Callable[[Path], bool]) -> Read | None:
        """How to get the image: from an open layer, else from its file, if it may be opened."""
        location = self.session.find(name)
        if location is not None:
            _, pixels, index = location
            return partial(pixels.image, index)
        result = self._result(name)
        if self.scanned is None or result is None or not result.image_file:
            return None
        if not may(Path(result.image_file)):
            return None
        return partial(jobs.read_file, result, self.scanned.results.stored)

    # --- verdicts

    def undecided_above(self, score: float) -> list[str]:
        """Results without a verdict whose confidence is at least `score`."""
        facts = self.scanned.facts if self.scanned is not None else {}
        return [
            flag.name
            for flag in self.order
            if not self.decision(flag.name).verdict and (facts[flag.name].score or 0.0) >= score
        ]

    @property
    def median_score(self) -> float | None:
        """The median of the scores, rounded down to a hundredth; None if none is known.

        Half of the results have it, so it suits any model, whatever its scores are like.
        """
        facts = self.scanned.facts if self.scanned is not None else {}
        in_queue = (facts[flag.name].score for flag in self.order)
        scores = sorted(score for score in in_queue if score is not None)
        middle = scores[len(scores) // 2] if scores else None  # of two the higher: surer
        return None if middle is None else int(100 * middle + 1e-6) / 100

    def accept_above(self, score: float) -> int:
        """Accept all of `undecided_above`; gives their number."""
        names = self.undecided_above(score)
        for name in names:
            self.judge(name, ACCEPTED, f"confidence from {score:.2f}", tell=False)
        self.save_decisions()
        return len(names)

    def judge(self, name: str, verdict: str, reason: str = "", *, tell: bool = True) -> None:
        """Give a verdict; it counts as long as the label file is the same."""
        before, of = self.decision(name), self._hash(name)
        self.decisions[name] = replace(before, verdict=verdict, reason=reason, of=of)
        if name in self._outdated:
            said = self.status == self._scan_status
            self._outdated.discard(name)
            if said:
                self.set_status(self._scan_status)
        if tell:
            self.save_decisions()

    def save_decisions(self) -> None:
        """Keep the decisions, and tell."""
        for name, decision in self.decisions.items():
            if self._saved_notes.get(name, (None,))[0] is not decision:
                self._saved_notes[name] = (decision, to_notes({name: decision}))
        trees = {n: t for k in self.decisions for n, t in self._saved_notes[k][1].items()}
        self.note(opinions=trees)
        self.events.verdicts.emit()
        self.session.events.review.emit()

    def accept(self) -> None:
        """Keep the labels that are shown, as predicted or as edited."""
        if self.current:
            edited = self.decision(self.current).edit is not None
            self.judge(self.current, EDITED if edited else ACCEPTED)
            self.show_next_undecided()

    def reject(self, reason: str = "") -> None:
        """Leave the result out."""
        if self.current:
            self.judge(self.current, REJECTED, reason)
            self.show_next_undecided()

    def revert(self) -> None:
        """Take edits and verdict back: the labels are as predicted."""
        if self.current:
            self.editor.forget(self.current)
            self.decisions.pop(self.current, None)
            self.save_decisions()
            self.show_result(self.current)

    # --- more

    def make_reference(self) -> None:
        """Give the shown result's points and masks to the annotated images, marked as reference.

        Raises
        ------
        InputError
            Nothing is shown, or it has no object.
        """
        reviewed, result = self.editor.reviewed, self._result(self.current)
        if reviewed is not None:
            reviewed.check_changeable()
        if reviewed is None or result is None or not reviewed.values or not reviewed.numbered:
            raise InputError("this result has no object to learn from. Click on one first.")
        take_reviewed(self.session.scheduler.state, reviewed, result.image_file)
        self.set_status(f"{reviewed.name} is a reference now. Train again to learn from it.")

    def score_against(self, truths: Mapping[str, Any]) -> None:
        """Score all results against label images, by name."""
        if self.scanned is None or self.session.project is None:
            raise InputError("there are no results to score. Propagate first.")
        folder = self.session.project.folder / "review"
        job = jobs.score(self.scanned, truths, dict(self.decisions), folder)
        calls = Calls(on_done=self._scored)
        self.session.runner.start(job, calls, title="SAMIC: scoring")

    def _scored(self, scored: tuple[dict[str, dict[str, float]], dict[str, float], str]) -> None:
        self.scores, self.total, line = scored
        self.set_status(sentence(line))
        self.events.scores.emit()

    def suggest(self) -> None:
        """Show the image that would teach most; the next to annotate.

        Raises
        ------
        InputError
            No results, or no model.
        """
        segmenter = self.session.scheduler.segmenter
        if self.scanned is None or segmenter is None:
            raise InputError("results and a model are needed. Propagate first.")
        may = self._allowing()
        readers = {n: r for n in self.scanned.facts if (r := self._reader(n, may)) is not None}
        annotations = self.session.scheduler.state.annotations
        annotated = [name for name, annotation in annotations.items() if annotation.items]
        rest = [name for name in annotated if name not in readers]
        extra = {n: r for n in rest if (r := self._reader(n, may)) is not None}
        job = jobs.advise(segmenter, {**readers, **extra}, annotated, self.order)
        calls = Calls(on_done=self._suggested)
        self.session.runner.start(job, calls, title="SAMIC: what to annotate next")

    def _suggested(self, name: str) -> None:
        self.set_status(f"Annotate {name} next: doubtful, and least like the references.")
        self.show_result(name)

    def notes(self) -> dict[str, Any]:
        """What was kept."""
        project = self.session.project
        notes = project.notes.get(KEY) if project is not None else None
        return notes if isinstance(notes, dict) else {}

    def note(self, **values: Any) -> None:
        """Keep values in the notes of the project."""
        if self.session.project is not None:
            self.session.project.notes[KEY] = {**self.notes(), **values}
            self.session.scheduler.autosaver.note()

    def set_status(self, text: str) -> None:
        """Tell the user."""
        self.status = text
        self.events.status.emit()

    def close(self) -> None:
        """Nothing is told any more."""
        self.events.disconnect()
        self.editor.events.disconnect()


def _drawn_message(count: int) -> str:
    images = f"{count} image{'s are' if count != 1 else ' is'} your own annotation"
    return f"{images}: not in the queue, and exported as you drew."


def _outdated_message(outdated: list[str]) -> str:
    if not outdated:
        return ""
    count = len(outdated)
    which = f"{count} result{'s' * (count != 1)} changed since the review"
    return f"{which}: {some(outdated)}. Accept or reject again."

"""Train: its state and actions, in plain Python.

What may be trained, how the training goes, and whether the new prompter is taken. Jobs are run by
the session's runner, which tests replace by one without threads. Must not know Qt or napari.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from psygnal import Signal, SignalGroup

from napari_samic.core.errors import InputError, SamicError
from napari_samic.core.settings import (
    LEAST_STEPS,
    AdaptSettings,
    Settings,
    TrainSettings,
    judged_after,
)
from napari_samic.core.types import JobProgress
from napari_samic.gui.data.materialize import OpenReference
from napari_samic.gui.data.project import Project
from napari_samic.gui.runner.jobs import Calls, Handle
from napari_samic.gui.session.notices import sentence, sentences
from napari_samic.gui.train import jobs
from napari_samic.gui.train.jobs import KINDS, PrompterComparison, TrainRequest
from napari_samic.gui.train.progress import EtaEstimator, TrainingHistory

if TYPE_CHECKING:
    from napari_samic.gui.session.session import Session

KEY = "train"
IDLE, RUNNING, STOPPING, CHOOSING = "idle", "running", "stopping", "choosing"
S = TypeVar("S", bound=Settings)


class TrainingEvents(SignalGroup):
    """What changed; "progress" or "history" with each step of a training."""

    state = Signal()
    progress = Signal()
    history = Signal()


class TrainingModel:
    """See the module.

    Parameters
    ----------
    session : Session
    clock : callable
        Seconds.

    Attributes
    ----------
    phase : str
        IDLE, RUNNING, STOPPING (the best so far is being kept), or CHOOSING between two prompters.
    chosen : dict of type to Settings
    history : TrainingHistory
        Of this training, or of the last one.
    eta : EtaEstimator or None
        Of this training.
    comparison : PrompterComparison or None
        While CHOOSING.
    news : str
        What the last training came to.
    events : TrainingEvents
    """

    def __init__(self, session: Session, clock: Callable[[], float] = time.monotonic) -> None:
        self.session, self._clock = session, clock
        self.phase, self.news = IDLE, ""
        self.chosen: dict[type[Settings], Settings] = {kind: kind() for kind in KINDS}
        self.history, self.eta = TrainingHistory(), cast("EtaEstimator | None", None)
        self.comparison: PrompterComparison | None = None
        self.events = TrainingEvents()
        self._stop_event = threading.Event()
        self._handle: Handle | None = None
        self._first, self._deciding, self._resumes = 0, False, False
        self._trains: Project | None = None
        session.events.project.connect(self.open_project)
        self.open_project()

    # --- what may be done

    def of(self, kind: type[S]) -> S:
        """The chosen settings of one kind."""
        return jobs.chosen(self.chosen, kind)

    @property
    def is_busy(self) -> bool:
        """Whether a training is under way."""
        return self.phase in (RUNNING, STOPPING)

    def missing(self) -> str:
        """Why training can't start; "" if it can."""
        epochs, has_model = (
            self.of(TrainSettings).epochs,
            self.session.scheduler.segmenter is not None,
        )
        return _missing(self.session.references(), epochs, has_model=has_model)

    def guide(self) -> str:
        """What to know or do before training."""
        if self.phase == CHOOSING:
            return "Decide which prompter to go on with."
        state = self.session.scheduler.state
        names = {n: state.classes.style(n).name for n in state.classes.labels}
        epochs, references = self.of(TrainSettings).epochs, self.session.references()
        advice = self.missing() or _advice(references, epochs, self.of(AdaptSettings), names)
        return " ".join(filter(None, [advice, state.left_out]))

    @property
    def device(self) -> str:
        """Where the model computes."""
        return str(getattr(self.session.scheduler.segmenter, "device", "") or "not known yet")

    @property
    def can_resume(self) -> bool:
        """Whether the last training can be gone on with."""
        project = self.session.project
        return project is not None and jobs.mark_file(project).exists()

    @property
    def has_prompter(self) -> bool:
        """Whether the project has one in use."""
        project = self.session.project
        return project is not None and project.prompter_file.exists()

    # --- actions

    def choose(self, *settings: Settings) -> None:
        """Take settings for the next training."""
        self.chosen |= {type(section): section for section in settings}
        self._note("settings", jobs.describe(list(self.chosen.values())))
        self.events.state.emit()

    def start(self, *, resume: bool = False) -> None:
        """Train; with `resume`, go on from where the last training ended.

        Raises
        ------
        InputError
            No project, or nothing to learn from.
        """
        if self.is_busy:
            return
        project = self.session.need_project()
        if text := self.missing():
            raise InputError(text)
        images = self.session.reference_images()
        others = self.session.other_images() if self.of(AdaptSettings).adapt_others else None
        model, chosen = self.session.scheduler.state.model, dict(self.chosen)
        self._stop_event = threading.Event()
        request = TrainRequest(
            project, images, model, chosen, others, self._stop_event.is_set, resume
        )
        self._resumes = resume
        if not resume:
            self.history = TrainingHistory()
        self._first = len(self.history.losses)
        self.eta = EtaEstimator(self.of(TrainSettings).epochs, self._clock)
        self._trains, self.phase, self.comparison, self.news = project, RUNNING, None, ""
        calls = Calls(
            on_step=self._stepped, on_done=partial(self._trained, project), on_error=self._failed,
            on_end=self._ended,
        )  # fmt: skip
        self._handle = self.session.runner.start(
            jobs.train(request), calls, title="SAMIC: training"
        )
        self.events.state.emit()

    def stop(self) -> None:
        """End the training and keep what was learned so far, if anything was.

        A fine-tuning that has begun first goes on to the fewest batches that can be used.
        """
        if self.phase != RUNNING:
            return
        self.phase = STOPPING
        if not self.is_short:
            self._stop_event.set()
            if self._handle is not None and not self.has_best:
                self.news = "Stopped before anything was learned: nothing changed."
                self._handle.cancel()
        self.events.state.emit()

    @property
    def is_short(self) -> bool:
        """Whether a fine-tuning has begun that has learned too little yet to be kept."""
        adapts = self.eta is not None and self.eta.phase == "adapt"
        return adapts and self.history.batches and not self.has_best

    @property
    def has_best(self) -> bool:
        """Whether this training has weights that can be kept."""
        phase = self.eta.phase if self.eta is not None else ""
        if self.history.batches and phase == "adapt":
            return max(self.history.losses, default=0) >= LEAST_STEPS
        return phase == "judge" or len(self.history.losses) > self._first

    def take(self, new: bool) -> None:
        """Go on with the new prompter, or with the old one; the other is kept under a number."""
        project = self.session.project
        if project is None or self.phase != CHOOSING or self._deciding:
            return
        self._deciding = True
        job = jobs.accept(project) if new else jobs.refuse(project)
        calls = Calls(on_done=partial(self._taken, project, new), on_end=self._decided)
        self.session.runner.start(job, calls)

    # --- what jobs say

    def _stepped(self, step: JobProgress) -> None:
        if self.eta is not None:
            self.eta.take(step)
        is_point = self.history.take(step)
        if self.phase == STOPPING and not self.is_short:
            self._stop_event.set()
        (self.events.history if is_point else self.events.progress).emit()

    def _trained(self, project: Project, comparison: PrompterComparison) -> None:
        if project is not self.session.project:
            return
        self.comparison, self.phase = comparison, CHOOSING
        self._note("verdict", comparison.to_dict())
        self._note("curves", self.history.to_dict())
        goes_on = self._resumes and not comparison.is_worse  # the old one is the same, stopped
        if goes_on or not comparison.has_old:
            self.take(True)

    def _failed(self, error: Exception) -> bool:
        self.news = str(error) if isinstance(error, SamicError) else "The training failed."
        return False

    def _taken(self, project: Project, new: bool, kept: Path | None) -> None:
        if project is not self.session.project:
            return
        comparison = self.comparison or PrompterComparison()
        other = f" The other one is kept as {kept.name}." if kept is not None else ""
        self.news = f"{_outcome_text(comparison)}{other}" if new else f"Nothing changed.{other}"
        self.phase, self.comparison = IDLE, None
        self._note("verdict", None)
        if new:
            self.session.events.prompter.emit()

    def _decided(self) -> None:
        self._deciding = False
        self.events.state.emit()

    def _ended(self) -> None:
        if self.phase != CHOOSING:
            self.phase = IDLE
        if self._trains is not None:
            jobs.take_orphan(self._trains)  # of one that failed
        if self._trains is not self.session.project:  # another was opened meanwhile
            self.open_project()
        self.events.state.emit()

    # --- project

    def open_project(self) -> None:
        """Show what the open project knows of its last training."""
        project = self.session.project
        if project is None or self.is_busy:
            return
        jobs.take_orphan(project)
        notes = project.notes.get(KEY)
        notes = notes if isinstance(notes, dict) else {}
        self.chosen |= jobs.recalled(notes.get("settings"))
        self.history, self.news = TrainingHistory.from_dict(notes.get("curves")), ""
        waits = jobs.new_file(project).exists()
        comparison = PrompterComparison.from_dict(notes.get("verdict"))
        self.comparison = replace(comparison, has_old=self.has_prompter) if waits else None
        self.phase = CHOOSING if waits else IDLE
        self.events.state.emit()

    def _note(self, name: str, value: Any) -> None:
        project = self.session.project
        if project is not None:
            own = project.notes.get(KEY)
            project.notes[KEY] = {**(own if isinstance(own, dict) else {}), name: value}
            self.session.scheduler.autosaver.note()

    def close(self) -> None:
        """Let go: no job of ours is left."""
        self.events.disconnect()
        if self._handle is not None and self.is_busy:
            self._handle.cancel()
        self.session.events.project.disconnect(self.open_project)


def _outcome_text(comparison: PrompterComparison) -> str:
    """What the training did, and what is to be known of it."""
    text = (
        f"{sentence(comparison.summary)}." if comparison.summary else "The new prompter is in use."
    )
    return " ".join([text, *sentences(comparison.notices)])


def _class_counts(references: Sequence[OpenReference]) -> dict[int, int]:
    """In how many references each class is."""
    labels = [_classes(reference) for reference in references]
    return {n: sum(n in classes for classes in labels) for n in sorted(set().union(*labels))}


def _classes(reference: OpenReference) -> set[int]:
    return {i.label for i in reference.annotation.items if i.is_askable}


def _missing(references: Sequence[OpenReference], epochs: int, *, has_model: bool) -> str:
    """Why training can't start; "" if it can."""
    if not references:
        return "Annotate two images or more in the first step: what you click on is learned."
    if epochs > 0 and max(_class_counts(references).values()) < 2:
        return (
            "Training needs two annotated images that show the same class. With one, set Epochs "
            "to 0: the packaged prompter looks for its objects untrained (one-shot)."
        )
    return "" if has_model else "The model is being loaded."


def _advice(
    references: Sequence[OpenReference],
    epochs: int,
    adapt: AdaptSettings,
    names: Mapping[int, str],
) -> str:
    """What to know before a training that can start."""
    count = f"{len(references)} reference{'s' * (len(references) != 1)}"
    if epochs == 0:
        return f"{count}. No epochs: the packaged prompter looks for their objects untrained."
    images = _class_counts(references)
    lone = [names.get(label, str(label)) for label, n in images.items() if n < 2]
    if lone:
        return (
            f"{count}. Only one shows {', '.join(lone)}: annotate another, so that it is learned."
        )
    if len(references) < 4:
        return f"{count}. From four on, one is kept aside to judge the training."
    if not any(own and all(images[n] > 2 for n in own) for own in map(_classes, references)):
        return f"{count}. To keep one aside to judge the training, annotate a third of its classes."
    least = judged_after(len(references))
    if adapt.adapt and 0 < adapt.adapt_steps < least:
        return f"{count}. {adapt.adapt_steps} batches are not judged: that takes {least} or more."
    return f"{count}. Some are kept aside to judge the training."

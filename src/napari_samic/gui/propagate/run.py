"""The run over all images of a layer or a folder: begins, stops, goes on, and what came of it.

A run that was stopped is over only once its job has closed its files. Plain Python: must not know
Qt or napari.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_samic.core.errors import InputError
from napari_samic.core.types import Job, JobProgress
from napari_samic.gui.propagate import jobs as work
from napari_samic.gui.propagate.progress import Progress, ThroughputMeter
from napari_samic.gui.runner.jobs import Calls, Handle
from napari_samic.gui.session.notices import RESCALE, in_words, sentences

if TYPE_CHECKING:
    from napari_samic.gui.propagate.results import ResultStore
    from napari_samic.gui.session.session import Session

TITLE = "SAMIC: propagating"


class PropagationRun:
    """See the module.

    Parameters
    ----------
    session : Session
    store : ResultStore
        Where the results are.
    request : callable
        Says what is to be done, with the settings and the prompter of now; takes `anew`.

    Attributes
    ----------
    folder : Path or None
        Images of this folder; None: all slices of the chosen layer.
    anew : bool
        Do again what has a result but was neither accepted nor edited.
    state : str
        "idle", "running" or "stopping".
    status : str
        What is going on, or what came of it.
    failures : dict of str to str
        Image, and the line that says why.
    finished : dict of str to str
        Image, and what was found, in the order of the run.
    paths : list of Path
        Images of the run, once they are known.
    changed : Signal
        Of any of these.
    """

    changed = Signal()

    def __init__(
        self,
        session: Session,
        store: ResultStore,
        request: Callable[[bool], work.PropagateRequest],
    ) -> None:
        self.session, self.store, self._request = session, store, request
        self.folder: Path | None = None
        self.anew = False
        self.state, self.status = "idle", ""
        self.failures: dict[str, str] = {}
        self.finished: dict[str, str] = {}
        self.paths: list[Path] = []
        self._names: frozenset[str] = frozenset()
        self.stopped = False
        self._meter = ThroughputMeter()
        self._handle: Handle | None = None
        self._unfinished = ""

    @property
    def progress(self) -> Progress:
        """How far, how fast, how long."""
        return self._meter.progress

    @property
    def can_resume(self) -> bool:
        """Whether the last run was stopped before its end."""
        return self.state == "idle" and self.stopped

    # --- actions

    def choose(self, folder: Path | None) -> None:
        """Propagate to a folder, or (None) to the slices of the chosen layer."""
        if self.state == "idle" and folder != self.folder:
            self.folder, self.stopped, self.status = folder, False, ""
            self.failures, self.finished = {}, {}
            self._meter = ThroughputMeter()
            self.changed.emit()

    def again(self, on: bool) -> None:
        """Do results again that were neither accepted nor edited, or leave them."""
        self.anew = on
        self.changed.emit()

    def start(self) -> None:
        """Begin, or go on where the last run was stopped.

        Raises
        ------
        InputError
            No project, prompter or image; or a run is under way.
        SettingsError
            Options that can't act together.
        """
        if self.state != "idle":
            raise InputError("A run is under way. Wait for its end, or cancel it.")
        request, images = self._request(self.anew), self._images()
        results = self.store.need_results()
        self._begin(work.propagate(self._note_paths(images), results, request))

    def _images(self) -> Job[list[Path]]:
        if self.folder is not None:
            return work.of_folder(self.folder)
        return self.session.images()

    def _note_paths(self, images: Job[list[Path]]) -> Job[list[Path]]:
        self.paths = yield from images
        return self.paths

    def _begin(self, job: Job[Any]) -> None:
        self.state, self.stopped, self._unfinished = "running", False, ""
        self.status = "Preparing ..."
        self.failures, self.finished, self._names = {}, {}, frozenset()
        self._meter = ThroughputMeter()
        calls = Calls(
            on_step=self._stepped, on_done=self._done, on_error=self._failed, on_end=self._ended
        )
        self._handle = self.session.runner.start(job, calls, title=TITLE)
        self.changed.emit()

    def cancel(self) -> None:
        """Stop after the image that is being done; what is done stays."""
        if self.state == "running" and self._handle is not None:
            self.state, self.stopped = "stopping", True
            self.status = "Stopping after this image ..."
            self._handle.cancel()
            self.changed.emit()

    def leave_project(self) -> None:
        """Another project is open: what is done stays in the one before."""
        self.cancel()
        self.folder, self.anew, self.stopped = None, False, False
        self.failures, self.finished, self.paths = {}, {}, []
        self._names = frozenset()
        self._meter = ThroughputMeter()
        if self.state == "idle":
            self.status = ""
        self.changed.emit()

    # --- the job

    def _stepped(self, step: JobProgress) -> None:
        data = step.data
        if self.state != "running":
            return
        if isinstance(step, work.FilesStep):
            self._names = step.names
        if "plane" in data or "skipped" in data:
            self._image_done(step)
        elif step.message:
            of = f" ({step.done} of {step.total})" if step.total > 1 and step.done else ""
            self.status = f"{step.message.capitalize()}{of} ..."
        self.changed.emit()

    def _image_done(self, step: JobProgress) -> None:
        data, label = step.data, step.data.get("plane", "")
        skipped, failed = int(data.get("skipped", 0)), int("failure" in data)
        self._meter.count(step.done, step.total, skipped=skipped, failed=failed)
        self.status = self.progress.text
        if failed:
            self.failures[label] = in_words(data["failure"])
        elif label:
            self.finished[label] = data["caption"]
            if self.anew:
                self.anew = False  # they are set aside: to go on is to do the rest
            if self.folder is None:
                self.store.add_result(label, data["labels"])

    def _done(self, outcome: Any) -> None:
        self.failures = {name: in_words(why) for name, why in outcome.failures.items()}
        new, before, bad = len(outcome.done), len(outcome.skipped), len(self.failures)
        parts = [f"{new} image{'s' * (new != 1)} done"]
        parts += [f"{before} had a result"] if before else []
        parts += [f"{bad} failed"] if bad else []
        is_other = any(f"'{RESCALE}'" in why for why in self.failures.values())
        way_on = [f"Of another depth or scale: tick '{RESCALE}'."] if is_other else []
        pixels = self.session.pixels
        if self.folder is None and pixels is not None and pixels.is_large:
            way_on.append("An image this large is looked at here, not painted on.")
        self.status = " ".join([", ".join(parts) + ".", *way_on, *sentences(outcome.notices)])
        self._unfinished = self.status

    def _failed(self, error: Exception) -> bool:
        self.stopped = self.progress.done > 0
        self.status = self._unfinished = f"Stopped: {error}"
        return False

    def _ended(self) -> None:
        if self._handle is None:
            return
        self._handle, self.state = None, "idle"
        if self.stopped and not self._unfinished:
            self.status = self._stop_message()
        self.session.events.results.emit()
        self.changed.emit()

    def _stop_message(self) -> str:
        """By the files: the image that was being done while the user cancelled was finished."""
        results, names = self.store.results, self._names
        if results is None or not names:
            return "Stopped before the first image."
        return f"Stopped: {len(names & results.names())} of {len(names)} images have a result."

"""Between the state and the jobs: which request is made when, and encoding ahead.

Clicks come first: they stop encoding ahead, which goes on once all are answered. Knows no Qt and no
napari: jobs are run by a `runner.jobs.Runner`, which tests replace by one without threads.
"""

from __future__ import annotations

from functools import partial

from psygnal import Signal, SignalGroup

from napari_samic.core.types import JobProgress, Segmenter
from napari_samic.gui.data.autosave import AutoSaver
from napari_samic.gui.data.layer_pixels import LayerPixels
from napari_samic.gui.runner.jobs import Calls, Handle, Runner
from napari_samic.gui.session import jobs
from napari_samic.gui.session.jobs import AnswerStep, ImageSummary, SummaryStep
from napari_samic.gui.state.annotator import AnnotationModel
from napari_samic.gui.state.image_annotation import ImageAnnotation
from napari_samic.gui.state.objects import Hint, MaskCandidates
from napari_samic.gui.state.requests import SegmentationRequest


class SchedulerEvents(SignalGroup):
    """What changed: the status or the hint; a request was begun, or answered.

    "requested" is of an image that is already encoded; "answered" comes once there is a mask, or
    none will come.
    """

    status = Signal()
    hint = Signal()
    requested = Signal()
    answered = Signal()


class PromptScheduler:
    """See the module.

    Parameters
    ----------
    runner : Runner

    Attributes
    ----------
    state : AnnotationModel
    segmenter : Segmenter or None
    pixels : LayerPixels or None
        Of the chosen image layer.
    index : tuple of int
        The slice that is shown.
    status : str
        What is going on, for the user.
    hint : Hint or None
        The overlay, while it is switched on and known.
    autosaver : AutoSaver
        Saves and loads.
    events : SchedulerEvents
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.state = AnnotationModel(self._ask)
        self.state.events.prompts.connect(self._prompts_changed)
        self.segmenter: Segmenter | None = None
        self.pixels: LayerPixels | None = None
        self.index: tuple[int, ...] = ()
        self.status = "Choose an image."
        self.hint: Hint | None = None
        self.events = SchedulerEvents()
        self.autosaver = AutoSaver(self.state, runner, self._set_status, lambda: self._asking)
        self._asking = False
        self._queue: dict[tuple[str, int], SegmentationRequest] = {}
        self._preparing: Handle | None = None
        self._loading: Handle | None = None
        self._encoded: set[str] = set()
        self._summaries: dict[str, ImageSummary] = {}
        self._hinting: Handle | None = None
        self._wants_hint = False

    # --- model

    def choose_model(self, name: str) -> None:
        """Load a segmenter; until it is there, the one before answers."""
        if self._loading is not None:
            self._loading.cancel()
        self._set_status(f"Loading {name} ...")
        calls = Calls(on_done=partial(self._loaded, name), on_error=self._not_loaded)
        # no title: napari's list of activities takes half a second to open, and the status says it
        self._loading = self.runner.start(jobs.open_model(name), calls)

    def _loaded(self, name: str, segmenter: Segmenter) -> None:
        self._loading = None
        self.segmenter = segmenter
        self._encoded.clear()
        self.state.set_model(name)
        self.prepare()
        self._next()
        self._refresh_hint()

    def _not_loaded(self, error: Exception) -> bool:
        self._loading = None
        kept = self.state.model
        self._set_status(
            f"That model can't be used; {kept} answers." if kept else "No model is loaded."
        )
        del error
        return False

    # --- image

    def show(self, pixels: LayerPixels, index: tuple[int, ...]) -> None:
        """A slice of an image layer is on the screen; `prepare` encodes it."""
        if pixels is not self.pixels:
            self._encoded.clear()
            self._summaries.clear()
        self._stop_preparing()
        self.pixels, self.index = pixels, index
        plane = pixels.plane(index)
        self._copy_summary(self.state.open_image(plane.label, pixels.shape, str(plane.path or "")))

    def leave(self) -> None:
        """No image is on the screen that can be annotated."""
        self._stop_preparing()
        self.pixels = None
        self.state.close_image()
        self._set_status("Choose an image.")

    def prepare(self, *, encode: bool = True) -> None:
        """Read and encode what is shown, and the next slices, unless a click is being answered.

        Parameters
        ----------
        encode : bool
            Else only what is shown is read, so that its annotation knows normalisation and hash.
        """
        self._stop_preparing()
        if self.pixels is None or self._asking:
            return
        if not self.pixels.is_clicked:
            self._set_status(self._ready())
            return
        wanted = [self.index, *(self.pixels.after(self.index) if encode else ())]
        ready = self._encoded if encode else self._summaries
        todo = [i for i in wanted if self.pixels.label(i) not in ready]
        if not todo:
            self._set_status(self._ready())
            return
        self._refresh_hint()
        if self.index in todo:
            self._set_status("Looking at the image ...")
        segmenter = self.segmenter if encode else None
        job = jobs.prepare(segmenter, self.pixels, todo)
        calls = Calls(on_step=partial(self._prepared, self.pixels, segmenter))
        self._preparing = self.runner.start(job, calls)

    def _prepared(
        self, pixels: LayerPixels, segmenter: Segmenter | None, step: JobProgress
    ) -> None:
        if not isinstance(step, SummaryStep) or pixels is not self.pixels:
            return
        summary = step.summary
        name = pixels.label(summary.index)
        if segmenter is not None and segmenter is self.segmenter:
            self._encoded.add(name)
        self._summaries[name] = summary
        if (annotation := self.state.annotations.get(name)) is not None:
            self._copy_summary(annotation)
        if summary.index == self.index:
            self._set_status(self._ready())

    def _copy_summary(self, annotation: ImageAnnotation) -> None:
        """Let an image have what is known of its pixels, also if that was before it was shown."""
        if (summary := self._summaries.get(annotation.name)) is not None:
            annotation.sha256, annotation.normalization = summary.sha256, summary.normalization

    def _stop_preparing(self) -> None:
        if self._preparing is not None:
            self._preparing.cancel()
            self._preparing = None

    def _ready(self) -> str:
        if self.pixels is not None and not self.pixels.is_clicked:
            return "Too large to click in: {} x {} pixels.".format(*self.pixels.shape)
        if self.segmenter is None:
            return "Loading the model ..." if self._loading else "No model is loaded."
        device = getattr(self.segmenter, "device", "")
        return f"Ready: {self.state.model}" + (f" on {device}" if device else "")

    # --- requests

    def _ask(self, request: SegmentationRequest) -> None:
        if self.pixels is not None and not self.pixels.is_clicked:
            self.state.refuse(request)
            return
        self._queue.pop((request.image_name, request.number), None)
        self._queue[request.image_name, request.number] = request
        self._next()

    def _next(self) -> None:
        """Make the newest request that still counts, unless one is under way."""
        if self._asking or self.segmenter is None or self.pixels is None:
            return
        while self._queue:
            _, request = self._queue.popitem()
            if self.state.is_wanted(request):
                self._stop_preparing()
                self._start(request, self.segmenter, self.pixels)
                return
        if self._preparing is None:
            self.prepare()

    def _start(
        self, request: SegmentationRequest, segmenter: Segmenter, pixels: LayerPixels
    ) -> None:
        self._asking = True
        if pixels.label(self.index) in self._encoded:
            self.events.requested.emit()
        read = partial(pixels.image, self.index)
        job = jobs.answer(segmenter, read, request.prompts, request.model)
        calls = Calls(
            on_step=partial(self._answered_first, request),
            on_done=partial(self._answered, request),
            on_error=partial(self._unanswered, request),
            on_end=self._request_ended,
        )
        self.runner.start(job, calls)

    def _answered_first(self, request: SegmentationRequest, step: JobProgress) -> None:
        if isinstance(step, AnswerStep):
            self.state.receive(request, step.answer, final=False)
            self.events.answered.emit()

    def _answered(self, request: SegmentationRequest, answer: MaskCandidates) -> None:
        if self.state.receive(request, answer) and not self._queue:
            self._refresh_hint()
        self.events.answered.emit()

    def _unanswered(self, request: SegmentationRequest, error: Exception) -> bool:
        del error
        self.state.refuse(request)
        self.events.answered.emit()
        return False

    def _request_ended(self) -> None:
        self._asking = False
        self._next()
        if not self._asking:
            self.autosaver.flush()

    @property
    def is_busy(self) -> bool:
        """Whether a click is being answered."""
        return self._asking

    # --- hint

    @property
    def can_hint(self) -> bool:
        """Whether the model lets its embedding be summary."""
        return self.segmenter is None or hasattr(self.segmenter, "embedding")

    def show_hint(self, on: bool) -> None:
        """Switch the overlay on or off."""
        self._wants_hint = on
        if not on:
            self.hint = None
            self.events.hint.emit()
        self._refresh_hint()

    def _refresh_hint(self) -> None:
        has_image = self.pixels is not None and self.pixels.is_clicked
        ready = self._wants_hint and has_image and self.state.annotation is not None
        if self._hinting is not None:
            self._hinting.cancel()
            self._hinting = None
        if not ready or self.segmenter is None or not self.can_hint or self.pixels is None:
            return
        read = partial(self.pixels.image, self.index)
        job = jobs.explore(self.segmenter, read, self._object_confidence())
        self._hinting = self.runner.start(job, Calls(on_done=self._hinted))

    def _object_confidence(self) -> jobs.ObjectConfidence:
        annotation = self.state.annotation
        if annotation is None:
            return jobs.ObjectConfidence()
        item = annotation.item()
        others = tuple(i.mask for i in annotation.items if i is not item and i.mask is not None)
        if item is None or item.answer is None:
            return jobs.ObjectConfidence((), others)
        first = item.answer.masks[item.choice]
        return jobs.ObjectConfidence(
            (first, *(m for m in item.answer.masks if m is not first)), others
        )

    def _hinted(self, hint: Hint) -> None:
        self._hinting = None
        self.hint = hint if self._wants_hint else None
        self.events.hint.emit()

    # --- the end

    def close(self) -> None:
        """Stop all work; prompts that were not saved stay for recovery."""
        self.runner.close()
        self.autosaver.close()
        self.events.disconnect()
        self.state.events.disconnect()

    def _prompts_changed(self) -> None:
        if not self.state.is_waiting:
            self._refresh_hint()

    def _set_status(self, text: str) -> None:
        self.status = text
        self.events.status.emit()

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
from napari_samic.gui.session.jobs import AnswerStep, ImageSummary, SeenStep
from napari_samic.gui.state.annotator import AnnotationModel
from napari_samic.gui.state.image_annotation import ImageAnnotation
from napari_samic.gui.state.objects import Hint, MaskCandidates
from napari_samic.gui.state.requests import SegmentationRequest


class SchedulerEvents(SignalGroup):
    """What changed: the status or the hint; a request was begun, or answered.

    "asked" is of an image that is already encoded; "answered" comes once there is a mask, or none
    will come.
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
        self.autosaver = AutoSaver(self.state, runner, self._say, lambda: self._asking)
        self._asking = False
        self._queue: dict[tuple[str, int], SegmentationRequest] = {}
        self._ahead: Handle | None = None
        self._loading: Handle | None = None
        self._seen: set[str] = set()
        self._facts: dict[str, ImageSummary] = {}
        self._hinting: Handle | None = None
        self._wants_hint = False

    # --- model

    def choose_model(self, name: str) -> None:
        """Load a segmenter; until it is there, the one before answers."""
        if self._loading is not None:
            self._loading.cancel()
        self._say(f"Loading {name} ...")
        calls = Calls(on_done=partial(self._loaded, name), on_error=self._not_loaded)
        self._loading = self.runner.start(
            jobs.open_model(name), calls, title="SAMIC: loading the model"
        )

    def _loaded(self, name: str, segmenter: Segmenter) -> None:
        self._loading = None
        self.segmenter = segmenter
        self._seen.clear()
        self.state.set_model(name)
        self.look()
        self._next()
        self._hint_again()

    def _not_loaded(self, error: Exception) -> bool:
        self._loading = None
        kept = self.state.model
        self._say(f"That model can't be used; {kept} answers." if kept else "No model is loaded.")
        del error
        return False

    # --- image

    def show(self, pixels: LayerPixels, index: tuple[int, ...]) -> None:
        """A slice of an image layer is on the screen; `look` encodes it."""
        if pixels is not self.pixels:
            self._seen.clear()
            self._facts.clear()
        self._stop_looking()
        self.pixels, self.index = pixels, index
        plane = pixels.plane(index)
        self._note(self.state.open_page(plane.label, pixels.shape, str(plane.path or "")))

    def leave(self) -> None:
        """No image is on the screen that can be annotated."""
        self._stop_looking()
        self.pixels = None
        self.state.close_page()
        self._say("Choose an image.")

    def look(self, *, encode: bool = True) -> None:
        """Read and encode what is shown, and the next slices, unless a click is being answered.

        Parameters
        ----------
        encode : bool
            Else only what is shown is read, so that its annotation knows normalisation and hash.
        """
        self._stop_looking()
        if self.pixels is None or self._asking:
            return
        wanted = [self.index, *(self.pixels.after(self.index) if encode else ())]
        ready = self._seen if encode else self._facts
        todo = [i for i in wanted if self.pixels.label(i) not in ready]
        if not todo:
            self._say(self._ready())
            return
        self._hint_again()
        if self.index in todo:
            self._say("Looking at the image ...")
        segmenter = self.segmenter if encode else None
        job = jobs.look_at(segmenter, self.pixels, todo)
        calls = Calls(on_step=partial(self._looked, self.pixels, segmenter))
        self._ahead = self.runner.start(job, calls, title="SAMIC: encoding" if encode else "")

    def _looked(self, pixels: LayerPixels, segmenter: Segmenter | None, step: JobProgress) -> None:
        if not isinstance(step, SeenStep) or pixels is not self.pixels:
            return
        seen = step.seen
        name = pixels.label(seen.index)
        if segmenter is not None and segmenter is self.segmenter:
            self._seen.add(name)
        self._facts[name] = seen
        if (annotation := self.state.annotations.get(name)) is not None:
            self._note(annotation)
        if seen.index == self.index:
            self._say(self._ready())

    def _note(self, annotation: ImageAnnotation) -> None:
        """Let an image have what is known of its pixels, also if that was before it was shown."""
        if (seen := self._facts.get(annotation.name)) is not None:
            annotation.sha256, annotation.normalisation = seen.sha256, seen.normalisation

    def _stop_looking(self) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
            self._ahead = None

    def _ready(self) -> str:
        if self.segmenter is None:
            return "Loading the model ..." if self._loading else "No model is loaded."
        device = getattr(self.segmenter, "device", "")
        return f"Ready: {self.state.model}" + (f" on {device}" if device else "")

    # --- questions

    def _ask(self, request: SegmentationRequest) -> None:
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
                self._stop_looking()
                self._start(request, self.segmenter, self.pixels)
                return
        if self._ahead is None:
            self.look()

    def _start(
        self, request: SegmentationRequest, segmenter: Segmenter, pixels: LayerPixels
    ) -> None:
        self._asking = True
        if pixels.label(self.index) in self._seen:
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
            self._hint_again()
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

    # --- hint

    @property
    def can_hint(self) -> bool:
        """Whether the model lets its embedding be seen."""
        return self.segmenter is None or hasattr(self.segmenter, "embedding")

    def show_hint(self, on: bool) -> None:
        """Switch the overlay on or off."""
        self._wants_hint = on
        if not on:
            self.hint = None
            self.events.hint.emit()
        self._hint_again()

    def _hint_again(self) -> None:
        ready = self._wants_hint and self.pixels is not None and self.state.annotation is not None
        if self._hinting is not None:
            self._hinting.cancel()
            self._hinting = None
        if not ready or self.segmenter is None or not self.can_hint or self.pixels is None:
            return
        read = partial(self.pixels.image, self.index)
        job = jobs.explore(self.segmenter, read, self._doubt())
        self._hinting = self.runner.start(job, Calls(on_done=self._hinted))

    def _doubt(self) -> jobs.ObjectConfidence:
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
            self._hint_again()

    def _say(self, text: str) -> None:
        self.status = text
        self.events.status.emit()

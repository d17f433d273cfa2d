"""What would be found now: a small network, fitted anew to what is annotated, looks at the slice.

It learns in a second what `train` learns in minutes, and less well; it tells whether further
references are needed. Beside the shown slice it looks at a few others. An image that is marked as a
reference counts as annotated to its last object, others as annotated in part. Clicks come first:
they end its work, which begins again when they are answered. Knows no Qt and no napari.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from psygnal import Signal

from napari_samic.core.errors import SamicError
from napari_samic.core.types import JobProgress
from napari_samic.gui.canvas.style import rgba
from napari_samic.gui.data.layer_pixels import LayerPixels
from napari_samic.gui.data.materialize import OpenReference
from napari_samic.gui.runner.jobs import Calls, Handle, Runner
from napari_samic.gui.session import jobs
from napari_samic.gui.session.jobs import LiveReference, LiveResult, LiveStep
from napari_samic.gui.session.scheduler import PromptScheduler
from napari_samic.gui.state.thumbnails import Thumb

OTHERS = 3
"""Slices that are looked at beside the shown one: as many as fit side by side."""


class LivePreview:
    """See the module.

    Parameters
    ----------
    runner : Runner
    scheduler : PromptScheduler
    references : callable
        The annotated images and their open slices.

    Attributes
    ----------
    is_on : bool
    result : LiveResult or None
        Of the shown slice, while it is switched on and known.
    thumbs : dict of tuple of int to Thumb
        Some other slices of the shown image that are not annotated, with what is found in them.
    status : str
        What it does or found, for the user; "" if it is off.
    changed : Signal
        Of any of these.
    """

    changed = Signal()

    def __init__(
        self,
        runner: Runner,
        scheduler: PromptScheduler,
        references: Callable[[], Sequence[OpenReference]],
    ) -> None:
        self._runner, self._scheduler, self._open_references = runner, scheduler, references
        self.is_on, self.status = False, ""
        self.result: LiveResult | None = None
        self.thumbs: dict[tuple[int, ...], Thumb] = {}
        self._pixels: LayerPixels | None = None
        self._handle: Handle | None = None
        self._stop = threading.Event()
        self._inputs: tuple[Any, ...] = ()
        self._kept: tuple[Any, dict[str, Any]] = (None, {})
        scheduler.state.events.prompts.connect(self.pause)

    def switch(self, on: bool) -> None:
        """Begin to look, or take it away."""
        self.is_on = on
        self.thumbs = {}
        self.forget()
        self.refresh()

    def forget(self) -> None:
        """Take away what was found: another slice is shown."""
        self.pause()
        self._inputs = ()
        if self._scheduler.pixels is not self._pixels:
            self.thumbs = {}
        self._show(None, "")

    def pause(self) -> None:
        """End the work, for a click."""
        self._stop.set()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self._inputs = ()

    def refresh(self) -> None:
        """Fit and look again, if the slice or what is annotated is not what it was."""
        scheduler = self._scheduler
        segmenter, pixels = scheduler.segmenter, scheduler.pixels
        if not self.is_on or segmenter is None or pixels is None or scheduler.is_busy:
            return
        if not pixels.is_clicked:
            self._show(None, "Live: this image has too many pixels to be looked at as a whole.")
            return
        references = self._references()
        inputs = (segmenter, pixels, scheduler.index, references)
        if inputs == self._inputs:
            return
        self.pause()
        self._inputs, self._stop = inputs, threading.Event()
        others = self._others(pixels)
        known = self.thumbs if pixels is self._pixels else {}
        self.thumbs = {i: known[i] for i in others if i in known}
        self._pixels = pixels
        if not references:
            self._show(None, "Live: annotate an object first.")
            return
        self._show(self.result, "Live: looking ...")
        if self._kept[0] is not segmenter:
            self._kept = (segmenter, {})
        classes = scheduler.state.classes
        colors = {n: rgba(classes.style(n).color, 1.0) for n in classes.labels}
        job = jobs.live(
            segmenter,
            references,
            pixels,
            [scheduler.index, *others],
            colors,
            self._stop.is_set,
            self._kept[1],
        )
        calls = Calls(
            on_step=self._found,
            on_error=self._failed,
            on_end=partial(self._ended, self._stop),
        )
        self._handle = self._runner.start(job, calls)

    def _references(self) -> tuple[LiveReference, ...]:
        out = []
        for reference in self._open_references():
            annotation, pixels = reference.annotation, reference.pixels
            labels = {item.number: item.label for item in annotation.items}
            painted = annotation.painted()
            if pixels is not None and painted:
                masks = tuple(mask for _, mask in painted)
                kinds = tuple(labels[number] for number, _ in painted)
                is_whole = annotation.is_reference
                out.append(LiveReference(pixels, reference.index, masks, kinds, is_whole))
        return tuple(out)

    def _show(self, result: LiveResult | None, status: str) -> None:
        self.result, self.status = result, status
        self.changed.emit()

    def _others(self, pixels: LayerPixels) -> list[tuple[int, ...]]:
        """Slices from all over the stack on which nothing is annotated."""
        annotations, out = self._scheduler.state.annotations, []
        for index in pixels.sample():
            annotation = annotations.get(pixels.label(index))
            if index != self._scheduler.index and not (annotation and annotation.items):
                out.append(index)
        picks = np.linspace(0, len(out) - 1, min(len(out), OTHERS)).round().astype(int)
        return [out[i] for i in picks]

    def _found(self, step: JobProgress) -> None:
        if not isinstance(step, LiveStep):
            return
        if step.thumb is None:
            count = step.result.count
            self._show(step.result, f"Live: {count} object{'s' * (count != 1)} here.")
        else:
            self.thumbs = dict(sorted({**self.thumbs, step.index: step.thumb}.items()))
            self.changed.emit()

    def _failed(self, error: Exception) -> bool:
        self._show(None, f"Live: {error}")
        return isinstance(error, SamicError)

    def _ended(self, stop: threading.Event) -> None:
        if stop is self._stop:
            self._handle = None

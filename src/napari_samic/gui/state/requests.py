"""Requests to the model and which of their answers still count.

Of one object only the newest request counts, so a late answer to an older click is dropped.
Plain Python: knows no thread, no Qt, no napari, no model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from napari_samic.core.types import Prompts
from napari_samic.gui.state.image_annotation import ImageAnnotation
from napari_samic.gui.state.objects import AnnotatedObject, MaskCandidates


@dataclass(frozen=True, eq=False)
class SegmentationRequest:
    """Please segment one object."""

    image_name: str
    number: int
    prompts: Prompts
    model: str


class RequestTracker:
    """The requests under way.

    Parameters
    ----------
    ask : callable
        The port: takes a request and returns at once.

    Attributes
    ----------
    model : str
        Whose answers count.
    """

    def __init__(self, ask: Callable[[SegmentationRequest], None]) -> None:
        self.model = ""
        self._ask = ask
        self._newest: dict[tuple[str, int], SegmentationRequest] = {}

    def submit(self, annotation: ImageAnnotation, item: AnnotatedObject) -> None:
        """Ask for an object; earlier requests about it no longer count."""
        self.forget(annotation, item.number)
        if item.is_askable:
            request = SegmentationRequest(annotation.name, item.number, item.prompts(), self.model)
            self._newest[annotation.name, item.number] = request
            self._ask(request)

    def missing(self, annotation: ImageAnnotation) -> None:
        """Ask for every object of an image that this model has not answered, nor a user drawn."""
        for item in annotation.items:
            is_answered = item.answer is not None and item.answer.model == self.model
            if item.drawn is None and not is_answered:
                self.submit(annotation, item)

    def forget(self, annotation: ImageAnnotation, number: int) -> None:
        """Let no request about this object count any more."""
        self._newest.pop((annotation.name, number), None)

    def forget_all(self) -> None:
        """Let no request count any more."""
        self._newest.clear()

    def is_open(self, annotation: ImageAnnotation, number: int) -> bool:
        """Whether an answer for this object is awaited."""
        return (annotation.name, number) in self._newest

    def counts(self, request: SegmentationRequest) -> bool:
        """Whether an answer to this request is still awaited."""
        newest = self._newest.get((request.image_name, request.number))
        return newest is request and request.model == self.model

    def close(self, request: SegmentationRequest) -> None:
        """The request was answered to the end, or failed."""
        if self.counts(request):
            del self._newest[request.image_name, request.number]

    def answered(self, item: AnnotatedObject, answer: MaskCandidates) -> AnnotatedObject:
        """The object with its answer; confidences of another model are left behind."""
        before = item.answer
        changed = before is not None and before.model != answer.model
        choice = item.choice if before is not None and not changed else 0
        history = () if changed else item.history
        choice = min(choice, len(answer.masks) - 1)
        return replace(item, answer=answer, choice=choice, history=history, before=None)

"""Questions to the model and which of their answers still count.

Of one object only the newest question counts, so a late answer to an older click is dropped.
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

    page: str
    number: int
    prompts: Prompts
    model: str


class RequestTracker:
    """The questions under way.

    Parameters
    ----------
    ask : callable
        The port: takes a Question and returns at once.

    Attributes
    ----------
    model : str
        Whose answers count.
    """

    def __init__(self, ask: Callable[[SegmentationRequest], None]) -> None:
        self.model = ""
        self._ask = ask
        self._newest: dict[tuple[str, int], SegmentationRequest] = {}

    def submit(self, page: ImageAnnotation, item: AnnotatedObject) -> None:
        """Ask for an object; earlier questions about it no longer count."""
        self.forget(page, item.number)
        if item.is_askable:
            question = SegmentationRequest(page.name, item.number, item.prompts(), self.model)
            self._newest[page.name, item.number] = question
            self._ask(question)

    def missing(self, page: ImageAnnotation) -> None:
        """Ask for every object of a page that this model has not answered."""
        for item in page.items:
            if item.answer is None or item.answer.model != self.model:
                self.submit(page, item)

    def forget(self, page: ImageAnnotation, number: int) -> None:
        """Let no question about this object count any more."""
        self._newest.pop((page.name, number), None)

    def forget_all(self) -> None:
        """Let no question count any more."""
        self._newest.clear()

    def is_open(self, page: ImageAnnotation, number: int) -> bool:
        """Whether an answer for this object is awaited."""
        return (page.name, number) in self._newest

    def counts(self, question: SegmentationRequest) -> bool:
        """Whether an answer to this question is still awaited."""
        newest = self._newest.get((question.page, question.number))
        return newest is question and question.model == self.model

    def close(self, question: SegmentationRequest) -> None:
        """The question was answered to the end, or failed."""
        if self.counts(question):
            del self._newest[question.page, question.number]

    def answered(self, item: AnnotatedObject, answer: MaskCandidates) -> AnnotatedObject:
        """The object with its answer; confidences of another model are left behind."""
        before = item.answer
        changed = before is not None and before.model != answer.model
        choice = item.choice if before is not None and not changed else 0
        history = () if changed else item.history
        choice = min(choice, len(answer.masks) - 1)
        return replace(item, answer=answer, choice=choice, history=history, before=None)

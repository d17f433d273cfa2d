"""Growing the packaged encoder to the references, with those kept aside as its judges.

They are segmented without the grown network and with it, and masks are compared with theirs. What
does not help is not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from napari_samic.contracts import Job, Reference, Segmentation, Step
from napari_samic.metrics import iou
from napari_samic.models import adapting, refmasks
from napari_samic.models.episodes import labels_of
from napari_samic.models.looks import Page
from napari_samic.models.objectnet import Finder
from napari_samic.models.samic import SamicPrompter
from napari_samic.pipeline.worker import Worker
from napari_samic.settings import AdaptSettings, SegmentSettings


def adapt(
    learner: SamicPrompter,
    segmenter: Any,
    references: Sequence[Reference],
    settings: AdaptSettings,
    seed: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> Job[None]:
    """Give a trained prompter a finder, if that makes its masks better.

    Parameters
    ----------
    learner : SamicPrompter
        Gets `finder` and `growth`.
    segmenter : Segmenter
    references : sequence of Reference
        Those without a mask get the segmenter's answer to their prompts.
    settings : AdaptSettings
    seed : int
    stop : callable
        True: end, and leave the prompter as it was.
    """
    pages = []
    for i, one in enumerate(r for r in references if r.mask is not None or labels_of(r)):
        pages.append(Page(one.name, one.image, refmasks.mask_of(one, segmenter)))
        yield Step(i + 1, len(references), f"objects of {one.name}", {"phase": "adapt"})
    names = set(learner.report.held_out if learner.report else ())
    if not any(page.shown.numbers.any() for page in pages):
        return  # the segmenter saw nothing at any click
    learner.finder, learner.growth = yield from adapting.adapt(
        [p for p in pages if p.name not in names],
        refmasks.classes_of([p.shown for p in pages]),
        settings,
        seed=seed,
        device=learner.backbone.device,
        aside=[p for p in pages if p.name in names],
        judge=lambda finder: _judge(learner, segmenter, finder, references, pages, names),
        stop=stop,
    )


def _judge(
    learner: SamicPrompter,
    segmenter: Any,
    finder: Finder | None,
    references: Sequence[Reference],
    pages: Sequence[Page],
    names: set[str],
) -> float:
    """Mean IoU of the classes of the images kept aside; the others are the references."""
    known = [r for r in references if r.name not in names]
    labels = {label for r in known for label in labels_of(r)}
    few = [[r for r in known if k in labels_of(r)][: learner.settings.shots] for k in labels]
    kept = [r for r in known if any(r in some for some in few)]
    worker = Worker(learner, segmenter, SegmentSettings(), finder)
    values = []
    for page in (p for p in pages if p.name in names):
        found = worker.answer(page.image, worker.look(page.image, kept))
        shown = page.shown.by_class
        for label in set(page.shown.classes):
            values.append(iou(_class_of(found) == label, shown == label))
    return float(np.mean(values)) if values else 0.0


def _class_of(found: Segmentation) -> Any:
    table = np.array([0, *(p.label for p in found.objects)], np.int32)
    return table[found.labels]

"""Fine-tuning of the packaged encoder and of the segmenter's mask decoder to the references.

References kept aside are the judges: they are segmented without and with, and masks are compared
with theirs. A network that harms and a decoder that does not help are not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from napari_samic.core.settings import AdaptSettings, SegmentSettings
from napari_samic.core.types import Image, Job, JobProgress, Reference, Segmentation
from napari_samic.evaluation.metrics import iou
from napari_samic.models.features import reference_masks
from napari_samic.models.finetune import encoder, mask_decoder
from napari_samic.models.finetune.checkpointing import Checkpoint
from napari_samic.models.finetune.dataset import ReferenceSample
from napari_samic.models.finetune.network import ForegroundPredictor
from napari_samic.models.samic.episodes import labels_of, split
from napari_samic.models.samic.prompter import SamicPrompter
from napari_samic.pipeline.predictor import ImagePredictor


def finetune(
    learner: SamicPrompter,
    segmenter: Any,
    references: Sequence[Reference],
    settings: AdaptSettings,
    seed: int = 0,
    stop: Callable[[], bool] = lambda: False,
    holdout_names: Sequence[str] = (),
    unlabeled: Iterable[Image] = (),
    checkpoint: Checkpoint | None = None,
    key: str = "",
) -> Job[None]:
    """Give a trained prompter a finder, unless that harms its masks, and a decoder that helps.

    Parameters
    ----------
    learner : SamicPrompter
        Gets `finder` and `growth`, `decoder` and `tuning`.
    segmenter : Segmenter
    references : sequence of Reference
        Those without a mask get the segmenter's answer to their prompts.
    settings : AdaptSettings
    seed : int
    stop : callable
        True: end; what was not finished and judged is left out.
    holdout_names : sequence of str
        Names of references that are not learned from until they judge. One with no object on it
        can't judge, and is learned from.
    unlabeled : iterable of (H, W, 3) uint8
        Images without annotation, as those to be segmented.
    checkpoint : Checkpoint, optional
        Where to go on from, and what is kept up to date.
    key : str
        Of the training; see `checkpointing.config_hash`.
    """
    samples = []
    for i, reference in enumerate(r for r in references if r.mask is not None or labels_of(r)):
        samples.append(
            ReferenceSample(
                reference.name, reference.image, reference_masks.mask_of(reference, segmenter)
            )
        )
        yield JobProgress(
            i + 1, len(references), f"objects of {reference.name}", {"phase": "adapt"}
        )
    if not any(sample.instances.numbers.any() for sample in samples):
        return  # the segmenter saw nothing at any click
    holdout = [p for p in samples if p.name in holdout_names and p.instances.numbers.any()]
    training = [p for p in samples if p not in holdout]
    evaluator = HoldoutEvaluator(learner, segmenter, references, holdout)
    learner.finder, learner.growth = yield from encoder.finetune_encoder(
        training,
        reference_masks.classes_of([p.instances for p in samples]),
        settings,
        seed=seed,
        device=learner.backbone.device,
        encoder=learner.settings.encoder,
        held_out=holdout,
        judge=evaluator.with_finder,
        stop=stop,
        unlabeled=unlabeled,
        checkpoint=checkpoint,
        key=key,
    )
    if not hasattr(segmenter, "with_decoder"):
        return
    has_map = learner.finder is not None
    learner.decoder, learner.tuning = yield from mask_decoder.finetune_mask_decoder(
        segmenter, training, settings, seed=seed, has_map=has_map, held_out=holdout,
        judge=lambda state: evaluator.with_decoder(state, has_map=has_map), stop=stop,
    )  # fmt: skip


def draw_holdout(references: Sequence[Reference], holdout_frac: float, seed: int) -> list[str]:
    """Names of the references that are to judge, the same for the same seed."""
    return [r.name for r in split(references, holdout_frac, np.random.default_rng(seed))[1]]


class HoldoutEvaluator:
    """How good masks of the images kept aside are; the others are the references."""

    def __init__(
        self,
        learner: SamicPrompter,
        segmenter: Any,
        references: Sequence[Reference],
        holdout: Sequence[ReferenceSample],
    ) -> None:
        self._learner, self._segmenter, self._holdout = learner, segmenter, holdout
        names = {sample.name for sample in holdout}
        training = [r for r in references if r.name not in names]
        labels = {label for r in training for label in labels_of(r)}
        by_class = [
            [r for r in training if k in labels_of(r)][: learner.settings.keeps] for k in labels
        ]
        self._training = [r for r in training if any(r in examples for examples in by_class)]
        self._holdout_finder: ForegroundPredictor | None = None

    def with_finder(self, finder: ForegroundPredictor | None) -> float:
        """Mean IoU of the classes."""
        self._holdout_finder = finder  # the last one asked about has not seen these images yet
        return self._score(self._segmenter, finder)

    def with_decoder(self, state: mask_decoder.State | None, *, has_map: bool) -> float:
        """Mean IoU with a tuned decoder, or without; with the finder as it was judged."""
        segmenter = self._segmenter.with_decoder(state) if state is not None else self._segmenter
        return self._score(segmenter, self._holdout_finder if has_map else None)

    def _score(self, segmenter: Any, finder: ForegroundPredictor | None) -> float:
        predictor = ImagePredictor(self._learner, segmenter, SegmentSettings(), finder)
        return _mean_iou(predictor, self._training, self._holdout)


def mean_mask_iou(
    prompter: SamicPrompter,
    segmenter: Any,
    references: Sequence[Reference],
    holdout: Sequence[Reference],
) -> float:
    """Mean IoU of the classes on references kept aside, by a prompter as it is.

    Parameters
    ----------
    prompter : SamicPrompter
    segmenter : Segmenter
    references : sequence of Reference
        The others, which serve.
    aside : sequence of Reference
    """
    samples = [
        ReferenceSample(r.name, r.image, reference_masks.mask_of(r, segmenter)) for r in holdout
    ]
    predictor = ImagePredictor(prompter, segmenter, SegmentSettings(), prompter.finder)
    return _mean_iou(predictor, references, samples)


def _mean_iou(
    predictor: ImagePredictor, references: Sequence[Reference], samples: Sequence[ReferenceSample]
) -> float:
    ious = []
    for sample in samples:
        result = predictor.predict_masks(
            sample.image, predictor.extract_features(sample.image, references)
        )
        truth = sample.instances.by_class
        for label in set(sample.instances.classes):
            ious.append(iou(_class_labels(result) == label, truth == label))
    return float(np.mean(ious)) if ious else 0.0


def _class_labels(result: Segmentation) -> Any:
    table = np.array([0, *(p.label for p in result.objects)], np.int32)
    return table[result.labels]

"""How a way of the benchmark learns from references, and answers an image then.

Which there are is in `methods`. Ways that learn alike learn once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from napari_samic.benchmark import unet
from napari_samic.benchmark.methods import LOSSES, UNETS, WAYS, MethodConfig
from napari_samic.core.errors import SamicError
from napari_samic.core.settings import (
    AdaptSettings,
    AnnotateSettings,
    HeatMapSettings,
    MemorySettings,
    PrompterSettings,
    SegmentSettings,
    TrainSettings,
)
from napari_samic.core.types import Image, Job, Prompter, Reference, Segmentation
from napari_samic.models.features import backbones
from napari_samic.models.features.backbones import Backbone
from napari_samic.models.prompters import registry
from napari_samic.models.samic import pretrained
from napari_samic.models.samic.prompter import SamicPrompter
from napari_samic.ops import simulated_annotator
from napari_samic.pipeline.finetune import draw_holdout, finetune
from napari_samic.pipeline.predictor import ImagePredictor, with_finetuned_decoder
from napari_samic.pipeline.video_predictor import VideoPredictor

REMEMBERED = 8
"""Trainings that are kept for other ways."""
Answerer = Callable[[Image], Segmentation]


@dataclass(frozen=True)
class TrialContext:
    """What is the same for all.

    Attributes
    ----------
    segmenter : Segmenter
    training : TrainSettings
    adapting : AdaptSettings
    seed : int
    instances : bool
        False: one value a class, as in videos of several objects.
    more : tuple of callable
        Read the images to be segmented, (H, W, 3) uint8.
    base_class_references : tuple of Reference
        What is learned from instead of the references, which then only serve; of other classes.
    learned : dict
        Trainings that other ways may share, the last few.
    """

    segmenter: Any
    training: TrainSettings
    adapting: AdaptSettings
    seed: int = 0
    instances: bool = True
    more: tuple[Callable[[], Image], ...] = ()
    base_class_references: tuple[Reference, ...] = ()
    learned: dict[Any, SamicPrompter] = field(default_factory=dict)


def learn(name: str, references: Sequence[Reference], given: TrialContext) -> Job[Answerer]:
    """Learn from the references; a job.

    Parameters
    ----------
    name : str
        One of `methods.names()`.
    references : sequence of Reference
    given : TrialContext

    Returns
    -------
    Job of callable
        From (H, W, 3) uint8 to a Segmentation.
    """
    if name in WAYS:
        predictor = yield from _samic(WAYS[name], references, given)
        return _answerer(WAYS[name], predictor, references[0])
    features = backbones.build("segmenter", given.segmenter)
    prompter = SamicPrompter(features)
    prompter.references = tuple(references)
    other: Prompter
    if name in UNETS:
        other = yield from unet.learn(
            references,
            segmenter=given.segmenter,
            pretrained=UNETS[name],
            seed=given.seed,
            device=features.device,
        )
    else:
        other = registry.make(name, given.segmenter, features, references, seed=given.seed)
    settings = SegmentSettings(instances=given.instances)
    return ImagePredictor(prompter, given.segmenter, settings, other=other).segment


def untrained(way: MethodConfig, features: Backbone, seed: int = 0) -> SamicPrompter:
    """The way's prompter with its first weights."""
    if not way.paper:
        prompter = SamicPrompter(features, settings=way.prompter, seed=seed)
        pretrained.load_pretrained(prompter)  # none for another segmenter than the packaged one
        return prompter
    settings = replace(PrompterSettings.paper(), encoder="segmenter", layers=way.layers)
    heat = HeatMapSettings.paper()
    return SamicPrompter(features, settings=settings, heat=heat, peaks=way.peaks, seed=seed)


def _training(way: MethodConfig, given: TrialContext) -> TrainSettings:
    settings = replace(given.training, seed=given.seed)
    if not way.paper:
        return settings
    unused: dict[str, Any] = {f"{name}_weight": 0.0 for name in LOSSES if name not in way.losses}
    # One kept aside would judge, and bring the random first weights back now and then.
    own = TrainSettings.paper()
    names = ("learning_rate", "views", "shift_frac", "holdout_frac")
    return replace(settings, **{name: getattr(own, name) for name in names}, **unused)


def _samic(
    way: MethodConfig, references: Sequence[Reference], given: TrialContext
) -> Job[ImagePredictor]:
    adapts = way.adapted and len(references) > 1 and given.adapting.adapt
    first = replace(way, trained=bool(given.base_class_references)) if adapts else way
    prompter = yield from _trained(first, references, given)
    if adapts:
        aside = draw_holdout(references, given.training.holdout_frac, given.seed)
        more = unlabeled_images(given) if way.others else ()
        yield from finetune(
            prompter,
            given.segmenter,
            references,
            given.adapting,
            given.seed,
            holdout_names=aside,
            unlabeled=more,
        )
        if prompter.finder is None and first != way:  # as `train` does
            prompter = yield from _trained(way, references, given)
    settings = replace(way.settings, instances=given.instances)
    return ImagePredictor(
        prompter, with_finetuned_decoder(given.segmenter, prompter), settings, prompter.finder
    )


def unlabeled_images(given: TrialContext) -> Iterator[Image]:
    """Images to be segmented, (H, W, 3) uint8, in random order; unreadable ones are left out."""
    for i in np.random.default_rng(given.seed).permutation(len(given.more)):
        with suppress(SamicError):  # the benchmark tells of it when it asks for it
            yield given.more[i]()


def _trained(
    way: MethodConfig, references: Sequence[Reference], given: TrialContext
) -> Job[SamicPrompter]:
    """Ways that learn alike learn once; each gets a prompter of its own, with its own peaks.

    With other classes to learn from, the mean feature that is subtracted stays theirs.
    """
    teachers = (
        given.base_class_references if given.base_class_references and way.trained else references
    )
    learns = way.trained and len(teachers) > 1
    names = tuple(r.name for r in teachers)
    key = (way.paper, way.layers, way.losses, way.prompter, learns, names)
    if key not in given.learned:
        settings = _training(way, given)
        prompter = untrained(way, backbones.build("segmenter", given.segmenter), given.seed)
        yield from prompter.fit(teachers, settings if learns else replace(settings, epochs=0))
        if not learns:
            return prompter
        given.learned[key] = prompter
        while len(given.learned) > REMEMBERED:
            given.learned.pop(next(iter(given.learned)))
    copy = given.learned[key].copy()
    copy.peaks = way.peaks
    if teachers is not references:  # these only serve
        copy.references, copy.report = tuple(references), None
    return copy


def _answerer(way: MethodConfig, predictor: ImagePredictor, first: Reference) -> Answerer:
    if way.frames == "memory":
        memory = MemorySettings(follow="always")
        follower = VideoPredictor(
            predictor.prompter, predictor.segmenter, memory, predictor.settings
        )
        follower.begin(first)
        return follower.segment
    if way.frames == "previous":
        return PreviousFramePredictor(predictor, first).segment
    return predictor.segment


@dataclass(eq=False)
class PreviousFramePredictor:
    """Shows the answer to a frame as the reference of the next; SAMIC's protocol of DAVIS."""

    predictor: ImagePredictor
    reference: Reference

    def segment(self, image: Image) -> Segmentation:
        """Segment the next frame, (H, W, 3) uint8."""
        result = self.predictor.predict_masks(
            image, self.predictor.extract_features(image, (self.reference,))
        )
        by_class = not self.predictor.settings.instances
        prompts = simulated_annotator.prompts_of(
            result.labels, AnnotateSettings(), by_class=by_class
        )
        if prompts:  # else the last frame with an object stays the reference
            self.reference = Reference(self.reference.name, image, prompts, result.labels)
        return result

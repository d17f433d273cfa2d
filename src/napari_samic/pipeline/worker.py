"""One image: where its objects are, and their masks.

With a finder the guesses come from its maps, and the segmenter's mask is the one that is most like
them; without one they are the peaks of the references' mean map, as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from napari_samic.contracts import (
    FloatArray,
    HeatMap,
    Image,
    Plane,
    Prompter,
    Proposal,
    Reference,
    Segmentation,
)
from napari_samic.models.objectnet import Finder, Seen
from napari_samic.models.samic import SamicPrompter
from napari_samic.normalise import Normalisation
from napari_samic.pipeline.loop import Answer
from napari_samic.refine import asking, objects
from napari_samic.settings import PeakSettings, SegmentSettings, StrategySettings


@dataclass(frozen=True, eq=False)
class Look:
    """All that takes long about an image, whatever the settings are.

    Attributes
    ----------
    maps : dict of int to (h, w) float32
        Mean map of the references, by class; only without a finder.
    agreement : dict of int to float
    seen : dict of int to Seen
        By the finder.
    proposal : Proposal or None
        By another method.
    """

    maps: Mapping[int, FloatArray] = field(default_factory=dict)
    agreement: Mapping[int, float] = field(default_factory=dict)
    seen: Mapping[int, Seen] = field(default_factory=dict)
    proposal: Proposal | None = None


@dataclass(frozen=True, eq=False)
class Worker:
    """Segments image after image with one prompter; a `Work` of the loop.

    Attributes
    ----------
    prompter : SamicPrompter
    segmenter : Segmenter
    settings : SegmentSettings
    finder : Finder or None
        Says where objects are, in place of the references' map.
    other : Prompter or None
        Asked with the prompter's references, in place of both.
    """

    prompter: SamicPrompter
    segmenter: Any
    settings: SegmentSettings
    finder: Finder | None = None
    other: Prompter | None = None

    @property
    def normalisation(self) -> Normalisation:
        """Of the pixels that the prompter was trained on."""
        return Normalisation.from_dict(self.prompter.normalisation or {})

    def __call__(self, plane: Plane, image: Image) -> Answer:  # noqa: ARG002
        """Result of one plane, for the loop."""
        result = self.segment(image)
        known = {label: round(value, 4) for label, value in result.agreement.items()}
        extra = {id(p): {"agreement": known[p.label]} for p in result.objects if p.label in known}
        count = len(result.scores)
        caption = f"{count} object{'s' if count != 1 else ''}, score {result.score:.2f}"
        return Answer(result, caption, extra=extra, numbered=self.settings.instances)

    def segment(self, image: Image) -> Segmentation:
        """Segment one image, (H, W, 3) uint8."""
        return self.answer(image, self.look(image))

    def look(self, image: Image, references: Sequence[Reference] = ()) -> Look:
        """The part that takes long, but for the masks; `references` in place of the prompter's."""
        if self.other is not None:
            shown = tuple(references) or self.prompter.references
            return Look(proposal=self.other.propose(shown, image))
        if self.finder is not None:
            return Look(seen=self.finder.see(image))
        return Look(*self.prompter.maps_and_agreement(references, image))

    def proposal(
        self, look: Look, shape: tuple[int, ...], peaks: PeakSettings | None = None
    ) -> Proposal:
        """Where the objects are, and the map that says so."""
        if look.proposal is not None:
            return look.proposal
        if not look.seen:
            return replace(
                self.prompter.proposal(look.maps, shape, peaks), agreement=look.agreement
            )
        highest = np.max([seen.inside for seen in look.seen.values()], axis=0)
        return Proposal(tuple(g.prompts for g in self._guesses(look)), HeatMap(highest))

    def answer(
        self,
        image: Image,
        look: Look,
        settings: SegmentSettings | None = None,
        peaks: PeakSettings | None = None,
    ) -> Segmentation:
        """Masks, joined.

        Parameters
        ----------
        image : (H, W, 3) uint8
        look : Look
            At this image.
        settings : SegmentSettings, optional
            Default: the worker's.
        peaks : PeakSettings, optional
            Default: the prompter's; not looked at with a finder.
        """
        chosen = settings or self.settings
        if look.seen:
            return self._of_guesses(image, look, chosen)
        proposal = self.proposal(look, image.shape, peaks)
        if proposal.answer is not None:
            return proposal.answer
        result: Segmentation = self.segmenter.segment(image, proposal.objects, settings=chosen)
        return replace(result, heat_map=proposal.heat_map, agreement=proposal.agreement)

    def _of_guesses(self, image: Image, look: Look, settings: SegmentSettings) -> Segmentation:
        highest = np.max([seen.inside for seen in look.seen.values()], axis=0)
        return asking.answer(
            self.segmenter,
            image,
            self._guesses(look),
            highest,
            StrategySettings(choice="both"),
            joining=settings,
        )

    def _guesses(self, look: Look) -> list[Any]:
        return [
            guess
            for label, seen in look.seen.items()
            for guess in objects.guesses(seen.inside, seen.depth, label=label)
        ]

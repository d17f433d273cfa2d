"""From region proposals to a segmentation: ask a segmenter, choose among its masks, join them.

With the default settings and one point an object the result is that of `SamSegmenter.segment`.
Knows a segmenter only as a protocol; the last question of all objects goes out in one call for each
`AT_ONCE` of them, so that the masks not chosen don't fill the memory.

How far a mask agrees with the map that it was asked from is a soft IoU: the sum of the smaller of
mask and map over the sum of the larger, in the object's neighborhood, where the map of other
objects counts as nothing. A map of clicks has blobs that are smaller than large objects; then a
mask that is too small agrees best.

SAM pads the image below and right to a square, others may stretch it; the protocol does not say
which, so an answer is asked (`LogitFrame`): its masks tell what its logits show.

Source: Kirillov et al., Segment Anything, ICCV 2023 (scores); that the map has a say is ours, the
soft Jaccard is that of Rahman and Wang, 2016, the neighborhood ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import PIL.Image
from scipy import ndimage

from napari_samic.core.errors import InputError
from napari_samic.core.settings import MASK_STRENGTH, SegmentSettings, StrategySettings
from napari_samic.core.types import (
    BoolArray,
    Candidates,
    FloatArray,
    HeatMap,
    Image,
    IntArray,
    Prompts,
    Segmentation,
    Segmenter,
)
from napari_samic.ops.label_fusion import add_rival_clicks, join
from napari_samic.ops.shape import Window, around, bounds, nearest
from napari_samic.refine.point_sampling import interior_point
from napari_samic.refine.regions import RegionProposal

AT_ONCE = 32
"""Objects in one question; each brings up to three masks of the image's size."""


@dataclass(frozen=True, eq=False)
class MapAgreement:
    """A map, and whose each pixel of it is.

    Attributes
    ----------
    values : (H, W) float32
        In [0, 1].
    owners : (H, W) int32
        0: nobody's in particular, i + 1: object i's.
    """

    values: FloatArray
    owners: IntArray

    @cached_property
    def _windows(self) -> list[Window | None]:
        return list(ndimage.find_objects(self.owners))

    @classmethod
    def of(cls, values: FloatArray, regions: Sequence[BoolArray]) -> MapAgreement:
        """Of a map and the region of each object, (H, W) bool; of common pixels the first's."""
        owners = np.zeros(values.shape, np.int32)
        for i in reversed(range(len(regions))):
            owners[regions[i]] = i + 1
        return cls(values, owners)

    def around(self, place: int, *masks: BoolArray) -> tuple[Window, FloatArray]:
        """Smallest window that holds an object's region and some masks, and its map there.

        Parameters
        ----------
        place : int
            Of the object, from 0.
        masks : (H, W) bool

        Returns
        -------
        window : (slice, slice)
            The whole image if all are empty.
        own : (h, w) float32
            The map in the window, 0 where it is another object's.
        """
        mine = self._windows[place] if place < len(self._windows) else None
        window = around([mine, *(bounds(mask) for mask in masks)], self.owners.shape)
        owners = self.owners[window]
        own = np.where((owners == 0) | (owners == place + 1), self.values[window], 0)
        return window, own.astype(np.float32)

    def agreement(self, place: int, mask: BoolArray) -> float:
        """Soft IoU of a mask and the map of the object at `place`.

        Parameters
        ----------
        place : int
        mask : (H, W) bool

        Returns
        -------
        float
            In [0, 1]; 0 if there is neither mask nor map.

        Examples
        --------
        >>> half = np.array([[1, 1, 0, 0]], np.float32)
        >>> whole = MapAgreement.of(half, [half > 0])
        >>> whole.agreement(0, half > 0), whole.agreement(0, np.ones((1, 4), bool))
        (1.0, 0.5)
        """
        window, own = self.around(place, mask)
        inside = mask[window]
        common = float(own[inside].sum(dtype=np.float64))
        either = np.count_nonzero(inside) + float(own[~inside].sum(dtype=np.float64))
        return float(common / either) if either > 0 else 0.0


@dataclass(frozen=True)
class LogitFrame:
    """Frame of a mask prompt: the part of (h, w) logits that shows the image, from the first row.

    Attributes
    ----------
    logits_hw, part_hw : (int, int)
    """

    logits_hw: tuple[int, int]
    part_hw: tuple[int, int]

    @classmethod
    def of(cls, answer: Candidates) -> LogitFrame:
        """Learn it from an answer; padded to a square, unless the masks say stretched."""
        return cls.under(answer.masks, answer.logits)

    @classmethod
    def under(cls, masks: BoolArray, logits: FloatArray) -> LogitFrame:
        """As `of`, from masks (..., H, W) and their logits (..., h, w)."""
        (h, w), (height, width) = logits.shape[-2:], masks.shape[-2:]
        longest = max(height, width)
        padded = (max(1, round(h * height / longest)), max(1, round(w * width / longest)))
        frames = [cls((h, w), part) for part in (padded, (h, w))]
        return max(frames, key=lambda frame: frame._fit(masks, logits))

    def _fit(self, masks: BoolArray, logits: FloatArray) -> float:
        """Share of cells whose sign is that of the mask there."""
        coarse = nearest(masks, self.part_hw)  # (..., rows, columns)
        return float((coarse == (self.unpadded(logits) > 0)).mean())

    def unpadded(self, logits: FloatArray) -> FloatArray:
        """The part of logits (..., h, w) that shows the image."""
        return logits[..., : self.part_hw[0], : self.part_hw[1]]

    def logits(self, mask_prompt: FloatArray, strength: float) -> FloatArray:
        """A mask prompt as logits.

        Parameters
        ----------
        mask_prompt : (H, W) float32
            In [0, 1], over the whole image at any resolution; 0.5 becomes 0.
        strength : float
            What 1 becomes; 0 becomes its opposite, and so does the padding.

        Returns
        -------
        (h, w) float32
        """
        out = np.full(self.logits_hw, -strength, np.float32)
        picture, size = PIL.Image.fromarray(mask_prompt.astype(np.float32)), self.part_hw[::-1]
        part = np.asarray(picture.resize(size, PIL.Image.Resampling.BILINEAR))
        out[: self.part_hw[0], : self.part_hw[1]] = strength * (2 * np.clip(part, 0, 1) - 1)
        return out


@dataclass(frozen=True, eq=False)
class SelectedMask:
    """One object with the mask that was chosen for it.

    Attributes
    ----------
    proposal : RegionProposal
        What was asked first; without the points that came later.
    mask : (H, W) bool
    score : float
        The segmenter's own, in [0, 1].
    agreement : float
        With the map, in [0, 1].
    logits : (h, w) float32 or None
        The part that shows the image is `LogitFrame.unpadded`; None where a mask came without.
    prompts : Prompts
        What was asked last.
    """

    proposal: RegionProposal
    mask: BoolArray
    score: float
    agreement: float
    logits: FloatArray | None
    prompts: Prompts


def answer(
    segmenter: Segmenter,
    image: Image,
    proposals: Sequence[RegionProposal],
    heat: FloatArray,
    settings: StrategySettings,
    *,
    joining: SegmentSettings | None = None,
) -> Segmentation:
    """Ask for region proposals, choose, tell apart and join.

    Parameters
    ----------
    segmenter : Segmenter
    image : (H, W, 3) uint8
    proposals : sequence of RegionProposal
        May be empty: then nothing is found.
    heat : (H, W) float32
        The normalized map; of several classes the highest.
    settings : StrategySettings
        `choice` is looked at.
    joining : SegmentSettings, optional

    Returns
    -------
    Segmentation
        With the prompts of the proposals, without what `tell_apart` added.

    Raises
    ------
    InputError, PromptError
        A map of another size, or what the segmenter refuses.
    """
    chosen = joining or SegmentSettings()
    selection = query_segmenter(segmenter, image, proposals, heat, settings, joining=chosen)
    return joined(selection, heat, chosen)


def query_segmenter(
    segmenter: Segmenter,
    image: Image,
    proposals: Sequence[RegionProposal],
    heat: FloatArray,
    settings: StrategySettings,
    *,
    joining: SegmentSettings | None = None,
) -> list[SelectedMask]:
    """As `answer`, but not joined yet; one for each proposal, in their order."""
    if heat.shape != image.shape[:2]:
        msg = f"map of {heat.shape} for an image of {image.shape[:2]}. Resize the map first."
        raise InputError(msg)
    chosen = joining or SegmentSettings()
    several = settings.choice != "score" or chosen.mask_choice == "score"
    map_agreement = MapAgreement.of(heat, [g.region for g in proposals])
    query = SegmenterQuery(segmenter, image, map_agreement, settings, several)
    selection, logits = query.first(proposals)
    if chosen.tell_apart and chosen.instances:
        return query.apart(selection, logits)
    return selection


def joined(
    selection: Sequence[SelectedMask], heat: FloatArray, settings: SegmentSettings
) -> Segmentation:
    """Join the chosen masks; the higher score wins.

    Parameters
    ----------
    selection : sequence of SelectedMask
    heat : (H, W) float32
        Gives the shape, and is passed on.
    settings : SegmentSettings
    """
    return join(
        [f.mask for f in selection],
        [f.score for f in selection],
        [f.proposal.prompts for f in selection],
        shape=(heat.shape[0], heat.shape[1]),
        instances=settings.instances,
        min_score=settings.min_score,
        duplicate_iou=settings.duplicate_iou,
        drop_covered=settings.drop_covered,
        heat_map=HeatMap(heat),
    )


@dataclass(frozen=True, eq=False)
class SegmenterQuery:
    """What is asked of the segmenter for all regions of an image."""

    segmenter: Segmenter
    image: Image
    map_agreement: MapAgreement
    settings: StrategySettings
    multimask: bool

    def first(
        self, proposals: Sequence[RegionProposal]
    ) -> tuple[list[SelectedMask], list[FloatArray | None]]:
        """The questions of each proposal, in its order, and the logits that its last one had."""
        logits = self._mask_prompts(proposals)
        for round_ in range(max((len(g.earlier) for g in proposals), default=0)):
            places = [i for i, g in enumerate(proposals) if len(g.earlier) > round_]
            earlier = [proposals[i].earlier[round_] for i in places]
            for place, candidates in self._answers(places, earlier, [logits[i] for i in places]):
                logits[place] = candidates.logits[self._best(place, candidates)]
        places = list(range(len(proposals)))
        answers = self._answers(places, [g.prompts for g in proposals], logits)
        selection = [
            self._selected(i, proposals[i], proposals[i].prompts, candidates)
            for i, candidates in answers
        ]
        return selection, logits

    def apart(
        self, selection: list[SelectedMask], logits: list[FloatArray | None]
    ) -> list[SelectedMask]:
        """Ask again where a mask takes in another object's point; kept if it is worth no less."""
        narrower = add_rival_clicks([f.mask for f in selection], [f.prompts for f in selection])
        places, prompts = list(narrower), list(narrower.values())
        out = list(selection)
        for i, candidates in self._answers(places, prompts, [logits[i] for i in places]):
            other = self._selected(i, selection[i].proposal, narrower[i], candidates)
            if self._worth_of(other) >= self._worth_of(selection[i]):
                out[i] = other
        return out

    def _answers(
        self,
        places: Sequence[int],
        prompts: Sequence[Prompts],
        logits: Sequence[FloatArray | None],
    ) -> Iterator[tuple[int, Candidates]]:
        for start in range(0, len(places), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            answers = self.segmenter.candidates(
                self.image, prompts[part], multimask=self.multimask, logits=logits[part]
            )
            yield from zip(places[part], answers, strict=True)

    def _mask_prompts(self, proposals: Sequence[RegionProposal]) -> list[FloatArray | None]:
        """Mask prompts; a first question tells how large they have to be."""
        with_mask = [g for g in proposals if g.mask_prompt is not None]
        if not with_mask:
            return [None] * len(proposals)
        prompts = Prompts(interior_point(with_mask[0].region), np.array([True]))
        candidates = self.segmenter.candidates(self.image, [prompts], multimask=True)[0]
        frame = LogitFrame.of(candidates)
        return [
            None if g.mask_prompt is None else frame.logits(g.mask_prompt, MASK_STRENGTH)
            for g in proposals
        ]

    def _selected(
        self, place: int, proposal: RegionProposal, prompts: Prompts, candidates: Candidates
    ) -> SelectedMask:
        best = self._best(place, candidates)
        mask = candidates.masks[best].copy()  # not a view, which would keep the others
        agreement = self.map_agreement.agreement(place, mask)
        logits = candidates.logits[best].copy()
        return SelectedMask(
            proposal, mask, float(candidates.scores[best]), agreement, logits, prompts
        )

    def _best(self, place: int, candidates: Candidates) -> int:
        if self.settings.choice == "score":
            return candidates.best
        agreements = [self.map_agreement.agreement(place, mask) for mask in candidates.masks]
        return int(
            np.argmax(
                [self._worth(s, a) for s, a in zip(candidates.scores, agreements, strict=True)]
            )
        )

    def _worth_of(self, selected: SelectedMask) -> float:
        return self._worth(selected.score, selected.agreement)

    def _worth(self, score: float, agreement: float) -> float:
        return _WORTH[self.settings.choice](float(score), agreement)


_WORTH: dict[str, Callable[[float, float], float]] = {
    "score": lambda score, agreement: score,  # noqa: ARG005
    "agreement": lambda score, agreement: agreement,  # noqa: ARG005
    "both": lambda score, agreement: score * agreement,
}

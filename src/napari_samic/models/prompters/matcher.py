"""Matcher: cells matched there and back become points, many subsets of them masks, the best join.

Without training. Each subset of matched points is one question to the segmenter; a mask is good
where its cells are like the object's (transport), hold little but matches (purity) and most of them
(coverage). One object for each class. Features are those of any encoder (`feature_bank`), so expect
the meaning of that encoder, not DINOv2's. The same seed always, so the same answer.

Source: Liu et al., Matcher: Segment Anything with One Shot Using All-Purpose Feature Matching,
ICLR 2024, its settings for few-shot segmentation. Ours: the few most alike references, and cells
that a mask mostly covers; Matcher takes each that it touches, which put points beside the object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from napari_samic.core.types import (
    BoolArray,
    Candidates,
    FloatArray,
    HeatMap,
    Image,
    PromptProposal,
    Prompts,
    Reference,
    Segmenter,
)
from napari_samic.models.features import patches
from napari_samic.models.features.backbones import Backbone
from napari_samic.models.features.reference_masks import FewShotCache, ReferenceMaskCache
from napari_samic.models.prompters import assignment, feature_bank
from napari_samic.models.prompters.feature_bank import FeatureBank, PatchEmbedder
from napari_samic.models.prompters.persam import to_proposal
from napari_samic.ops.label_fusion import without_duplicates
from napari_samic.ops.shape import box_of

SHOTS = 5
"""References that are matched: those most like the image."""
LEAST, MOST, TRIES = 4, 6, 30
"""Points of a subset, `MOST` left out, and random subsets of each size."""
BATCH = 8
"""Subsets decoded at once: their masks at the image's size are not all in memory together."""
ALPHA, BETA, EXPONENT = 0.8, 0.2, 1.0
"""Score: ALPHA (1 - transport) + BETA purity coverage ** EXPONENT."""
IOU, STABLE, PURE = 0.6, 0.85, 0.02
"""Least expected IoU, stability and purity, or the best there is if that is less."""
OFFSET = 1.0
"""Of the logits' cut: a stable mask is much the same above and below."""
ALIKE = 0.95
"""Of masks with a higher IoU only one is scored."""
NEARLY, MERGED = 0.7, 10
"""Masks above this share of the best score are joined, at most so many."""


@dataclass(frozen=True, eq=False)
class Mask:
    """One answer: (H, W) bool packed to bits, its cells (r * c,) bool and what the model thinks."""

    bits: NDArray[np.uint8]
    cells: BoolArray
    iou: float
    stability: float


class Matcher:
    """See the module.

    Parameters
    ----------
    segmenter : Segmenter
        Must show its `embedding` unless there is a backbone.
    references : sequence of Reference
        Used when `propose` is called without any.
    backbone : Backbone, optional
        Whose features are matched.
    seed : int
        Of the random subsets.
    """

    name = "matcher"

    def __init__(
        self,
        segmenter: Segmenter,
        references: Sequence[Reference] = (),
        *,
        backbone: Backbone | None = None,
        seed: int = 0,
    ) -> None:
        self.segmenter = segmenter
        self.seed = seed
        self.embedder = PatchEmbedder(segmenter, backbone)
        self.masks = ReferenceMaskCache(segmenter)
        self.shots = FewShotCache(
            lambda r: feature_bank.build(r, self.masks, self.embedder), references
        )

    def propose(self, references: Sequence[Reference], image: Image) -> PromptProposal:
        """One object for each class of the references; as `core.types.Prompter.propose`.

        With the masks as its answer; the map is the likeness of each cell to the object's most
        alike one, (1 + cosine) / 2, the highest of the classes.
        """
        bank = self.shots.of(references)
        cells = self.embedder.cells(image, bank.center)  # (C, r, c)
        results = [self._match_class(bank, cells, image, label) for label in bank.classes]
        objects, masks, scores, maps = zip(*results, strict=True)
        heat_map = HeatMap(patches.to_image(torch.from_numpy(np.max(maps, axis=0)), image.shape))
        return to_proposal(objects, masks, scores, image, heat_map)

    def _match_class(
        self, bank: FeatureBank, cells: torch.Tensor, image: Image, label: int
    ) -> tuple[Prompts, BoolArray, float, FloatArray]:
        """Prompts, (H, W) mask, score and (r, c) map of one class."""
        similar = bank.nearest(cells, SHOTS, label)
        likeness = _likeness(torch.cat([p.features for p in similar]), cells)  # (Nr, Nt)
        inside = np.concatenate([(p.owner == label).numpy() for p in similar])
        grid = (cells.shape[1], cells.shape[2])
        matched = assignment.cycle_consistent_matches(likeness, inside)
        points = _centers(matched, grid, image.shape)
        answers = self._query(image, points, grid, label)
        costs = (1 - likeness[inside]) / 2  # (Nm, Nt)
        mask, score = merge_masks(answers, matched, costs, image.shape)
        warm = np.clip((1 + likeness[inside].max(0)) / 2, 0, 1).reshape(grid).astype(np.float32)
        signs = np.ones(len(points), bool)
        return Prompts(points, signs, box_of(mask), label), mask, score, warm

    def _query(
        self, image: Image, points: NDArray[np.float64], grid: tuple[int, int], label: int
    ) -> list[Mask]:
        rng = np.random.default_rng(self.seed)
        chosen = assignment.subsets(len(points), rng, least=LEAST, most=MOST, tries=TRIES)
        prompts = [Prompts(points[c], np.ones(len(c), bool), label=label) for c in chosen]
        masks: list[Mask] = []
        for start in range(0, len(prompts), BATCH):
            batch = prompts[start : start + BATCH]
            for candidates in self.segmenter.candidates(image, batch, multimask=False):
                masks.append(_packed(candidates, grid))
        return distinct_masks(masks)


def _likeness(features: torch.Tensor, cells: torch.Tensor) -> NDArray[np.float64]:
    """Cosines of (Nr, C) cells with (C, r, c), (Nr, Nt)."""
    return np.asarray((features.float() @ cells.flatten(1)).numpy(), np.float64)


def _centers(
    places: assignment.Cells, grid: tuple[int, int], shape: Sequence[int]
) -> NDArray[np.float64]:
    """Middles of cells in pixels of the image, (N, 2)."""
    at = np.stack(np.unravel_index(places, grid), 1)
    return np.asarray((at + 0.5) * np.divide(shape[:2], grid) - 0.5)


def _packed(candidates: Candidates, grid: tuple[int, int]) -> Mask:
    best = candidates.best
    mask, logits = candidates.masks[best], candidates.logits[best]
    shares = patches.pool_to_grid(torch.from_numpy(mask[None].astype(np.float32)), grid)[0]
    stability = float((logits > OFFSET).sum() / max(1, int((logits > -OFFSET).sum())))
    inside = np.asarray(patches.covered_cells(shares).flatten())
    return Mask(np.packbits(mask), inside, float(candidates.scores[best]), stability)


def distinct_masks(masks: Sequence[Mask]) -> list[Mask]:
    """Sure, stable masks that are not empty, each once; the best there are if none is."""
    some = [m for m in masks if m.cells.any()]
    limits = (("iou", IOU), ("stability", STABLE))
    for trait, least in limits:
        limit = min(least, max((getattr(m, trait) for m in some), default=0.0))
        some = [m for m in some if getattr(m, trait) >= limit]
    scores = np.array([m.iou for m in some], np.float32)
    # told apart on the grid of cells, which is quick
    kept = without_duplicates([m.cells[None] for m in some], scores, range(len(some)), ALIKE)
    return [some[i] for i in kept]


def merge_masks(
    masks: Sequence[Mask],
    matched: assignment.Cells,
    costs: NDArray[np.float64],
    shape: Sequence[int],
) -> tuple[BoolArray, float]:
    """Union of the best masks, (H, W) bool, and the mean of their expected IoU."""
    area = (shape[0], shape[1])
    if not masks:
        return np.zeros(area, bool), 0.0
    hits = np.array([m.cells[matched].sum() for m in masks], float)
    purity = hits / np.array([m.cells.sum() for m in masks])
    coverage = hits / len(matched)
    alike = np.array([1 - assignment.transport(costs[:, m.cells]) for m in masks])
    scores = ALPHA * alike + BETA * purity * coverage**EXPONENT
    scores[purity < min(PURE, purity.max())] = 0
    order = [int(i) for i in np.argsort(-scores, kind="stable")[:MERGED]]
    best = [masks[i] for i in order if scores[i] >= NEARLY * scores.max()]
    union = np.bitwise_or.reduce([m.bits for m in best])
    mask = np.unpackbits(union, count=area[0] * area[1]).reshape(area).astype(bool)
    return mask, float(np.mean([m.iou for m in best]))

"""PerSAM-F: how much of each of the three masks an object is, learned on its references.

A click may mean a part, an object or a group; the segmenter answers all three. Two weights (the
third is what is left of 1) mix their logits so that the mix fits the references' masks. The
references are decoded once and only the weights learn, on the kept logits at their own size.

Source: Zhang et al., Personalize Segment Anything Model with One Shot, ICLR 2024. Ours: one pair of
weights a class over all references; networks that answer surest first are put in order of area.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from napari_samic.core.types import (
    Candidates,
    HeatMap,
    Image,
    PromptProposal,
    Prompts,
    Reference,
    Segmenter,
)
from napari_samic.models import losses
from napari_samic.models.features import patches
from napari_samic.models.features.backbones import Backbone
from napari_samic.models.features.reference_masks import FewShotCache
from napari_samic.models.prompters.persam import (
    Persam,
    Targets,
    cosine_map,
    extreme_points,
    refine_with_logits,
    to_proposal,
)
from napari_samic.ops.shape import box_of

STEPS = 1000
LEARNING_RATE = 1e-3
EPS = 1e-4
"""Of AdamW."""


class PersamF(Persam):
    """See the module.

    Parameters
    ----------
    segmenter : Segmenter
        Answers three masks to a point, and shows its `embedding` unless there is a backbone.
    references : sequence of Reference
        Used when `propose` is called without any.
    backbone : Backbone, optional
        As of `Persam`.
    """

    name = "persam-f"

    def __init__(
        self,
        segmenter: Segmenter,
        references: Sequence[Reference] = (),
        *,
        backbone: Backbone | None = None,
    ) -> None:
        super().__init__(segmenter, references, backbone=backbone, guide=False)
        self.tuned = FewShotCache(self._fit_weights, references)

    def propose(self, references: Sequence[Reference], image: Image) -> PromptProposal:
        """One object for each class; as `Persam.propose`."""
        targets, weights = self.tuned.of(references)
        features = self._features(image, targets.center)
        full = {
            label: patches.to_image(cosine_map(unit, features), image.shape)
            for label, unit in targets.unit.items()
        }
        objects = [extreme_points(full[k], k, negative=False) for k in full]
        candidates = self.segmenter.candidates(image, objects, multimask=True)
        first = [
            mix_masks(self._in_order(c), weights[k], image.shape)
            for k, c in zip(full, candidates, strict=True)
        ]
        prompts = [
            replace(p, box_rc=box_of(c.masks[0])) for p, c in zip(objects, first, strict=True)
        ]
        parts = refine_with_logits(self.segmenter, image, prompts, first, boxed=(True, True))
        heat_map = HeatMap(np.clip((1 + np.max(list(full.values()), axis=0)) / 2, 0, 1))
        return to_proposal(*parts, image, heat_map)

    def summary(self, inside: Tensor) -> Tensor:
        """Feature of an object from those of its cells, (C, N) to (C,): half mean, half maximum."""
        return (inside.mean(1) + inside.amax(1)) / 2

    def _fit_weights(self, references: tuple[Reference, ...]) -> tuple[Targets, dict[int, Tensor]]:
        targets = self.shots.of(references)
        pairs: dict[int, list[tuple[Tensor, Tensor]]] = {k: [] for k in targets.unit}
        for reference in references:
            shape = reference.image.shape
            classes = self.masks.of(reference).by_class
            labels = [k for k in targets.unit if (classes == k).any()]
            features = self._features(reference.image, targets.center)
            prompts = [self._clicked(targets.unit[k], features, shape, k) for k in labels]
            answers = self.segmenter.candidates(reference.image, prompts, multimask=True)
            for label, candidates in zip(labels, answers, strict=True):
                logits = without_padding(torch.from_numpy(self._in_order(candidates).logits), shape)
                truth = patches.on_grid(classes == label, logits.shape[-2:])
                pairs[label].append((logits, truth.float()))
        return targets, {label: fit_mask_weights(p) for label, p in pairs.items()}

    def _clicked(
        self, unit: Tensor, features: Tensor, shape: tuple[int, ...], label: int
    ) -> Prompts:
        return extreme_points(
            patches.to_image(cosine_map(unit, features), shape), label, negative=False
        )

    def _in_order(self, candidates: Candidates) -> Candidates:
        """SAM's three are a part, an object and a group; others' are put in order of area."""
        if not getattr(self.segmenter, "single_is_first", False):
            return candidates
        order = np.argsort(candidates.masks.sum((1, 2)), kind="stable")
        return Candidates(
            candidates.masks[order], candidates.scores[order], candidates.logits[order]
        )


def without_padding(logits: Tensor, shape: Sequence[int]) -> Tensor:
    """(..., h, w) logits of the padded square without the padding."""
    longest = max(shape[:2])
    rows, columns = (
        max(1, round(g * n / longest)) for g, n in zip(logits.shape[-2:], shape, strict=False)
    )
    return logits[..., :rows, :columns]


def mask_weights(weights: Tensor) -> Tensor:
    """(M - 1,) learned weights to (M,), of sum 1: the first is what the others leave."""
    return torch.cat([1 - weights.sum(0, keepdim=True), weights])


def fit_mask_weights(pairs: Sequence[tuple[Tensor, Tensor]], *, steps: int = STEPS) -> Tensor:
    """Weights of the masks of least loss.

    Parameters
    ----------
    pairs : sequence of ((M, h, w), (h, w)) float Tensor
        Logits of one reference's masks, and its truth.
    steps : int
        Of AdamW, with a rate that falls as a cosine.

    Returns
    -------
    (M,) float Tensor
        Of sum 1.
    """
    count = len(pairs[0][0])
    with torch.enable_grad():
        weights = torch.full((count - 1,), 1 / count, requires_grad=True)
        optimizer = torch.optim.AdamW([weights], lr=LEARNING_RATE, eps=EPS)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            optimizer.zero_grad()
            mix = mask_weights(weights)
            torch.stack([loss(mix, *pair) for pair in pairs]).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return mask_weights(weights.detach())


def loss(mix: Tensor, logits: Tensor, truth: Tensor) -> Tensor:
    """Dice and focal loss of mixed logits.

    Parameters
    ----------
    mix : (M,) float Tensor
    logits : (M, h, w) float Tensor
    truth : (h, w) float Tensor
    """
    values = torch.einsum("m,mhw->hw", mix, logits)
    return losses.dice_loss(torch.sigmoid(values), truth) + losses.focal_loss(values, truth)


def mix_masks(candidates: Candidates, mix: Tensor, shape: Sequence[int]) -> Candidates:
    """One mask out of several: that of their mixed logits; its score is the mixed score."""
    low = torch.einsum("m,mhw->hw", mix, torch.from_numpy(candidates.logits))
    mask = patches.to_image(without_padding(low, shape), shape) > 0
    score = float(np.clip(mix.numpy() @ candidates.scores, 0, 1))
    return Candidates(mask[None], np.array([score], np.float32), low.numpy()[None])

"""PerSAM: the place most like the reference's object, and a cascade of three decodes.

Without training. The target is the mean feature of the embedding under the reference's mask; its
cosine with every cell of the image gives one positive point (the most alike) and one negative (the
least). One object for each class. SAM's networks get guidance inside their transformer as well
(`guided_attention`); the packaged model's dense decoder has no place for it, so there it is left
out.

Source: Zhang et al., Personalize Segment Anything Model with One Shot, ICLR 2024. Ours: several
references (mean of the unit features), several classes, a guard for empty masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

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
from napari_samic.models.features.patches import PatchFeatures, center_of, on_grid
from napari_samic.models.features.reference_masks import (
    FewShotCache,
    ReferenceMaskCache,
    classes_of,
)
from napari_samic.models.prompters import guided_attention
from napari_samic.ops.label_fusion import join
from napari_samic.ops.shape import box_of


@dataclass(frozen=True, eq=False)
class Targets:
    """What is looked for.

    Attributes
    ----------
    unit : dict of int to (C,) Tensor
        Feature of each class, of length 1.
    raw : dict of int to (C,) Tensor
        The same as the network made it: what guidance adds to tokens.
    center : list of (C, 1, 1) Tensor or None
        Subtracted from the features of a backbone first.
    """

    unit: Mapping[int, Tensor]
    raw: Mapping[int, Tensor]
    center: Sequence[Tensor] | None = None


class Persam:
    """See the module.

    Parameters
    ----------
    segmenter : Segmenter
        Must show its `embedding` unless there is a backbone.
    references : sequence of Reference
        Used when `propose` is called without any.
    backbone : Backbone, optional
        Compare its features, less the references' mean, in place of the embedding.
    guide : bool
        Guidance where the network can have it and the embedding is compared.
    """

    name = "persam"

    def __init__(
        self,
        segmenter: Segmenter,
        references: Sequence[Reference] = (),
        *,
        backbone: Backbone | None = None,
        guide: bool = True,
    ) -> None:
        self.segmenter = segmenter
        self.backbone = backbone
        self.guides = guide and backbone is None and guided_attention.can_guide(segmenter)
        self.masks = ReferenceMaskCache(segmenter)
        self.shots = FewShotCache(self._targets, references)

    def propose(self, references: Sequence[Reference], image: Image) -> PromptProposal:
        """One object for each class of the references; as `core.types.Prompter.propose`.

        With the masks as its answer; the map is (1 + cosine) / 2, the highest of the classes.
        """
        targets = self.shots.of(references)
        features = self._features(image, targets.center)
        likeness = {label: cosine_map(unit, features) for label, unit in targets.unit.items()}
        full = {label: patches.to_image(grid, image.shape) for label, grid in likeness.items()}
        objects = [extreme_points(values, label) for label, values in full.items()]
        first = None
        if self.guides:
            first = [
                guided_attention.candidates(
                    self.segmenter, image, prompts, likeness[k], targets.raw[k]
                )
                for k, prompts in zip(likeness, objects, strict=True)
            ]
        heat_map = HeatMap(np.clip((1 + np.max(list(full.values()), axis=0)) / 2, 0, 1))
        return to_proposal(*cascade(self.segmenter, image, objects, first=first), image, heat_map)

    def _features(self, image: Image, center: Sequence[Tensor] | None) -> Tensor:
        """(C, h, w), each cell of length 1."""
        if self.backbone is not None and center is not None:
            return PatchFeatures(self.backbone, image).descriptors(center)
        return F.normalize(patches.segmenter_embedding(self.segmenter, image), dim=0)

    def _targets(self, references: tuple[Reference, ...]) -> Targets:
        masks = [self.masks.of(r) for r in references]
        classes_of(masks)  # raises where there is nothing to look for
        center = None
        if self.backbone is not None:
            patch_features = (PatchFeatures(self.backbone, r.image) for r in references)
            center = center_of(list(patch_features))
        features: dict[int, list[Tensor]] = {}
        for reference, instances in zip(references, masks, strict=True):
            cells = self._raw(reference.image, center)
            for label in sorted(set(instances.classes)):
                inside = on_grid(instances.by_class == label, cells.shape[-2:])
                if inside.any():
                    features.setdefault(label, []).append(self.summary(cells[:, inside]))
        means = {k: torch.stack(v).mean(0) for k, v in sorted(features.items())}
        units = {
            k: F.normalize(torch.stack([F.normalize(t, dim=0) for t in v]).mean(0), dim=0)
            for k, v in sorted(features.items())
        }
        return Targets(units, means, center)

    def _raw(self, image: Image, center: Sequence[Tensor] | None) -> Tensor:
        if self.backbone is not None:
            return self._features(image, center)
        return patches.segmenter_embedding(self.segmenter, image)

    def summary(self, inside: Tensor) -> Tensor:
        """Feature of an object from those of its cells, (C, N) to (C,): their mean."""
        return inside.mean(1)


def cosine_map(unit: Tensor, cells: Tensor) -> Tensor:
    """Cosine of a feature (C,) with every cell of (C, h, w), both of length 1: (h, w)."""
    return torch.einsum("c,chw->hw", unit, cells)


def extreme_points(values: FloatArray, label: int, *, negative: bool = True) -> Prompts:
    """A positive point at the maximum of (H, W), and a negative one at the minimum."""
    places = [np.unravel_index(int(values.argmax()), values.shape)]
    if negative and values.min() < values.max():
        places.append(np.unravel_index(int(values.argmin()), values.shape))
    return Prompts(np.array(places, float), np.arange(len(places)) == 0, label=label)


def cascade(
    segmenter: Segmenter,
    image: Image,
    objects: Sequence[Prompts],
    *,
    first: Sequence[Candidates] | None = None,
) -> tuple[list[Prompts], list[BoolArray], list[float]]:
    """Three decodes: points; points and logits; points, logits and the mask's box.

    Parameters
    ----------
    segmenter : Segmenter
    image : (H, W, 3) uint8
    objects : sequence of Prompts
    first : sequence of Candidates, optional
        Answers to the first step that were had in another way.

    Returns
    -------
    objects : list of Prompts
        With the box of the last step.
    masks : list of (H, W) bool
        An object whose mask comes out empty keeps the last one that was not.
    scores : list of float
    """
    if first is None:
        first = segmenter.candidates(image, objects, multimask=False)
    return refine_with_logits(segmenter, image, objects, first, boxed=(False, True))


def refine_with_logits(
    segmenter: Segmenter,
    image: Image,
    objects: Sequence[Prompts],
    first: Sequence[Candidates],
    *,
    boxed: Sequence[bool],
) -> tuple[list[Prompts], list[BoolArray], list[float]]:
    """Ask again with the answer's own logits, and its box in the steps that say so."""
    prompts, state = list(objects), [_best(c) for c in first]
    for with_box in boxed:
        alive = [i for i, (mask, _, _) in enumerate(state) if mask.any()]
        if not alive:
            break
        if with_box:
            for i in alive:
                prompts[i] = replace(prompts[i], box_rc=box_of(state[i][0]))
        again = segmenter.candidates(
            image, [prompts[i] for i in alive], multimask=True, logits=[state[i][2] for i in alive]
        )
        for i, candidates in zip(alive, again, strict=True):
            best = _best(candidates)
            state[i] = best if best[0].any() else state[i]
    return prompts, [mask for mask, _, _ in state], [score for _, score, _ in state]


def _best(candidates: Candidates) -> tuple[BoolArray, float, FloatArray]:
    i = candidates.best
    return candidates.masks[i], float(candidates.scores[i]), candidates.logits[i]


def to_proposal(
    objects: Sequence[Prompts],
    masks: Sequence[BoolArray],
    scores: Sequence[float],
    image: Image,
    heat_map: HeatMap,
) -> PromptProposal:
    """A proposal whose answer is the joined masks."""
    shape = (image.shape[0], image.shape[1])
    answer = join(masks, scores, objects, shape=shape, heat_map=heat_map)
    return PromptProposal(tuple(objects), heat_map, answer=answer)

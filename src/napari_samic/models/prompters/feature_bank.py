"""References as cells: features and class of each, for ways that compare cell with cell.

Any encoder will do: a backbone's levels (a product of two cells is the mean cosine of the levels),
or a segmenter's embedding brought to about the 37 cells a side that Matcher has of DINOv2. The
references' mean is subtracted first, as small encoders of our own need it. Must not know what is
made of likeness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_samic.core.types import Image, IntArray, Reference, Segmenter
from napari_samic.models.features import patches
from napari_samic.models.features.backbones import Backbone
from napari_samic.models.features.patches import PatchFeatures, center_of, covered_cells
from napari_samic.models.features.reference_masks import ReferenceMaskCache, classes_of

MOST_CELLS = 37
"""Along the longer side of an embedding."""
KEPT = 32
"""References whose cells are kept, at most; of more, every n-th."""


class PatchEmbedder:
    """Images to cells of length 1.

    Parameters
    ----------
    segmenter : Segmenter
        Must show its `embedding` unless there is a backbone.
    backbone : Backbone, optional
    """

    def __init__(self, segmenter: Segmenter | None, backbone: Backbone | None = None) -> None:
        self._segmenter = segmenter
        self._backbone = backbone

    def center(self, images: Sequence[Image]) -> list[Tensor]:
        """Mean feature of some images, (C, 1, 1) for each level."""
        if self._backbone is not None:
            return center_of([PatchFeatures(self._backbone, image) for image in images])
        means = [self._embedded(image).mean((1, 2), keepdim=True) for image in images]
        return [torch.stack(means).mean(0)]

    def cells(self, image: Image, center: Sequence[Tensor]) -> Tensor:
        """(C, r, c) float32 over the whole image, each cell of length 1."""
        if self._backbone is not None:
            return PatchFeatures(self._backbone, image).descriptors(center)
        return F.normalize(self._embedded(image) - center[0], dim=0)

    def _embedded(self, image: Image) -> Tensor:
        embedding = patches.segmenter_embedding(self._segmenter, image)
        shrink = MOST_CELLS / max(embedding.shape[1:])
        if shrink >= 1:
            return embedding
        grid = [max(1, round(n * shrink)) for n in embedding.shape[1:]]
        return patches.pool_to_grid(embedding, grid)


@dataclass(frozen=True, eq=False)
class ReferenceFeatures:
    """Cells of one reference.

    Attributes
    ----------
    features : (N, C) float16 Tensor
    cover : dict of int to (N,) float Tensor
        Share of each cell that is of a class.
    owner : (N,) int64 Tensor
        Class that covers most of the cell, 0 for background.
    """

    features: Tensor
    cover: dict[int, Tensor]
    owner: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean feature, (C,): what the whole picture is like."""
        return F.normalize(self.features.float().mean(0), dim=0)


@dataclass(frozen=True, eq=False)
class FeatureBank:
    """All references, and the mean that was subtracted."""

    references: tuple[ReferenceFeatures, ...]
    classes: tuple[int, ...]
    center: tuple[Tensor, ...]

    def nearest(
        self, cells: Tensor, count: int, label: int | None = None
    ) -> list[ReferenceFeatures]:
        """The references (of a class) that are most like the whole of (C, r, c), best first."""
        mean = F.normalize(cells.flatten(1).mean(1), dim=0)
        candidates = [p for p in self.references if label is None or label in p.cover]
        return sorted(candidates, key=lambda p: -round(float(p.mean @ mean), 6))[:count]


def build(
    references: Sequence[Reference], masks: ReferenceMaskCache, embedder: PatchEmbedder
) -> FeatureBank:
    """Look at all references.

    Raises
    ------
    PromptError
        None of them shows an object.
    """
    step = -(-len(references) // KEPT)
    chosen = references[::step]
    class_maps = [masks.of(r).by_class for r in chosen]
    classes = tuple(classes_of([masks.of(r) for r in chosen]))
    center = embedder.center([r.image for r in chosen])
    features = tuple(
        _features_of(embedder.cells(r.image, center), labels)
        for r, labels in zip(chosen, class_maps, strict=True)
    )
    return FeatureBank(features, classes, tuple(center))


def _features_of(cells: Tensor, labels: IntArray) -> ReferenceFeatures:
    grid = cells.shape[1:]
    cover: dict[int, Tensor] = {}
    owner = torch.zeros(tuple(grid), dtype=torch.int64)
    for label in (int(v) for v in torch.unique(torch.from_numpy(labels.copy())) if v > 0):
        values = torch.from_numpy((labels == label).astype("float32"))[None]
        share = patches.pool_to_grid(values, grid)[0]
        cover[label] = share.flatten()
        owner[covered_cells(share)] = label
    return ReferenceFeatures(cells.flatten(1).T.half(), cover, owner.flatten())

"""Nearest neighbors with a foreground and a background: a map without training.

A cell is of a class as far as it is more like that class than like all else: by the mean features
of both, and by the most alike single cell of both. It counts only if it agrees there and back: its
nearest reference cell's nearest cell of the image is near itself, or is on the same side. Points
are made from the map as SAMIC makes them. Must not know the segmenter's decoder.

Source: prototypes as in Snell et al., Prototypical Networks, NeurIPS 2017; the way there and back
as in Tritrong et al. and Liu et al. (Matcher), in this form ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_samic.core.settings import HeatMapSettings, PeakSettings
from napari_samic.core.types import HeatMap, Image, PromptProposal, Prompts, Reference, Segmenter
from napari_samic.models.features import patches
from napari_samic.models.features.backbones import Backbone
from napari_samic.models.features.reference_masks import FewShotCache, ReferenceMaskCache
from napari_samic.models.prompters import feature_bank
from napari_samic.models.prompters.feature_bank import FeatureBank, PatchEmbedder, ReferenceFeatures
from napari_samic.ops.peaks import peaks

SHOTS = 5
"""References whose single cells are compared: those most like the image."""
SHARP = 0.1
"""Difference of two cosines that makes a map's value 0.73."""
NEAR = 2.0
"""Cells between the start and the end of a way there and back that still are the same place."""
FINER = 8
"""The map has this many values along a cell when its peaks are looked for."""


class Prototypes:
    """See the module.

    Parameters
    ----------
    segmenter : Segmenter or None
        For references without masks, and its `embedding` where there is no backbone.
    references : sequence of Reference
        Used when `propose` is called without any.
    backbone : Backbone, optional
    peaks : PeakSettings, optional
    cycle : bool
        Only cells that agree there and back.
    """

    name = "prototypes"

    def __init__(
        self,
        segmenter: Segmenter | None,
        references: Sequence[Reference] = (),
        *,
        backbone: Backbone | None = None,
        peaks: PeakSettings | None = None,
        cycle: bool = True,
    ) -> None:
        self.peaks = peaks or PeakSettings()
        self.cycle = cycle
        self.embedder = PatchEmbedder(segmenter, backbone)
        self.masks = ReferenceMaskCache(segmenter)
        self.shots = FewShotCache(
            lambda r: feature_bank.build(r, self.masks, self.embedder), references
        )

    def propose(self, references: Sequence[Reference], image: Image) -> PromptProposal:
        """One object for each peak of a class's map; as `core.types.Prompter.propose`.

        Objects of one positive point each; the map is the highest of the classes.
        """
        bank = self.shots.of(references)
        cells = self.embedder.cells(image, bank.center)  # (C, r, c)
        similar = bank.nearest(cells, SHOTS)
        agreed = (
            cycle_consistent_cells(similar, cells) if self.cycle else torch.ones(cells.shape[1:])
        )
        maps = {k: class_map(bank, similar, cells, k) * agreed for k in bank.classes}
        objects = [p for k, grid in maps.items() for p in self._peaks(grid, image, k)]
        highest = torch.stack(list(maps.values())).amax(0)
        return PromptProposal(tuple(objects), HeatMap(patches.to_image(highest, image.shape)))

    def _peaks(self, grid: Tensor, image: Image, label: int) -> list[Prompts]:
        fine = patches.to_image(grid, [FINER * n for n in grid.shape])
        shape = (image.shape[0], image.shape[1])
        points = peaks(HeatMap(fine), shape, self.peaks, HeatMapSettings().sigma_frac)
        inside = np.clip(points, 0, np.array(shape) - 1)
        return [Prompts(p[None], np.array([True]), label=label) for p in inside]


def class_map(
    bank: FeatureBank, references: Sequence[ReferenceFeatures], cells: Tensor, label: int
) -> Tensor:
    """How much more each cell is like a class than like all else, (r, c) in [0, 1].

    Parameters
    ----------
    bank : FeatureBank
        All its references make the mean features.
    references : sequence of ReferenceFeatures
        Whose single cells are compared.
    cells : (C, r, c) float Tensor
        Cells of length 1.
    """
    flat = cells.flatten(1)  # (C, Nt)
    front, back = prototypes(bank, label)
    contrast = (front - back) @ flat  # (Nt,)
    features = torch.cat([p.features for p in references]).float()
    inside = torch.cat([p.owner for p in references]) == label
    if inside.any() and not inside.all():
        likeness = features @ flat  # (Nr, Nt)
        single = likeness[inside].amax(0) - likeness[~inside].amax(0)
        contrast = (contrast + single) / 2
    return torch.sigmoid(contrast / SHARP).reshape(cells.shape[1:])


def prototypes(bank: FeatureBank, label: int) -> tuple[Tensor, Tensor]:
    """Mean features of a class and of all else, (C,) of length 1; cells count by their share."""
    front = back = torch.zeros(bank.references[0].features.shape[1])
    for reference in bank.references:
        features = reference.features.float()
        share = reference.cover.get(label, torch.zeros(len(features)))
        front = front + F.normalize(share @ features, dim=0)
        back = back + F.normalize((1 - share) @ features, dim=0)
    return F.normalize(front, dim=0), F.normalize(back, dim=0)


def cycle_consistent_cells(references: Sequence[ReferenceFeatures], cells: Tensor) -> Tensor:
    """Cells that agree there and back, (r, c) of 0 and 1.

    Parameters
    ----------
    references : sequence of ReferenceFeatures
    cells : (C, r, c) float Tensor
        Cells of length 1.
    """
    columns = cells.shape[2]
    owner = torch.cat([p.owner for p in references])
    likeness = torch.cat([p.features for p in references]).float() @ cells.flatten(1)  # (Nr, Nt)
    nearest = likeness.argmax(0)  # (Nt,) reference cells
    back = likeness.argmax(1)[nearest]  # (Nt,) cells of the image
    start = torch.arange(len(back))
    down, right = start // columns - back // columns, start % columns - back % columns
    is_near = (down.float() ** 2 + right.float() ** 2).sqrt() <= NEAR
    same_side = owner[nearest[back]] == owner[nearest]
    return (is_near | same_side).float().reshape(cells.shape[1:])

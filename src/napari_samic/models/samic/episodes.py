"""Episodes: a reference (support) and a target (query) of one class, from which SAMIC learns.

With them: augmented views of the references, their features, and which of them to keep.
Knows no optimizer and no loss.

Source: SAMIC, section 4.1; METHOD A2.8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from napari_samic.core.errors import TrainingError
from napari_samic.core.settings import PrompterSettings
from napari_samic.core.types import Prompts, Reference
from napari_samic.models.features.backbones import Backbone, Levels
from napari_samic.models.samic.hypercorrelation import (
    Grid,
    NormalizedFeatures,
    prepare_reference,
    prepare_target,
)

MEMORY_BYTES = 2_000_000_000
"""Features kept in memory while training; what is over is asked of the backbone again."""
HALF_MAX = 65504.0


class FeatureSource(Protocol):
    """What `FeatureStore` needs of a prompter."""

    backbone: Backbone
    settings: PrompterSettings
    center: Levels | None

    def map_of(self, objects: Sequence[Prompts], shape: tuple[int, ...]) -> Tensor:
        """Heat map of prompts, (1, S, S)."""
        ...


@dataclass(frozen=True, eq=False)
class AugmentedReference:
    """A reference, or a flipped copy of it."""

    reference: Reference
    source: int
    labels: tuple[int, ...] = field(default=())


def labels_of(reference: Reference) -> tuple[int, ...]:
    """Classes that a reference shows: those of prompts that say where an object is."""
    return tuple(sorted({p.label for p in reference.objects if not p.is_empty}))


def flip(reference: Reference, *, rows: bool, columns: bool) -> Reference:
    """Copy of a reference, upside down and/or left to right."""
    height, width = reference.image.shape[:2]
    steps = (slice(None, None, -1 if rows else 1), slice(None, None, -1 if columns else 1))

    def moved(prompts: Prompts) -> Prompts:
        points = prompts.points_rc.copy()
        box = None if prompts.box_rc is None else prompts.box_rc.copy()
        for axis, (turned, length) in enumerate(((rows, height), (columns, width))):
            if turned:
                points[:, axis] = length - 1 - points[:, axis]
                if box is not None:
                    box[[axis, axis + 2]] = length - 1 - box[[axis + 2, axis]]
        return Prompts(points, prompts.is_foreground, box, prompts.label)

    mask = None if reference.mask is None else reference.mask[steps]
    objects = tuple(moved(p) for p in reference.objects)
    return Reference(reference.name, np.ascontiguousarray(reference.image[steps]), objects, mask)


def check_references(
    references: Sequence[Reference], *, to_learn: bool = True
) -> tuple[Reference, ...]:
    """Those with a prompt, none twice; at least one, or two of one class to learn from."""
    usable = tuple(r for r in references if labels_of(r))
    names = [r.name for r in usable]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise TrainingError(f"{', '.join(twice)}: listed twice. Give every reference once.")
    if not to_learn and usable:
        return usable
    if max(_counts(usable).values(), default=0) < 2:
        msg = (
            f"{len(usable)} reference(s) with prompts, training needs two of one class: each is "
            "searched in another. Annotate one more image."
        )
        raise TrainingError(msg)
    return usable


def _counts(references: Sequence[Reference]) -> Counter[int]:
    """In how many references each class is."""
    return Counter(label for r in references for label in labels_of(r))


def split(
    references: Sequence[Reference], share: float, rng: np.random.Generator
) -> tuple[list[Reference], list[Reference]]:
    """References to learn from, and those kept aside.

    None is kept aside below four, nor one that leaves fewer than two of a class of its own: that
    class could not be learned any more. One without an object could not judge.
    """
    count = max(1, round(share * len(references))) if len(references) >= 4 and share > 0 else 0
    left = _counts(references)
    aside: set[int] = set()
    for i in rng.permutation(len(references)).tolist():
        labels = labels_of(references[i])
        if len(aside) < count and labels and all(left[label] > 2 for label in labels):
            aside.add(i)
            left.subtract(labels)
    return (
        [r for i, r in enumerate(references) if i not in aside],
        [r for i, r in enumerate(references) if i in aside],
    )


def augmented_views(references: Sequence[Reference], count: int) -> list[AugmentedReference]:
    """Each reference and its flipped copies, `count` in all, the plain one first."""
    turns = [(False, False), (False, True), (True, False), (True, True)][:count]
    return [
        AugmentedReference(
            flip(r, rows=rows, columns=columns) if rows or columns else r,
            i,
            labels_of(r),
        )
        for i, r in enumerate(references)
        for rows, columns in turns
    ]


class FeatureStore:
    """Features of references in half precision, as many as fit."""

    def __init__(self, prompter: FeatureSource) -> None:
        self.prompter = prompter
        self._kept: dict[int, Levels] = {}
        self._maps: dict[tuple[int, int], Tensor] = {}
        self._bytes = 0

    def levels(self, reference: Reference) -> Levels:
        """Features of an image."""
        if id(reference) not in self._kept:
            fresh = self.prompter.backbone.features(reference.image)
            small = [[block.clamp(-HALF_MAX, HALF_MAX).half() for block in x] for x in fresh]
            size = sum(b.numel() * 2 for level in small for b in level)
            if self._bytes + size > MEMORY_BYTES:
                return fresh
            self._kept[id(reference)] = small
            self._bytes += size
        return [[block.float() for block in level] for level in self._kept[id(reference)]]

    def map(self, reference: Reference, label: int) -> Tensor:
        """Heat map of one class, (1, S, S)."""
        key = (id(reference), label)
        if key not in self._maps:
            objects = [p for p in reference.objects if p.label == label]
            self._maps[key] = self.prompter.map_of(objects, reference.image.shape).half()
        return self._maps[key].float()

    def target(self, reference: Reference) -> NormalizedFeatures:
        """Normalized, to be searched in."""
        return prepare_target(self.levels(reference), self.prompter.center)

    def reference(self, reference: Reference, label: int) -> NormalizedFeatures:
        """Normalized under the heat map of one class, to be searched for."""
        weighted = self.prompter.settings.mask_mode == "weighted"
        return prepare_reference(
            self.levels(reference),
            self.map(reference, label),
            self.prompter.center,
            mask_mode="weighted" if weighted else "faithful",
        )

    def center(self, views: Sequence[AugmentedReference]) -> Levels:
        """Mean of each channel over the images, padding left out."""
        totals: list[list[Tensor]] = []
        for view in views:
            shape = view.reference.image.shape
            frame = self.prompter.backbone.frame(shape)
            parts = [
                [valid_mean(block, shape, frame) for block in level]
                for level in self.levels(view.reference)
            ]
            if not totals:
                totals = parts
            else:
                totals = [
                    [a + b for a, b in zip(*z, strict=True)]
                    for z in zip(totals, parts, strict=True)
                ]
        return [[total / len(views) for total in level] for level in totals]


def valid_mean(block: Tensor, shape: tuple[int, ...], frame: tuple[int, int]) -> Tensor:
    """Mean of each channel, (1, C, 1, 1), over the cells that show the image, not padding."""
    rows, columns = (
        max(1, round(cells * n / f))
        for cells, n, f in zip(block.shape[-2:], shape[:2], frame, strict=True)
    )
    return block[..., :rows, :columns].mean((-2, -1), keepdim=True)


def support_candidates(
    views: list[AugmentedReference], view: AugmentedReference, label: int
) -> list[AugmentedReference]:
    """References (support) for a target (query): other images of the class, not flipped copies."""
    return [v for v in views if v.source != view.source and label in v.labels]


def random_shift(
    target: NormalizedFeatures, true_map: Tensor, share: float, rng: np.random.Generator
) -> tuple[NormalizedFeatures, Tensor]:
    """Move target and map by a random number of cells, unless no object would be left."""
    grid, side = target.grids[-1], true_map.shape[-1]
    most = [int(share * g) for g in grid]
    shift = tuple(int(rng.integers(-m, m + 1)) for m in most)
    if shift == (0, 0):
        return target, true_map
    steps = [round(s * side / g) for s, g in zip(shift, grid, strict=True)]
    moved_map = shift_map(true_map, steps[0], steps[1])
    if float(moved_map.max()) < 0.5 * float(true_map.max()):
        return target, true_map
    return shift_features(target, (shift[0], shift[1])), moved_map


def shift_features(prepared: NormalizedFeatures, shift: Grid) -> NormalizedFeatures:
    """Move what the images show by whole cells of the coarsest grid; blank cells come in.

    Parameters
    ----------
    prepared : NormalizedFeatures
        With all cells, as targets have.
    shift : (int, int)
        Cells down and to the right.
    """
    coarsest = prepared.grids[-1]
    images = []
    for image in prepared.vectors:
        levels = []
        for vectors, grid in zip(image, prepared.grids, strict=True):
            steps = [round(s * g / c) for s, g, c in zip(shift, grid, coarsest, strict=True)]
            levels.append(
                shift_map(vectors.reshape(*vectors.shape[:2], *grid), steps[0], steps[1]).flatten(2)
            )
        images.append(tuple(levels))
    return NormalizedFeatures(prepared.grids, tuple(images), prepared.cells)


def shift_map(x: Tensor, down: int, right: int) -> Tensor:
    """Move the last two axes; zeros come in."""
    height, width = x.shape[-2:]
    out = torch.zeros_like(x)
    rows = slice(max(down, 0), height + min(down, 0)), slice(max(-down, 0), height - max(down, 0))
    columns = (
        slice(max(right, 0), width + min(right, 0)),
        slice(max(-right, 0), width - max(right, 0)),
    )
    out[..., rows[0], columns[0]] = x[..., rows[1], columns[1]]
    return out


def choose_diverse(
    store: FeatureStore, references: Sequence[Reference], count: int
) -> tuple[Reference, ...]:
    """References that cover the others best; more than `count` where there are more classes.

    Greedy farthest points of the mean coarse feature; those that show a new class come first.
    """
    count = max(count, len(_counts(references)))
    if len(references) <= count:
        return tuple(references)
    vectors = torch.cat([store.levels(r)[2][-1].mean((-2, -1)) for r in references])  # (N, C)
    vectors = vectors - vectors.mean(0)
    vectors = vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-6)
    chosen = [int((vectors @ vectors.T).mean(1).argmax())]
    while len(chosen) < count:
        nearest = (vectors @ vectors[chosen].T).amax(1)  # (N,) cosines
        covered = {label for i in chosen for label in labels_of(references[i])}
        new = [i for i, r in enumerate(references) if not covered.issuperset(labels_of(r))]
        nearest[new] -= 3.0
        nearest[chosen] = torch.inf
        chosen.append(int(nearest.argmin()))
    return tuple(references[i] for i in sorted(chosen))

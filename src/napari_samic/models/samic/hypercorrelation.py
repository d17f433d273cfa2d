"""Hypercorrelation: how much each cell of one image looks like each of another, at several levels.

Sources: HSNet (Min et al., ICCV 2021), section 4.1, and SAMIC, section 3.3. Knows feature maps and
heat maps; no backbone, no image, no learner.

Dimensions: (a) is the target (query) grid, (b) the reference (support) grid. A level is
(B, L, ha, wa, hb, wb), stored channels-last as (B, ha, wa, hb, wb, L), as `hsnet` reads it.
Each image is normalized once (`prepare_target`, `prepare_reference`); a pair is then one product
of matrices over the few reference cells that the heat map reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_samic.core.errors import InputError

Grid: TypeAlias = tuple[int, int]
Levels: TypeAlias = Sequence[Sequence[Tensor] | Tensor]
"""Fine to coarse; each level its blocks, a list of (B, C, h, w) or one (L, B, C, h, w)."""
MaskMode: TypeAlias = Literal["faithful", "weighted"]

EPS = 1e-5
"""Added to the norm, as HSNet does."""
REACH = 1e-5
"""Reference cells that can't give a correlation above this are left out."""


@dataclass(frozen=True, eq=False)
class NormalizedFeatures:
    """Features of some images, normalized once for use in many pairs.

    Attributes
    ----------
    grids : tuple of (h, w)
        Of each level, fine to coarse.
    vectors : tuple of tuple of (L, C, N) float
        Per image and level; N cells of length at most 1.
    cells : tuple of tuple of (N,) int64 or None
        Per image and level, which cells were kept; None: all of them.
    """

    grids: tuple[Grid, ...]
    vectors: tuple[tuple[Tensor, ...], ...]
    cells: tuple[tuple[Tensor | None, ...], ...]

    def __len__(self) -> int:
        return len(self.vectors)

    @staticmethod
    def join(parts: Sequence[NormalizedFeatures]) -> NormalizedFeatures:
        """Make one batch of several, without a copy.

        Raises
        ------
        InputError
            No part, or parts of different grids.
        """
        grids = {part.grids for part in parts}
        if len(grids) != 1:
            raise InputError(f"features on grids {sorted(grids)}: expected one set of grids.")
        vectors, cells = ([*chain(*(getattr(p, k) for p in parts))] for k in ("vectors", "cells"))
        return NormalizedFeatures(parts[0].grids, tuple(vectors), tuple(cells))


def _blocks(levels: Levels, center: Levels | None) -> list[list[Tensor]]:
    """Each level its blocks, (B, C, h, w), less their center; checked.

    Where blocks of a level have other numbers of channels, zeros are added: cosines stay the same.
    """
    if center is not None and [len(c) for c in center] != [len(x) for x in levels]:
        given, wanted = [len(c) for c in center], [len(x) for x in levels]
        raise InputError(f"centre for {given} blocks a level, features have {wanted}.")
    for i, level in enumerate(levels):
        shapes = {tuple(block.shape) for block in level}
        alike = {(len(shape), shape[0], *shape[2:]) for shape in shapes}
        if len(alike) != 1 or len(next(iter(shapes))) != 4:
            msg = f"level {i}: blocks of {sorted(shapes)}, expected (B, C, h, w) of one grid."
            raise InputError(msg)
    batches = [len(level[0]) for level in levels]
    if len(set(batches)) != 1 or 0 in batches:
        raise InputError(f"levels of batch {batches}: expected the same, and not none.")
    blocks = [list(level) for level in levels]
    if center is not None:
        blocks = [
            [f - c for f, c in zip(level, mean, strict=True)]
            for level, mean in zip(blocks, center, strict=True)
        ]
    return [_widened(level) for level in blocks]


def _widened(level: Sequence[Tensor]) -> list[Tensor]:
    widths = [block.shape[1] for block in level]
    missing = [max(widths) - width for width in widths]
    return [F.pad(x, (0, 0, 0, 0, 0, n)) if n else x for x, n in zip(level, missing, strict=True)]


@torch.no_grad()
def prepare_target(levels: Levels, center: Levels | None = None) -> NormalizedFeatures:
    """Normalize the features of target images, once for all their pairs.

    Parameters
    ----------
    levels : sequence of blocks, each (B, C, h, w) float
        Fine to coarse: l2, l3, l4.
    center : the same nesting, each (1, C, 1, 1), optional
        Channel means that are subtracted first.

    Returns
    -------
    NormalizedFeatures
        B images.

    Raises
    ------
    InputError
        Blocks, levels or center that don't fit each other.
    """
    vectors, grids = [], []
    for level in _blocks(levels, center):
        b, c, h, w = level[0].shape
        unit = level[0].new_empty(b, len(level), c, h * w)
        for i, block in enumerate(level):
            flat = block.flatten(2)  # (B, C, N)
            torch.div(flat, flat.norm(dim=1, keepdim=True) + EPS, out=unit[:, i])
        vectors.append(unit)
        grids.append((h, w))
    images = tuple(zip(*vectors, strict=True))
    return NormalizedFeatures(tuple(grids), images, tuple((None,) * len(grids) for _ in images))


@torch.no_grad()
def prepare_reference(
    levels: Levels,
    heat_map: Tensor,
    center: Levels | None = None,
    *,
    mask_mode: MaskMode = "faithful",
    active_only: bool = True,
) -> NormalizedFeatures:
    """Mask and normalize the features of reference images, once for all their pairs.

    Parameters
    ----------
    levels : sequence of blocks, each (B, C, h, w) float
        Fine to coarse: l2, l3, l4.
    heat_map : (B, H, W) float
        Saliency of the annotated objects, not negative.
    center : the same nesting as `levels`, each (1, C, 1, 1), optional
        Channel means that are subtracted first.
    mask_mode : {"faithful", "weighted"}
        Multiply, then normalize, which cancels the map but for values near 1e-5 / norm (paper);
        or normalize, then weigh each correlation by the area mean of the map.
    active_only : bool
        Keep only cells that can correlate above 1e-5; the others read as 0.

    Returns
    -------
    NormalizedFeatures
        B images.

    Raises
    ------
    InputError
        A map of another batch, or with negative or non-finite values; levels as `prepare_target`.

    References
    ----------
    HSNet, equation 1; SAMIC, section 3.3.
    """
    blocks = _blocks(levels, center)
    _check_heat_map(heat_map, len(blocks[0][0]), mask_mode)
    vectors, cells, grids = [], [], []
    for level in blocks:
        grid = (level[0].shape[2], level[0].shape[3])
        weight = _on_grid(heat_map, grid, mask_mode).to(level[0].dtype)  # (B, N)
        flat = [block.flatten(2) for block in level]  # L of (B, C, N)
        pairs = [
            _masked([f[i] for f in flat], weight[i], mask_mode, active_only)
            for i in range(len(weight))
        ]
        vectors.append([v for v, _ in pairs])
        cells.append([c for _, c in pairs])
        grids.append(grid)
    return NormalizedFeatures(
        tuple(grids), tuple(zip(*vectors, strict=True)), tuple(zip(*cells, strict=True))
    )


def _check_heat_map(heat_map: Tensor, batch: int, mask_mode: str) -> None:
    if mask_mode not in ("faithful", "weighted"):
        raise InputError(f"mask_mode {mask_mode!r}: expected faithful or weighted.")
    if heat_map.ndim != 3 or len(heat_map) != batch:
        msg = f"heat map of {tuple(heat_map.shape)}, expected ({batch}, H, W) like the features."
        raise InputError(msg)
    if not bool(((heat_map >= 0) & (heat_map < torch.inf)).all()):
        raise InputError("heat map has negative or non-finite values, expected [0, 1].")


def _on_grid(heat_map: Tensor, grid: Grid, mask_mode: MaskMode) -> Tensor:
    """(B, H, W) to (B, h * w)."""
    if mask_mode == "weighted":
        return F.adaptive_avg_pool2d(heat_map, grid).flatten(1)
    small = F.interpolate(heat_map[:, None], grid, mode="bilinear", align_corners=True)
    return small.flatten(1)


def _masked(
    blocks: Sequence[Tensor], weight: Tensor, mask_mode: MaskMode, active_only: bool
) -> tuple[Tensor, Tensor | None]:
    """One image's L blocks (C, N) and weight (N,) to vectors (L, C, N') and the cells kept."""
    norm = torch.stack([f.norm(dim=0) for f in blocks])  # (L, N)
    masked_norm = norm if mask_mode == "weighted" else weight * norm
    scale = weight / (masked_norm + EPS)  # m f / (|m f| + eps), or m f / (|f| + eps)
    if not active_only:
        return torch.stack([f * s for f, s in zip(blocks, scale, strict=True)]), None
    cells = ((scale * norm).amax(0) > REACH).nonzero()[:, 0]  # |corr| <= scale * norm
    kept = [f[:, cells] * s[cells] for f, s in zip(blocks, scale, strict=True)]
    return torch.stack(kept), cells


@torch.no_grad()
def correlate(target: NormalizedFeatures, reference: NormalizedFeatures) -> list[Tensor]:
    """Hypercorrelation: cosine of every target cell with every reference cell, not below 0.

    Each block of features gives a 4-D tensor (rows and columns of both grids).

    Parameters
    ----------
    target, reference : NormalizedFeatures
        As many images in both, or one in either, which is paired with all of the other.

    Returns
    -------
    list of (B, L, ha, wa, hb, wb) float
        Pyramid order: l4, l3, l2. Without gradient: the features are frozen.

    Raises
    ------
    InputError
        Batches or levels that don't fit, or a reference in the target's place.

    References
    ----------
    HSNet, equation 2.
    """
    if any(cells is not None for image in target.cells for cells in image):
        raise InputError("the target has masked features. Pass target first, reference second.")
    if len(target.grids) != len(reference.grids) or not (
        len(target) == len(reference) or 1 in (len(target), len(reference))
    ):
        msg = (
            f"target of {len(target)} images, {len(target.grids)} levels; reference of "
            f"{len(reference)} images, {len(reference.grids)} levels: expected alike, or 1 image."
        )
        raise InputError(msg)
    return [_correlate_level(target, reference, i) for i in reversed(range(len(target.grids)))]


def _correlate_level(
    target: NormalizedFeatures, reference: NormalizedFeatures, level: int
) -> Tensor:
    """One level of all pairs, (B, L, ha, wa, hb, wb), stored channels-last."""
    (ha, wa), (hb, wb) = target.grids[level], reference.grids[level]
    like = target.vectors[0][level]
    batch = max(len(target), len(reference))
    out = like.new_zeros(batch, ha * wa, hb * wb, len(like))
    for i in range(batch):
        a = target.vectors[i % len(target)][level]  # (L, C, Na)
        j = i % len(reference)
        b, cells = reference.vectors[j][level], reference.cells[j][level]  # (L, C, Nb)
        if a.shape[:2] != b.shape[:2]:
            shapes = f"target {tuple(a.shape[:2])}, reference {tuple(b.shape[:2])}"
            msg = f"level {level}: blocks and channels of {shapes}. Use features of one backbone."
            raise InputError(msg)
        cosine = (a.mT @ b).clamp_(min=0).permute(1, 2, 0)  # (Na, Nb, L)
        if cells is None:
            out[i] = cosine
        else:
            out[i].index_copy_(1, cells, cosine)
    return out.view(batch, ha, wa, hb, wb, -1).permute(0, 5, 1, 2, 3, 4)  # (B, L, ha, wa, hb, wb)

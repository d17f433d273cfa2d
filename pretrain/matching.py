"""Loss that makes the taps of one kind of object alike across pictures: what the prompter feeds on.

For every block that the hypercorrelation compares: the mean centered feature of the kind in one
picture of a pair is searched in the other by cosine, as HSNet and nearest-neighbour matching do.

Source: prototypes of Snell et al., NeurIPS 2017, dense as in Wang et al. (PANet), ICCV 2019.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_samic.models.sam.encoding import GRIDS


class Matcher(nn.Module):
    """A scale and an offset for each block; with and without the background's prototype."""

    def __init__(self, depths: Sequence[int]) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((sum(depths), 2), 8.0))
        self.offset = nn.Parameter(torch.full((sum(depths), 2), -1.0))

    def forward(self, rng: np.random.Generator, taps: list[list[Tensor]], same: Tensor) -> Tensor:
        """Balanced cross-entropy, mean over blocks.

        Parameters
        ----------
        taps : levels of blocks, (B, C, h, w), pictures 2k and 2k + 1 of one kind
        same : (B, 1, H, W) float
            Where the kind is.
        """
        losses, number = [], 0
        points = rng.random() < 0.3
        for level, grid in zip(taps, GRIDS, strict=True):
            cells = F.adaptive_avg_pool2d(same, grid)
            for block in level:
                x = F.adaptive_avg_pool2d(block.float(), grid)
                losses.append(self._one(rng, x, cells, number, points=points))
                number += 1
            losses[-1] = 2 * losses[-1]  # the last block of a level has seen most
        return torch.stack(losses).mean()

    def _one(
        self, rng: np.random.Generator, x: Tensor, cells: Tensor, number: int, *, points: bool
    ) -> Tensor:
        pairs, grid = len(x) // 2, x.shape[-1]
        x = x.reshape(pairs, 2, -1, grid * grid)  # (K, 2, C, n)
        inside = cells.reshape(pairs, 2, 1, grid * grid)
        x = F.normalize(x - x.mean((1, 3), keepdim=True), dim=2)
        weight = inside
        if points:  # a few cells of the kind, as clicks are
            weight = inside * torch.from_numpy(rng.random(inside.shape) < 0.15).float()
        front = F.normalize((x * weight).sum(3, keepdim=True), dim=2).flip(1)  # (K, 2, C, 1)
        back = F.normalize((x * (1 - inside)).sum(3, keepdim=True), dim=2).flip(1)
        near, far = (x * front).sum(2, keepdim=True), (x * back).sum(2, keepdim=True)
        has_prototype = (weight.sum(3, keepdim=True) > 0.3).float().flip(1)
        yes, no = (inside > 0.5).float() * has_prototype, (inside < 0.15).float() * has_prototype
        total = x.new_zeros(())
        for i, cosine in enumerate((near, near - far)):
            logits = self.scale[number, i] * cosine + self.offset[number, i]
            for truth, sign in ((yes, 1.0), (no, -1.0)):
                error = F.softplus(-sign * logits) * truth
                count = truth.sum((2, 3))  # (K, 2)
                each = error.sum((2, 3)) / count.clamp(min=1)
                total = total + each.sum() / (count > 0).sum().clamp(min=1)
        return total / 4

"""An image on the grids of a network: features of its cells, and what of a mask each cell shows.

Padding is left out of all means. Ways without training stand on it. Must not know what is compared
with what, or napari.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from napari_samic.core.errors import ModelError
from napari_samic.core.types import BoolArray, FloatArray, Image
from napari_samic.models.features.backbones import Backbone

MOSTLY = 0.5
"""A cell belongs to an object that covers more than this share of it."""


class PatchFeatures:
    """One picture on the grids of a backbone, fine to coarse.

    Parameters
    ----------
    backbone : Backbone
    image : (H, W, 3) uint8
    labels : (H, W) int, optional
        Class of each pixel, or whatever the cells are to be told by.

    Attributes
    ----------
    levels : list of list of (C, h, w) Tensor
    last : list of (C, h, w) Tensor
        Last block of each level.
    valid : list of (int, int)
        Rows and columns of each level that show the image.
    """

    def __init__(
        self, backbone: Backbone, image: Image, labels: NDArray[Any] | None = None
    ) -> None:
        self.image = image
        self.labels = labels
        self.levels = [[b[0].float().cpu() for b in x] for x in backbone.features(image)]
        self.last = [level[-1] for level in self.levels]
        self.frame: tuple[int, int] = backbone.frame(image.shape)
        self.valid = [self._valid(x.shape[-2:]) for x in self.last]

    def _valid(self, grid: Sequence[int]) -> tuple[int, int]:
        sides = zip(grid, self.image.shape[:2], self.frame, strict=True)
        rows, columns = (max(1, round(g * n / f)) for g, n, f in sides)
        return rows, columns

    def cover(self, label: int | None = None) -> list[Tensor]:
        """Share of each cell that is of a class (None: of any), (h, w) for each level."""
        if self.labels is None:
            return [torch.zeros(x.shape[-2:]) for x in self.last]
        inside = self.labels > 0 if label is None else self.labels == label
        mask = self._pad_to_frame(torch.from_numpy(np.asarray(inside))[None].float())
        return [pool_to_grid(mask, x.shape[-2:])[0] for x in self.last]

    def _pad_to_frame(self, x: Tensor) -> Tensor:
        rows, columns = (f - n for f, n in zip(self.frame, x.shape[-2:], strict=True))
        return F.pad(x, (0, columns, 0, rows))

    def cropped(self, grid: Tensor, level: int = 0) -> Tensor:
        """(..., h, w) of a level to (..., r, c), without the padding."""
        rows, columns = self.valid[level]
        return grid[..., :rows, :columns]

    def inside(self, label: int | None = None) -> Tensor:
        """Cells of the finest grid that are mostly of a class, (r, c) bool, as `covered_cells`."""
        return covered_cells(self.cropped(self.cover(label)[0]))

    def to_image(self, grid: Tensor) -> FloatArray:
        """(h, w) of the finest level, or (r, c) without its padding, to (H, W) float32."""
        full = self.last[0].shape[-2:]
        missing = [int(f) - n for f, n in zip(full, grid.shape, strict=True)]
        wide = F.pad(grid[None, None].float(), (0, missing[1], 0, missing[0]), mode="replicate")
        height, width = self.image.shape[:2]
        return np.asarray(upsample(wide[0], self.frame)[0, :height, :width].numpy())

    def means(self) -> list[Tensor]:
        """Mean feature of each level's last block, (C, 1, 1)."""
        return [self.cropped(x, i).mean((1, 2), keepdim=True) for i, x in enumerate(self.last)]

    def unit(self, center: Sequence[Tensor]) -> list[Tensor]:
        """Last blocks less their center, each cell of length 1."""
        return [F.normalize(x - c, dim=0) for x, c in zip(self.last, center, strict=True)]

    def descriptors(self, center: Sequence[Tensor]) -> Tensor:
        """Cells of the finest grid, (C, r, c): a product of two is the mean cosine of the levels.

        Each cell has length 1.
        """
        grid = self.last[0].shape[-2:]
        parts = [F.normalize(upsample(x, grid), dim=0) for x in self.unit(center)]
        features: Tensor = self.cropped(torch.cat(parts)) / len(parts) ** 0.5
        return features

    def feature_matrix(self, *, color: bool = False) -> FloatArray:
        """All blocks (and the mean color) of the finest grid's cells, (cells, channels)."""
        grid = self.last[0].shape[-2:]
        parts = [upsample(block, grid) for level in self.levels for block in level]
        if color:
            rgb = torch.from_numpy(np.array(self.image)).permute(2, 0, 1).float() / 255
            parts.append(pool_to_grid(self._pad_to_frame(rgb), grid))
        flat = self.cropped(torch.cat(parts))  # (C, r, c)
        return np.asarray(flat.reshape(len(flat), -1).T.numpy())


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """(C, h, w) to (C, *size), bilinear."""
    return F.interpolate(x[None], size=tuple(size), mode="bilinear")[0]


def pool_to_grid(x: Tensor, grid: Sequence[int]) -> Tensor:
    """(C, h, w) to (C, *grid), the mean of what falls into each cell."""
    return F.adaptive_avg_pool2d(x, (grid[0], grid[1]))


def center_of(patch_features: Sequence[PatchFeatures]) -> list[Tensor]:
    """Mean over the pictures of each level's mean feature."""
    return [
        torch.stack(parts).mean(0)
        for parts in zip(*(x.means() for x in patch_features), strict=True)
    ]


def covered_cells(cover: Tensor) -> Tensor:
    """Cells that an object mostly covers, bool; the fullest ones where it is smaller than a cell.

    Parameters
    ----------
    cover : (h, w) float
        Share of each cell.

    Returns
    -------
    (h, w) bool Tensor
        All False only where nothing is covered.
    """
    inside = cover > MOSTLY
    return inside if inside.any() else (cover > 0) & (cover == cover.max())


def on_grid(mask: BoolArray, grid: Sequence[int]) -> Tensor:
    """Cells of a grid over the whole image that a mask mostly covers, as `covered_cells`.

    Parameters
    ----------
    mask : (H, W) bool
    grid : (h, w)
    """
    values = torch.from_numpy(np.asarray(mask, np.float32))[None]
    return covered_cells(pool_to_grid(values, grid)[0])


def segmenter_embedding(segmenter: Any, image: Image) -> Tensor:
    """What a segmenter's encoder made of an image, (D, h, w) without the padding.

    Raises
    ------
    ModelError
        A segmenter that does not show it.
    """
    if not hasattr(segmenter, "embedding"):
        msg = (
            f"{segmenter.name}: does not show its embedding (method `embedding`). "
            "Compare the features of a backbone with it."
        )
        raise ModelError(msg)
    return torch.from_numpy(segmenter.embedding(image)).float()


def to_image(values: Tensor, shape: Sequence[int]) -> FloatArray:
    """(h, w) over the whole image to (H, W) float32, bilinear."""
    return np.asarray(upsample(values[None].float(), (shape[0], shape[1]))[0].numpy())

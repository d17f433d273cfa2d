"""How good an encoder's features are for finding an object by an annotated picture.

One-shot AUC of the cosine to a reference's prototype, and a linear probe. `oneshot.py --features`
runs it; its baselines stand on the same grids. Needs scikit-learn for the probe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_samic.images import open_images
from napari_samic.masks import match_by_stem, read_mask
from napari_samic.metrics import auc
from napari_samic.normalise import Normalisation, fit_normalisation, read_rgb

SETS = {"kvasir": "kvasir-seg-train880", "nuclei": "coelho2009-nuclei", "cvc": "cvc-clinicdb"}
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
CELLS = 300
"""Of each side of a reference that a classifier learns from, at most."""
BUDGET = 12_000
"""Cells that a classifier learns from in all, at most."""


@dataclass(frozen=True, eq=False)
class Picture:
    """(H, W, 3) uint8 and its objects, (H, W) int32."""

    name: str
    image: Any
    labels: Any

    @property
    def truth(self) -> Any:
        """Union of the objects, (H, W) bool."""
        return self.labels > 0


class Pool:
    """Pictures of a folder with `images` and `masks`, read when asked for."""

    def __init__(self, folder: Path, normalisation: Normalisation | None = None) -> None:
        self.planes = open_images(folder / "images")
        self.masks = match_by_stem(self.planes, folder / "masks")
        self.normalisation = normalisation or fit_normalisation(self.planes)

    def __len__(self) -> int:
        return len(self.planes)

    def __getitem__(self, i: int) -> Picture:
        plane = self.planes[i]
        image = read_rgb(plane, self.normalisation)
        mask = read_mask(plane, self.masks[plane.label], shape=image.shape)
        return Picture(plane.label, image, mask)


class Look:
    """One picture on the grids of a backbone, fine to coarse; padding is left out of all means."""

    def __init__(self, backbone: Any, picture: Picture) -> None:
        self.picture = picture
        self.levels = [[b[0].float().cpu() for b in x] for x in backbone.features(picture.image)]
        self.last = [level[-1] for level in self.levels]  # (C, h, w) each
        self.frame: tuple[int, int] = backbone.frame(picture.image.shape)
        self.valid = [self._valid(x.shape[-2:]) for x in self.last]

    def _valid(self, grid: Sequence[int]) -> tuple[int, int]:
        sides = zip(grid, self.picture.image.shape[:2], self.frame, strict=True)
        rows, columns = (max(1, round(g * n / f)) for g, n, f in sides)
        return rows, columns

    @cached_property
    def cover(self) -> list[Tensor]:
        """Share of each cell that is object, (h, w) for each level."""
        mask = self._framed(torch.from_numpy(self.picture.truth)[None].float())
        return [F.adaptive_avg_pool2d(mask, x.shape[-2:])[0] for x in self.last]

    @property
    def truth(self) -> Any:
        """Cells of the finest grid that are mostly object, (r, c) bool."""
        return self.cropped(self.cover[0] > 0.5)

    def _framed(self, x: Tensor) -> Tensor:
        rows, columns = (f - n for f, n in zip(self.frame, x.shape[-2:], strict=True))
        return F.pad(x, (0, columns, 0, rows))

    def cropped(self, grid: Tensor, level: int = 0) -> Any:
        """Without the padding, as an array."""
        rows, columns = self.valid[level]
        return grid[..., :rows, :columns].numpy()

    def to_image(self, grid: Tensor) -> Any:
        """(h, w) of the finest level to (H, W)."""
        height, width = self.picture.image.shape[:2]
        return upsampled(grid[None], self.frame)[0, :height, :width].numpy()

    def means(self) -> list[Tensor]:
        """Mean feature of each level's last block, (C, 1, 1)."""
        return [
            x[:, :rows, :columns].mean((1, 2), keepdim=True)
            for x, (rows, columns) in zip(self.last, self.valid, strict=True)
        ]

    def unit(self, centre: Sequence[Tensor]) -> list[Tensor]:
        """Last blocks less their centre, each cell of length 1."""
        return [F.normalize(x - c, dim=0) for x, c in zip(self.last, centre, strict=True)]

    def stacked(self, *, colour: bool = False) -> Any:
        """All blocks (and the mean colour) of the finest grid's cells, (cells, channels)."""
        grid = self.last[0].shape[-2:]
        parts = [upsampled(block, grid) for level in self.levels for block in level]
        if colour:
            rgb = torch.from_numpy(np.array(self.picture.image)).permute(2, 0, 1).float() / 255
            parts.append(F.adaptive_avg_pool2d(self._framed(rgb), grid))
        flat = self.cropped(torch.cat(parts))  # (C, r, c)
        return flat.reshape(len(flat), -1).T


def upsampled(x: Tensor, size: Sequence[int]) -> Tensor:
    """(C, h, w) to (C, *size), bilinear."""
    return F.interpolate(x[None], size=tuple(size), mode="bilinear")[0]


def centre_of(looks: Sequence[Look]) -> list[Tensor]:
    """Mean over the pictures of each level's mean feature."""
    return [torch.stack(parts).mean(0) for parts in zip(*(x.means() for x in looks), strict=True)]


def prototypes(look: Look, centre: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Of object and background, (C,) of length 1 a level; cells count by their share of each."""
    both: tuple[list[Tensor], list[Tensor]] = ([], [])
    for x, cover, (rows, columns) in zip(look.unit(centre), look.cover, look.valid, strict=True):
        cells, weight = x[:, :rows, :columns], cover[:rows, :columns]
        for kept, w in zip(both, (weight, 1 - weight), strict=True):
            kept.append(F.normalize((cells * w).sum((1, 2)), dim=0))
    return both


def cosines(look: Look, wanted: Sequence[Tensor], centre: Sequence[Tensor]) -> list[Tensor]:
    """Likeness of every cell to a level's prototype, each (h, w) of the finest grid."""
    grid = look.last[0].shape[-2:]
    maps = [torch.einsum("c,chw->hw", w, x) for w, x in zip(wanted, look.unit(centre), strict=True)]
    return [upsampled(m[None], grid)[0] for m in maps]


def interval(values: Sequence[float], seed: int = 0) -> str:
    """Mean and its bootstrap 95 % interval."""
    kept = np.array(values)[~np.isnan(values)]
    if not len(kept):
        return "-"
    picks = np.random.default_rng(seed).integers(len(kept), size=(2000, len(kept)))
    low, high = np.percentile(kept[picks].mean(1), (2.5, 97.5))
    return f"{kept.mean():.3f} ({low:.3f}-{high:.3f})"


def one_shot(backbone: Any, pool: Any, pairs: int, seed: int) -> dict[str, list[list[float]]]:
    """AUC of each pair: all levels together, then each one."""
    rng = np.random.default_rng(seed)
    shared = centre_of([Look(backbone, pool[int(i)]) for i in rng.permutation(len(pool))[:20]])
    rows: dict[str, list[list[float]]] = {}
    for _ in range(pairs):
        a, b = (Look(backbone, pool[int(i)]) for i in rng.choice(len(pool), 2, replace=False))
        for name, centre in (("the pair", centre_of([a, b])), ("20 references", shared)):
            front, back = (cosines(b, p, centre) for p in prototypes(a, centre))
            contrast = [f - g for f, g in zip(front, back, strict=True)]
            for kind, maps in (("object", front), ("object less background", contrast)):
                asked = [torch.stack(maps).mean(0), *maps]
                found = [auc(b.cropped(m), b.truth) for m in asked]
                rows.setdefault(f"{kind}, centred by {name}", []).append(found)
    return rows


def sampled(
    looks: Sequence[Look], rng: np.random.Generator, *, colour: bool = False
) -> tuple[Any, Any]:
    """Cells of references to learn from: as many of the object as of the rest, if there are."""
    most = max(1, min(CELLS, BUDGET // (2 * len(looks))))
    inputs, answers = [], []
    for look in looks:
        flat, inside = look.stacked(colour=colour), look.truth.ravel()
        for side in (True, False):
            cells = rng.permutation(np.flatnonzero(inside == side))[:most]
            inputs.append(flat[cells])
            answers.append(np.full(len(cells), side))
    return np.concatenate(inputs), np.concatenate(answers)


def probe(backbone: Any, pool: Any, references: int, targets: int, seed: int) -> list[float]:
    """AUC of logistic regression on each picture that it did not learn from."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(seed)
    order = [int(i) for i in rng.permutation(len(pool))]
    shown = [Look(backbone, pool[i]) for i in order[: min(references, len(pool) // 2)]]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
    model.fit(*sampled(shown, rng))
    others = (Look(backbone, pool[i]) for i in order[len(shown) :][:targets])
    return [auc(model.decision_function(look.stacked()), look.truth) for look in others]


def table(backbone: Any, pool: Any, *, pairs: int, references: int, targets: int, seed: int) -> str:
    """Both figures in Markdown."""
    found = one_shot(backbone, pool, pairs, seed)
    grids = [x.shape[-1] for x in Look(backbone, pool[0]).last]
    heads = ["likeness to", "all levels", *(f"grid {g}" for g in grids)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, values in found.items():
        cells = [interval(column) for column in zip(*values, strict=True)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    linear = probe(backbone, pool, references, targets, seed)
    used = min(references, len(pool) // 2)
    text = f"Linear probe, {used} references, {len(linear)} others: {interval(linear)}"
    return "\n".join([*lines, "", text])

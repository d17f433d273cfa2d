"""Training batches: pictures in pairs of one kind, cut out, recoloured, with their first prompts.

A pair shows one kind of object twice, so that a batch teaches both what the segmenter is for (one
object, from a prompt) and what the prompter is for (the same kind, in another picture).
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from pretrain import prompting

STRIDE = prompting.STRIDE
GREY = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
"""What an image is padded with: segment-anything's mean color."""
SHARES = {
    "dsb2018-stage1-train": 0.14,
    "bbbc010-celegans": 0.04,
    "brain-mri-tumor": 0.09,
    "chasedb1-retina": 0.02,
    "dental-panoramic": 0.05,
    "ccp-clothing": 0.11,
    "oxford-pets-128": 0.10,
    "shapes": 0.16,
    "endoscopy": 0.15,
    "em": 0.04,
    "fluorescence": 0.05,
    "brightfield": 0.03,
    "histology": 0.02,
}


@dataclass
class Batch:
    """Pictures 2k and 2k + 1 show one kind.

    Attributes
    ----------
    images : (B, 3, S, S) float32 in [0, 255]
    same : (B, 1, S / 4, S / 4) float32
        1 where the kind of the pair is.
    owners : (P,) int64
        Picture of each target.
    targets : (P, 1, S / 4, S / 4) float32
    prompts : list of P prompts, see `prompting.first_prompt`
    """

    images: torch.Tensor
    same: torch.Tensor
    owners: torch.Tensor
    targets: torch.Tensor
    prompts: list[Any]


class Pool:
    """The memory-mapped pictures of `pretrain.data`: those held back, or the others."""

    def __init__(self, folder: Path, *, held_back: bool) -> None:
        self.images = np.load(folder / "images.npy", mmap_mode="r")
        self.ids = np.load(folder / "ids.npy", mmap_mode="r")
        self.rows = json.loads((folder / "rows.json").read_text())
        self.sets: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for i, row in enumerate(self.rows):
            if row["held_back"] == held_back:
                for kind in sorted(set(row["kinds"])):
                    self.sets[row["set"]][kind].append(i)

    def pair(self, rng: np.random.Generator) -> tuple[str, int, int]:
        """A kind, and two pictures of it; now and then the same one twice."""
        share = np.array([SHARES[s] for s in self.sets])
        kinds = self.sets[rng.choice(list(self.sets), p=share / share.sum())]
        often = np.array([len(rows) for rows in kinds.values()]) ** 0.5
        kind = str(rng.choice(list(kinds), p=often / often.sum()))
        rows = kinds[kind]
        if len(rows) < 2 or rng.random() < 0.12:
            row = int(rng.choice(rows))
            return kind, row, row
        a, b = rng.choice(rows, 2, replace=False)
        return kind, int(a), int(b)

    def codes(self, row: int, kind: str) -> np.ndarray:
        """By id: 0 ground, 1 the kind, 2 and more the others."""
        kinds = self.rows[row]["kinds"]
        others = {k: i + 2 for i, k in enumerate(sorted(set(kinds) - {kind}))}
        return np.array([0] + [others.get(k, 1) for k in kinds])


def view(
    rng: np.random.Generator, image: np.ndarray, ids: np.ndarray, wanted: np.ndarray, side: int
) -> tuple[torch.Tensor, np.ndarray]:
    """A turned, stretched and zoomed cut-out around an object of `wanted`: image and cell ids."""
    low, high = (0.3, 1.25) if side < image.shape[0] else (0.5, 1.25)
    scale = math.exp(rng.uniform(math.log(low), math.log(high)))  # share of the picture seen
    stretch = math.exp(rng.normal(0, 0.18))
    angle = math.radians(rng.choice([0, 90, 180, 270]) + rng.normal(0, 12))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    turn = turn @ np.diag([scale * stretch * rng.choice([-1, 1]), scale / stretch])
    middle = rng.uniform(-0.2, 0.2, 2)
    places = np.argwhere(np.isin(ids[4::8, 4::8], wanted))
    if scale < 0.9 and len(places):
        row, column = (places[rng.integers(len(places))] * 8 + 4) / image.shape[0] * 2 - 1
        slack = max(0.0, 1 - 0.8 * scale)
        middle = np.clip(np.array([column, row]) + rng.normal(0, 0.35 * scale, 2), -slack, slack)
    theta = torch.tensor(np.column_stack([turn, middle]), dtype=torch.float32)[None]
    mode = "reflection" if rng.random() < 0.5 else "zeros"
    source = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    if scale * image.shape[0] / side > 1.4:
        source = F.avg_pool2d(source, 2)
    grid = F.affine_grid(theta, [1, 3, side, side], align_corners=False)
    out = F.grid_sample(source, grid, padding_mode=mode, align_corners=False)[0]
    cells = side // STRIDE
    grid = F.affine_grid(theta, [1, 1, cells, cells], align_corners=False)
    numbers = torch.from_numpy(ids.astype(np.float32))[None, None]
    small = F.grid_sample(numbers, grid, mode="nearest", padding_mode=mode, align_corners=False)
    return out, small[0, 0].numpy().astype(int)


def recolor(
    rng: np.random.Generator, image: torch.Tensor, *, gray: bool, negative: bool
) -> torch.Tensor:
    """Contrast, light, gamma, color cast, blur and noise, each now and then. In [0, 255]."""
    side = image.shape[-1]
    if gray:
        image = image.mean(0, keepdim=True).expand(3, -1, -1)
    if negative:
        image = 255 - image
    if rng.random() < 0.7:
        mean = image.mean()
        image = (image - mean) * rng.uniform(0.5, 1.4) + mean + rng.uniform(-35, 35)
        if not gray:
            image = image * torch.tensor(rng.uniform(0.82, 1.18, (3, 1, 1)), dtype=torch.float32)
    if rng.random() < 0.3:
        image = 255 * (image.clamp(0, 255) / 255) ** math.exp(rng.normal(0, 0.3))
    if rng.random() < 0.3:
        small = int(side * rng.choice([0.25, 0.4, 0.5, 0.7]))
        image = F.interpolate(image[None], size=small, mode="area")
        image = F.interpolate(image, size=side, mode="bilinear", align_corners=False)[0]
    if rng.random() < 0.3:
        image = image + torch.randn(image.shape) * rng.uniform(2, 14)
    return image.clamp(0, 255)


def pad(rng: np.random.Generator, image: torch.Tensor, ids: np.ndarray) -> None:
    """Blank the right or the lower part in place, as the padding of an oblong image does."""
    cells = ids.shape[0]
    keep = int(cells * rng.uniform(0.5, 0.97))
    if rng.random() < 0.5:
        ids[keep:], image[:, keep * STRIDE :] = 0, GREY
    else:
        ids[:, keep:], image[:, :, keep * STRIDE :] = 0, GREY


def draw(rng: np.random.Generator, pool: Pool, *, pairs: int, targets: int, side: int) -> Batch:
    """One batch; not every picture has a target, but one has."""
    images, same, owners, masks, prompts = [], [], [], [], []
    for _ in range(pairs):
        kind, *rows = pool.pair(rng)
        looks = {"gray": rng.random() < 0.15, "negative": rng.random() < 0.08}
        for row in rows:
            codes = pool.codes(row, kind)
            wanted = np.flatnonzero(codes == 1)
            image, ids = view(rng, pool.images[row], pool.ids[row], wanted, side)
            image = recolor(rng, image, **looks)
            if rng.random() < 0.35:
                pad(rng, image, ids)
            classes = codes[ids]
            for _ in range(targets):
                mask = prompting.pick_target(rng, ids, classes)
                if mask is not None:
                    owners.append(len(images))
                    masks.append(mask)
                    prompts.append(prompting.first_prompt(rng, mask))
            images.append(image)
            same.append(classes == 1)
    if not masks:
        return draw(rng, pool, pairs=pairs, targets=targets, side=side)
    return Batch(
        torch.stack(images),
        torch.from_numpy(np.stack(same)).float()[:, None],
        torch.tensor(owners, dtype=torch.long),
        torch.from_numpy(np.stack(masks)).float()[:, None],
        prompts,
    )


class Stream(IterableDataset[Batch]):
    """Batches without end; large ones of one pair for a share of the steps."""

    def __init__(
        self, folder: Path, *, seed: list[int], pairs: int, targets: int, large: float
    ) -> None:
        self.folder, self.seed = folder, seed
        self.pairs, self.targets, self.large = pairs, targets, large

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        pool = Pool(self.folder, held_back=False)
        rng = np.random.default_rng(self.seed)
        while True:
            if rng.random() < self.large:
                yield draw(rng, pool, pairs=1, targets=self.targets, side=512)
            else:
                yield draw(rng, pool, pairs=self.pairs, targets=self.targets, side=256)


def load(stream: Stream) -> Iterator[Batch]:
    """Batches made by one other process, a few ahead."""
    return iter(DataLoader(stream, batch_size=None, num_workers=1, prefetch_factor=4))

"""Simulated prompts for training: what users click and what SAMIC's peaks emit.

All on the stride-4 grid of the network input, so that a batch costs a few milliseconds.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from napari_samic.models.tiny import model

STRIDE = model.STRIDE


def pick_target(
    rng: np.random.Generator, ids: np.ndarray, classes: np.ndarray
) -> np.ndarray | None:
    """One target, (h, w) bool: an object, or now and then a group of one class that touch."""
    values, counts = np.unique(ids[ids > 0], return_counts=True)
    values = values[counts >= 6]
    if not len(values):
        return None
    weights = np.sqrt(counts[counts >= 6].astype(float))
    value = rng.choice(values, p=weights / weights.sum())
    target = ids == value
    if rng.random() < 0.12:
        near = ndimage.binary_dilation(target, iterations=2)
        same = classes == np.bincount(classes[target]).argmax()
        target = np.isin(ids, np.unique(ids[near & same & (ids > 0)]))
    return target if target.mean() < 0.9 else None


def interior_point(rng: np.random.Generator, region: np.ndarray, *, at_maximum: bool = False):
    """A cell inside `region`, weighted by its distance to the outline; (row, column)."""
    depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    if at_maximum:
        best = np.flatnonzero(depth >= depth.max() * 0.95)
        return np.unravel_index(rng.choice(best), region.shape)
    weight = depth.ravel() ** rng.choice([0.5, 1.0, 2.0])
    return np.unravel_index(rng.choice(weight.size, p=weight / weight.sum()), region.shape)


def to_pixels(rng: np.random.Generator, cell: tuple[int, int]) -> tuple[float, float]:
    """Centre of a stride-4 cell as (x, y) in input pixels, moved by up to half a cell."""
    row, column = cell
    jitter = rng.uniform(-1.5, 1.5, 2)
    return (column + 0.5) * STRIDE - 0.5 + jitter[0], (row + 0.5) * STRIDE - 0.5 + jitter[1]


def first_prompt(rng: np.random.Generator, target: np.ndarray):
    """Points [(x, y, sign)], box (4,) or None, whether it is ambiguous, and a mask or None."""
    kind = rng.random()
    points: list[tuple[float, float, int]] = []
    if kind < 0.25:
        return points, noisy_box(rng, target), False, None
    count = 1 if kind < 0.65 else int(rng.integers(2, 5))
    rest = target.copy()
    for _ in range(count):
        if not rest.any():
            break
        cell = interior_point(rng, rest, at_maximum=rng.random() < 0.3)
        points.append((*to_pixels(rng, cell), 1))
        rows, columns = np.ogrid[: target.shape[0], : target.shape[1]]
        spread = max(2.0, 0.25 * np.sqrt(target.sum()))
        rest &= (rows - cell[0]) ** 2 + (columns - cell[1]) ** 2 > spread**2
    if count > 1 and rng.random() < 0.3:
        outside = ndimage.binary_dilation(target, iterations=6) & ~ndimage.binary_dilation(target)
        if outside.any():
            cell = interior_point(rng, outside)
            points.append((*to_pixels(rng, cell), 0))
    hint = None
    if count > 1 and rng.random() < 0.25:
        hint = blobs(rng, points, target.shape)
    return points, None, count == 1, hint


def blobs(rng: np.random.Generator, points, shape: tuple[int, int]) -> np.ndarray:
    """Gaussians at the positive points as logits: a heat map given as mask prompt, (h, w)."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    sigma = max(shape) * rng.uniform(0.015, 0.08)
    heat = np.zeros(shape)
    for x, y, sign in points:
        if sign:
            square = (columns - x / STRIDE) ** 2 + (rows - y / STRIDE) ** 2
            heat = np.maximum(heat, np.exp(-square / (2 * sigma**2)))
    return (8 * heat - 4).astype(np.float32)


def noisy_box(rng: np.random.Generator, target: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(target.any(1)), np.flatnonzero(target.any(0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float) * STRIDE - 0.5
    size = np.array([box[2] - box[0], box[3] - box[1]] * 2)
    box += rng.normal(0, 1, 4) * np.minimum(0.07 * size, 8)
    return np.array([*np.minimum(box[:2], box[2:] - 4), *box[2:]])


def correction(rng: np.random.Generator, target: np.ndarray, answer: np.ndarray):
    """The next click, inside the larger error: (x, y, sign), or None if none is left."""
    missed, extra = target & ~answer, answer & ~target
    sign = int(missed.sum() >= extra.sum())
    region = missed if sign else extra
    if not region.any():
        return None
    parts, count = ndimage.label(region)
    if count > 1:
        region = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    return (*to_pixels(rng, interior_point(rng, region, at_maximum=True)), sign)


def correct(rng: np.random.Generator, prompts, targets, previous) -> None:
    """Add to each prompt the next click, given the logits of its last answer."""
    wanted, answers = (targets[:, 0] > 0.5).numpy(), (previous[:, 0] > 0).numpy()
    for prompt, target, answer in zip(prompts, wanted, answers, strict=True):
        click = correction(rng, target, answer)
        if click:
            prompt[0].append(click)


def hints(prompts, shape) -> torch.Tensor | None:
    """Masks of the prompts that have one, as logits (P, 1, h, w); None if none has."""
    if not any(p[3] is not None for p in prompts):
        return None
    none = np.full(shape[-2:], np.nan, np.float32)
    return torch.from_numpy(np.stack([none if p[3] is None else p[3] for p in prompts])[:, None])


def draw(side: int, prompts, previous: torch.Tensor | None) -> torch.Tensor:
    """Prompt maps of a mixed list of prompts, (P, 10, side / 4, side / 4).

    A map of `previous` that is NaN stands for none.
    """
    encoder = model.TinyPromptEncoder(side)
    longest = max(1, max(len(p[0]) for p in prompts))
    xy, sign = torch.zeros(len(prompts), longest, 2), -torch.ones(len(prompts), longest)
    for i, (points, *_) in enumerate(prompts):
        for j, (x, y, s) in enumerate(points):
            xy[i, j], sign[i, j] = torch.tensor([x, y]), s
    maps = encoder((xy, sign), None, previous)[1].nan_to_num(0.0)
    if previous is not None:
        maps[:, 9] *= ~previous[:, 0].isnan()
    boxed = [i for i, p in enumerate(prompts) if p[1] is not None]
    if boxed:
        boxes = torch.tensor(np.stack([prompts[i][1] for i in boxed]), dtype=torch.float32)
        maps[boxed, 6:8] = encoder(None, boxes, None)[1][:, 6:8]
    return maps.contiguous(memory_format=torch.channels_last)

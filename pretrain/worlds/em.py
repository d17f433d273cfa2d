"""Electron-microscopy-like sections: membranes, cytoplasm and mitochondria."""

from __future__ import annotations

import numpy as np
from PIL import Image
from pretrain.worlds.brush import Family, Field, Rng, blob, log_uniform, optics, ridge, rough
from scipy import ndimage
from scipy.spatial import cKDTree

from napari_samic.sample_data.synthetic import noise


def em_family(rng: Rng) -> Family:
    paper, ink = rng.uniform(0.55, 0.85), rng.uniform(0.05, 0.25)
    return optics(
        rng,
        "em",
        str(rng.choice(["cell", "mitochondrion"])),
        "",
        palette=((paper,) * 3, (ink,) * 3, (rng.uniform(0.25, 0.55) * paper + 0.5 * ink,) * 3),
        radius_frac=(0.018, log_uniform(rng, 0.035, 0.1)),
        stretch=float(rng.uniform(1.1, 3)),
        rough=float(rng.uniform(0.06, 0.2)),
        grain_frac=float(rng.uniform(0.004, 0.012)),
        contrast=float(rng.uniform(0.1, 0.35)),
        count=(int(rng.integers(12, 30)), int(rng.integers(30, 150))),
        # extra: membrane width, vesicles, merging, cell shades
    )


def _cells(rng: Rng, family: Family, side: int) -> tuple[Field, Field]:
    """Cell number of each pixel from 1, and distance in pixels to the nearest other cell."""
    count, half = int(rng.integers(*family.count)), (side + 1) // 2
    seeds = rng.uniform(-0.1, 1.1, (count, 2)) * side
    crowd = rng.integers(0, count, count)
    seeds = np.where(
        rng.random((count, 1)) < 0.5, seeds, seeds[crowd] + rng.normal(0, side / 9, (count, 2))
    )
    owner = np.arange(1, count + 1)
    near = cKDTree(seeds).query(seeds, 2)[1][:, 1]
    for k in np.flatnonzero(rng.random(count) < 0.6 * family.extra[2]):
        owner[owner == owner[k]] = owner[near[k]]
    at = np.mgrid[:half, :half].astype(np.float32) * 2
    bend = [
        side * (0.22 * rough(rng, half, half / 4) + 0.025 * rough(rng, half, half / 12)) for _ in at
    ]
    gap, index = cKDTree(seeds).query((at + np.stack(bend)).reshape(2, -1).T, 4)
    other = owner[index] != owner[index[:, :1]]
    rival = np.where(other.any(1), np.take_along_axis(gap, other.argmax(1)[:, None], 1)[:, 0], side)
    gap = (rival - gap[:, 0]).reshape(half, half).astype(np.float32)
    labels = owner[index[:, 0]].reshape(half, half).repeat(2, 0).repeat(2, 1)[:side, :side]
    return labels, np.asarray(Image.fromarray(gap).resize((2 * half, 2 * half)))[:side, :side]


def _parts(labels: Field) -> Field:
    """Number each connected part of each cell apart."""
    key = ndimage.label(labels > 0)[0] * (labels.max() + 1) + labels
    return (np.cumsum(np.bincount(key.ravel()) > 0) - 1)[key]


def draw_em(rng: Rng, family: Family, side: int) -> tuple[Field, Field]:
    paper, ink, dark = (c[0] for c in family.palette)
    labels, gap = _cells(rng, family, side)
    width = side * (0.003 + 0.011 * family.extra[0] ** 2) * (0.5 + noise(rng, side, side / 8)) + 0.8
    shades = rng.normal(0, 0.03 + 0.09 * family.extra[3], labels.max() + 1)
    grain = family.grain_frac * side
    gray = paper + shades[labels] + family.contrast * rough(rng, side, 4 * grain, 4)
    gray -= (
        0.35
        * np.clip(noise(rng, side, 1.5 * grain) - 0.68, 0, 1)
        * (noise(rng, side, side / 5) > 0.5)
    )
    mito, number = np.zeros((side, side), np.uint16), 0
    for _ in range(rng.integers(6, 36)):
        size = side * log_uniform(rng, *family.radius_frac)
        center = rng.uniform(0, side, 2)
        where, d = blob(rng, side, center, size, family.stretch, family.rough, 1.2)
        home = labels[tuple(np.clip(center.astype(int), 0, side - 1))]
        inside = (
            (d < 1)
            & (labels[where] == home)
            & (gap[where] > 1.6 * width[where])
            & (mito[where] == 0)
        )
        if inside.sum() < 0.7 * (d < 1).sum():
            continue
        number += 1
        deep = np.clip(
            ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1] / (0.006 * side + 0.5),
            0,
            3,
        )
        stripes = ridge(noise(rng, max(d.shape), max(3, size / 3)), 0.3)[: d.shape[0], : d.shape[1]]
        body = (
            dark
            + 0.8 * (deep > 1.6) * (0.5 - stripes) * (dark - ink)
            + 0.8 * (ink - dark) * (deep < 1)
        )
        gray[where] = np.where(inside, body + 0.4 * (gray[where] - paper), gray[where])
        mito[where][inside] = number
    for _ in range(int(rng.integers(0, 160) * family.extra[1])):
        where, d = blob(
            rng, side, rng.uniform(0, side, 2), side * rng.uniform(0.005, 0.011), 1, 0.03, 1.5
        )
        free = (mito[where] == 0) & (gap[where] > width[where])
        gray[where] -= free * 0.5 * (paper - ink) * np.exp(-(((d - 0.9) / 0.3) ** 2))
    wall = np.clip(1.2 * (width - gap) / (0.3 * width + 0.8), 0, 1)
    gray += wall * (ink + 0.05 * rough(rng, side, grain) - gray)
    gray = (
        (gray - 0.5) * rng.uniform(0.75, 1.15)
        + 0.5
        + rng.uniform(0, 0.5) * rough(rng, side, side / 2, 1)
    )
    ids = mito if family.kind == "mitochondrion" else _parts(np.where(gap > width, labels, 0))
    return np.broadcast_to(gray.astype(np.float32), (3, side, side)), ids

"""Light-microscopy-like pictures: fluorescence, bright field and histology."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image
from pretrain.worlds.brush import (
    Family,
    Field,
    Rng,
    Where,
    bent,
    blob,
    enlarge,
    jitter,
    log_uniform,
    optics,
    ridge,
    rough,
    tone,
    tube,
)
from scipy import ndimage

from napari_samic.sample_data.synthetic import noise

# ---- fluorescence ---------------------------------------------------------------------------

DYES = ((1, 1, 1), (1, 1, 1), (1, 1, 1), (0.15, 0.3, 1), (0.1, 1, 0.25), (1, 0.2, 0.15))


def fluorescence_family(rng: Rng) -> Family:
    radius = log_uniform(rng, 0.014, 0.06)
    most = int(np.clip(0.25 / radius**2, 12, 120))
    return optics(
        rng,
        "fluorescence",
        "nucleus",
        str(rng.choice(["smooth", "speckled", "hollow"])),
        palette=(DYES[rng.integers(6)], DYES[rng.integers(3, 6)]),
        radius_frac=(0.85 * radius, 1.3 * radius),
        stretch=float(rng.uniform(1, 1.9)),
        rough=float(rng.choice([0.03, 0.08, 0.2])),
        grain_frac=radius * float(rng.uniform(0.2, 0.7)),
        count=(8, most),
        # extra: clusters, haze, second channel, spread of brightness
    )


def _spots(rng: Rng, family: Family, side: int) -> Field:
    """(N, 2) middles of the objects of one picture: scattered, and crowded as the family is."""
    count = (
        int(rng.integers(*family.count)) if family.count[1] > family.count[0] else family.count[0]
    )
    homes = rng.uniform(0.02, 0.98, (max(2, count // 6), 2)) * side
    near = homes[rng.integers(0, len(homes), count)]
    near = near + rng.normal(0, 2.2 * family.radius_frac[1] * side, (count, 2))
    return np.where(
        rng.random((count, 1)) < family.extra[0], near, rng.uniform(0, side, (count, 2))
    )


def _objects(
    rng: Rng, family: Family, spots: Field, ids: Field, *, share: float, taken: Field | None = None
) -> Iterator[tuple[Where, Field, float, Field, Field]]:
    """Claim `ids` for one object after another; yields window, d, radius, free pixels, own pixels.

    An object lies under earlier ones; it is left out if less than `share` of it would be seen.
    """
    side = len(ids)
    for number, center in enumerate(spots, 1):
        size = side * rng.uniform(*family.radius_frac)
        if family.kind in ("rod", "worm"):
            long = (0.12 + 0.3 * family.extra[2]) * side
            long, bend = (
                (long, 0.3) if family.kind == "worm" else (size * (3 + 6 * family.extra[2]), 0.04)
            )
            where, d = tube(side, bent(rng, center, long * rng.uniform(0.6, 1.2), bend), size, 2.2)
        else:
            stretch = 1 + (family.stretch - 1) * rng.uniform(0.3, 1.3)
            where, d = blob(rng, side, center, size, stretch, family.rough, 1.8)
        free = ids[where] == 0
        inside = (d < 1) & free if taken is None else (d < 1) & free & ~taken[where]
        if inside.sum() > share * (d < 1).sum():
            ids[where][inside] = number
            yield where, d, size, free, inside


def draw_fluorescence(rng: Rng, family: Family, side: int) -> tuple[Field, Field]:
    glow, ids = np.zeros((side, side), np.float32), np.zeros((side, side), np.uint16)
    fine = rough(rng, side, family.grain_frac * side) * (0.3 + 1.1 * family.contrast)
    if family.surface == "speckled":
        fine = fine + 0.4 * (noise(rng, side, family.grain_frac * side) > 0.7)
    for where, d, size, *_ in _objects(rng, family, _spots(rng, family, side), ids, share=0.6):
        light = np.exp(rng.normal(-0.5, 0.15 + 0.4 * family.extra[3]))
        edge = 0.05 + 3 / size if rng.random() < 0.85 else 0.5
        body = np.clip((1 - d) / edge + 0.5, 0, 1) * (
            1 + fine[where] - 0.5 * (family.surface == "hollow") * (d < 0.6)
        )
        glow[where] = np.maximum(
            glow[where], np.clip(light, 0.22, 1.2) * body * (0.8 + 0.25 * (1 - np.minimum(d, 1)))
        )
    for spot in rng.uniform(0, side, (rng.integers(0, 25), 2)):
        where, d = blob(rng, side, spot, side * rng.uniform(0.002, 0.005), 1.2, 0.2, 2.5)
        glow[where] += rng.uniform(0.1, 0.9) * np.exp(-2 * d**2)
    small = ndimage.gaussian_filter(glow[::4, ::4], side / 4 * 0.03)
    haze = enlarge(small, side)
    glow += family.extra[1] * (0.5 * haze + 0.15 * noise(rng, side, side / 3)) + rng.uniform(
        0.01, 0.06
    )
    glow *= rng.uniform(0.55, 1.0) * (
        1 + rng.uniform(0, 0.8) * (noise(rng, side, side / 1.5) - 0.5)
    )
    glow += (
        np.sqrt(np.clip(glow, 0, 2))
        * family.noise_sd
        * 2
        * rng.standard_normal(glow.shape, np.float32)
    )
    rgb = glow * tone(family.palette[0])
    if family.extra[2] < 0.25:
        second = np.clip(haze * 1.5 * (0.3 + ridge(noise(rng, side, side / 30), 0.2)), 0, 1)
        rgb = rgb + 0.6 * second * tone(family.palette[1])
    return rgb, ids


# ---- bright field ---------------------------------------------------------------------------


def brightfield_family(rng: Rng) -> Family:
    kind = str(rng.choice(["round", "spread", "rod", "worm"]))
    low, high = {"round": (0.016, 0.07), "spread": (0.03, 0.09)}.get(kind, (0.008, 0.022))
    radius, gray = log_uniform(rng, low, high), rng.uniform(0.35, 0.75)
    return optics(
        rng,
        "brightfield",
        kind,
        str(rng.choice(["halo", "dark rim", "relief"])),
        palette=(jitter(rng, (gray,) * 3, 0.03 * (rng.random() < 0.5)),),
        radius_frac=(0.85 * radius, 1.25 * radius),
        stretch=float(rng.uniform(1, 1.3) if kind == "round" else rng.uniform(1.2, 3)),
        rough=0.03 if kind == "round" else float(rng.uniform(0.1, 0.28)),
        grain_frac=radius * float(rng.uniform(0.25, 0.8)),
        contrast=float(rng.uniform(0.12, 0.4)),
        count=(4, 16) if kind == "worm" else (6, int(np.clip(0.2 / radius**2, 10, 90))),
        # extra: clusters, inside light or dark, length, angle of relief
    )


def draw_brightfield(rng: Rng, family: Family, side: int) -> tuple[Field, Field]:
    ids, force = np.zeros((side, side), np.uint16), family.contrast
    gray = 0.25 * rough(rng, side, side / 1.5, 2) + 0.06 * rough(rng, side, side / 40)
    fine = rough(rng, side, family.grain_frac * side) * force * 2
    angle = 2 * np.pi * family.extra[3]
    for where, d, size, free, _ in _objects(rng, family, _spots(rng, family, side), ids, share=0.8):
        body = np.clip((1 - d) * size / 1.5 + 0.5, 0, 1)
        rim = np.exp(-(((d - 0.92) / (0.08 + 1.2 / size)) ** 2))
        halo = np.exp(-(((d - 1.15) / (0.1 + 1.5 / size)) ** 2)) * (d > 0.95)
        level = body * (fine[where] + (family.extra[1] - 0.5) * force)
        if family.surface == "relief":
            dy, dx = (
                np.gradient(np.clip(1 - d, 0, 1) ** 0.6) if min(d.shape) > 1 else (0 * d, 0 * d)
            )
            level = 0.5 * level + force * size * (dy * np.sin(angle) + dx * np.cos(angle))
        else:
            side_force = 1.0 if family.surface == "halo" else 0.3
            level = level + side_force * force * halo - (1.2 - 0.5 * side_force) * force * rim
        gray[where] += level * free
    for spot in rng.uniform(0, side, (rng.integers(0, 5), 2)):
        where, d = blob(rng, side, spot, side * log_uniform(rng, 0.01, 0.08), 1, 0, 1.5)
        gray[where] -= rng.uniform(0.02, 0.1) * np.cos(9 * d) * np.exp(-((d / 0.9) ** 4))
    return tone(family.palette[0]) * rng.uniform(0.9, 1.1) * (1 + 1.3 * gray), ids


# ---- histology ------------------------------------------------------------------------------


def histology_family(rng: Rng) -> Family:
    radius = log_uniform(rng, 0.01, 0.045)
    return optics(
        rng,
        "histology",
        "nucleus",
        str(rng.choice(["dense", "vesicular", "mottled"])),
        palette=(
            jitter(rng, (0.65, 0.75, 0.3), 0.07),
            jitter(rng, (0.08, 0.5, 0.2), 0.05),
        ),  # densities
        radius_frac=(0.75 * radius, 1.35 * radius),
        stretch=float(rng.uniform(1.05, 2.2)),
        rough=float(rng.uniform(0.03, 0.15)),
        grain_frac=radius * float(rng.uniform(0.3, 0.8)),
        contrast=float(rng.uniform(0.5, 1.3)),
        count=(int(np.clip(0.04 / radius**2, 12, 40)), int(np.clip(0.14 / radius**2, 25, 200))),
        # extra: clusters, fibres, glands, gaps
    )


def _fibres(rng: Rng, side: int) -> Field:
    """Wavy strands in one direction, (side, side) in [0, 1]."""
    small = rng.random((int(rng.integers(5, 9)), int(rng.integers(25, 60))), np.float32)
    picture = Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
    spun = np.asarray(picture.rotate(float(rng.uniform(0, 180)), Image.Resampling.BILINEAR))
    quarter = side // 4
    field = enlarge(spun[quarter : side - quarter, quarter : side - quarter], side)
    return np.clip(0.6 * field + 0.4 * noise(rng, side, side / 25), 0, 1)


def draw_histology(rng: Rng, family: Family, side: int) -> tuple[Field, Field]:
    ids, blue = np.zeros((side, side), np.uint16), np.zeros((side, side), np.float32)
    stroma = family.extra[1] * _fibres(rng, side) + (1 - family.extra[1]) * (
        0.5 + rough(rng, side, side / 12)
    )
    pink = 0.35 + 0.9 * stroma + 0.3 * rough(rng, side, side / 60)
    gaps = np.clip((0.32 * family.extra[3] - noise(rng, side, side / 6)) * 20, 0, 1)
    gaps = np.maximum(gaps, family.extra[1] ** 3 * ridge(_fibres(rng, side), 0.04) * 0.9)
    spots = [_spots(rng, family, side)]
    for _ in range(rng.integers(1, 6) if family.extra[2] < 0.45 else 0):
        center, size = rng.uniform(0, side, 2), side * rng.uniform(0.05, 0.14)
        where, d = blob(rng, side, center, size, 1.3, 0.15, 2.2)
        gaps[where] = np.maximum(np.clip((0.8 - d) * 12, 0, 1), gaps[where] * (d > 1.7))
        ring = np.argwhere(np.abs(d - 1.25) < 0.12)
        lined = ring[rng.permutation(len(ring))[: int(7 * size / (family.radius_frac[1] * side))]]
        spots.append(lined + np.array([where[0].start, where[1].start]))
    mottle = rough(rng, side, family.grain_frac * side)
    places = np.concatenate(spots[::-1])
    for where, d, size, free, inside in _objects(
        rng, family, places, ids, share=0.75, taken=gaps > 0.5
    ):
        body = {"dense": 1.0, "mottled": 0.8 + 1.6 * mottle[where]}.get(family.surface)
        if body is None:  # vesicular: pale with a dark rim and nucleoli
            body = 0.5 + 0.6 * np.clip((d - 0.7) / 0.2, 0, 1) + 0.9 * (mottle[where] > 0.25)
        body = body * rng.uniform(0.65, 1.15) + 0.4 * mottle[where]
        alpha = np.clip((1 - d) * size / 1.5 + 0.5, 0, 1) * free * ~((d < 1) & ~inside)
        blue[where] += alpha * (family.contrast * body - blue[where])
        gaps[where] *= 1 - alpha * inside
    blue += 0.12 + 0.15 * noise(rng, side, side / 5)
    density = 1.3 * blue * tone(family.palette[0]) + pink * tone(family.palette[1])
    return rng.uniform(0.9, 0.97) * np.exp(-density * (1 - 0.93 * gaps).astype(np.float32)), ids

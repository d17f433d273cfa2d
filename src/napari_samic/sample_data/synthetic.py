"""Procedural scenes with ground truth: the demo's sample set and part of the packaged model's diet.

A scene holds several instances of one or two kinds of object on a textured ground, with occlusion,
shadow, uneven light, blur and noise. A kind (outline, texture, color, size) can be kept over many
scenes, which is what in-context segmentation is about. Pure NumPy, SciPy and Pillow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from scipy import ndimage

from napari_samic.core.errors import InputError

Rng = np.random.Generator
Field = NDArray[Any]
"""(H, W) or (H, W, 3) float32, mostly in [0, 1]."""
Ids = NDArray[np.int32]
Place = tuple[slice, slice, Field]
"""Rows and columns of a scene, and the part of an object that is there."""

OUTLINES = ("blob", "ellipse", "polygon", "capsule", "star", "ring")
TEXTURES = ("smooth", "fine", "coarse", "stripes", "spots", "gradient")


@dataclass(frozen=True)
class ObjectKind:
    """One kind of object.

    Attributes
    ----------
    outline, texture : str
        One of OUTLINES, TEXTURES.
    color, accent : (3,) float
        The two ends of the texture, RGB in [0, 1].
    radius_frac : (float, float)
        Smallest and largest radius as a fraction of the side.
    grain_frac : float
        Period of the texture as a fraction of the side.
    edge_px : float
        Blur of the outline in pixels.
    """

    outline: str
    texture: str
    color: tuple[float, float, float]
    accent: tuple[float, float, float]
    radius_frac: tuple[float, float] = (0.06, 0.12)
    grain_frac: float = 0.04
    edge_px: float = 0.8


@dataclass(frozen=True)
class Ground:
    """What lies behind the objects: same fields as in ObjectKind, without an outline."""

    texture: str
    color: tuple[float, float, float]
    accent: tuple[float, float, float]
    grain_frac: float = 0.1


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture and what is in it.

    Attributes
    ----------
    image : (H, W, 3) uint8
    ids : (H, W) int32
        0 is ground, k is object k.
    kinds : (N,) int64
        Index of the kind of object k at k - 1.
    """

    image: NDArray[np.uint8]
    ids: Ids
    kinds: NDArray[np.int64]

    def truth(self, kind: int = 0) -> Ids:
        """Instances of one kind, numbered from 1; all else is 0."""
        keep = np.zeros(len(self.kinds) + 1, np.int32)
        chosen = np.flatnonzero(self.kinds == kind) + 1
        chosen = chosen[np.isin(chosen, self.ids)]
        keep[chosen] = np.arange(1, len(chosen) + 1)
        return keep[self.ids]


def noise(rng: Rng, side: int, grain_px: float) -> Field:
    """Smooth noise of one scale, (side, side) float32 in [0, 1]."""
    cells = int(np.clip(side / max(grain_px, 1.0), 2, side))
    small = rng.random((cells + 1, cells + 1), dtype=np.float32)
    big = PilImage.fromarray(small).resize((side, side), PilImage.Resampling.BICUBIC)
    return np.asarray(np.clip(np.asarray(big), 0.0, 1.0))


def texture(rng: Rng, kind: str, side: int, grain_px: float) -> Field:
    """One of TEXTURES as (side, side) float32 in [0, 1]."""
    if kind == "smooth":
        return np.asarray(0.5 + 0.2 * (noise(rng, side, side / 2) - 0.5))
    if kind == "fine":
        return noise(rng, side, max(1.5, grain_px / 3))
    if kind == "coarse":
        large, small = noise(rng, side, grain_px * 1.5), noise(rng, side, grain_px / 2)
        return np.asarray(0.7 * large + 0.3 * small)
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    along = rows * np.sin(angle) + columns * np.cos(angle)
    if kind == "stripes":
        bend = grain_px * 2 * noise(rng, side, side / 4)
        waves = np.sin((along + bend) * 2 * np.pi / max(grain_px, 3.0))
        return np.asarray(0.5 + 0.5 * waves, np.float32)
    if kind == "spots":
        return (noise(rng, side, max(2.0, grain_px * 0.7)) > 0.66).astype(np.float32)
    if kind == "gradient":
        return np.asarray((along - along.min()) / np.ptp(along), np.float32)
    raise InputError(f"texture {kind!r}: expected one of {', '.join(TEXTURES)}.")


def outline(rng: Rng, kind: str, radius_px: float) -> Field:
    """One of OUTLINES, turned at random, as a square float32 mask of 0 and 1."""
    half = int(np.ceil(radius_px * 1.35)) + 1
    rows, columns = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    u = (columns * np.cos(angle) + rows * np.sin(angle)) / radius_px
    v = (rows * np.cos(angle) - columns * np.sin(angle)) / radius_px
    theta, radius = np.arctan2(v, u), np.hypot(u, v)
    if kind == "blob":
        orders = np.arange(2, 6)
        size, phase = rng.normal(0, 0.22 / orders), rng.uniform(0, 2 * np.pi, 4)
        waves = sum(a * np.cos(n * theta + b) for a, n, b in zip(size, orders, phase, strict=True))
        inside = radius < 0.95 + waves
    elif kind == "ellipse":
        inside = u**2 + (v / rng.uniform(0.55, 0.95)) ** 2 < 1
    elif kind == "polygon":
        corners = rng.integers(3, 7)
        step = 2 * np.pi / corners
        inside = radius * np.cos((theta % step) - step / 2) < 0.8
    elif kind == "capsule":
        bend = rng.uniform(-0.35, 0.35) * (u**2 - 0.4)
        width = rng.uniform(0.16, 0.3)
        inside = np.hypot(np.maximum(np.abs(u) - 1.05, 0), v - bend) < width
    elif kind == "star":
        inside = radius < 0.72 + 0.28 * np.cos(rng.integers(4, 8) * theta)
    elif kind == "ring":
        inside = (radius < 1) & (radius > rng.uniform(0.4, 0.6))
    else:
        raise InputError(f"outline {kind!r}: expected one of {', '.join(OUTLINES)}.")
    return np.asarray(inside, np.float32)


def _mix(field: Field, color: Sequence[float], accent: Sequence[float]) -> Field:
    first, second = np.asarray(color, np.float32), np.asarray(accent, np.float32)
    return np.asarray(first + (second - first) * field[..., None])  # (H, W, 3)


def _window(center: tuple[int, int], stamp: Field, side: int) -> Place:
    """Part of the scene and of the stamp that overlap."""
    half = stamp.shape[0] // 2
    row0, column0 = center[0] - half, center[1] - half
    top, left = max(row0, 0), max(column0, 0)
    bottom, right = min(row0 + stamp.shape[0], side), min(column0 + stamp.shape[1], side)
    part = stamp[top - row0 : bottom - row0, left - column0 : right - column0]
    return slice(top, bottom), slice(left, right), part


def _shade(rng: Rng, image: Field, blur_px: float, noise_sd: float) -> NDArray[np.uint8]:
    """Uneven light, blur and noise, then 8 bits."""
    side = image.shape[0]
    light = 1 + rng.uniform(0, 0.5) * (noise(rng, side, side / 1.5) - 0.5)
    image = image * light[..., None]
    if blur_px > 0.1:
        image = ndimage.gaussian_filter(image, (blur_px, blur_px, 0))
    image = image + rng.normal(0, noise_sd, image.shape).astype(np.float32)
    return np.asarray(np.clip(image * 255, 0, 255), np.uint8)


def draw(
    rng: Rng,
    kinds: Sequence[ObjectKind],
    counts: Sequence[int],
    ground: Ground,
    *,
    side: int = 256,
    overlap: float = 0.25,
    blur_px: float = 0.6,
    noise_sd: float = 0.02,
    shadow: float = 0.3,
) -> Scene:
    """Draw one scene.

    Parameters
    ----------
    rng : numpy Generator
    kinds, counts : sequences of the same length
        How many objects of each kind are tried; one that finds no place is left out.
    ground : Ground
    side : int
        Pixels.
    overlap : float
        Largest share of a new object that may lie over earlier ones, which it hides there.
    blur_px, noise_sd : float
        Of the whole picture; noise in units of the full range.
    shadow : float
        Darkness of the rim that an object casts, 0 to 1.

    Returns
    -------
    Scene
    """
    field = texture(rng, ground.texture, side, ground.grain_frac * side)
    image = _mix(field, ground.color, ground.accent)
    ids, present = np.zeros((side, side), np.int32), []
    order = rng.permutation(np.repeat(np.arange(len(kinds)), counts))
    for index in order:
        kind = kinds[index]
        radius = float(rng.uniform(*kind.radius_frac)) * side
        stamp = outline(rng, kind.outline, radius)
        place = _place(rng, stamp, ids, overlap)
        if place is not None:
            present.append(index)
            _paint(rng, image, ids, kind, place, len(present), shadow)
    return Scene(_shade(rng, image, blur_px, noise_sd), ids, np.asarray(present, np.int64))


def _place(rng: Rng, stamp: Field, ids: Ids, overlap: float) -> Place | None:
    """Somewhere with 40 % of the object in the picture; None if six tries found nothing."""
    side = ids.shape[0]
    for _ in range(6):
        center = (int(rng.uniform(0.05, 0.95) * side), int(rng.uniform(0.05, 0.95) * side))
        rows, columns, part = _window(center, stamp, side)
        covered = ids[rows, columns][part > 0] > 0
        if part.sum() > 0.4 * stamp.sum() and covered.mean() <= overlap:
            return rows, columns, part
    return None


def _paint(
    rng: Rng, image: Field, ids: Ids, kind: ObjectKind, place: Place, number: int, shadow: float
) -> None:
    """Lay one object over `image` and `ids`, both changed in place."""
    where, part = place[:2], place[2]
    side = image.shape[0]
    extent = max(part.shape)
    grain = kind.grain_frac * side
    fill = _mix(texture(rng, kind.texture, extent, grain), kind.color, kind.accent)
    fill = fill[: part.shape[0], : part.shape[1]] * np.float32(rng.uniform(0.88, 1.12))
    alpha = ndimage.gaussian_filter(part, kind.edge_px)[..., None]
    dark = ndimage.gaussian_filter(part, 0.03 * extent)[..., None]
    image[where] *= 1 - shadow * dark
    image[where] = image[where] * (1 - alpha) + fill * alpha
    ids[where][part > 0.5] = number


def random_kind(rng: Rng, *, small: bool = False) -> ObjectKind:
    """A kind with every property drawn at random."""
    low = rng.uniform(0.02, 0.05) if small else rng.uniform(0.05, 0.16)
    return ObjectKind(
        outline=str(rng.choice(OUTLINES, p=[0.34, 0.24, 0.16, 0.14, 0.06, 0.06])),
        texture=str(rng.choice(TEXTURES)),
        color=_color(rng),
        accent=_color(rng),
        radius_frac=(low, low * rng.uniform(1.1, 1.8)),
        grain_frac=float(rng.uniform(0.01, 0.08)),
        edge_px=float(rng.choice([0.5, 0.9, 2.0], p=[0.4, 0.4, 0.2])),
    )


def random_ground(rng: Rng) -> Ground:
    """A ground with every property drawn at random."""
    return Ground(
        str(rng.choice(TEXTURES)), _color(rng), _color(rng), float(rng.uniform(0.02, 0.2))
    )


def faint(kind: ObjectKind, ground: Ground, contrast: float) -> ObjectKind:
    """The same kind with colors drawn towards the ground's: 0 is invisible, 1 unchanged."""

    def near(own: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, float, float]:
        mixed = [b + contrast * (a - b) for a, b in zip(own, other, strict=True)]
        return (mixed[0], mixed[1], mixed[2])

    color, accent = near(kind.color, ground.color), near(kind.accent, ground.accent)
    return replace(kind, color=color, accent=accent)


def _color(rng: Rng) -> tuple[float, float, float]:
    base = rng.uniform(0.08, 0.92)
    tint = rng.normal(0, 0.18, 3) * (rng.random() < 0.7)
    mixed = np.clip(base + tint, 0.02, 0.98)
    return (float(mixed[0]), float(mixed[1]), float(mixed[2]))

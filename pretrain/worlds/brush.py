"""What the worlds share: parameters of a family, shapes, fields and the camera."""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from napari_samic.sample_data.synthetic import noise

Rng = np.random.Generator
Field = NDArray[Any]
Color = tuple[float, ...]
Where = tuple[slice, slice]


@dataclass(frozen=True)
class Family:
    """What the pictures of one family share; a world reads the fields that mean something to it."""

    world: str
    kind: str
    surface: str
    palette: tuple[Color, ...]
    radius_frac: tuple[float, float]
    stretch: float
    rough: float
    grain_frac: float
    contrast: float
    count: tuple[int, int]
    blur_frac: float
    noise_sd: float
    frame: str = "none"
    extra: tuple[float, ...] = ()


def log_uniform(rng: Rng, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def optics(rng: Rng, world: str, kind: str, surface: str, **fixed: Any) -> Family:
    """The optics that every world shares; `fixed` overrides and adds."""
    values = {
        "blur_frac": log_uniform(rng, 0.0007, 0.0035),
        "noise_sd": float(rng.uniform(0.005, 0.035)),
        "contrast": float(rng.uniform(0.2, 1)),
        "extra": tuple(rng.uniform(0, 1, 4).tolist()),
    }
    return Family(world=world, kind=kind, surface=surface, **(values | fixed))


def ridge(field: Field, width: float) -> Field:
    """1 along the level 0.5 of a noise field, 0 beyond `width` from it."""
    return np.clip(1 - np.abs(field - 0.5) / width, 0, 1)


def rough(rng: Rng, side: int, grain_px: float, octaves: int = 3) -> Field:
    """Noise of several scales about 0, standard deviation near 0.2."""
    parts = [0.6**k * (noise(rng, side, grain_px / 2**k) - 0.5) for k in range(octaves)]
    return np.asarray(sum(parts), np.float32)


def jitter(rng: Rng, color: Color, sd: float) -> Color:
    return tuple(float(c) for c in np.clip(np.asarray(color) + rng.normal(0, sd, 3), 0, 1.5))


def window(side: int, low_rc: Field, high_rc: Field) -> tuple[Where, Field, Field]:
    r0, c0 = np.clip(np.floor(low_rc), 0, side - 1).astype(int)
    r1, c1 = np.clip(np.ceil(high_rc), 1, side).astype(int)
    where = slice(r0, max(r1, r0 + 1)), slice(c0, max(c1, c0 + 1))
    rows, columns = np.ogrid[where]
    return where, rows.astype(np.float32), columns.astype(np.float32)


def blob(
    rng: Rng, side: int, center: Field, radius: float, stretch: float, rough: float, reach: float
) -> tuple[Where, Field]:
    """A window about a blob and d there: 0 in its middle, 1 on its outline."""
    half = radius * reach * np.sqrt(stretch) + 1
    where, rows, columns = window(side, center - half, center + half)
    turn = rng.uniform(0, 2 * np.pi)
    y, x = rows - np.float32(center[0]), columns - np.float32(center[1])
    u = (x * np.cos(turn) + y * np.sin(turn)) / np.float32(radius * np.sqrt(stretch))
    v = (y * np.cos(turn) - x * np.sin(turn)) / np.float32(radius / np.sqrt(stretch))
    orders = np.arange(2, 8)[:, None]
    size, phase = rng.normal(0, 1.6 * rough / orders**1.5), rng.uniform(0, 2 * np.pi, (6, 1))
    waves = (size * np.cos(orders * np.linspace(-np.pi, np.pi, 721) + phase)).sum(0)
    table = np.clip(1 + waves, 0.45, 1.5).astype(np.float32)
    turn_index = ((np.arctan2(v, u) + np.pi) * (720 / (2 * np.pi))).astype(np.int32)
    return where, (np.hypot(u, v) / table[turn_index]).astype(np.float32)


def tube(side: int, points: Field, width: float, reach: float) -> tuple[Where, Field]:
    """A window about a thick line through `points` and d there: 0 on the line, 1 on the outline."""
    margin = width * reach + 1
    where, rows, columns = window(side, points.min(0) - margin, points.max(0) + margin)
    nearest = np.full(np.broadcast_shapes(rows.shape, columns.shape), np.inf, np.float32)
    for (y0, x0), (y1, x1) in pairwise(points):
        dy, dx = np.float32(y1 - y0), np.float32(x1 - x0)
        y, x = rows - np.float32(y0), columns - np.float32(x0)
        t = np.clip((y * dy + x * dx) / (dy * dy + dx * dx + 1e-6), 0, 1)
        nearest = np.minimum(nearest, (y - t * dy) ** 2 + (x - t * dx) ** 2)
    return where, np.sqrt(nearest) / np.float32(width)


def bent(rng: Rng, center: Field, length: float, bend: float, steps: int = 10) -> Field:
    """(steps, 2) points of a line that wanders about `center`."""
    heading = (
        rng.uniform(0, 2 * np.pi)
        + np.cumsum(rng.normal(0, bend, steps))
        + np.linspace(0, rng.normal(0, 2 * bend * np.sqrt(steps)), steps)
    )
    walk = np.cumsum(np.stack([np.sin(heading), np.cos(heading)], 1), 0) * (length / steps)
    return center + walk - walk.mean(0)


def tone(color: Any) -> Field:
    """A color as (3, 1, 1) float32."""
    return np.asarray(color, np.float32).reshape(3, 1, 1)


def enlarge(field: Field, side: int) -> Field:
    picture = Image.fromarray(np.asarray(field, np.float32))
    return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC))


def to_picture(rgb: Field) -> Image.Image:
    """(3, H, W) in [0, 1] as a Pillow image; planes are several times faster to work on."""
    planes = (np.clip(rgb, 0, 1) * np.float32(255)).astype(np.uint8)
    return Image.merge("RGB", [Image.fromarray(plane) for plane in planes])


def camera(rng: Rng, rgb: Field, family: Family) -> NDArray[np.uint8]:
    """Blur, noise and, in half of the pictures, JPEG: (3, side, side) to (side, side, 3)."""
    side = rgb.shape[1]
    picture, blur = to_picture(rgb), family.blur_frac * side * rng.uniform(0.5, 1.6)
    if blur > 0.25:
        picture = picture.filter(ImageFilter.BoxBlur(1.3 * blur))
    grain = rng.standard_normal((side, side), np.float32)
    if rng.random() < 0.5:  # a sensor that interpolates
        grain[1:] = 0.7 * (grain[1:] + grain[:-1])
    grain *= 255 * family.noise_sd * rng.uniform(0.4, 1.6)
    planes = [
        np.clip(np.asarray(band) + grain, 0, 255).astype(np.uint8) for band in picture.split()
    ]
    picture = Image.merge("RGB", [Image.fromarray(plane) for plane in planes])
    if rng.random() < 0.5:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=int(rng.integers(35, 92)))
        picture = Image.open(file)
    return np.asarray(picture)

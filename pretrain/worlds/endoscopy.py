"""Colonoscopy-like frames: a lit wall of mucosa with polyps, folds and litter."""

from __future__ import annotations

import numpy as np
from PIL import ImageDraw
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
    to_picture,
    tone,
    tube,
)
from scipy import ndimage

from napari_samic.sample_data.synthetic import noise

MUCOSAE = ((0.86, 0.50, 0.42), (0.90, 0.52, 0.28), (0.80, 0.36, 0.26), (0.88, 0.64, 0.42))
TINTS = ((1.06, 0.82, 0.82), (1.06, 1.16, 1.18), (0.84, 0.74, 0.66), (1.0, 0.97, 0.97))


def endoscopy_family(rng: Rng) -> Family:
    blend = rng.dirichlet(np.full(len(MUCOSAE), 0.5))
    base = jitter(rng, tuple(blend @ np.asarray(MUCOSAE)), 0.04)
    second = tuple(np.asarray(base) * rng.uniform((0.9, 0.75, 0.65), (1.1, 1.15, 1.1)))
    tint = np.asarray(TINTS[rng.integers(4)]) + rng.normal(0, 0.04, 3)
    return optics(
        rng,
        "endoscopy",
        str(rng.choice(["sessile", "pedunculated", "flat"], p=[0.55, 0.25, 0.2])),
        str(rng.choice(["smooth", "granular", "lobed"])),
        palette=(base, second, tuple(tint)),
        radius_frac=(0.05, 0.32),
        stretch=float(rng.uniform(1, 1.6)),
        rough=float(rng.uniform(0.05, 0.22)),
        grain_frac=float(rng.uniform(0.008, 0.03)),
        count=(1, 3),
        frame=str(rng.choice(["none", "round", "octagon", "wide"], p=[0.2, 0.25, 0.4, 0.15])),
        # extra: vessels, wetness, corner box, interlacing
    )


def _frame(rng: Rng, family: Family, side: int) -> Field:
    """(side, side) in [0, 1]: 1 where the lens shows something."""
    y, x = np.ogrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    y, x = np.abs(y + rng.normal(0, 0.02)), np.abs(x + rng.normal(0, 0.02))
    if family.frame == "none":
        return np.ones((side, side), np.float32)
    if family.frame == "round":
        edge = rng.uniform(0.95, 1.15) - np.hypot(y, x)
    else:
        high, wide = rng.uniform(0.9, 0.98), rng.uniform(0.9, 0.98) - 0.1 * (family.frame == "wide")
        edge = np.minimum(high - y, wide - x)
        edge = np.minimum(edge, (rng.uniform(0.72, 0.86) * (high + wide) - x - y) * 0.7)
    return np.clip(edge * side / 3, 0, 1).astype(np.float32)


def _wall(rng: Rng, side: int) -> tuple[Field, Field]:
    """Height of the bare wall in pixels, and how much light reaches it (dark in the lumen)."""
    y, x = np.ogrid[: 1 : side * 1j, : 1 : side * 1j]
    inside = rng.random() < 0.6
    angle, away = (
        rng.uniform(0, 2 * np.pi),
        rng.uniform(0, 0.4) if inside else rng.uniform(0.7, 1.5),
    )
    rho = np.hypot(y - 0.5 - away * np.sin(angle), x - 0.5 - away * np.cos(angle))
    bend = noise(rng, side, side / 2.7)
    rho = rho.astype(np.float32) * (0.7 + 0.6 * bend)
    saw = rng.uniform(1, 3.5) * np.log(rho + 0.12) + 0.7 * bend[::-1] + rng.random()
    saw -= np.floor(saw)
    arc = np.clip(3 * noise(rng, side, side / 2.5) - rng.uniform(0.6, 2), 0, 1)
    fold = np.minimum(saw / 0.7, (1 - saw) / 0.3) ** 2 * arc * (rho + 0.1)
    height = side * rng.uniform(0.02, 0.07) * fold
    height += side * rng.uniform(0.04, 0.2) * noise(rng, side, side / 3)
    height += side * rng.uniform(0.001, 0.006) * noise(rng, side, side / 14)
    if not inside:
        return height, np.ones_like(rho)
    return height, 1 - rng.uniform(0.75, 1) * np.exp(-((rho / rng.uniform(0.12, 0.3)) ** 2))


def _front_fold(rng: Rng, scene: dict[str, Field]) -> None:
    """A fold between the lens and the wall, which hides what lies behind it."""
    side = len(scene["ids"])
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.ogrid[-0.5 : 0.5 : side * 1j, -0.5 : 0.5 : side * 1j]
    over = (y * np.sin(angle) + x * np.cos(angle)).astype(np.float32) - rng.uniform(0.15, 0.4)
    over += 0.3 * (noise(rng, side, side / 2) - 0.5)
    front = over > 0
    rise = side * rng.uniform(0.1, 0.25) * np.sqrt(np.clip(over + 0.01, 0, 0.3))
    scene["height"][front] = (0.5 * scene["height"] + rise)[front]
    scene["crease"][...] = np.where(
        front, 0, scene["crease"] + 0.8 * np.exp(np.minimum(over, 0) * 40)
    )
    scene["tint"][front] = 0
    scene["ids"][front] = 0


def _polyp(rng: Rng, family: Family, scene: dict[str, Field], number: int) -> None:
    """Raise one polyp from the wall: changes height, ids, albedo, vessels and crease in place."""
    ids = scene["ids"]
    side = len(ids)
    radius = log_uniform(rng, *family.radius_frac) * side
    center = side * (
        0.5 + rng.uniform(-0.4, 0.4, 2) * (1 if number > 1 or rng.random() < 0.3 else 0.7)
    )
    lift = {"sessile": (0.35, 0.75), "pedunculated": (0.6, 1), "flat": (0.06, 0.18)}[family.kind]
    lift, steep = (
        rng.uniform(*lift),
        rng.uniform(0.5, 0.75 if family.kind == "pedunculated" else 1.2),
    )
    dark = rng.uniform(0, 1) * np.clip(2.5 * noise(rng, side, side / 5) - 0.9, 0, 1)
    shapes = [(*blob(rng, side, center, radius, family.stretch, family.rough, 1.4), radius, steep)]
    if family.kind == "pedunculated" and rng.random() < 0.6:
        heading = rng.uniform(0, 2 * np.pi)
        tip = center + radius * rng.uniform(1.3, 2.2) * np.array([np.sin(heading), np.cos(heading)])
        middle = (center + tip) / 2 + rng.normal(0, 0.12 * radius, 2)
        width = radius * rng.uniform(0.28, 0.45)
        shapes.insert(0, (*tube(side, np.stack([center, middle, tip]), width, 1.6), width, 0.6))
    for where, d, size, power in shapes:
        inside = d < 1
        dome = lift * size * (1 - np.minimum(d, 1) ** 2) ** power
        dome += (
            size * _surface(rng, family, max(d.shape), size)[: d.shape[0], : d.shape[1]] * inside
        )
        soft = np.clip((1.03 - d) * size / (0.012 * side), 0, 1)
        wall, tint, crease = (scene[name][where] for name in ("height", "tint", "crease"))
        flatten = 0.85 * (lift > 0.2)
        wall += soft * (dome + flatten * (wall.mean() - wall))
        tint[...] = np.maximum(tint * ~inside, soft)
        crease += dark[where] * np.exp(-(((d - 1.01) / 0.05) ** 2)) - soft * crease
        ids[where][inside] = number


def _surface(rng: Rng, family: Family, extent: int, size: float) -> Field:
    """Fine relief of a polyp in units of its radius."""
    relief = rng.uniform(0.3, 1) * 0.06 * noise(rng, extent, size / 1.7)
    if family.surface == "granular":
        relief += rng.uniform(0.006, 0.02) * noise(rng, extent, size / 9)
    elif family.surface == "lobed":
        relief -= rng.uniform(0.03, 0.1) * ridge(noise(rng, extent, size / 2.5), 0.25)
    return relief


def _light(rng: Rng, family: Family, scene: dict[str, Field], reach: Field) -> tuple[Field, Field]:
    """Brightness and glare of the height field under a lamp beside the lens."""
    height, tint = scene["height"], scene["tint"]
    side = len(height)
    ly, lx, tz = 0.5 + rng.normal(0, 0.16), 0.5 + rng.normal(0, 0.16), rng.uniform(0.45, 0.9)
    rows, columns = np.ogrid[: 1 : side * 1j, : 1 : side * 1j]
    ty, tx = (ly - rows).astype(np.float32), (lx - columns).astype(np.float32)
    near = tz - np.clip((height - height.mean()) * (1.2 / side), -0.3, 0.35 * tz)
    away = ty**2 + tx**2 + near**2
    gy, gx = np.gradient(height)
    facing = (near - gy * ty - gx * tx) / np.sqrt((1 + gy**2 + gx**2) * away)
    ambient = rng.uniform(0.1, 0.4)
    shade = np.clip(ambient + (1 - ambient) * facing, 0.03, 1) * reach
    shade *= (tz**2 / away) ** rng.uniform(0.6, 1.3)
    step = 0.02 * side / 4 * np.sign((0.5 - ly, 0.5 - lx))
    shadow = ndimage.gaussian_filter(ndimage.shift(tint[::4, ::4], step, order=1), 0.015 * side / 4)
    shade *= 1 - rng.uniform(0, 0.5) * enlarge(shadow, side) * (1 - tint)
    shade *= 1 - 0.6 * np.minimum(scene["crease"], 1)
    half = rng.standard_normal(((side + 1) // 2,) * 2, np.float32)
    wet = enlarge(ndimage.gaussian_filter(half, 1 + side / rng.uniform(150, 400)), side)
    mirror = facing + (0.01 + 0.05 * family.extra[1]) * wet / wet.std()
    level = float(np.quantile(mirror[::8, ::8], 1 - log_uniform(rng, 0.0005, 0.02)))
    return shade, np.clip((mirror - level) * rng.uniform(15, 50), 0, 1)


def _dab(rgb: Field, where: Where, alpha: Field, color: Field) -> None:
    part = rgb[:, where[0], where[1]]
    part += alpha * (color - part)


def _litter(rng: Rng, rgb: Field, ids: Field) -> None:
    """What is not a polyp: stool, liquid, foam, an instrument. Changes both in place."""
    side = len(ids)
    chosen = rng.random(4) < (0.2, 0.12, 0.2, 0.08)
    yellow = tone(jitter(rng, (0.62, 0.48, 0.18), 0.06)) * rng.uniform(0.6, 1.2)
    home, everywhere = rng.uniform(0, side, 2), (slice(0, side), slice(0, side))
    for _ in range(rng.integers(1, 14) * chosen[0]):
        spot, size = home + rng.normal(0, 0.12 * side, 2), side * log_uniform(rng, 0.006, 0.05)
        where, d = blob(rng, side, spot, size, 1.3, 0.3, 1.2)
        lit = 0.3 + 1.4 * rgb[0][where].mean() * np.clip(1.05 - d, 0, 1) ** 0.5
        _dab(rgb, where, np.clip((1 - d) * 4, 0, 0.9), yellow * lit)
        ids[where][d < 0.9] = 0
    if chosen[1]:
        pool = np.clip(
            (noise(rng, side, side / 2.5) - rng.uniform(0.66, 0.8)) * 12, 0, rng.uniform(0.3, 0.7)
        )
        _dab(rgb, everywhere, pool, yellow * (0.2 + rgb[0]))
    home, spread = rng.uniform(0, side, 2), rng.uniform(0.03, 0.12) * side
    for _ in range(rng.integers(5, 40) * chosen[2]):
        spot, size = home + rng.normal(0, spread, 2), side * log_uniform(rng, 0.004, 0.02)
        where, d = blob(rng, side, spot, size, 1, 0, 1.3)
        rim = np.exp(-(((d - 0.95) / 0.2) ** 2)) + 2 * np.exp(-((d / 0.3) ** 2)) * (
            rng.random() < 0.4
        )
        rgb[:, where[0], where[1]] += 0.25 * rim
    if chosen[3]:
        angle = rng.uniform(0, 2 * np.pi)
        out = np.array([[np.sin(angle), np.cos(angle)]])
        ends = side * (0.5 + out * [[0.8], [rng.uniform(0.15, 0.45)]])
        where, d = tube(side, ends, side * rng.uniform(0.02, 0.06), 1.05)
        metal = tone(jitter(rng, (0.8, 0.8, 0.82), 0.05)) * (
            0.15 + 0.75 * np.clip(1 - d, 0, 1) ** 0.7
        )
        _dab(rgb, where, d < 1, metal)
        ids[where][d < 1] = 0


def _overlay(rng: Rng, family: Family, rgb: Field, ids: Field) -> Field:
    """The corner box of a scope guide and a few white marks, as recorders burn them in."""
    side, picture = len(ids), to_picture(rgb)
    pen, unit = ImageDraw.Draw(picture), side / 100
    if family.extra[2] < 0.3 and rng.random() < 0.8:
        wide, high = int(rng.uniform(18, 34) * unit), int(rng.uniform(18, 34) * unit)
        x0, y0 = int(rng.uniform(0, 4) * unit), side - high - int(rng.uniform(0, 4) * unit)
        dark = (8, 50, 28) if family.extra[2] < 0.2 else (4, 4, 6)
        pen.rectangle([x0, y0, x0 + wide, y0 + high], fill=dark)
        curve = bent(rng, np.array([y0 + high / 2, x0 + wide / 2]), wide, 0.5)[:, ::-1]
        pen.line([tuple(p) for p in curve], fill=(170, 220, 190), width=max(1, int(unit)))
        ids[y0 : y0 + high + 1, x0 : x0 + wide + 1] = 0
    for _ in range(rng.integers(0, 5) * (rng.random() < 0.5)):
        x, y = rng.uniform(1, 20) * unit, rng.uniform(2, 98) * unit
        text = "".join(rng.choice(list("0123456789:/ABEHMPX"), rng.integers(1, 9)))
        pen.text((x, y), text, fill=(220, 220, 220), font_size=max(4, 2.5 * unit))
    return np.stack([np.asarray(band, np.float32) for band in picture.split()]) / 255


def _mucosa(rng: Rng, family: Family, scene: dict[str, Field]) -> Field:
    """Color before light, (3, side, side)."""
    tint = scene["tint"]
    side = len(tint)
    base, second, polyp = (tone(color) for color in family.palette)
    vessel = ridge(noise(rng, side, side / 9), 0.05) + 0.7 * ridge(
        noise(rng, side, side / 22), 0.08
    )
    patch = noise(rng, side, side / 3)
    vessel *= np.clip(3 * patch - 1.2, 0, 1) * (1 - 0.75 * tint) * 0.35 * family.extra[0]
    grain = 1 + 0.12 * (noise(rng, side, family.grain_frac * side / 3) - 0.5)
    albedo = (base + (second - base) * patch[::-1]) * grain
    albedo *= 1 + family.contrast * (polyp - 1) * tint
    albedo *= 1 - tone((0.5, 1, 1)) * vessel
    return albedo


def draw_endoscopy(rng: Rng, family: Family, side: int) -> tuple[Field, Field]:
    scene = {name: np.zeros((side, side), np.float32) for name in ("tint", "crease")}
    scene["height"], reach = _wall(rng, side)
    scene["ids"] = ids = np.zeros((side, side), np.uint16)
    for number in range(1, 2 + (rng.integers(1, 3) if rng.random() < 0.2 else 0)):
        _polyp(rng, family, scene, number)
    if rng.random() < 0.2:
        _front_fold(rng, scene)
    if family.kind != "flat":  # nearer to the lamp than the lumen behind it
        reach = reach + (1 - reach) * 0.6 * scene["tint"]
    shade, glare = _light(rng, family, scene, reach)
    shade *= rng.uniform(0.7, 1.05) / float(np.quantile(shade[::8, ::8], 0.85))
    rgb = _mucosa(rng, family, scene)
    for plane, power in zip(rgb, (0.8, 1.1, 1.2), strict=True):
        plane *= 1.1 * shade**power
    _litter(rng, rgb, ids)
    rgb = np.minimum(rgb, 0.6 + 0.25 * rgb)
    rgb += glare * (0.98 - rgb)
    lens = _frame(rng, family, side)
    rgb = rgb * lens + rng.uniform(0, 0.04)
    ids[lens < 0.5] = 0
    rgb = _overlay(rng, family, rgb, ids)
    if rng.random() < 0.12:
        length = max(1, int(0.025 * side * rng.random()))
        rgb = ndimage.uniform_filter1d(rgb, length, axis=int(rng.integers(1, 3)))
    if family.extra[3] < 0.12:
        rgb[:, 1::2] = np.roll(rgb[:, 1::2], int(rng.integers(-3, 4)), 2)
    return rgb, ids

"""Pretraining data: the allowed real sets and procedural scenes, as one memory-mapped pool.

    python -m pretrain.data --out pretrain/runs/pool

Reads `../shared/data/pretrain` only (its README says what may go into the packaged weights).
Every picture is stored at 512 x 512 with its instances and the kind of each. Procedural pictures
come in families: a few pictures of the same kinds of object on the same kind of ground.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Iterator
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from napari_samic.sample_data import synthetic
from pretrain import worlds

SIDE = 512
SETS = {
    "dsb2018-stage1-train": "nucleus",
    "bbbc010-celegans": "worm",
    "brain-mri-tumor": "tumour",
    "chasedb1-retina": "vessel",
    "dental-panoramic": "tooth",
    "oxford-pets-128": "pet",
    "ccp-clothing": "clothing",
}
PETS = 1500
FAMILIES = {
    "shapes": 500,
    "endoscopy": 250,
    "em": 60,
    "fluorescence": 150,
    "brightfield": 120,
    "histology": 80,
}
FAMILY_SIZE = 4
Picture = tuple[np.ndarray, np.ndarray, list[str]]
"""Image, instance ids, and the kind of id k at k - 1."""


def is_held_back(name: str) -> bool:
    """One in eight, by the file's name: never trained on."""
    return zlib.crc32(name.encode()) % 8 == 0


def read_pair(folder: Path, stem: str, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    image = Image.open(folder / "images" / f"{stem}.jpg").convert("RGB")
    mask = Image.open(folder / "masks" / f"{stem}.png")
    return (
        np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=3)),
        np.asarray(mask.resize((side, side), Image.Resampling.NEAREST)),
    )


def objects(kind: str, mask: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Instance ids from 1, and the kind of each."""
    if kind in ("nucleus", "worm"):
        ids = np.unique(mask, return_inverse=True)[1].reshape(mask.shape)
        ids = ids + 1 if mask.min() > 0 else ids
        return ids, [kind] * int(ids.max())
    if kind == "clothing":
        ids, kinds = np.zeros(mask.shape, int), []
        for value in np.unique(mask[mask > 0]):
            parts, count = ndimage.label(mask == value)
            ids[parts > 0] = parts[parts > 0] + len(kinds)
            kinds += [f"clothing-{value}"] * count
        return ids, kinds
    inside = mask > 200
    if kind == "pet":
        inside = ndimage.binary_dilation(inside, iterations=4) & (mask > 0)
    ids = inside.astype(int) if kind == "vessel" else ndimage.label(inside)[0]
    return ids, [kind] * int(ids.max())


def random_kinds(rng: np.random.Generator, ground: synthetic.Ground) -> list[synthetic.ObjectKind]:
    """One to three kinds of object for a family of plain scenes."""
    small = rng.random() < 0.3
    kinds = [synthetic.random_kind(rng, small=small) for _ in range(rng.choice([1, 2, 3]))]
    if rng.random() < 0.45:
        kinds = [synthetic.faint(k, ground, rng.uniform(0.25, 0.7)) for k in kinds]
    return kinds


def shapes(seed: int, number: int, side: int = SIDE) -> Iterator[Picture]:
    """One family of plain scenes."""
    rng = np.random.default_rng([seed, number])
    ground = synthetic.random_ground(rng)
    kinds = random_kinds(rng, ground)
    many, gray = rng.random() < 0.35, rng.random() < 0.3
    blur, noise, shadow = rng.uniform(0, 3), rng.uniform(0, 0.06), rng.uniform(0, 0.5)
    for _ in range(FAMILY_SIZE):
        counts = [int(rng.integers(10, 30)) if many else int(rng.integers(1, 7)) for _ in kinds]
        scene = synthetic.draw(
            rng,
            kinds,
            [counts[0], *(min(c, 5) for c in counts[1:])],
            ground,
            side=side,
            overlap=float(rng.choice([0.0, 0.3])),
            blur_px=blur,
            noise_sd=noise,
            shadow=shadow,
        )
        image = scene.image
        if gray:
            image = np.repeat(image.mean(-1, keepdims=True).astype(np.uint8), 3, -1)
        yield image, scene.ids, [f"shapes-{number}-{k}" for k in scene.kinds]


def world(name: str, seed: int, number: int, side: int = SIDE) -> Iterator[Picture]:
    """One family of a procedural world."""
    rng = np.random.default_rng([seed, number, worlds.WORLDS.index(name)])
    family = worlds.family(rng, name)
    for _ in range(FAMILY_SIZE):
        image, ids = worlds.draw(rng, family, side)
        yield image, ids, [f"{name}-{number}"] * int(ids.max())


def make(job: tuple[Any, ...]) -> tuple[list[Picture], list[dict[str, Any]]]:
    """Pictures and rows of one job: a file of a real set, or a family."""
    name, what, number = job
    if name in SETS:
        image, mask = read_pair(what, number)
        ids, kinds = objects(SETS[name], mask)
        row = {"set": name, "name": number, "held_back": is_held_back(number), "kinds": kinds}
        return [(image, ids, kinds)], [row]
    family = list(shapes(what, number) if name == "shapes" else world(name, what, number))
    held = number % 20 == 0
    return family, [
        {"set": name, "name": f"{name}-{number}-{i}", "held_back": held, "kinds": kinds}
        for i, (_, _, kinds) in enumerate(family)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/pretrain"))
    parser.add_argument("--out", type=Path, default=Path("pretrain/runs/pool"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    jobs: list[tuple[Any, ...]] = []
    for name in SETS:
        stems = sorted(p.stem for p in (args.data / name / "images").glob("*.jpg"))
        jobs += [(name, args.data / name, s) for s in (stems[:PETS] if "pets" in name else stems)]
    real = len(jobs)
    for name, count in FAMILIES.items():
        jobs += [(name, args.seed, k) for k in range(count)]
    total = real + (len(jobs) - real) * FAMILY_SIZE
    args.out.mkdir(parents=True, exist_ok=True)
    images, ids = (
        np.lib.format.open_memmap(args.out / f"{n}.npy", "w+", t, (total, SIDE, SIDE, *more))
        for n, t, more in (("images", np.uint8, (3,)), ("ids", np.uint16, ()))
    )
    rows: list[dict[str, Any]] = []
    with Pool(args.workers) as pool:
        for pictures, more in pool.imap(make, jobs, chunksize=8):
            for image, instances, _ in pictures:
                images[len(rows)], ids[len(rows)] = image, instances
                rows.append(more.pop(0))
    (args.out / "rows.json").write_text(json.dumps(rows))
    print(f"{total} pictures, {sum(r['held_back'] for r in rows)} held back")


if __name__ == "__main__":
    main()

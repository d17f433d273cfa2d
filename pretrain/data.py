"""Pretraining data: the allowed real sets and procedural scenes, as one memory-mapped pool.

Reads `../shared/data/pretrain` only (its README says what may go into the packaged weights).
Every picture is stored at 256 x 256 with an instance map and a class map.

    python -m pretrain.data --out pretrain/runs/pool --scenes 3000
"""

from __future__ import annotations

import argparse
import json
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from napari_samic import scenes

SIDE = 256
CLASSES = ("nucleus", "worm", "tumour", "vessel", "tooth", "pet")
FIRST_CLOTHING = 1 + len(CLASSES)  # 59 clothing ids follow
FIRST_SCENE = FIRST_CLOTHING + 59  # outline x texture follow
N_CLASSES = FIRST_SCENE + len(scenes.OUTLINES) * len(scenes.TEXTURES)
SETS = {
    "dsb2018-stage1-train": "nucleus",
    "bbbc010-celegans": "worm",
    "brain-mri-tumor": "tumour",
    "chasedb1-retina": "vessel",
    "dental-panoramic": "tooth",
    "oxford-pets-128": "pet",
    "ccp-clothing": "clothing",
}


def is_held_back(name: str) -> bool:
    """One in eight, by the file's name: never trained on."""
    return zlib.crc32(name.encode()) % 8 == 0


def read_pair(folder: Path, stem: str) -> tuple[np.ndarray, np.ndarray]:
    image = Image.open(folder / "images" / f"{stem}.jpg").convert("RGB")
    mask = Image.open(folder / "masks" / f"{stem}.png")
    return (
        np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)),
        np.asarray(mask.resize((SIDE, SIDE), Image.Resampling.NEAREST)),
    )


def objects(kind: str, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Instance ids and classes, (256, 256) each."""
    if kind in ("nucleus", "worm"):
        ids = np.unique(mask, return_inverse=True)[1].reshape(mask.shape)
        if mask.min() > 0:
            ids = ids + 1
        return ids, (ids > 0) * (1 + CLASSES.index(kind))
    if kind == "clothing":
        ids, count = np.zeros(mask.shape, int), 0
        for value in np.unique(mask[mask > 0]):
            parts, n = ndimage.label(mask == value)
            ids[parts > 0] = parts[parts > 0] + count
            count += n
        return ids, np.where(mask > 0, FIRST_CLOTHING + np.minimum(mask, 58), 0)
    inside = mask > 200
    if kind == "pet":
        inside = ndimage.binary_dilation(inside, iterations=2) & (mask > 0)
    ids = inside.astype(int) if kind == "vessel" else ndimage.label(inside)[0]
    return ids, inside * (1 + CLASSES.index(kind))


def random_scene(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ground = scenes.random_ground(rng)
    kinds = [
        scenes.random_kind(rng, small=rng.random() < 0.3) for _ in range(rng.choice([1, 2, 3]))
    ]
    if rng.random() < 0.4:
        kinds = [scenes.faint(k, ground, rng.uniform(0.25, 0.6)) for k in kinds]
    if rng.random() < 0.35:  # many of one kind, as cells are
        counts = [int(rng.integers(10, 30))] + [2] * (len(kinds) - 1)
    else:
        counts = [int(rng.integers(1, 7)) for _ in kinds]
    scene = scenes.draw(
        rng,
        kinds,
        counts,
        ground,
        side=SIDE,
        overlap=rng.choice([0.0, 0.3]),
        blur_px=rng.uniform(0, 1.8),
        noise_sd=rng.uniform(0, 0.06),
        shadow=rng.uniform(0, 0.5),
    )
    codes = [
        FIRST_SCENE
        + scenes.OUTLINES.index(k.outline) * len(scenes.TEXTURES)
        + scenes.TEXTURES.index(k.texture)
        for k in kinds
    ]
    table = np.concatenate([[0], np.asarray(codes)[scene.kinds]]).astype(int)
    image = scene.image
    if rng.random() < 0.3:
        image = np.repeat(image.mean(-1, keepdims=True).astype(np.uint8), 3, -1)
    return image, scene.ids, table[scene.ids]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/pretrain"))
    parser.add_argument("--out", type=Path, default=Path("pretrain/runs/pool"))
    parser.add_argument("--scenes", type=int, default=3000)
    args = parser.parse_args()
    todo = [
        (args.data / name, stem, kind)
        for name, kind in SETS.items()
        for stem in sorted(p.stem for p in (args.data / name / "images").glob("*.jpg"))
    ]
    total = len(todo) + args.scenes
    args.out.mkdir(parents=True, exist_ok=True)
    images = np.lib.format.open_memmap(
        args.out / "images.npy", "w+", np.uint8, (total, SIDE, SIDE, 3)
    )
    ids = np.lib.format.open_memmap(args.out / "ids.npy", "w+", np.uint16, (total, SIDE, SIDE))
    classes = np.lib.format.open_memmap(
        args.out / "classes.npy", "w+", np.uint8, (total, SIDE, SIDE)
    )
    rows = []
    for i, (folder, stem, kind) in enumerate(todo):
        image, mask = read_pair(folder, stem)
        images[i] = image
        ids[i], classes[i] = objects(kind, mask)
        rows.append({"set": folder.name, "name": stem, "held_back": is_held_back(stem)})
    for k in range(args.scenes):
        images[len(todo) + k], ids[len(todo) + k], classes[len(todo) + k] = random_scene(k)
        rows.append({"set": "scenes", "name": f"scene-{k}", "held_back": k % 20 == 0})
    (args.out / "rows.json").write_text(json.dumps(rows))
    print(f"{total} pictures, {sum(r['held_back'] for r in rows)} held back, {N_CLASSES} classes")


if __name__ == "__main__":
    main()

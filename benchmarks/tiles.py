"""A large image in tiles against the same objects as single images: object F1, time, memory.

    python benchmarks/tiles.py --side 6144 --out DIR
    python benchmarks/tiles.py --side 12288 --prompter DIR/tiles.pt --out DIR

Draws a mosaic of nuclei with known truth (--side pixels, --seed), and a second one of which five
crops of --tile pixels are the references, unless --prompter is given. The mosaic is segmented by
`napari-samic segment` as one file, in tiles of the references' size, and then as --crops crops of
that size on a grid, one file each. Columns:

- F1: object F1 at an IoU of 0.5, of the whole, and of all objects of the crops together, in which
  those at the rim are cut.
- on seams: share of the objects on an inner edge of a tile that are found as one (IoU of 0.5).
- MB: the largest memory of the process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_samic.evaluation.matching import Matches, match_objects, sparse_object_ious
from napari_samic.pipeline import tiling

SPACING_PX, RADII_PX = 58, (9.0, 17.0)


def draw(side: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Nuclei on a jittered grid, some of which touch: image and numbers, row by row of cells."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side), 18, np.float32)
    truth = np.zeros((side, side), np.int32)
    for number, corner in enumerate(np.ndindex(side // SPACING_PX, side // SPACING_PX), start=1):
        center = (np.array(corner) + 0.5 + rng.uniform(-0.4, 0.4, 2)) * SPACING_PX
        radii, angle = rng.uniform(*RADII_PX, 2), rng.uniform(0, np.pi)
        low = np.maximum(center.astype(int) - 20, 0)
        where = tuple(slice(n, n + 40) for n in low)
        grid = np.indices(truth[where].shape) + (low - center)[:, None, None]
        turned = np.tensordot(
            [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]], grid, 1
        )
        depth = 1 - ((turned / radii[:, None, None]) ** 2).sum(0)
        own = (depth > 0) & (truth[where] == 0)
        truth[where][own] = number
        image[where][own] += rng.uniform(60, 170) * (0.6 + 0.4 * np.sqrt(depth[own]))
    for row in image:
        row += rng.normal(0, 7, side).astype(np.float32)
    return image.clip(0, 255).astype(np.uint8), truth


def run(*words: object) -> tuple[float, float]:
    """Seconds and largest MB of a command of napari-samic."""
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "napari_samic", *map(str, words)])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"napari-samic {words[0]} failed.")
    return time.monotonic() - start, usage.ru_maxrss / 1024


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--side", type=int, default=6144)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--crops", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prompter", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    out, tile = options.out, options.tile
    image, truth = draw(options.side, options.seed)
    write(out / "mosaic" / "mosaic.tif", image)
    corners = grid(options.side, tile, options.crops)
    for row, column in corners:
        crop = np.s_[row : row + tile, column : column + tile]
        write(out / "crops" / f"{row}-{column}.tif", image[crop])
    del image
    prompter = options.prompter or train(out, tile, options.seed + 1)
    seconds, memory = {}, {}
    for name in ("mosaic", "crops"):
        words = ["--prompter", prompter, "--out", out / f"{name}-labels", "--overwrite"]
        seconds[name], memory[name] = run("segment", out / name, *words)
    labels = tifffile.imread(out / "mosaic-labels" / "mosaic.tif")
    parts = [
        match_objects(
            tifffile.imread(out / "crops-labels" / f"{row}-{column}.tif"),
            truth[row : row + tile, column : column + tile],
        )
        for row, column in corners
    ]
    f1 = {"mosaic": match_objects(labels, truth).f1, "crops": Matches.pooled(parts).f1}
    tiles = tiling.windows(truth.shape, tile)
    print(f"{options.side} px: {truth.max()} nuclei, {len(tiles)} tiles; {len(parts)} crops")
    for name, count in (("mosaic", len(tiles)), ("crops", len(parts))):
        print(
            f"{name}: F1 {f1[name]:.4f}, {seconds[name]:.0f} s, {seconds[name] / count:.2f} s a "
            f"tile, {memory[name]:.0f} MB"
        )
    own, other = on_seams(labels, truth, tiles)
    print(f"on seams: {own:.4f} of their nuclei found as one; of all, {other:.4f}")


def write(path: Path, image: NDArray[Any]) -> None:
    """One TIFF, in a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, image, compression="zlib")


def grid(side: int, tile: int, count: int) -> list[tuple[int, int]]:
    """Corners of crops, evenly spaced."""
    ends = np.linspace(0, side - tile, max(1, round(count**0.5))).astype(int)
    return [(int(row), int(column)) for row in ends for column in ends]


def train(out: Path, tile: int, seed: int) -> Path:
    """A prompter of five crops of another mosaic."""
    image, truth = draw(5 * tile, seed)
    for i in range(5):
        crop = np.s_[i * tile : (i + 1) * tile, i * tile : (i + 1) * tile]
        write(out / "references" / f"r{i}.tif", image[crop])
        write(out / "masks" / f"r{i}.tif", truth[crop])
    words = ["--masks", out / "masks", "--out", out / "tiles.pt", "--overwrite"]
    run("train", "--images", out / "references", *words)
    return out / "tiles.pt"


def on_seams(
    labels: NDArray[np.int32], truth: NDArray[np.int32], tiles: list[tiling.Window]
) -> tuple[float, float]:
    """Share of the true nuclei that are found: those that an inner edge of a tile cuts, and all."""
    is_cut = np.zeros(truth.max() + 1, bool)
    for rows, columns in tiles:
        for edge in (rows.start, rows.stop - 1):
            is_cut[truth[edge, columns]] |= 0 < edge < len(truth) - 1
        for edge in (columns.start, columns.stop - 1):
            is_cut[truth[rows, edge]] |= 0 < edge < len(truth) - 1
    ious = sparse_object_ious(labels, truth).tocsc()
    best = np.zeros(truth.max() + 1)
    best[np.unique(truth)[1:]] = ious.max(axis=0).toarray().ravel()
    numbers = np.unique(truth)[1:]
    return float((best[numbers[is_cut[numbers]]] >= 0.5).mean()), float(
        (best[numbers] >= 0.5).mean()
    )


if __name__ == "__main__":
    main()

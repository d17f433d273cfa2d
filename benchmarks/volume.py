"""A volume of nuclei with known truth: how many objects keep a single number through its planes.

    python benchmarks/volume.py --out DIR

Draws a volume (--depth planes of --side pixels, --seed) whose nuclei touch and lie over each other,
annotates three planes from the truth, trains, and segments the volume with `napari-samic segment`,
its planes by themselves (`--preset volume`) and following each other (`--follow stacks`). Columns:

- F1: object F1 of whole bodies at an IoU of 0.5.
- planes F1: object F1 of the planes by themselves, which linking can't better.
- whole: share of the true bodies whose found pixels have one number in at least 9 of 10 planes.
- numbers: of the labels, for each true body.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from napari_samic.evaluation.matching import Matches, match_objects

SPACING_PX, RADII_PX, PLANE_PX = 44, (10.0, 17.0), 2.0
"""Planes are twice as far apart as pixels."""


def draw(depth: int, side: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Ellipsoids on a jittered grid: (Z, H, W) image and numbers."""
    rng = np.random.default_rng(seed)
    image, truth = np.full((depth, side, side), 20, np.float32), np.zeros((depth, side, side), int)
    layers = max(1, round(depth * PLANE_PX / SPACING_PX))
    cells = np.ndindex(layers, side // SPACING_PX, side // SPACING_PX)
    for number, corner in enumerate(cells, start=1):
        center = (np.array(corner) + 0.5 + rng.uniform(-0.3, 0.3, 3)) * SPACING_PX
        radii = rng.uniform(*RADII_PX, 3)
        grid = np.indices(truth.shape, np.float32) * np.array([PLANE_PX, 1, 1])[:, None, None, None]
        inside = (((grid - center[:, None, None, None]) / radii[:, None, None, None]) ** 2).sum(
            0
        ) < 1
        own = inside & (truth == 0)
        truth[own] = number
        grain = ndimage.gaussian_filter(rng.normal(size=truth.shape).astype(np.float32), (1, 3, 3))
        image[own] += rng.uniform(60, 150) * (1 + 4 * grain[own])
    image = ndimage.gaussian_filter(image, (0.6, 1.2, 1.2)) + rng.normal(0, 6, truth.shape)
    return image.clip(0, 255).astype(np.uint8), truth.astype(np.int32)


def whole(labels: NDArray[np.int32], truth: NDArray[np.int32]) -> tuple[float, float]:
    """Share of the true bodies with a single number, and numbers for each."""
    single, counts = [], []
    for number in np.unique(truth[truth > 0]):
        planes = np.flatnonzero((truth == number).any((1, 2)))
        most = []
        for z in planes:
            here = labels[z][truth[z] == number]
            if (here > 0).mean() > 0.5:
                most.append(int(np.bincount(here[here > 0]).argmax()))
        if most:
            single.append(np.bincount(most).max() / len(most) >= 0.9)
            counts.append(len(set(most)))
    return float(np.mean(single)), float(np.mean(counts))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--depth", type=int, default=40)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    out = options.out
    image, truth = draw(options.depth, options.side, options.seed)
    for folder, values in (("images", image), ("masks", truth)):
        (out / folder).mkdir(parents=True, exist_ok=True)
        for z in np.linspace(0.2, 0.8, 3) * options.depth:
            tifffile.imwrite(out / folder / f"plane-{int(z):02d}.tif", values[int(z)])
    tifffile.imwrite(out / "volume.tif", image, imagej=True, metadata={"axes": "ZYX"})
    tifffile.imwrite(out / "truth.tif", truth)
    program = [sys.executable, "-m", "napari_samic"]
    train = ["train", "--images", out / "images", "--masks", out / "masks", "--out", out / "v.pt"]
    if not (out / "v.pt").exists():
        subprocess.run([*program, *map(str, train)], check=True)
    lines = ["", "| volume | F1 | planes F1 | whole | numbers | s |", "|---|---|---|---|---|---|"]
    for name, words in (
        ("by itself", ()), ("volume", ("--preset", "volume")), ("follow", ("--follow", "stacks")),
    ):  # fmt: skip
        folder, start = out / name.replace(" ", "-"), time.monotonic()
        segment = [
            "segment",
            out / "volume.tif",
            "--prompter",
            out / "v.pt",
            "--out",
            folder,
            *words,
        ]
        subprocess.run([*program, *map(str, segment), "--overwrite"], check=True)
        seconds = time.monotonic() - start
        labels = tifffile.imread(folder / "volume.tif")
        bodies = match_objects(*(a.reshape(-1, options.side) for a in (labels, truth)))
        planes = [match_objects(a, b) for a, b in zip(labels, truth, strict=True)]
        share, numbers = whole(labels, truth)
        lines.append(
            f"| {name} | {bodies.f1:.3f} | {Matches.pooled(planes).f1:.3f} | {share:.3f} | "
            f"{numbers:.2f} | {seconds:.0f} |"
        )
    print("\n".join(lines))


if __name__ == "__main__":
    main()

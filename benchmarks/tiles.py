"""A large image in tiles against the same objects as single images: object F1, time, memory.

    python benchmarks/tiles.py --side 6144 --out DIR
    python benchmarks/tiles.py --side 20000 --prompter DIR/tiles.pt --out DIR

Draws a mosaic of nuclei with known truth (--side pixels, --seed), strip by strip, and a second one
of which five crops of --tile pixels are the references, unless --prompter is given. The mosaic is
segmented by `napari-samic segment` as one file, in tiles of the references' size, and then as
--crops crops of that size on a grid, one file each. Columns:

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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy.sparse import coo_array

from napari_samic.core.types import ImagePlane
from napari_samic.evaluation.matching import Matches, best_pairs, match_objects
from napari_samic.io.images import planes_of_file
from napari_samic.pipeline import tiling

RADII_PX, REACH_PX = (9.0, 17.0), 20
STRIP_PX = 512


@dataclass(frozen=True)
class Scene:
    """A mosaic of nuclei: its side, how far they are apart, and the seed."""

    side: int
    spacing_px: int
    seed: int


def draw(scene: Scene, top: int, height: int) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Some rows of nuclei on a jittered grid, some of which touch: image and numbers."""
    side, spacing, seed = scene.side, scene.spacing_px, scene.seed
    cells = side // spacing
    first = max(0, (top - REACH_PX) // spacing - 1)
    last = min(cells, (top + height + REACH_PX) // spacing + 1)
    start = first * spacing - REACH_PX  # of the canvas, which holds all that is drawn
    image = np.full(((last - first) * spacing + 2 * REACH_PX, side), 18, np.float32)
    truth = np.zeros(image.shape, np.int32)
    for row in range(first, last):
        rng = np.random.default_rng([seed, row])
        for column in range(cells):
            jitter, radii = rng.uniform(-0.4, 0.4, 2), rng.uniform(*RADII_PX, 2)
            angle, light = rng.uniform(0, np.pi), rng.uniform(60, 170)
            center = (np.array([row, column]) + 0.5 + jitter) * spacing - (start, 0)
            low = np.maximum(center.astype(int) - REACH_PX, 0)
            where = tuple(slice(n, n + 2 * REACH_PX) for n in low)
            grid = np.indices(truth[where].shape) + (low - center)[:, None, None]
            turned = np.tensordot(
                [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]], grid, 1
            )
            depth = 1 - ((turned / radii[:, None, None]) ** 2).sum(0)
            own = (depth > 0) & (truth[where] == 0)
            truth[where][own] = row * cells + column + 1
            image[where][own] += light * (0.6 + 0.4 * np.sqrt(depth[own]))
    wanted = slice(top - start, top - start + height)
    image, truth = (_padded(part[wanted], height) for part in (image, truth))
    image[image == 0] = 18  # below the last cells
    for number, line in enumerate(image, start=top):
        line += np.random.default_rng([seed, number, 1]).normal(0, 7, side).astype(np.float32)
    return image.clip(0, 255).astype(np.uint8), truth


def _padded(part: NDArray[Any], height: int) -> NDArray[Any]:
    return np.pad(part, ((0, height - len(part)), (0, 0)))


def write_mosaic(out: Path, scene: Scene) -> None:
    """Image and truth as tiled TIFFs, of which a strip is at hand."""
    side = scene.side

    def tiles(number: int) -> Iterator[NDArray[Any]]:
        for top in range(0, side, STRIP_PX):
            strip = draw(scene, top, min(STRIP_PX, side - top))[number]
            for left in range(0, side, STRIP_PX):
                yield np.ascontiguousarray(strip[:, left : left + STRIP_PX])

    for number, (name, dtype) in enumerate((("mosaic", np.uint8), ("truth", np.int32))):
        path = out / name / "mosaic.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(
            path, tiles(number), shape=(side, side), dtype=dtype, tile=(STRIP_PX, STRIP_PX),
            compression="zlib",
        )  # fmt: skip


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
    parser.add_argument("--spacing", type=int, default=58, help="of nuclei; more takes less time")
    parser.add_argument("--crops", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prompter", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    out, tile, side = options.out, options.tile, options.side
    write_mosaic(out, Scene(side, options.spacing, options.seed))
    image, truth = plane(out / "mosaic"), plane(out / "truth")
    places = grid(side, tile, options.crops)
    for rows, columns in places:
        write(out / "crops" / f"{rows.start}-{columns.start}.tif", part(image, rows, columns))
    prompter = options.prompter or train(out, Scene(5 * tile, options.spacing, options.seed + 1))
    seconds, memory = {}, {}
    for name in ("mosaic", "crops"):
        words = ["--prompter", prompter, "--out", out / f"{name}-labels", "--overwrite"]
        seconds[name], memory[name] = run("segment", out / name, *words)
    parts = [
        match_objects(
            tifffile.imread(out / "crops-labels" / f"{rows.start}-{columns.start}.tif"),
            part(truth, rows, columns),
        )
        for rows, columns in places
    ]
    overlaps = Overlaps.of(plane(out / "mosaic-labels"), truth, tiling.windows((side, side), tile))
    f1 = {"mosaic": overlaps.f1, "crops": Matches.pooled(parts).f1}
    tiles = len(tiling.windows((side, side), tile))
    print(f"{side} px: {len(overlaps.is_cut)} nuclei, {tiles} tiles; {len(parts)} crops")
    for name, count in (("mosaic", tiles), ("crops", len(parts))):
        print(
            f"{name}: F1 {f1[name]:.4f}, {seconds[name]:.0f} s, {seconds[name] / count:.2f} s a "
            f"tile, {memory[name]:.0f} MB"
        )
    best = overlaps.ious.tocsc().max(axis=0).toarray().ravel() >= 0.5
    print(
        f"on seams: {best[overlaps.is_cut].mean():.4f} of their nuclei found as one; of all, "
        f"{best.mean():.4f}"
    )


def write(path: Path, image: NDArray[Any]) -> None:
    """One TIFF, in a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, image, compression="zlib")


def plane(folder: Path) -> ImagePlane:
    """The mosaic in a folder."""
    return planes_of_file(folder / "mosaic.tif", palette_indices=True)[0]


def part(whole: ImagePlane, rows: slice, columns: slice = slice(None)) -> NDArray[Any]:
    """Some pixels of a plane; of a small one, that can't be read in parts, too."""
    if whole.read_part is None:
        return whole.read()[rows, columns]
    return whole.read_part(rows, columns)


def grid(side: int, tile: int, count: int) -> list[tiling.Window]:
    """Places of crops, evenly spaced."""
    ends = np.linspace(0, side - tile, max(1, round(count**0.5))).astype(int)
    spans = [slice(int(end), int(end) + tile) for end in ends]
    return [(rows, columns) for rows in spans for columns in spans]


def train(out: Path, scene: Scene) -> Path:
    """A prompter of five crops of another mosaic, of a fifth of its side."""
    image, truth = draw(scene, 0, scene.side)
    tile = scene.side // 5
    for i in range(5):
        crop = np.s_[i * tile : (i + 1) * tile, i * tile : (i + 1) * tile]
        write(out / "references" / f"r{i}.tif", image[crop])
        write(out / "masks" / f"r{i}.tif", truth[crop])
    words = ["--masks", out / "masks", "--out", out / "tiles.pt", "--overwrite"]
    run("train", "--images", out / "references", *words)
    return out / "tiles.pt"


@dataclass(frozen=True)
class Overlaps:
    """How objects of a result and of the truth overlap.

    Attributes
    ----------
    ious : (P, T) coo_array
    is_cut : (T,) bool
        Whether an inner edge of a tile cuts the true object.
    """

    ious: Any
    is_cut: NDArray[np.bool_]

    @classmethod
    def of(cls, labels: ImagePlane, truth: ImagePlane, tiles: list[tiling.Window]) -> Overlaps:
        """Read both strip by strip."""
        side = tiles[-1][0].stop
        rows, columns = (
            sorted({e for t in tiles for e in (t[axis].start, t[axis].stop - 1)} - {0, side - 1})
            for axis in (0, 1)
        )
        pairs: list[NDArray[np.int64]] = []
        counts: list[NDArray[np.int64]] = []
        cut: set[int] = set()
        for top in range(0, side, STRIP_PX):
            strip = slice(top, min(side, top + STRIP_PX))
            predicted, true = (part(p, strip).astype(np.int64) for p in (labels, truth))
            values, count = np.unique(predicted << 32 | true, return_counts=True)
            pairs.append(values)
            counts.append(count)
            cut |= set(true[[row - top for row in rows if row in range(*strip.indices(side))]].flat)
            cut |= set(true[:, columns].flat)
        places, ids = np.concatenate(pairs), []
        for numbers in (places >> 32, places & 0xFFFFFFFF):
            ids.append(np.unique(numbers, return_inverse=True))
        (_, row), (numbers, column) = ids  # the first of both is the ground
        table = coo_array((np.concatenate(counts), (row, column))).tocsr()
        areas = np.asarray(table.sum(1)).ravel(), np.asarray(table.sum(0)).ravel()
        shared = table[1:, 1:].tocoo()
        union = areas[0][1:][shared.row] + areas[1][1:][shared.col] - shared.data
        ious = coo_array((shared.data / union, (shared.row, shared.col)), shape=shared.shape)
        return cls(ious, np.isin(numbers[1:], list(cut)))

    @property
    def f1(self) -> float:
        """Of objects at an IoU of 0.5."""
        n_predicted, n_true = self.ious.shape
        return Matches(n_predicted, n_true, len(best_pairs(self.ious, iou_threshold=0.5)), 0.0).f1


if __name__ == "__main__":
    main()

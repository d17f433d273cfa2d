"""Make the pictures of docs/gallery.md, results and failures, into docs/images/gallery/.

    python docs/make_gallery.py --data BBBC038

Each case learns from its references for one minute, segments other pictures of its kind, and is
scored by their truth. A picture shows three of these, not chosen: the image above, the masks below
in color, the truth in dashes. The scores of all are printed, and written on the picture. --data is
as in make_screenshots.py; without it there is no tissue. `docs/make_gallery.py coins` makes one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tifffile
from make_screenshots import PICTURES, truths_of
from PIL import Image
from scipy import ndimage
from skimage.draw import bezier_curve, disk

import napari_samic
from napari_samic.core.settings import TrainSettings
from napari_samic.export.overlays import contact_sheet, overlay
from napari_samic.io.masks import read_labels
from napari_samic.sample_data import synthetic
from napari_samic.sample_data.samples import sample_set

IMAGES = Path(__file__).parent / "images" / "gallery"
SHOWN, TILE_PX, QUALITY = 3, 240, 82
REFERENCES, TESTED, MINUTES = 5, 6, 1.0
Pair = tuple[np.ndarray, np.ndarray]
"""Image (H, W, 3) uint8 and truth (H, W) int32."""


def sampled(name: str) -> tuple[list[Pair], list[Pair]]:
    """References and others of a packaged set."""
    pairs = [(sample.is_reference, (sample.image, sample.truth)) for sample in sample_set(name)]
    return [p for known, p in pairs if known], [p for known, p in pairs if not known]


def tissue(data: Path) -> tuple[list[Pair], list[Pair]]:
    """Stained tissue that no weights were trained on."""
    files = [next((data / "images").glob(f"{name}*")) for name in PICTURES]
    images = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    pairs = list(zip(images, truths_of(data), strict=True))
    return pairs[:6], pairs[6:]


def fainter(contrast: float, noise_sd: float) -> tuple[list[Pair], list[Pair]]:
    """The packaged cells; those to be segmented with less contrast and more noise."""
    rng = np.random.default_rng(0)
    references, others = sampled("cells")

    def faint(image: np.ndarray) -> np.ndarray:
        mean = image.mean(axis=(0, 1))
        noisy = mean + contrast * (image - mean) + rng.normal(0, noise_sd, image.shape)
        return np.clip(noisy, 0, 255).astype(np.uint8)

    return references, [(faint(image), truth) for image, truth in others]


def drawn(draw: Callable[[np.random.Generator], Pair]) -> tuple[list[Pair], list[Pair]]:
    """As many pictures as are needed, each by a generator of its own."""
    pairs = [draw(np.random.default_rng([24, i])) for i in range(REFERENCES + TESTED)]
    return pairs[:REFERENCES], pairs[REFERENCES:]


def on_ground(rng: np.random.Generator, truth: np.ndarray) -> Pair:
    """Bright objects on an uneven ground, slightly blurred."""
    ground = synthetic.texture(rng, "coarse", truth.shape[0], 60.0)
    gray = 60 + 40 * ground + 110 * ndimage.gaussian_filter((truth > 0).astype(float), 0.7)
    gray += rng.normal(0, 6, gray.shape)
    return np.repeat(np.clip(gray, 0, 255).astype(np.uint8)[..., None], 3, axis=-1), truth


def fibers(rng: np.random.Generator) -> Pair:
    """Eight curves, two pixels wide."""
    truth = np.zeros((256, 256), np.int32)
    for number in range(1, 9):
        (a, b), (c, d), (e, f) = rng.integers(8, 248, (3, 2))
        rows, columns = bezier_curve(a, b, c, d, e, f, 1.0, shape=truth.shape)
        for step in (0, 1):
            truth[np.minimum(rows + step, 255), columns] = number
    return on_ground(rng, truth)


def spots(rng: np.random.Generator) -> Pair:
    """Forty spots of five pixels across in 1024 x 1024."""
    truth = np.zeros((1024, 1024), np.int32)
    for number, place in enumerate(rng.integers(10, 1014, (40, 2)), start=1):
        truth[disk(place, 2.6, shape=truth.shape)] = number
    return on_ground(rng, truth)


def lookalikes(rng: np.random.Generator) -> Pair:
    """Round cells are wanted; angular debris has their colors, texture and size."""
    ground = synthetic.Ground("coarse", (0.36, 0.30, 0.33), (0.56, 0.46, 0.47), 0.09)
    cell, debris = (
        synthetic.ObjectKind(shape, "fine", (0.36, 0.22, 0.44), (0.62, 0.46, 0.66), (0.05, 0.07))
        for shape in ("blob", "polygon")
    )
    scene = synthetic.draw(rng, (cell, debris), (6, 6), ground, overlap=0.0)
    return scene.image, scene.truth()


CASES = {
    "cells": partial(sampled, "cells"),
    "coins": partial(sampled, "coins"),
    "contrast": partial(fainter, 0.3, 10.0),
    "fibers": partial(drawn, fibers),
    "spots": partial(drawn, spots),
    "lookalikes": partial(drawn, lookalikes),
}


def write(folder: Path, pairs: Sequence[Pair]) -> None:
    """`images` and `masks`, under the same names."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number, (image, truth) in enumerate(pairs, start=1):
        tifffile.imwrite(folder / "images" / f"{number:02}.tif", image, photometric="rgb")
        tifffile.imwrite(folder / "masks" / f"{number:02}.tif", truth)


def learned(folder: Path, references: Sequence[Pair], others: Sequence[Pair]) -> dict[str, float]:
    """Learn from references, segment the others into `labels`, and score these."""
    write(folder / "references", references)
    write(folder / "others", others)
    known, unknown = folder / "references", folder / "others"
    napari_samic.train(
        known / "images", masks=known / "masks", out=folder / "prompter.pt",
        settings=TrainSettings(minutes=MINUTES),
    )  # fmt: skip
    napari_samic.segment(unknown / "images", prompter=folder / "prompter.pt", out=folder / "labels")
    return napari_samic.evaluate(predictions=folder / "labels", truth=unknown / "masks").figures


def picture(labels: Path, others: Sequence[Pair], figures: dict[str, float]) -> Image.Image:
    """Images above, masks and truth below."""
    shown = list(enumerate(others[:SHOWN], start=1))
    masks = [overlay(x, read_labels(labels / f"{i:02}.tif"), truth=t) for i, (x, t) in shown]
    score = f"all {len(others)}: object F1 {figures['object_f1']:.2f}, IoU {figures['miou']:.2f}"
    captions = ["image"] * len(shown) + ["masks; dashed: truth"] * (len(shown) - 1) + [score]
    tiles = [image for _, (image, _) in shown] + masks
    return Image.fromarray(contact_sheet(tiles, captions, columns=len(shown), tile_px=TILE_PX))


def main() -> None:
    """Make the cases that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="cases; all by default")
    parser.add_argument("--data", type=Path, help="folder of BBBC038")
    options = parser.parse_args()
    cases = CASES | ({"tissue": partial(tissue, options.data)} if options.data else {})
    IMAGES.mkdir(exist_ok=True)
    for name in options.names or cases:
        references, others = cases[name]()
        with TemporaryDirectory() as temporary:
            figures = learned(Path(temporary), references, others)
            sheet = picture(Path(temporary) / "labels", others, figures)
        sheet.save(IMAGES / f"{name}.jpg", quality=QUALITY, optimize=True)
        print(name, {key: round(figures[key], 2) for key in ("object_f1", "miou", "dice")})


if __name__ == "__main__":
    main()

"""Answers of a benchmark as pictures: the worst, and those in the middle, with their truth."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_samic.benchmark.datasets import DatasetItem
from napari_samic.benchmark.report import ImageScore
from napari_samic.core.types import Image, ImagePlane, IntArray
from napari_samic.export import overlays
from napari_samic.io import writers
from napari_samic.io.normalize import Normalization, read_rgb
from napari_samic.pipeline import common

LOOKED_AT = 24
"""Overlays of the worst and of the middle ones."""


@dataclass(frozen=True, eq=False)
class OverlayRecord:
    """One answer, small, to be drawn if it is among those that are looked at."""

    item: DatasetItem
    normalization: Normalization
    shape: tuple[int, ...]
    packed: bytes

    @classmethod
    def of(cls, item: DatasetItem, normalization: Normalization, labels: IntArray) -> OverlayRecord:
        """Pack the (H, W) labels that were found."""
        packed = zlib.compress(np.asarray(labels, np.int32).tobytes(), 1)
        return cls(item, normalization, labels.shape, packed)

    @property
    def labels(self) -> IntArray:
        """(H, W) int32."""
        return np.frombuffer(zlib.decompress(self.packed), np.int32).reshape(self.shape)


def image_of(item: DatasetItem, normalization: Normalization) -> Image:
    """Pixels of an item as models take them."""
    return read_rgb(ImagePlane(item.name, (), item.read_image), normalization)


def draw(stem: Path, results: Sequence[ImageScore], drawn: Sequence[OverlayRecord]) -> None:
    """Write STEM-worst.png and STEM-middle.png, by IoU; `drawn` in the order of `results`."""
    order = np.argsort([r.iou for r in results], kind="stable")
    start = max(0, (len(order) - LOOKED_AT) // 2)
    common.make_folder(stem.parent)
    for which, places in (("worst", order[:LOOKED_AT]), ("middle", order[start:][:LOOKED_AT])):
        tiles, captions = [], []
        for i in places:
            record = drawn[i]
            image = image_of(record.item, record.normalization)
            truth = record.item.objects_in(record.item.read_truth())
            tiles.append(overlays.overlay(image, record.labels, truth=truth))
            captions.append(f"{results[i].iou:.2f} sure {results[i].score:.2f} {record.item.name}")
        sheet = overlays.contact_sheet(tiles, captions, columns=6, tile_px=256)
        writers.write_png(stem.with_name(f"{stem.name}-{which}.png"), sheet, overwrite=True)

"""References as a dataset: two maps a class, and random crops of them with augmentation.

A crop is a window of a reference, turned, mirrored, stretched, moved, brightened and tinted at
random. Small objects are cropped from large images, so that each costs the same. Knows no training.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from napari_samic.core.errors import TrainingError
from napari_samic.core.types import Image, IntArray
from napari_samic.models.features.reference_masks import InstanceMasks
from napari_samic.models.finetune import network
from napari_samic.models.finetune.field_of_view import field_of_view

WINDOW_PX = 256
"""Side of a crop."""
SIDES_PX = (256, 384, 512, 768, 1024)
"""Longest sides to which an image may be resized."""
LEAST_PX = 32.0
"""Wanted size of a typical object at that side: eight cells of the network's maps."""


@dataclass(frozen=True, eq=False)
class ReferenceSample:
    """A reference: its picture, (H, W, 3) uint8, and its objects."""

    name: str
    image: Image
    instances: InstanceMasks

    @classmethod
    def plain(cls, name: str, image: Image) -> ReferenceSample:
        """One that shows no object, or whose objects are not known."""
        nothing = np.broadcast_to(np.int32(0), image.shape[:2])
        return cls(name, image, InstanceMasks(nothing, ()))

    @property
    def field(self) -> ReferenceSample:
        """Its field of view alone (see `field_of_view`)."""
        inner = field_of_view(self.image)
        return ReferenceSample(
            self.name,
            self.image[inner],
            InstanceMasks(self.instances.numbers[inner], self.instances.classes),
        )

    @property
    def outside(self) -> float:
        """How much of its objects' area is not in its field of view, in [0, 1]."""
        foreground = self.instances.numbers > 0  # (H, W)
        if not foreground.any():
            return 0.0
        return 1 - float(foreground[field_of_view(self.image)].sum() / foreground.sum())


def choose_input_size(samples: Sequence[ReferenceSample]) -> int:
    """Longest side at which the references' typical object is large enough to be seen.

    Raises
    ------
    TrainingError
        No reference has an object with a pixel.
    """
    sizes = [
        np.sqrt(area) / max(sample.instances.numbers.shape)
        for sample in samples
        for area in np.bincount(sample.instances.numbers.ravel())[1:]
        if area
    ]
    if not sizes:
        raise TrainingError("no reference has an object to learn from. Annotate an image.")
    wanted = LEAST_PX / float(np.median(sizes))
    longest = max(max(sample.instances.numbers.shape) for sample in samples)
    fitting = [side for side in SIDES_PX if side >= min(wanted, longest)]
    return fitting[0] if fitting else SIDES_PX[-1]


def largest_seen_px(masks: Sequence[IntArray]) -> float:
    """Width of the typical object of some masks, (H, W) int, at the largest side that is looked at.

    Returns
    -------
    float
        In pixels of the network's input; infinity if there is no object.
    """
    widths = [
        np.sqrt(area) * min(1.0, SIDES_PX[-1] / max(numbers.shape))
        for numbers in masks
        for area in np.bincount(numbers.ravel())[1:]
        if area
    ]
    return float(np.median(widths)) if widths else float("inf")


def normalized_distance_transform(labels: IntArray) -> NDArray[np.float32]:
    """Distance map: how deep each pixel lies in its object, (H, W) in [0, 1].

    It is the distance to the outline, divided by the largest one in the object: 0 at the outline
    and outside, 1 in the middle, so that two objects that touch have two maxima.
    """
    depth = np.zeros(labels.shape, np.float32)
    for k, window in enumerate(ndimage.find_objects(labels), start=1):
        if window is None:
            continue
        inside = np.pad(labels[window] == k, 1)
        away = ndimage.distance_transform_edt(inside)[1:-1, 1:-1]
        depth[window] = np.maximum(depth[window], away / max(away.max(), 1e-6))
    return depth


class ReferenceDataset:
    """The dataset of fine-tuning: references at the network's size, sampled with augmentation.

    Augmentation is a random affine crop (turned, mirrored, scaled, stretched, moved) with a random
    change of its colors; the true maps, the distance map among them, are moved with the image.

    Parameters
    ----------
    samples : sequence of ReferenceSample
    labels : sequence of int
        The classes, in the order of the network's maps; none: pictures alone.
    side_px : int
        Longest side of a picture.
    rng : numpy Generator
    """

    def __init__(
        self,
        samples: Sequence[ReferenceSample],
        labels: Sequence[int],
        side_px: int,
        rng: np.random.Generator,
    ) -> None:
        self.labels, self.side_px, self._rng = tuple(labels), side_px, rng
        self._tensors: list[Tensor] = []
        self._object_pixels: list[NDArray[np.int64]] = []
        self._order: list[int] = []
        for sample in samples:
            self.add(sample)

    def __len__(self) -> int:
        return len(self._tensors)

    def add(self, sample: ReferenceSample) -> None:
        """Take one more, which comes when all before it have come."""
        tensor = self._to_tensor(sample)
        inside = tensor[3 : 3 + len(self.labels)].numpy().max(0, initial=0)
        self._tensors.append(tensor)
        self._object_pixels.append(np.argwhere(inside > 127))

    def state(self) -> dict[str, Any]:
        """What the next batches depend on, beside the samples."""
        return {"order": list(self._order), "rng": json.dumps(self._rng.bit_generator.state)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken, with the same samples."""
        self._order = [int(i) for i in state["order"]]
        self._rng.bit_generator.state = json.loads(state["rng"])

    def _to_tensor(self, sample: ReferenceSample) -> Tensor:
        """(3 + 2 C + 1, h, w) uint8: colors, inside, depth, and where there is image."""
        x, (rows, columns) = network.to_input(sample.image, self.side_px)
        padding = (0, x.shape[-1] - columns, 0, x.shape[-2] - rows)
        valid = F.pad(torch.ones(1, rows, columns), padding)
        color = x[0] * valid
        maps = self._maps(sample, (rows, columns))
        tensor = torch.cat([color, *(F.pad(m, padding) * 255 for m in maps), valid * 255])
        return tensor.round().clamp(0, 255).to(torch.uint8)

    def _maps(self, sample: ReferenceSample, size: tuple[int, int]) -> list[Tensor]:
        """2 C maps, (1, h, w) each in [0, 1]: inside of each class, then depth."""
        if not self.labels:
            return []
        classes, depth = (
            sample.instances.by_class,
            normalized_distance_transform(sample.instances.numbers),
        )
        maps = [classes == k for k in self.labels] + [
            np.where(classes == k, depth, 0) for k in self.labels
        ]
        stack = torch.from_numpy(np.stack(maps).astype(np.float32))[None]
        return list(torch.split(F.interpolate(stack, size, mode="area")[0], 1))

    def sample_batch(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Random crops; every reference comes once before one comes twice.

        Returns
        -------
        x : (B, 3, 256, 256)
            The network's input.
        truth : (B, 2 C, 256, 256)
        valid : (B, 1, 256, 256)
            1 where there is image.
        """
        color, truth, valid = self._draw(count)
        return _on_gray(self._color_jitter(color), valid), truth * valid, valid

    def sample_weak_strong(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Random crops twice: with weak augmentation (moved alone) and strong (other colors, too).

        Returns
        -------
        plain, changed : (B, 3, 256, 256)
            The network's input.
        valid : (B, 1, 256, 256)
            1 where there is image.
        """
        color, _, valid = self._draw(count)
        return _on_gray(color * 255, valid), _on_gray(self._color_jitter(color), valid), valid

    def _draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Colors in [0, 1], maps, and where there is image."""
        crops = torch.stack([self._random_affine_crop(self._next()) for _ in range(count)])
        color, truth, valid = torch.split(crops, [3, 2 * len(self.labels), 1], 1)
        return color, truth, (valid > 0.5).float()

    def _next(self) -> int:
        if not self._order:
            self._order = [int(i) for i in self._rng.permutation(len(self._tensors))]
        return self._order.pop()

    def _random_affine_crop(self, which: int) -> Tensor:
        """(3 + 2 C + 1, 256, 256) in [0, 1] of a sample, turned, mirrored, scaled and moved."""
        sample, rng = self._tensors[which].float() / 255, self._rng
        height, width = sample.shape[-2:]
        turn = rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else rng.integers(4) * np.pi / 2
        scale, stretch = np.exp(rng.uniform(-0.45, 0.3)), np.exp(rng.uniform(-0.15, 0.15))
        mirror = rng.choice([-1.0, 1.0])
        sin, cos = np.sin(turn) * scale, np.cos(turn) * scale
        window = np.array([[cos * mirror * stretch, -sin], [sin * mirror * stretch, cos]])
        window *= WINDOW_PX / np.array([[width], [height]])  # as a share of the sample
        center = self._center(which, height, width)
        theta = torch.tensor(np.concatenate([window, center[:, None]], 1), dtype=torch.float32)
        grid = F.affine_grid(theta[None], [1, 1, WINDOW_PX, WINDOW_PX], align_corners=False)
        return F.grid_sample(sample[None], grid, align_corners=False)[0]

    def _center(self, which: int, height: int, width: int) -> NDArray[np.float64]:
        """Middle of the crop, (x, y) in [-1, 1]: about the sample's, or on a pixel of an object."""
        limit = np.maximum(0.3, 1 - WINDOW_PX / np.array([width, height]))
        pixels = self._object_pixels[which]
        if len(pixels) and max(height, width) > WINDOW_PX and self._rng.random() < 0.5:
            row, column = pixels[self._rng.integers(len(pixels))]
            place = np.array([(column + 0.5) / width, (row + 0.5) / height]) * 2 - 1
            return np.asarray(np.clip(place, -limit, limit))
        return self._rng.uniform(-limit, limit)

    def _color_jitter(self, color: Tensor) -> Tensor:
        """Brightness, contrast, tint and saturation changed at random; in [0, 255] and beyond."""
        n, rng = len(color), self._rng

        def drawn(values: NDArray[np.float64], channels: int = 1) -> Tensor:
            return torch.from_numpy(values.reshape(n, channels, 1, 1)).float()

        mean = color.mean((1, 2, 3), keepdim=True)
        x = (color - mean) * drawn(np.exp(rng.normal(0, 0.2, n))) + mean
        x = 255 * x + drawn(rng.normal(0, 14, n)) + drawn(rng.normal(0, 9, 3 * n), 3)
        gray = drawn(np.clip(rng.uniform(-0.3, 0.5, n), 0, 1))
        return x * (1 - gray) + gray * x.mean(1, keepdim=True)


def _on_gray(x: Tensor, valid: Tensor) -> Tensor:
    """(B, 3, h, w) where there is image, gray elsewhere."""
    return (x - network.GRAY) * valid + network.GRAY

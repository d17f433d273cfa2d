"""References as an object network learns from them: two maps a class, and random looks.

A look is a window of a reference, turned, mirrored, stretched, moved, brightened and tinted at
random. Small objects are looked at in windows, so that each costs the same. Knows no network.
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
"""Side of a look."""
SIDES_PX = (256, 384, 512, 768, 1024)
"""Longest sides at which an image may be looked at."""
LEAST_PX = 32.0
"""Wanted size of a typical object at that side: eight cells of the network's maps."""


@dataclass(frozen=True, eq=False)
class ReferenceSample:
    """A reference: its picture, (H, W, 3) uint8, and its objects."""

    name: str
    image: Image
    shown: InstanceMasks

    @classmethod
    def plain(cls, name: str, image: Image) -> ReferenceSample:
        """One that shows no object, or whose objects are not known."""
        nothing = np.broadcast_to(np.int32(0), image.shape[:2])
        return cls(name, image, InstanceMasks(nothing, ()))

    @property
    def field(self) -> ReferenceSample:
        """Its field of view alone (see `models.field`)."""
        inner = field_of_view(self.image)
        return ReferenceSample(
            self.name,
            self.image[inner],
            InstanceMasks(self.shown.numbers[inner], self.shown.classes),
        )

    @property
    def outside(self) -> float:
        """How much of its objects' area is not in its field of view, in [0, 1]."""
        there = self.shown.numbers > 0  # (H, W)
        if not there.any():
            return 0.0
        return 1 - float(there[field_of_view(self.image)].sum() / there.sum())


def choose_input_size(pages: Sequence[ReferenceSample]) -> int:
    """Longest side at which the references' typical object is large enough to be seen.

    Raises
    ------
    TrainingError
        No reference has an object with a pixel.
    """
    sizes = [
        np.sqrt(area) / max(one.shown.numbers.shape)
        for one in pages
        for area in np.bincount(one.shown.numbers.ravel())[1:]
        if area
    ]
    if not sizes:
        raise TrainingError("no reference has an object to learn from. Annotate an image.")
    wanted = LEAST_PX / float(np.median(sizes))
    longest = max(max(one.shown.numbers.shape) for one in pages)
    fitting = [side for side in SIDES_PX if side >= min(wanted, longest)]
    return fitting[0] if fitting else SIDES_PX[-1]


def normalized_distance_transform(labels: IntArray) -> NDArray[np.float32]:
    """Distance to the outline in each object, divided by the object's largest: (H, W) in [0, 1]."""
    depth = np.zeros(labels.shape, np.float32)
    for k, window in enumerate(ndimage.find_objects(labels), start=1):
        if window is None:
            continue
        inside = np.pad(labels[window] == k, 1)
        away = ndimage.distance_transform_edt(inside)[1:-1, 1:-1]
        depth[window] = np.maximum(depth[window], away / max(away.max(), 1e-6))
    return depth


class ReferenceDataset:
    """References at the network's size, and random looks at them.

    Parameters
    ----------
    pages : sequence of ReferenceSample
    labels : sequence of int
        The classes, in the order of the network's maps; none: pictures alone.
    side_px : int
        Longest side of a picture.
    rng : numpy Generator
    """

    def __init__(
        self,
        pages: Sequence[ReferenceSample],
        labels: Sequence[int],
        side_px: int,
        rng: np.random.Generator,
    ) -> None:
        self.labels, self.side_px, self._rng = tuple(labels), side_px, rng
        self._pages: list[Tensor] = []
        self._spots: list[NDArray[np.int64]] = []
        self._order: list[int] = []
        for one in pages:
            self.add(one)

    def __len__(self) -> int:
        return len(self._pages)

    def add(self, one: ReferenceSample) -> None:
        """Take one more, which comes when all before it have come."""
        page = self._page(one)
        inside = page[3 : 3 + len(self.labels)].numpy().max(0, initial=0)
        self._pages.append(page)
        self._spots.append(np.argwhere(inside > 127))

    def state(self) -> dict[str, Any]:
        """What the next looks depend on, beside the pages."""
        return {"order": list(self._order), "rng": json.dumps(self._rng.bit_generator.state)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken, with the same pages."""
        self._order = [int(i) for i in state["order"]]
        self._rng.bit_generator.state = json.loads(state["rng"])

    def _page(self, one: ReferenceSample) -> Tensor:
        """(3 + 2 C + 1, h, w) uint8: colours, inside, depth, and where there is image."""
        x, (rows, columns) = network.to_input(one.image, self.side_px)
        padding = (0, x.shape[-1] - columns, 0, x.shape[-2] - rows)
        there = F.pad(torch.ones(1, rows, columns), padding)
        colour = x[0] * there
        maps = self._maps(one, (rows, columns))
        page = torch.cat([colour, *(F.pad(m, padding) * 255 for m in maps), there * 255])
        return page.round().clamp(0, 255).to(torch.uint8)

    def _maps(self, one: ReferenceSample, size: tuple[int, int]) -> list[Tensor]:
        """2 C maps, (1, h, w) each in [0, 1]: inside of each class, then depth."""
        if not self.labels:
            return []
        classes, depth = one.shown.by_class, normalized_distance_transform(one.shown.numbers)
        maps = [classes == k for k in self.labels] + [
            np.where(classes == k, depth, 0) for k in self.labels
        ]
        stack = torch.from_numpy(np.stack(maps).astype(np.float32))[None]
        return list(torch.split(F.interpolate(stack, size, mode="area")[0], 1))

    def looks(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Random looks; every reference comes once before one comes twice.

        Returns
        -------
        x : (B, 3, 256, 256)
            The network's input.
        truth : (B, 2 C, 256, 256)
        there : (B, 1, 256, 256)
            1 where there is image.
        """
        colour, truth, there = self._made(count)
        return _on_grey(self._tinted(colour), there), truth * there, there

    def pairs(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Random looks, as they are and with other colours.

        Returns
        -------
        plain, changed : (B, 3, 256, 256)
            The network's input.
        there : (B, 1, 256, 256)
            1 where there is image.
        """
        colour, _, there = self._made(count)
        return _on_grey(colour * 255, there), _on_grey(self._tinted(colour), there), there

    def _made(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Colours in [0, 1], maps, and where there is image."""
        made = torch.stack([self._look(self._next()) for _ in range(count)])
        colour, truth, there = torch.split(made, [3, 2 * len(self.labels), 1], 1)
        return colour, truth, (there > 0.5).float()

    def _next(self) -> int:
        if not self._order:
            self._order = [int(i) for i in self._rng.permutation(len(self._pages))]
        return self._order.pop()

    def _look(self, which: int) -> Tensor:
        page, rng = self._pages[which].float() / 255, self._rng
        height, width = page.shape[-2:]
        turn = rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else rng.integers(4) * np.pi / 2
        scale, stretch = np.exp(rng.uniform(-0.45, 0.3)), np.exp(rng.uniform(-0.15, 0.15))
        mirror = rng.choice([-1.0, 1.0])
        sin, cos = np.sin(turn) * scale, np.cos(turn) * scale
        window = np.array([[cos * mirror * stretch, -sin], [sin * mirror * stretch, cos]])
        window *= WINDOW_PX / np.array([[width], [height]])  # as a share of the page
        centre = self._centre(which, height, width)
        theta = torch.tensor(np.concatenate([window, centre[:, None]], 1), dtype=torch.float32)
        grid = F.affine_grid(theta[None], [1, 1, WINDOW_PX, WINDOW_PX], align_corners=False)
        return F.grid_sample(page[None], grid, align_corners=False)[0]

    def _centre(self, which: int, height: int, width: int) -> NDArray[np.float64]:
        """Middle of the look, (x, y) in [-1, 1]: about the page's, or on a pixel of an object."""
        room = np.maximum(0.3, 1 - WINDOW_PX / np.array([width, height]))
        spots = self._spots[which]
        if len(spots) and max(height, width) > WINDOW_PX and self._rng.random() < 0.5:
            row, column = spots[self._rng.integers(len(spots))]
            place = np.array([(column + 0.5) / width, (row + 0.5) / height]) * 2 - 1
            return np.asarray(np.clip(place, -room, room))
        return self._rng.uniform(-room, room)

    def _tinted(self, colour: Tensor) -> Tensor:
        """Brightness, contrast, tint and greyness changed at random; in [0, 255] and beyond."""
        n, rng = len(colour), self._rng

        def drawn(values: NDArray[np.float64], channels: int = 1) -> Tensor:
            return torch.from_numpy(values.reshape(n, channels, 1, 1)).float()

        mean = colour.mean((1, 2, 3), keepdim=True)
        x = (colour - mean) * drawn(np.exp(rng.normal(0, 0.2, n))) + mean
        x = 255 * x + drawn(rng.normal(0, 14, n)) + drawn(rng.normal(0, 9, 3 * n), 3)
        grey = drawn(np.clip(rng.uniform(-0.3, 0.5, n), 0, 1))
        return x * (1 - grey) + grey * x.mean(1, keepdim=True)


def _on_grey(x: Tensor, there: Tensor) -> Tensor:
    """(B, 3, h, w) where there is image, grey elsewhere."""
    return (x - network.GREY) * there + network.GREY

"""Frozen features for the prompter: the segmenter's own, or ResNet-50's.

A backbone answers three levels of block features, fine to coarse, and says which square of the
original image its input shows. Knows no prompts and no learner.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from napari_samic.cache import ArrayCache
from napari_samic.contracts import Image
from napari_samic.errors import ModelError
from napari_samic.models import registry
from napari_samic.models.devices import pick
from napari_samic.models.resnet50 import ResNet50Taps, preprocess

Levels: TypeAlias = list[list[Tensor]]


class Backbone(Protocol):
    """Where features come from.

    Attributes
    ----------
    name, weights_sha256 : str
    map_px, input_px : int
        Side of the square heat maps, and of the square input.
    device : torch.device
    """

    name: str
    weights_sha256: str
    map_px: int
    input_px: int

    @property
    def device(self) -> torch.device:
        """Where the features are."""
        ...

    def features(self, image: Image) -> Levels:
        """Fine to coarse; each block (1, C, h, w) float32."""
        ...

    def frame(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Rows and columns of original pixels that the square input spans, padding included."""
        ...


class SegmenterBackbone:
    """Taps of the segmenter's encoder: one pass serves prompter and masks, and is cached once.

    The input is padded below and right, so its frame is a square of the longest side.
    """

    map_px = 256

    def __init__(self, segmenter: Any) -> None:
        if not hasattr(segmenter, "taps"):
            msg = (
                f"{segmenter.name}: has no features to compare (method `taps`). "
                "Use the resnet50 backbone with it."
            )
            raise ModelError(msg)
        self.segmenter = segmenter
        self.name = str(segmenter.name)
        self.weights_sha256 = str(segmenter.weights_sha256)
        self.input_px = int(segmenter.side_px)

    @property
    def device(self) -> torch.device:
        """The segmenter's."""
        return torch.device(self.segmenter.device)

    def features(self, image: Image) -> Levels:
        """Grids of 32, 16 and 8."""
        levels: Levels = self.segmenter.taps(image).levels
        return levels

    def frame(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Square of the longest side."""
        longest = max(shape[:2])
        return (longest, longest)


class ResNetBackbone:
    """Blocks of ResNet-50 at 224 pixels, as the paper has it; the image is squeezed to a square.

    Parameters
    ----------
    name : str
        resnet50, an imported backbone, or path:FILE with torchvision's ResNet-50.
    device : str or torch.device
    cache : ArrayCache, optional
    """

    map_px = 224
    input_px = 224

    def __init__(
        self,
        name: str = "resnet50",
        *,
        device: str | torch.device = "auto",
        cache: ArrayCache | None = None,
    ) -> None:
        self.name = name
        self.weights_sha256 = registry.weights_sha256(name)
        self._device = pick(device)
        self._network = ResNet50Taps.load(registry.locate(self.name)).to(self._device)
        self._cache = cache

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._device

    def features(self, image: Image) -> Levels:
        """Grids of 28, 14 and 7: 4, 6 and 3 blocks."""
        key = self._cache.key(image, self.weights_sha256, "resnet50-1") if self._cache else ""
        kept = self._cache.get(key) if self._cache else None
        if kept is None:
            with torch.inference_mode():
                levels = self._network(preprocess(image, self.map_px).to(self._device))
            kept = {
                f"{i}/{j}": block.half().cpu().numpy()
                for i, level in enumerate(levels)
                for j, block in enumerate(level)
            }
            if self._cache:
                self._cache.put(key, kept)
        out: Levels = [[], [], []]
        for place in sorted(kept, key=lambda k: tuple(map(int, k.split("/")))):
            block = torch.from_numpy(np.asarray(kept[place], np.float32)).to(self._device)
            out[int(place[0])].append(block)
        return out

    def frame(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """The image itself."""
        return (shape[0], shape[1])


def build(
    kind: str,
    segmenter: Any,
    *,
    device: str | torch.device = "auto",
    cache: ArrayCache | None = None,
) -> Backbone:
    """Make the backbone of a setting.

    Parameters
    ----------
    kind : str
        "segmenter", or a ResNet-50: its name, or path:FILE.

    Raises
    ------
    ModelError
        Unknown, no backbone, or a segmenter without features.
    WeightsError
        ResNet-50's weights are not on this machine.
    """
    if kind == "segmenter":
        return SegmenterBackbone(segmenter)
    role = registry.spec(kind).role
    if role != "backbone" and not kind.startswith(registry.PATH_PREFIX):
        known = ", ".join(s.name for s in registry.specs() if s.role == "backbone")
        msg = f"backbone {kind!r}: is a {role}. Give segmenter, {known}, or path:FILE."
        raise ModelError(msg)
    return ResNetBackbone(kind, device=device, cache=cache)

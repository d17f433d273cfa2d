"""Frozen features for the prompter: the segmenter's own, or those of a timm network.

A backbone answers three levels of block features, fine to coarse, and says which square of the
original image its input shows. Knows no prompts and no learner.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Protocol, TypeAlias

import numpy as np
import PIL.Image
import torch
from torch import Tensor, nn

from napari_samic.core.errors import ModelError
from napari_samic.core.types import Image
from napari_samic.io.cache import ArrayCache
from napari_samic.models.encoders.openvino_engine import OpenVinoNetwork
from napari_samic.models.encoders.pyramid_encoder import (
    bfloat16_autocast,
    fuse_batch_norms,
    has_fast_bfloat16,
)
from napari_samic.models.encoders.timm_encoder import STRIDES
from napari_samic.models.features import timm_weights
from napari_samic.models.hub.devices import OPENVINO, pick
from napari_samic.models.sam.encoding import check_image

Levels: TypeAlias = list[list[Tensor]]
MOST_PX = 518
"""Side of a timm network's input: what DINOv2 was trained at."""
IN_MEMORY = 2
"""Images whose features are kept in memory."""
FINEST = 32
"""Cells to a side of a transformer's finest level, at most: as many as the segmenter's."""


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
    """Features inside the segmenter's encoder: one pass serves prompter and masks.

    It is cached once.

    The input is padded below and right, so its frame is a square of the longest side.
    """

    map_px = 256

    def __init__(self, segmenter: Any) -> None:
        if not hasattr(segmenter, "taps"):
            msg = (
                f"{segmenter.name}: has no features to compare (method `taps`). "
                "Use another encoder with it: --encoder resnet50."
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


class TimmBackbone:
    """Blocks of a timm network; the image is squeezed to a square of the side it was trained at.

    ResNet-50 at 224 pixels is as the paper has it.

    Parameters
    ----------
    name : str
        As `timm_weights.load` takes it.
    device : str or torch.device
    cache : ArrayCache, optional

    Attributes
    ----------
    quick : bool
        Sixteen bits where the device is made for that; features are 0.5 % off then.
    """

    def __init__(
        self,
        name: str = "resnet50",
        *,
        device: str | torch.device = "auto",
        cache: ArrayCache | None = None,
    ) -> None:
        encoder, self.weights_sha256 = timm_weights.load(name)
        step = encoder.layout.strides[0] if encoder.layout.tokens else STRIDES[-1]
        self.name = name
        self.input_px = self.map_px = min(-(-encoder.side_px // step), MOST_PX // step) * step
        self._mean, self._deviation = encoder.mean, encoder.deviation
        self._device = pick(device)
        self._encoder: Any = fuse_batch_norms(encoder).requires_grad_(False).to(self._device)
        self._encoder.to(memory_format=torch.channels_last)
        self.quick = True
        self._compiled = OpenVinoNetwork(_AllBlocks(self._encoder)) if device == OPENVINO else None
        self._cache, self._keys = cache, cache or ArrayCache()
        self._recent: OrderedDict[str, Levels] = OrderedDict()

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._device

    def features(self, image: Image) -> Levels:
        """Grids of 28, 14 and 7 at 224 pixels; ResNet-50 has 4, 6 and 3 blocks."""
        bits = 16 if self.quick and has_fast_bfloat16(self._device) else 32
        kind = f"timm-2 {self._encoder.name} {self.input_px} {bits}"
        key = self._keys.key(image, self.weights_sha256, kind)
        if (recent := self._recent.get(key)) is not None:
            return recent
        kept = self._cache.get(key) if self._cache else None
        if kept is None:
            kept = {
                f"{i}/{j}": block.half().cpu().numpy()
                for i, level in enumerate(self._look(image))
                for j, block in enumerate(level)
            }
            if self._cache:
                self._cache.put(key, kept)
        out: Levels = [[], [], []]
        for place in sorted(kept, key=lambda k: tuple(map(int, k.split("/")))):
            block = torch.from_numpy(np.asarray(kept[place], np.float32)).to(self._device)
            out[int(place[0])].append(block)
        self._recent[key] = out
        while len(self._recent) > IN_MEMORY:
            self._recent.popitem(last=False)
        return out

    def _look(self, image: Image) -> Levels:
        """Blocks of an image, resized to a square whatever its aspect."""
        check_image(image)
        size = (self.input_px, self.input_px)
        small = PIL.Image.fromarray(image).resize(size, PIL.Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(small, np.float32))  # (S, S, 3)
        normal = (pixels - torch.tensor(self._mean)) / torch.tensor(self._deviation)
        x = normal.permute(2, 0, 1)[None].contiguous().to(self._device)  # (1, 3, S, S)
        grid_px = min(self.input_px, FINEST * STRIDES[1])
        with torch.inference_mode(), bfloat16_autocast(self._device, on=self.quick):
            blocks = self._compiled(x) if self._compiled else self._encoder.blocks(x)
            levels: Levels = self._encoder.levels(blocks, (grid_px, grid_px))
        return levels

    def frame(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """The image itself."""
        return (shape[0], shape[1])


class _AllBlocks(nn.Module):
    """The blocks of an encoder as one tuple, as they are traced."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self._encoder = encoder

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._encoder.blocks(x))


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
        "segmenter", or what `timm_weights.load` takes.

    Raises
    ------
    ModelError
        Unknown, no encoder, or a segmenter without features.
    WeightsError
        Weights that are not on this machine and can't be fetched.
    FormatError
        A file of another network.
    """
    if kind == timm_weights.SEGMENTER:
        return SegmenterBackbone(segmenter)
    return TimmBackbone(kind, device=device, cache=cache)

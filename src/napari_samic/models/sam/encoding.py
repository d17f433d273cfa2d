"""Image to embedding and intermediate features (taps) in one pass; both to arrays for the cache.

The image is resized so that its longest side fills the network's square input, then padded below
and right, as segment-anything does. Must not know prompts, masks or files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from napari_samic.core.errors import InputError
from napari_samic.core.types import FloatArray, Image
from napari_samic.models.encoders.openvino_engine import OpenVinoNetwork
from napari_samic.models.encoders.pyramid_encoder import bfloat16_autocast
from napari_samic.models.encoders.timm_encoder import run, spread_blocks

VERSION = "sam-1"
"""Of resize, padding and taps; part of the cache key."""
GRIDS = (32, 16, 8)
"""Cells along a side of each level of taps, fine to coarse."""
_HALF_MAX = 65504.0
Look: TypeAlias = tuple[Tensor, list[list[Tensor]]]
"""Embedding (1, D, e, e), and levels of taps (1, C, h, w), fine to coarse."""


@dataclass(frozen=True, eq=False)
class IntermediateFeatures:
    """Features of several depths, for the prompter.

    Attributes
    ----------
    levels : list of list of (1, C, g, g) float32 Tensor
        Fine to coarse: grids of 32, 16 and 8 cells a side (fewer if the network has fewer).
    valid_rc : (float, float)
        Share of the rows and of the columns that show the image; the rest is padding.
    """

    levels: list[list[Tensor]]
    valid_rc: tuple[float, float]


@dataclass(frozen=True, eq=False)
class ImageEmbedding:
    """What one pass gave.

    Attributes
    ----------
    embedding : (1, D, e, e) Tensor
    levels : list of list of (1, C, g, g) Tensor
        As `IntermediateFeatures.levels`.
    input_hw : (int, int)
        Rows and columns of the resized image, before padding.
    image_hw : (int, int)
        Rows and columns of the original.
    """

    embedding: Tensor
    levels: list[list[Tensor]]
    input_hw: tuple[int, int]
    image_hw: tuple[int, int]

    def to(self, device: torch.device) -> ImageEmbedding:
        """Same, on `device`."""
        levels = [[t.to(device) for t in level] for level in self.levels]
        return ImageEmbedding(self.embedding.to(device), levels, self.input_hw, self.image_hw)

    def without_padding(self, side_px: int) -> FloatArray:
        """Embedding without the padding, (D, h, w) float32, of a square input of `side_px`."""
        values = self.embedding[0].float().cpu().numpy()
        rows, columns = (
            max(1, round(cells * pixels / side_px))
            for cells, pixels in zip(values.shape[1:], self.input_hw, strict=True)
        )
        return np.array(values[:, :rows, :columns], np.float32)


def check_image(image: Image) -> None:
    """Raise InputError unless `image` is (H, W, 3) uint8 with at least one pixel."""
    description = f"{getattr(image, 'dtype', type(image).__name__)} {getattr(image, 'shape', '')}"
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3:
        raise InputError(f"image is {description}, expected uint8 (H, W, 3). Normalise it first.")
    if image.shape[2] != 3 or image.size == 0:
        raise InputError(
            f"image is {description}, expected uint8 (H, W, 3) with at least one pixel."
        )


def input_size(image_hw: tuple[int, int], side_px: int) -> tuple[int, int]:
    """Rows and columns after the longest side became `side_px`; rounds halves up, as SAM does."""
    scale = side_px / max(image_hw)
    rows, columns = (max(1, int(n * scale + 0.5)) for n in image_hw)
    return rows, columns


def to_input(image: Image, network: Any, device: torch.device) -> Tensor:
    """Resize, normalize and pad.

    Parameters
    ----------
    image : (H, W, 3) uint8
    network : Sam
        Its `pixel_mean`, `pixel_std` and `image_encoder.img_size` are used.

    Returns
    -------
    (1, 3, S, S) float32 Tensor
    """
    side = int(network.image_encoder.img_size)
    rows, columns = input_size((image.shape[0], image.shape[1]), side)
    picture = PIL.Image.fromarray(np.ascontiguousarray(image))
    small = np.array(picture.resize((columns, rows), PIL.Image.Resampling.BILINEAR))
    x = torch.from_numpy(small).to(device).permute(2, 0, 1)[None].float()  # (1, 3, rows, columns)
    x = (x - network.pixel_mean) / network.pixel_std
    return F.pad(x, (0, side - columns, 0, side - rows))


def encode(
    image: Image,
    network: Any,
    device: torch.device,
    *,
    look: Callable[[Tensor], Look] | None = None,
    quick: bool = True,
) -> ImageEmbedding:
    """One pass of the encoder.

    Parameters
    ----------
    image : (H, W, 3) uint8
    network : Sam
    device : torch.device
        Where the network is.
    look : callable, optional
        In place of `look_through` its encoder.
    quick : bool
        As of `look_through`.

    Returns
    -------
    ImageEmbedding
    """
    encoder = network.image_encoder
    x = to_input(image, network, device)
    embedding, raw = look_through(encoder, x, quick=quick) if look is None else look(x)
    levels = [[_pool(t, g) for t in level] for level, g in zip(raw, GRIDS, strict=True)]
    image_hw = (image.shape[0], image.shape[1])
    return ImageEmbedding(
        embedding.float(), levels, input_size(image_hw, encoder.img_size), image_hw
    )


def look_through(encoder: nn.Module, x: Tensor, *, quick: bool = True) -> Look:
    """Embedding and taps of a (1, 3, S, S) input, by any encoder.

    With `quick`, in 16 bits where the device is made for that; the packaged encoder decides itself.
    """
    encode: Callable[[Tensor], Look] | None = getattr(encoder, "encode", None)
    if encode is not None:
        return encode(x)
    with bfloat16_autocast(x.device, on=quick):
        return _of_blocks(encoder, x)


class OpenVinoEncoder(nn.Module):
    """`look_through` an encoder, by OpenVINO.

    Raises
    ------
    ModelError
        As `OpenVinoNetwork`.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self._encoder = encoder
        self._counts: list[int] = []
        self._compiled = OpenVinoNetwork(self)

    def look(self, x: Tensor) -> Look:
        """As `look_through`."""
        embedding, *taps = self._compiled(x)
        rest = iter(taps)
        return embedding, [list(islice(rest, n)) for n in self._counts]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """All as one tuple, as it is traced."""
        embedding, levels = look_through(self._encoder, x)
        self._counts = [len(level) for level in levels]
        return (embedding, *(tap for level in levels for tap in level))


def _pool(features: Tensor, cells: int) -> Tensor:
    """Average (1, C, h, w) to at most `cells` a side."""
    rows, columns = (min(cells, n) for n in features.shape[-2:])
    return F.adaptive_avg_pool2d(features.float(), (rows, columns))


def _of_blocks(encoder: nn.Module, x: Tensor) -> Look:
    """Embedding and blocks of segment-anything's ViT."""
    blocks: Any = getattr(encoder, "blocks", None)
    if blocks is None:
        embedding = encoder(x)
        return embedding, [[embedding]] * len(GRIDS)
    levels = spread_blocks(len(blocks))
    chosen = sorted({b for level in levels for b in level})
    embedding, maps = run(encoder, [blocks[b] for b in chosen], x)
    by_block = {b: t.permute(0, 3, 1, 2) for b, t in zip(chosen, maps, strict=True)}
    return embedding, [[by_block[b] for b in level] for level in levels]


def pack(encoded: ImageEmbedding) -> dict[str, NDArray[np.float16]]:
    """Arrays for the cache, half precision.

    Returns
    -------
    dict
        `embedding` (D, e, e) and `tap_<level>_<block>` (C, g, g).
    """
    arrays = {"embedding": _half(encoded.embedding)}
    for i, level in enumerate(encoded.levels):
        arrays |= {f"tap_{i}_{j}": _half(t) for j, t in enumerate(level)}
    return arrays


def _half(tensor: Tensor) -> NDArray[np.float16]:
    clipped = tensor[0].clamp(-_HALF_MAX, _HALF_MAX)
    return np.ascontiguousarray(clipped.half().cpu().numpy())  # as it comes back from the disk


def unpack(
    arrays: Mapping[str, NDArray[Any]],
    input_hw: tuple[int, int],
    image_hw: tuple[int, int],
    device: torch.device,
) -> ImageEmbedding:
    """Back from the cache's arrays, as float32 on `device`."""
    tensors = {k: torch.from_numpy(np.array(v)).to(device).float()[None] for k, v in arrays.items()}
    embedding = tensors.pop("embedding")
    levels: list[list[Tensor]] = [[] for _ in GRIDS]
    for key in sorted(tensors, key=_tap_place):
        levels[_tap_place(key)[0]].append(tensors[key])
    return ImageEmbedding(embedding, levels, input_hw, image_hw)


def _tap_place(key: str) -> tuple[int, int]:
    _, level, block = key.split("_")
    return int(level), int(block)
